"""The loop through its states, on an arm in memory: who may lead it where, and what is left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from arm_double import ArmDouble
from production_bench import APPROACH_M, BUSY, DEADLINE_S, LOW, PRESENT, Bench

from station.devices import RobotStatus
from station.errors import DatasetError, DeviceError, ModelError
from station.geometry import Pose
from station.motion import RETREAT_M_S
from station.records.dataset import read_record
from station.records.sheet import Manifest
from station.shots import retreat
from station.states import Command, Mode, State


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_opened_before_it_is_told_to(bench: Bench) -> None:
    def lead() -> None:
        time.sleep(0.2)
        assert (bench.machine.state, bench.opened) == (State.ABORTED, 0)
        bench.go(Command.CLEAR)
        assert (bench.opened, bench.arm.moves) == (1, [])

    bench.run(lead)


def test_one_run_of_so_many_sheets_ends_complete(bench: Bench) -> None:
    bench.production.run_once(3)
    assert bench.machine.state is State.COMPLETE
    assert [m.sheet for m in bench.told] == ["s-0001-000001", "s-0001-000002", "s-0001-000003"]
    assert bench.line.accepted == 3


def test_a_fault_of_one_run_is_raised_as_it_was(bench: Bench) -> None:
    bench.camera.trouble = DeviceError("camera", "was removed")
    with pytest.raises(DeviceError, match="was removed"):
        bench.production.run_once(3)
    assert [m.verdict for m in bench.told] == ["none"]
    assert bench.machine.state is State.ABORTED


def test_a_hold_finishes_the_sheet_and_splits_no_run(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: len(bench.told) >= 2)
        bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        count, moves = len(bench.told), len(bench.arm.moves)
        time.sleep(0.3)
        assert (len(bench.told), len(bench.arm.moves)) == (count, moves)
        assert bench.line.accepted == count
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) > count)
        bench.machine.command(Command.STOP)
        bench.reach(State.STOPPED)

    bench.run(lead)
    assert [m.sheet[-6:] for m in bench.told] == [f"{n + 1:06d}" for n in range(len(bench.told))]
    assert bench.opened == 1


@pytest.mark.parametrize("mode", [Mode.PRODUCE, Mode.DRY_RUN])
def test_a_hold_before_the_run_was_begun_does_not_go_on_with_the_run_before(
    bench: Bench, mode: Mode
) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.machine.command(Command.STOP)
        bench.reach(State.STOPPED)
        bench.machine.set_mode(mode)
        bench.go(Command.RESET)
        before = len(bench.told)
        with bench.machine._changed:  # nobody acts between the two
            bench.machine.command(Command.START)
            bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) > before)
        first = bench.told[before]
        assert first.sheet == "s-0002-000001"
        assert first.dry_run is (mode is Mode.DRY_RUN)

    bench.run(lead)


def test_a_hold_before_the_first_run_was_begun_does_not_end_it(bench: Bench) -> None:
    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        with bench.machine._changed:
            bench.machine.command(Command.START)
            bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) >= 2)

    bench.run(lead)
    assert bench.runs == 1


def test_after_a_stop_of_the_robot_a_person_leads_it_back(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)

        def trip() -> None:
            bench.arm.safety = "protective stop"

        bench.camera.on_trigger = trip
        bench.reach(State.ABORTED)
        bench.camera.on_trigger = lambda: None
        assert "protective stop" in bench.machine.reason
        accepted, moves = bench.line.accepted, len(bench.arm.moves)
        bench.machine.command(Command.CLEAR)
        bench.reach(State.ABORTED)
        assert "is in protective stop" in bench.machine.reason
        assert (bench.line.accepted, len(bench.arm.moves)) == (accepted, moves)

        bench.arm.safety = "normal"
        bench.arm.pose, bench.arm.joints = LOW, ArmDouble(LOW).joints
        bench.go(Command.CLEAR, Command.RESET)
        (retreat,) = bench.arm.moves[moves:]
        assert retreat[0][:3] == pytest.approx((0.03, -0.45, APPROACH_M))
        assert retreat[1] == RETREAT_M_S
        bench.go(Command.START)
        bench.until(lambda: bench.line.accepted > accepted)

    bench.run(lead)
    assert bench.models == 1, "the model was sound and stayed open"
    assert "none" in [m.verdict for m in bench.told]


def test_a_stop_is_noticed_while_the_station_waits(bench: Bench) -> None:
    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        bench.arm.safety = "safeguard stop"
        bench.reach(State.ABORTED)
        assert "safeguard stop at x " in bench.machine.reason

    bench.run(lead)


def test_a_retreat_moves_only_while_busy_is_high(bench: Bench) -> None:
    bench.arm.pose, bench.arm.joints = LOW, ArmDouble(LOW).joints
    outputs: list[int] = []
    move = bench.arm.move

    def watched(pose: Pose, speed: float, acceleration: float, deadline: float) -> RobotStatus:
        outputs.append(bench.arm.outputs)
        return move(pose, speed, acceleration, deadline)

    setattr(bench.arm, "move", watched)  # noqa: B010 - this arm alone is watched

    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        assert outputs == [BUSY]
        assert bench.arm.outputs == 0

    bench.run(lead)


def test_an_arm_that_rests_above_the_first_setup_costs_no_sheet(bench: Bench) -> None:
    """Though another setup is higher: a fresh sheet is not taken for one that was begun."""
    recipe = bench.recipe.recipe
    higher = recipe.setups[0].model_copy(
        update={"name": "right", "pose": recipe.setups[0].place(lambda _: LOW).raised(0.05)}
    )
    both = recipe.model_copy(update={"setups": (*recipe.setups, higher)})
    first = both.shots(lambda _: LOW)[0].approach
    bench.arm.pose, bench.arm.joints = first, ArmDouble(first).joints
    with bench.open_cell() as cell:
        retreat(cell, both, bench.dataset, threading.Event(), dry_run=False)
    assert (bench.arm.moves, bench.arm.lines) == ([], [])


def test_an_abort_interrupts_whatever_is_under_way(bench: Bench) -> None:
    hanging = threading.Event()

    def hang() -> None:
        hanging.set()
        time.sleep(DEADLINE_S)

    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.camera.on_trigger = hang
        assert hanging.wait(DEADLINE_S)
        asked = time.monotonic()
        bench.machine.command(Command.ABORT, "abort by anna")
        bench.reach(State.ABORTED)
        assert time.monotonic() - asked < 2.0

    bench.run(lead)
    assert (bench.told[-1].verdict, bench.told[-1].reasons) == ("none", ("abort by anna",))


def test_no_sheet_suspends_and_the_next_one_resumes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, timeout_s=0.1)

    def lead() -> None:
        bench.line.feeding = False
        bench.produce()
        bench.reach(State.SUSPENDED)
        assert "no sheet appeared" in bench.machine.reason
        count = len(bench.told)
        bench.line.feeding = True
        bench.arm.inputs = PRESENT
        bench.until(lambda: len(bench.told) > count)

    bench.run(lead)
    assert [m.sheet[-6:] for m in bench.told][:2] == ["000001", "000002"]


def test_an_outside_cause_suspends_after_the_sheet(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.blocked = DatasetError("the disk is nearly full")
        bench.reach(State.SUSPENDED)
        assert bench.machine.reason == "the disk is nearly full"
        count = len(bench.told)
        time.sleep(0.3)
        assert len(bench.told) == count
        bench.blocked = None
        bench.until(lambda: len(bench.told) > count)

    bench.run(lead)


def test_records_that_cannot_be_written_hold_the_station(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.dataset.record_inspection

    def full(folder: Path, manifest: Manifest) -> Path:
        raise DatasetError(f"{folder}: No space left on device ({manifest.sheet})")

    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        monkeypatch.setattr(bench.dataset, "record_inspection", full)
        bench.reach(State.HELD)
        assert "No space left" in bench.machine.reason
        accepted = bench.line.accepted
        monkeypatch.setattr(bench.dataset, "record_inspection", record)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: bench.line.accepted > accepted)

    bench.run(lead)
    records = {f.name: read_record(f).manifest.verdict for f in bench.dataset.folders()}
    assert sorted(str(verdict) for verdict in records.values()) == ["accept"] * (
        len(records) - 1
    ) + ["none"], "the sheet whose record failed has one now: none"


def test_a_model_that_failed_is_opened_anew(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.camera.trouble = ModelError("the model hung")
        bench.reach(State.ABORTED)
        bench.camera.trouble = None
        bench.go(Command.CLEAR)
        assert (bench.opened, bench.models) == (2, 2)

    bench.run(lead)


def test_a_dry_run_sets_no_line(bench: Bench) -> None:
    def lead() -> None:
        bench.machine.set_mode(Mode.DRY_RUN)
        bench.produce()
        bench.until(lambda: len(bench.told) >= 2)

    bench.run(lead)
    assert bench.arm.lines == []
    assert all(manifest.dry_run for manifest in bench.told)
