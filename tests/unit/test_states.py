"""The table of states as a whole, and the machine that walks it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from station.errors import CommandRefused, ProductionLocked
from station.log import configure
from station.show import say
from station.states import TRANSITIONS, Command, Machine, Mode, State

WAITING = {
    State.STOPPED, State.IDLE, State.SUSPENDED, State.ABORTED, State.HELD, State.COMPLETE,
}  # fmt: skip
# Out of Execute by a command, and the way back: none of it leads past Idle.
PAUSES = {State.HOLDING, State.SUSPENDING}


def test_numbers_and_kinds_are_those_of_packml() -> None:
    assert [state.number for state in State] == list(range(1, 18))
    assert (State.CLEARING.number, State.EXECUTE.number, State.COMPLETE.number) == (1, 6, 17)
    assert {state for state in State if not state.acting} == WAITING
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached_and_left() -> None:
    reached, new = {State.ABORTED}, {State.ABORTED}
    while new:
        new = {target for state in new for target in TRANSITIONS[state].values()} - reached
        reached |= new
    assert reached == set(State)
    assert all(TRANSITIONS.values())


def test_abort_is_possible_wherever_it_has_not_happened() -> None:
    without = {state for state in State if Command.ABORT not in TRANSITIONS[state]}
    assert without == {State.ABORTING, State.ABORTED}


def test_only_clear_then_reset_then_start_lead_from_aborted_to_execute() -> None:
    """Without any of the three there is no way, whatever else is commanded."""
    for missing in (Command.CLEAR, Command.RESET, Command.START):
        reached, new = {State.ABORTED}, {State.ABORTED}
        while new:
            new = {t for s in new for c, t in TRANSITIONS[s].items() if c is not missing} - reached
            reached |= new
        assert State.EXECUTE not in reached, missing


def test_an_abort_interrupts_though_the_log_cannot_be_written() -> None:
    machine, called = Machine(), list[str]()
    machine.command(Command.CLEAR)
    machine.on_abort = lambda: called.append("abort")
    stderr = sys.stderr
    with Path("/dev/full").open("w", buffering=1) as full:
        sys.stderr = full
        try:
            configure(verbose=False)
            machine.command(Command.ABORT, "stop")
            machine.fault("never mind")
            say("nobody reads this")
        finally:
            sys.stderr = stderr
            with suppress(OSError):
                full.close()
    assert (machine.state, called) == (State.ABORTING, ["abort"])


def test_a_refusal_names_the_state_and_what_is_possible() -> None:
    machine = Machine()
    with pytest.raises(CommandRefused, match="start is not possible in state aborted; possible"):
        machine.command(Command.START)
    with pytest.raises(CommandRefused, match="possible: clear"):
        machine.command(Command.RESET)


@pytest.mark.parametrize(
    ("way", "command"),
    [
        ([], Command.RESET),
        ([Command.RESET], Command.START),
        ([Command.RESET, Command.START, Command.HOLD], Command.UNHOLD),
    ],
)
def test_a_lock_refuses_every_command_towards_production_and_no_other(
    way: list[Command], command: Command
) -> None:
    def locked() -> None:
        raise ProductionLocked("judge the reference sheets first")

    machine = Machine()
    for before in (Command.CLEAR, *way):
        machine.command(before)
        while machine.state.acting and machine.state is not State.EXECUTE:
            machine.done(machine.state)
    machine.on_way_to_production = locked
    state = machine.state
    with pytest.raises(ProductionLocked, match="reference sheets"):
        machine.command(command)
    assert machine.state is state
    machine.command(Command.ABORT)
    machine.done(State.ABORTING)
    machine.set_mode(Mode.DRY_RUN)
    machine.command(Command.CLEAR)
    machine.done(State.CLEARING)
    machine.command(Command.RESET)  # a dry run tells no line


def test_the_first_cause_of_an_abort_stays() -> None:
    machine = Machine()
    machine.command(Command.CLEAR)
    machine.fault("robot: protective stop")
    machine.fault("camera: lost as well")
    machine.done(State.ABORTING)
    assert (machine.state, machine.reason) == (State.ABORTED, "robot: protective stop")


def test_work_that_ends_after_a_command_changes_nothing() -> None:
    machine = Machine()
    machine.command(Command.CLEAR)
    machine.command(Command.ABORT, "enough")
    machine.done(State.CLEARING)
    assert machine.state is State.ABORTING


def test_a_lent_cell_takes_no_command_of_production() -> None:
    machine = Machine()
    machine.set_mode(Mode.MANUAL)
    assert machine.commands() == []
    with pytest.raises(CommandRefused, match=r"lent \(mode manual\).*station mode produce"):
        machine.command(Command.CLEAR)
    machine.set_mode(Mode.PRODUCE)
    machine.command(Command.CLEAR)
    with pytest.raises(CommandRefused, match="only in aborted"):
        machine.set_mode(Mode.MAINTENANCE)


def test_a_cell_that_cannot_be_taken_back_stays_lent() -> None:
    machine = Machine()
    machine.set_mode(Mode.MANUAL)

    def in_use(_: Mode) -> None:
        raise CommandRefused("another command uses it")

    machine.on_mode = in_use
    with pytest.raises(CommandRefused, match="another command"):
        machine.set_mode(Mode.PRODUCE)
    assert machine.mode is Mode.MANUAL


class Operating(RuleBasedStateMachine):
    """Anybody may command anything at any time, work may end or fail at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.path: list[State] = [State.ABORTED]

    def _note(self) -> None:
        self.path.append(self.machine.state)

    @rule(command=st.sampled_from(Command))
    def command(self, command: Command) -> None:
        before, lent = self.machine.state, self.machine.mode.lends
        expected = TRANSITIONS[before].get(command)
        if lent and command is not Command.ABORT:
            expected = None
        try:
            reached = self.machine.command(command, "because")
        except CommandRefused as refusal:
            assert expected is None
            assert self.machine.state is before
            assert str(command) in str(refusal)
        else:
            assert reached is self.machine.state is expected
        self._note()

    @precondition(lambda self: self.machine.state.acting)
    @rule()
    def work_ends(self) -> None:
        self.machine.done(self.machine.state)
        self._note()

    @rule()
    def fault(self) -> None:
        self.machine.fault("something broke")
        assert self.machine.state in (State.ABORTING, State.ABORTED)
        self._note()

    @rule(mode=st.sampled_from(Mode))
    def mode(self, mode: Mode) -> None:
        before = self.machine.mode
        try:
            self.machine.set_mode(mode)
        except CommandRefused:
            assert self.machine.state not in (State.ABORTED,)
            assert self.machine.mode is before

    @invariant()
    def every_step_is_in_the_table(self) -> None:
        for before, after in zip(self.path[-2:], self.path[-1:], strict=False):
            assert before is after or after in TRANSITIONS[before].values()

    @invariant()
    def execute_is_reached_by_a_start_or_after_a_pause_only(self) -> None:
        if self.path[-1] is State.EXECUTE and self.path[-2:-1] != [State.EXECUTE]:
            assert self.path[-2] in (State.STARTING, State.UNHOLDING, State.UNSUSPENDING)

    @invariant()
    def a_lent_cell_is_not_in_production(self) -> None:
        if self.machine.mode.lends:
            assert self.machine.state is State.ABORTED

    @invariant()
    def a_sheet_goes_on_only_where_there_may_be_another(self) -> None:
        pausing = self.machine.state in PAUSES | {State.STOPPING, State.ABORTING} | WAITING
        assert self.machine.finishing.is_set() >= pausing
        if self.machine.state is State.EXECUTE:
            assert not self.machine.finishing.is_set()

    @invariant()
    def what_is_offered_is_accepted(self) -> None:
        assert all(c in TRANSITIONS[self.machine.state] for c in self.machine.commands())
        offered = {"suspend", "unsuspend"} & set(self.machine.commands())
        assert not offered, "no command of the station has such a name"


TestOperating = Operating.TestCase
TestOperating.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
