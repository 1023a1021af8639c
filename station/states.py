"""The states of the station: PackML (ISA-TR88.00.02) as one table, and the machine that walks it.

A wait state stays until a command; an acting state ends when its work is done. The station is
Aborted after every start, so nobody takes it for ready after a crash. Held has a cause within the
station, Suspended one outside it: no sheet comes, or the last one is not taken away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from station.errors import CommandRefused

log = structlog.get_logger()


class State(StrEnum):
    """PackML's seventeen states."""

    CLEARING = "clearing"
    STOPPED = "stopped"
    STARTING = "starting"
    IDLE = "idle"
    SUSPENDED = "suspended"
    EXECUTE = "execute"
    STOPPING = "stopping"
    ABORTING = "aborting"
    ABORTED = "aborted"
    HOLDING = "holding"
    HELD = "held"
    UNHOLDING = "unholding"
    SUSPENDING = "suspending"
    UNSUSPENDING = "unsuspending"
    RESETTING = "resetting"
    COMPLETING = "completing"
    COMPLETE = "complete"

    @property
    def number(self) -> int:
        """PackML's number of the state: they are declared in its order."""
        return list(State).index(self) + 1

    @property
    def acting(self) -> bool:
        """Tell whether the state has work to do, after which it ends by itself."""
        return None in TRANSITIONS[self]

    @property
    def passing(self) -> bool:
        """Tell whether the state is on the way to another one; producing may go on for ever."""
        return self.acting and self is not State.EXECUTE


class Command(StrEnum):
    """What leads from one state to another."""

    RESET = "reset"
    START = "start"
    STOP = "stop"
    HOLD = "hold"
    UNHOLD = "unhold"
    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"
    ABORT = "abort"
    CLEAR = "clear"


_BY_ITSELF = {Command.SUSPEND, Command.UNSUSPEND}  # an outside cause came, or has gone


class Mode(StrEnum):
    """What the station is used for."""

    PRODUCE = "produce"
    DRY_RUN = "dry-run"
    MANUAL = "manual"
    MAINTENANCE = "maintenance"

    @property
    def lends(self) -> bool:
        """Tell whether the cell is lent: other commands may open it, production may not."""
        return self in (Mode.MANUAL, Mode.MAINTENANCE)


_Ways = dict[Command | None, State]
_ABORT: _Ways = {Command.ABORT: State.ABORTING}
_END: _Ways = {Command.STOP: State.STOPPING, **_ABORT}
_PAUSE: _Ways = {Command.HOLD: State.HOLDING, **_END}

# state -> command -> next state; None: the state's work is done.
TRANSITIONS: dict[State, _Ways] = {
    State.ABORTING: {None: State.ABORTED},
    State.ABORTED: {Command.CLEAR: State.CLEARING},
    State.CLEARING: {None: State.STOPPED, **_ABORT},
    State.STOPPED: {Command.RESET: State.RESETTING, **_ABORT},
    State.RESETTING: {None: State.IDLE, **_END},
    State.IDLE: {Command.START: State.STARTING, **_END},
    State.STARTING: {None: State.EXECUTE, **_PAUSE},
    State.EXECUTE: {None: State.COMPLETING, Command.SUSPEND: State.SUSPENDING, **_PAUSE},
    State.HOLDING: {None: State.HELD, **_END},
    State.HELD: {Command.UNHOLD: State.UNHOLDING, **_END},
    State.UNHOLDING: {None: State.EXECUTE, **_PAUSE},
    State.SUSPENDING: {None: State.SUSPENDED, **_PAUSE},
    State.SUSPENDED: {Command.UNSUSPEND: State.UNSUSPENDING, **_PAUSE},
    State.UNSUSPENDING: {None: State.EXECUTE, **_PAUSE},
    State.COMPLETING: {None: State.COMPLETE, **_END},
    State.COMPLETE: {Command.RESET: State.RESETTING, **_END},
    State.STOPPING: {None: State.STOPPED, **_ABORT},
}

# On the way to Execute, or in it: everywhere else a sheet under way is the last one.
_GOING_ON = {
    State.CLEARING, State.RESETTING, State.STARTING, State.EXECUTE, State.UNHOLDING,
    State.UNSUSPENDING,
}  # fmt: skip
_TOWARDS_PRODUCTION = {Command.RESET, Command.START, Command.UNHOLD}
# Only in Aborted are all devices closed, so only there can the cell change hands.
_LENDING = {State.ABORTED}
_CHANGING_MODE = {State.ABORTED, State.STOPPED}


