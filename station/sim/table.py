"""The line's side of the part handshake: lays sheets, reads the outputs, takes sheets away."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from station.config import Lines
from station.sim.feed import Camera
from station.sim.journal import Journal

REMOVAL = 1 / 3  # of an exchange: then part-present falls, and the lines


class State(Enum):
    """Where the handshake stands."""

    LAYING = auto()
    PRESENT = auto()
    LEAVING = auto()
    EMPTY = auto()
    EXHAUSTED = auto()


class Table:
    """Stepped by the clock; sees the outputs, sets the one input."""

    def __init__(
        self,
        lines: Lines,
        camera: Camera,
        journal: Journal,
        set_input: Callable[[int, bool], None],
        exchange_s: float,
    ) -> None:
        self._removal_s = REMOVAL * exchange_s
        self._laying_s = exchange_s - self._removal_s
        self._lines = lines
        self._camera = camera
        self._journal = journal
        self._set_input = set_input
        self._busy = False
        self._next = 0
        self._due: float | None = None
        self.state = State.LAYING
        self._lay()

    def step(self, now: float, outputs: int, in_view: bool) -> None:
        """Advance; `in_view` says that the picture shows the sheet laid last."""
        busy = self._is_high(outputs, self._lines.busy)
        fell, self._busy = self._busy and not busy, busy
        if self.state is State.LAYING:
            if self._camera.laid() and self._camera.sheet is None:
                self._journal.write("exhausted", sheets=self._next - 1)
                self.state = State.EXHAUSTED
            elif self._camera.laid() and in_view:
                self._set_input(self._lines.part_present, True)
                self.state = State.PRESENT
        elif self.state is State.PRESENT and fell:
            accept, reject = (
                self._is_high(outputs, line) for line in (self._lines.accept, self._lines.reject)
            )
            sheet = self._camera.sheet.number if self._camera.sheet else None
            self._journal.write("sorted", sheet=sheet, accept=accept, reject=reject)
            self._leave(now + self._removal_s)
        elif self.state is State.LEAVING and self._is_due(now):
            self._set_input(self._lines.part_present, False)
            self.state, self._due = State.EMPTY, None
        elif self.state is State.EMPTY:
            self._wait_for_low_lines(now, outputs)

    def force_next(self, now: float) -> None:
        """Take the sheet away and lay the next one, whatever the station says."""
        self._set_input(self._lines.part_present, False)
        self._leave(now)

    def _leave(self, due: float) -> None:
        self.state, self._due = State.LEAVING, due

    def _wait_for_low_lines(self, now: float, outputs: int) -> None:
        mine = (self._lines.accept, self._lines.reject, self._lines.busy)
        if any(self._is_high(outputs, line) for line in mine):
            self._due = None
        elif self._due is None:
            self._due = now + self._laying_s
        elif self._is_due(now):
            self._lay()

    def _lay(self) -> None:
        self._camera.lay(self._next)
        self._next += 1
        self._due = None
        self.state = State.LAYING

    def _is_due(self, now: float) -> bool:
        return self._due is not None and now >= self._due

    @staticmethod
    def _is_high(bits: int, line: int) -> bool:
        return bool(bits >> line & 1)
