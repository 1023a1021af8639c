"""What becomes of a verdict that was told when the sheet does not leave as it should."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from production_bench import ACCEPT, BUSY, Bench

from station.errors import DatasetError
from station.records.dataset import after_of, read_record
from station.states import Command, State


def outcomes(bench: Bench) -> list[str | None]:
    return [after_of(read_record(folder)).outcome for folder in bench.dataset.folders()]


def on_accept(bench: Bench, act: Callable[[], None]) -> None:
    """Have something happen as soon as accept has risen."""
    see = bench.arm.on_output

    def seen(outputs: int) -> None:
        see(outputs)
        if outputs == ACCEPT | BUSY:
            act()

    bench.arm.on_output = seen


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, timeout_s=0.3)


def test_a_verdict_that_the_line_has_not_read_is_taken_back_at_reset(bench: Bench) -> None:
    def trip() -> None:
        bench.arm.safety = "protective stop"

    on_accept(bench, trip)

    def lead() -> None:
        bench.produce()
        bench.reach(State.ABORTED)
        assert bench.arm.outputs == ACCEPT | BUSY
        assert outcomes(bench) == ["accept"], "as it was told, and nobody has changed it yet"
        bench.arm.safety = "normal"
        before = len(bench.arm.lines)
        bench.go(Command.CLEAR, Command.RESET)
        assert bench.arm.lines[before : before + 2] == [BUSY, 0], "none is what the line reads"
        assert outcomes(bench) == ["none"]

    bench.run(lead)


def test_a_verdict_that_the_line_has_read_stays_as_it_was_told(bench: Bench) -> None:
    def take(outputs: int) -> None:
        if not outputs and not taken:
            taken.append(True)
            bench.arm.inputs = 0

    taken: list[bool] = []

    def lead() -> None:
        bench.arm.on_output = lambda _: None  # nobody takes the sheet away
        bench.produce()
        bench.reach(State.SUSPENDED)
        assert "no sheet was taken away" in bench.machine.reason
        bench.machine.command(Command.ABORT)
        bench.reach(State.ABORTED)
        bench.arm.on_output = take
        bench.go(Command.CLEAR, Command.RESET)
        assert outcomes(bench) == ["accept"]

    bench.run(lead)


@pytest.mark.parametrize("command", [Command.STOP, Command.HOLD])
def test_no_verdict_stands_over_an_empty_table(bench: Bench, command: Command) -> None:
    """The sheet was not taken in time, and goes once nobody waits for that any more."""

    def lead() -> None:
        bench.arm.on_output = lambda _: None
        bench.produce()
        bench.reach(State.SUSPENDED)
        bench.machine.command(command)
        bench.reach({Command.STOP: State.STOPPED, Command.HOLD: State.HELD}[command])
        time.sleep(0.3)
        assert bench.arm.outputs == ACCEPT, "it holds while the sheet lies there"
        bench.arm.inputs = 0
        bench.until(lambda: bench.arm.outputs == 0)

    bench.run(lead)


def test_an_unhold_brings_the_ledger_in_line_after_a_record_that_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.dataset.record_inspection

    def locked(*arguments: Any) -> Path:
        record(*arguments)
        raise DatasetError("ledger.db: database is locked")

    def lead() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(bench.dataset, "record_inspection", locked)
            bench.produce()
            bench.reach(State.HELD)
        recovered = bench.recovered
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: bench.line.accepted > 0)
        assert bench.recovered == recovered + 1
        bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        bench.machine.command(Command.UNHOLD)
        bench.reach(State.EXECUTE)
        assert bench.recovered == recovered + 1, "once is enough"

    bench.run(lead)


def test_the_lines_fall_though_nothing_can_be_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run/ has become read-only: no accept stands over an empty table for that."""

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def lead() -> None:
        bench.line.feeding = False
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            bench.produce()
            bench.reach(State.HELD)
            assert "sheet: Read-only file system; the station has to write there" in (
                bench.machine.reason
            )
            assert bench.line.accepted == 1
            assert bench.arm.outputs == 0

    bench.run(lead)