class Machine:
    """Walks the table; asked from many threads, acted for by one."""

    def __init__(self, mode: Mode = Mode.PRODUCE) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._state = State.ABORTED
        self._since = time.monotonic()
        self._mode = mode
        self._reason = "the station has just been started"
        self.finishing = threading.Event()
        """Set while a sheet under way is the last one: the loop looks at it between sheets."""
        self.finishing.set()
        self.on_abort: Callable[[], None] = lambda: None
        """Called when an abort was commanded, to interrupt the work of the acting thread."""
        self.on_mode: Callable[[Mode], None] = lambda _: None
        """Called before the mode changes; what it raises refuses the change."""
        self.on_way_to_production: Callable[[], None] = lambda: None
        """Called before reset, start and unhold in mode produce; what it raises refuses them."""

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    @property
    def mode(self) -> Mode:
        """The present mode."""
        return self._mode

    @property
    def reason(self) -> str:
        """Why the station is in this state, where somebody or something gave a reason."""
        return self._reason

    @property
    def since_s(self) -> float:
        """Seconds in the present state."""
        return time.monotonic() - self._since

    def commands(self) -> list[Command]:
        """Return the commands that a person may give now."""
        return [
            c
            for c in Command
            if c in TRANSITIONS[self._state] and not self._lent_to(c) and c not in _BY_ITSELF
        ]

    def command(self, command: Command, reason: str = "") -> State:
        """Carry out a command, or refuse it with the reason; return the state it leads to."""
        with self._changed:
            target = TRANSITIONS[self._state].get(command)
            if self._lent_to(command):
                raise CommandRefused(
                    f"{command}: the cell is lent (mode {self._mode}); "
                    "give it back first: `station mode produce`"
                )
            if target is None:
                possible = ", ".join(self.commands()) or "none: wait for its end"
                if self._mode.lends:
                    possible = "`station mode produce`, which takes the lent cell back"
                raise CommandRefused(
                    f"{command} is not possible in state {self._state}; possible: {possible}"
                )
            if command in _TOWARDS_PRODUCTION and self._mode is Mode.PRODUCE:
                self.on_way_to_production()
            self._enter(target, reason)
        if command is Command.ABORT:
            self.on_abort()  # before anything that could fail or wait
        _tell(target, reason)
        return target

    def done(self, state: State) -> None:
        """Say that the work of an acting state is done; nothing where a command was faster."""
        with self._changed:
            if self._state is not state:
                return
            target, reason = TRANSITIONS[state][None], self._reason
            self._enter(target, reason)
        _tell(target, reason)

    def fault(self, reason: str) -> None:
        """Abort because something went wrong; the first cause stays."""
        with self._changed:
            if Command.ABORT not in TRANSITIONS[self._state]:
                return
            self._enter(State.ABORTING, reason)
        _tell(State.ABORTING, reason)

    def set_mode(self, mode: Mode) -> None:
        """Change the mode, or refuse it with the reason."""
        with self._changed:
            where = _LENDING if mode.lends or self._mode.lends else _CHANGING_MODE
            if self._state not in where:
                raise CommandRefused(
                    f"mode {mode} is not possible in state {self._state}, "
                    f"only in {' or '.join(sorted(where))}"
                )
            self.on_mode(mode)
            self._mode = mode
            log.info("mode.changed", mode=mode)

    def wait(self, state: State, timeout_s: float) -> None:
        """Wait until the state is another one, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is not state, timeout_s)

    def _lent_to(self, command: Command) -> bool:
        return self._mode.lends and command is not Command.ABORT

    def _enter(self, state: State, reason: str) -> None:
        self._state, self._reason, self._since = state, reason, time.monotonic()
        if state in _GOING_ON:
            self.finishing.clear()
        else:
            self.finishing.set()
        self._changed.notify_all()


def _tell(state: State, reason: str) -> None:
    """Log a change, once nobody waits for it any more."""
    log.info("state.entered", state=state, **({"reason": reason} if reason else {}))
