"""The production loop driven by the states: what each acting state does, and what interrupts it.

    Clearing   opens model, camera and robot; refuses while a stop is not cleared at the pendant
    Resetting, Unholding, Unsuspending
               bring the arm slowly up from where it really stands, lower the lines
    Starting   begins a run
    Execute    inspects sheet after sheet
    Aborting   closes camera and robot, which stops the arm's program

Nothing leads from a fault to Execute but a person's clear, reset and start.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

import structlog

from station import cycle, shots
from station.cell import Cell
from station.cycle import Inspected, Judging
from station.errors import (
    Aborted,
    CommandRefused,
    DatasetError,
    ModelError,
    SheetAwaited,
    StationError,
)
from station.recipe import Recipe
from station.records.dataset import Dataset
from station.records.sheet import Verdict
from station.shots import Job
from station.states import Command, Machine, Mode, State

INSIST_S = 0.05
POLL_S = 0.1  # how often the robot is looked at while the station waits

log = structlog.get_logger()


class Plant(NamedTuple):
    """What production works with, how to open it, and what becomes of its results."""

    recipe: Recipe
    dataset: Dataset
    open_judging: Callable[[], AbstractContextManager[Judging]]
    open_cell: Callable[[], AbstractContextManager[Cell]]
    begin_job: Callable[[bool], Job]
    show: Callable[[Inspected], None]
    blocked: Callable[[], StationError | None] = lambda: None
    """An outside cause not to begin the next sheet, e.g. a disk that is nearly full."""
    recover: Callable[[], None] = lambda: None
    """Brings the ledger in line with the records, before the devices are opened."""


class Production:
    """Carries out the acting states in the thread that runs it, which must be the main one."""

    def __init__(self, machine: Machine, plant: Plant, leave: threading.Event) -> None:
        self._machine = machine
        self._plant = plant
        self._leave = leave
        self._judging: Judging | None = None
        self._cell: Cell | None = None
        self._job: Job | None = None
        self._run_due = False  # no run was begun since the last reset
        self._recovery_due = False  # a record or its row could not be completed
        self._judging_open, self._cell_open = ExitStack(), ExitStack()
        self._sheets: int | None = None
        self._number, self._told = 0, 0  # of the sheet begun last, and of the one told last
        self._error: StationError | None = None
        self._awaited: SheetAwaited | None = None
        self._camera_counts: dict[str, int] | None = None  # of the cell that was closed last
        self._interruptible = False
        self._verdicts: Counter[str] = Counter()
        self._acts: dict[State, Callable[[], None]] = {
            State.CLEARING: self._open,
            State.RESETTING: self._reset,
            State.STARTING: self._begin_run,
            State.EXECUTE: self._execute,
            State.UNHOLDING: self._unhold,
            State.UNSUSPENDING: self._retreat,
            State.ABORTING: self._close_cell,
        }

    def run_once(self, sheets: int) -> None:
        """Clear, reset, start; return after so many sheets; what goes wrong is raised."""
        self._sheets = sheets
        with self._at_work():
            for command in (Command.CLEAR, Command.RESET, Command.START):
                self._machine.command(command)
                self._carry_on({State.STOPPED, State.IDLE, State.COMPLETE, State.ABORTED})
                if self._machine.state is State.ABORTED:
                    raise self._error or StationError(f"aborted: {self._machine.reason}")
                if self._leave.is_set():
                    return

    def run(self) -> None:
        """Stay, and do what is commanded, until told to leave."""
        with self._at_work():
            self._carry_on(set())

    def facts(self) -> dict[str, Any]:
        """Return what `station status` tells beside the state."""
        job, cell = self._job, self._cell  # either may go while another thread asks
        return {
            "run": job and job.run,
            "recipe": self._plant.dataset.root.name,
            "sheets": {verdict: self._verdicts[verdict] for verdict in Verdict},
            "devices": "closed" if cell is None else "open",
            "camera": self._camera_counts if cell is None else cell.camera.statistics(),
        }

    def _carry_on(self, until: set[State]) -> None:
        """Act and wait, state by state, until one of those is reached or it is time to leave."""
        while (state := self._machine.state) not in until:
            if self._leave.is_set() and not state.acting:
                return
            try:
                if state.acting:
                    self._act(state)
                else:
                    self._wait(state)
            except Aborted as abort:
                log.warning("work.interrupted", state=state, reason=str(abort))
            except StationError as error:
                self._error = error
                self._machine.fault(str(error))

    def _act(self, state: State) -> None:
        self._interruptible = state is not State.ABORTING
        try:
            # An abort from here on interrupts; one that came before is seen now.
            if self._machine.state is state and state in self._acts:
                self._acts[state]()
        finally:
            self._interruptible = False
        self._machine.done(state)

    def _wait(self, state: State) -> None:
        """Stay in a wait state a while; a robot that stops meanwhile is a fault."""
        self._machine.wait(state, POLL_S)
        if self._cell is None:
            return
        self._cell.motion.check_ready()
        self._cell.gate.lower_if_gone()
        if state is State.SUSPENDED and self._cause(self._cell) is None:
            self._command(Command.UNSUSPEND, "the cause has gone")

    def _open(self) -> None:
        self._error = None
        # Its traceback held the devices that are closed, in a cycle: their descriptors go with it.
        gc.collect()
        self._plant.recover()
        if self._judging is None:
            self._judging = self._judging_open.enter_context(self._plant.open_judging())
        self._cell = self._cell_open.enter_context(self._plant.open_cell())
        self._cell.motion.check_ready()

    def _retreat(self) -> None:
        dry_run = self._machine.mode is Mode.DRY_RUN
        if self._cell is not None:
            plant, stop = self._plant, self._machine.finishing
            shots.retreat(self._cell, plant.recipe, plant.dataset, stop, dry_run=dry_run)

    def _reset(self) -> None:
        self._run_due = True
        self._retreat()

    def _unhold(self) -> None:
        if self._recovery_due:
            self._plant.recover()
            self._recovery_due = False
        self._retreat()

    def _begin_run(self) -> None:
        self._run_due = False
        self._job = self._plant.begin_job(self._machine.mode is Mode.DRY_RUN)
        self._number = self._told = 0
        self._verdicts.clear()

    def _execute(self) -> None:
        """Inspect until the run is complete, or a command or a cause ends this state."""
        if self._run_due:  # a hold came before Starting was acted for
            self._begin_run()
        try:
            with closing(self._inspections()) as inspections:
                for inspected in inspections:
                    self._told = self._number
                    self._verdicts[inspected.outcome] += 1
                    self._plant.show(inspected)
                    if (reason := self._plant.blocked()) is None:
                        continue
                    if self._sheets is not None:
                        raise reason
                    self._command(Command.SUSPEND, str(reason))
            self._number = self._told  # the next number was taken for a sheet that has not come
        except SheetAwaited as error:
            if self._sheets is not None:
                raise
            self._number = self._told
            self._awaited = error
            self._command(Command.SUSPEND, str(error))
        except DatasetError as error:
            # Arm and devices are sound: once the disk takes records again a person goes on.
            if self._sheets is not None:
                raise
            self._recovery_due = True
            self._command(Command.HOLD, str(error))
        if self._leave.is_set():
            self._command(Command.STOP, "stopped by Ctrl-C")

    def _inspections(self) -> Generator[Inspected, None, None]:
        if self._cell is None or self._judging is None or self._job is None:
            return
        if not self._leave.is_set():
            yield from cycle.inspect(
                self._cell, self._job, self._judging, self._plant.dataset, self._numbers()
            )

    def _numbers(self) -> Iterator[int]:
        """Count on through holds and failed records: no number is given to two sheets."""
        while self._sheets is None or self._number < self._sheets:
            self._number += 1
            yield self._number

    def _cause(self, cell: Cell) -> StationError | None:
        """Return what still keeps the station suspended."""
        awaited = self._awaited
        if awaited is not None and cell.gate.present() != awaited.present:
            return awaited
        self._awaited = None
        return self._plant.blocked()

    def _command(self, command: Command, reason: str) -> None:
        with suppress(CommandRefused):  # somebody else was faster
            self._machine.command(command, reason)

    def _close_cell(self) -> None:
        if self._cell is not None:
            self._camera_counts = self._cell.camera.statistics()
        self._cell = None
        self._cell_open.close()
        if isinstance(self._error, ModelError):
            self._judging = None
            self._judging_open.close()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Let an abort interrupt this thread, even in the kernel; close everything at the end."""
        signal.signal(signal.SIGUSR1, self._interrupt)
        self._machine.on_abort = lambda: threading.Thread(
            target=self._insist, name="abort", daemon=True
        ).start()
        try:
            with self._judging_open, self._cell_open:
                yield
        finally:
            self._machine.on_abort = lambda: None
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # one may still be on its way

    def _insist(self) -> None:
        """Signal the main thread until it has heard: one that comes just before a wait is not."""
        main = threading.main_thread().ident or 0
        while self._interruptible and self._machine.state is State.ABORTING:
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(INSIST_S)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        # Once: the record of the sheet that an abort ended is not interrupted again.
        if self._interruptible and self._machine.state is State.ABORTING:
            self._interruptible = False
            raise Aborted(self._machine.reason)
