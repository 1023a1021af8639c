"""The part handshake on the robot's digital lines, and nothing else.

part-present (in)  a sheet lies on the table
busy (out)         the station works on it; the arm moves only while this is high
accept, reject     the verdict, from recorded until part-present falls; both low is none

A sheet counts as gone once part-present was low at any time since it was laid, be it high again.

run/sheet          names the sheet from busy's rise until part-present was seen low: one that was
                   begun and never seen to leave is not taken for a new one, whatever ended it
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from station.config import Lines
from station.devices import Robot
from station.errors import DatasetError, SheetAwaited, SheetGone
from station.records.sheet import Verdict

POLL_S = 0.02
OUTPUT_S = 1.0
PULSE_S = 0.2  # longer than a PLC's cycle
STEADY_S = 0.05  # a sheet lies there once the sensor has not bounced for so long

log = structlog.get_logger()

# Asks a person for a sheet; stops where the event is set, and calls the second meanwhile, which
# raises where the robot has stopped. None where a line tells of sheets.
Ask = Callable[[threading.Event, Callable[[], None]], None] | None


class Gate:
    """Waits for sheets and tells what became of them."""

    def __init__(
        self,
        robot: Robot,
        lines: Lines,
        timeout_s: float,
        memory: Path,
        ask: Ask = None,
    ) -> None:
        self._robot = robot
        self._lines = lines
        self._timeout_s = timeout_s
        self._memory = memory
        self._ask = ask
        self._falls: int | None = None  # of part-present, when the sheet lay there
        self._since = 0.0

    def reset(self, stop: threading.Event) -> None:
        """Lower every line before the first sheet.

        A sheet that an earlier run began or judged has to go first: the line sees busy fall with
        both verdict lines low, which is none.
        """
        outputs = self._robot.status().outputs
        told = self._busy(outputs) or self._verdict(outputs)
        begun = self._ask is None and (told or self._memory.exists()) and self.present()
        if begun:
            log.warning(
                "gate.sheet_let_go", outcome="none", reason="it was begun before this start"
            )
        if begun and not told:
            self.begin()  # the line takes a sheet when busy falls, and may be waiting for that
            time.sleep(PULSE_S)
        self._clear()
        if begun:
            self._wait(lambda: not self.present(), stop, present=False)

    def wait_for_sheet(self, stop: threading.Event) -> bool:
        """Wait until a sheet lies there; False when asked to stop meanwhile."""
        if self._ask is not None:
            self._ask(stop, self._check_ready)
            return not stop.is_set()
        return self._wait(self._lies_steadily, stop, present=True)

    def _check_ready(self) -> None:
        self._robot.status().check_ready(self._robot.device)

    def present(self) -> bool:
        """Tell whether a sheet lies there; raises where the robot has stopped."""
        there = self._look()[0]
        if not there:
            self._forget()
        return there

    def check_laid(self) -> None:
        """Raise where the sheet being worked on has gone, once its verdict is taken back."""
        if self._gone() and self._ask is None:
            self._lower_verdict()
            self.present()  # one that is not even there now is remembered no longer
            raise SheetGone(
                f"part-present input {self._lines.part_present}",
                "the sheet was taken away while it was worked on",
                "leave a sheet until busy falls; look at the sensor if nobody touched it",
            )

    def take_back(self) -> str | None:
        """Lower a verdict that the line has not read, since busy is still high; return its sheet.

        Empty where nobody remembers whose verdict it was.
        """
        outputs = self._robot.status().outputs
        if self._ask is not None or not (self._busy(outputs) and self._verdict(outputs)):
            return None
        self._lower_verdict()
        return self._remembered()

    def lower_if_gone(self) -> None:
        """Lower a verdict that was read, once its sheet has gone though nobody waits for that."""
        if self._ask is not None or self._look()[0]:
            return
        outputs = self._robot.status().outputs
        if self._verdict(outputs) and not self._busy(outputs):
            self._clear()
        self._forget()

    def begin(self, sheet: str | None = None) -> None:
        """Say that a sheet is being worked on; without one, that the arm moves above the last."""
        if self._ask is None:
            self._remember(sheet)
        self._set(accept=False, reject=False, busy=True)

    def sort(self, verdict: Verdict) -> None:
        """Raise the verdict's line; none raises neither."""
        self._set(accept=verdict is Verdict.ACCEPT, reject=verdict is Verdict.REJECT, busy=True)

    def release(self) -> None:
        """Let the sheet go; hold the verdict until it has gone, whoever asks to stop meanwhile."""
        self.check_laid()
        self._robot.set_outputs({self._lines.busy: False}, OUTPUT_S)
        if self._ask is None:
            self._wait(self._gone, threading.Event(), present=False)
            self._clear()
            self._forget()

    def _look(self) -> tuple[bool, int]:
        """Return whether a sheet lies there, and how often part-present has fallen."""
        status = self._robot.status()
        status.check_ready(self._robot.device)
        present = bool(status.inputs >> self._lines.part_present & 1)
        return present, status.falls[self._lines.part_present]

    def _lies_steadily(self) -> bool:
        present, falls = self._look()
        if not present:
            self._forget()
        if not present or falls != self._falls:
            self._falls, self._since = falls, time.monotonic()
        return present and time.monotonic() - self._since >= STEADY_S

    def _gone(self) -> bool:
        """Tell whether the sheet has gone, though another one may lie in its place."""
        present, falls = self._look()
        return not present or self._falls not in (None, falls)

    def _remember(self, sheet: str | None) -> None:
        try:
            if sheet is None:
                self._memory.touch()
            else:
                self._memory.write_text(sheet, encoding="ascii")
        except OSError as error:
            raise self._unwritable(error) from error

    def _forget(self) -> None:
        try:
            self._memory.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self._memory}: {error.strerror}; the station has to write there")

    def _remembered(self) -> str:
        with suppress(OSError, ValueError):
            return self._memory.read_text(encoding="ascii")
        return ""

    def _busy(self, outputs: int) -> bool:
        return bool(outputs >> self._lines.busy & 1)

    def _verdict(self, outputs: int) -> bool:
        return bool((outputs >> self._lines.accept | outputs >> self._lines.reject) & 1)

    def _lower_verdict(self) -> None:
        self._robot.set_outputs({self._lines.accept: False, self._lines.reject: False}, OUTPUT_S)

    def _clear(self) -> None:
        self._set(accept=False, reject=False, busy=False)

    def _set(self, *, accept: bool, reject: bool, busy: bool) -> None:
        wanted = {self._lines.accept: accept, self._lines.reject: reject, self._lines.busy: busy}
        # Lines fall before any rises, so that accept and reject are never high together.
        self._robot.set_outputs(dict(sorted(wanted.items(), key=lambda line: line[1])), OUTPUT_S)

    def _wait(self, done: Callable[[], bool], stop: threading.Event, *, present: bool) -> bool:
        end = time.monotonic() + self._timeout_s
        while not stop.is_set():
            if done():
                return True
            if time.monotonic() > end:
                state = "appeared" if present else "was taken away"
                raise SheetAwaited(
                    f"part-present input {self._lines.part_present}",
                    f"no sheet {state} within {self._timeout_s:g} s",
                    "check the feeder and the sensor" if present else "take the sheet away by hand",
                    present=present,
                )
            time.sleep(POLL_S)
        return False
