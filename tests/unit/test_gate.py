"""The part handshake, line by line."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from arm_double import ArmDouble

from station.config import Lines
from station.devices import RobotStatus
from station.errors import DeviceTimeout, RobotStopped, SheetAwaited, SheetGone
from station.gate import Gate
from station.records.sheet import Verdict

LINES = Lines(part_present=3, accept=0, reject=1, busy=2)
PRESENT = 1 << 3
ACCEPT, REJECT, BUSY = 1, 2, 4
FREE = threading.Event()


Gates = Callable[..., Gate]


@pytest.fixture
def gate(tmp_path: Path) -> Gates:
    """Every gate of a test remembers the same sheet, as processes of one workspace do."""

    def make(arm: ArmDouble, timeout_s: float = 0.1) -> Gate:
        return Gate(arm, LINES, timeout_s, tmp_path / "sheet")

    return make


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize(
    ("verdict", "line"), [(Verdict.ACCEPT, ACCEPT), (Verdict.REJECT, REJECT), (Verdict.NONE, 0)]
)
def test_a_verdict_raises_its_own_line_and_no_other(
    gate: Gates, verdict: Verdict, line: int
) -> None:
    arm = ArmDouble()
    gate(arm).begin()
    gate(arm).sort(verdict)
    assert arm.outputs == BUSY | line


@pytest.mark.parametrize("verdicts", list(itertools.product(Verdict, repeat=3)))
def test_accept_and_reject_are_never_high_together(
    gate: Gates, verdicts: tuple[Verdict, ...]
) -> None:
    arm = ArmDouble()
    for verdict in verdicts:
        gate(arm).sort(verdict)
    assert not [outputs for outputs in arm.lines if outputs & (ACCEPT | REJECT) == 3]


def test_the_next_sheet_begins_with_both_lines_low(gate: Gates) -> None:
    arm = ArmDouble()
    arm.outputs = ACCEPT | REJECT
    gate(arm).begin()
    assert arm.outputs == BUSY


def test_the_verdict_holds_until_the_sheet_has_gone(gate: Gates) -> None:
    arm = ArmDouble()
    arm.inputs = PRESENT
    gate(arm).begin()
    gate(arm).sort(Verdict.ACCEPT)
    held: list[int] = []

    def take_away() -> None:
        held.append(arm.outputs)
        arm.inputs = 0

    def busy_fell(outputs: int) -> None:
        if outputs == ACCEPT:
            threading.Timer(0.05, take_away).start()

    arm.on_output = busy_fell
    gate(arm, 1.0).release()
    assert held == [ACCEPT]
    assert arm.outputs == 0


def test_a_sheet_nobody_takes_away_is_an_error_and_keeps_its_verdict(gate: Gates) -> None:
    arm = ArmDouble()
    arm.inputs = PRESENT
    gate(arm).sort(Verdict.REJECT)
    with pytest.raises(DeviceTimeout, match=r"part-present input 3: no sheet was taken away"):
        gate(arm).release()
    assert arm.outputs == REJECT


def test_waiting_ends_with_a_sheet_a_stop_or_an_error(gate: Gates) -> None:
    arm = ArmDouble()
    assert not gate(arm).wait_for_sheet(stopped())
    with pytest.raises(DeviceTimeout, match=r"no sheet appeared within 0.1 s"):
        gate(arm).wait_for_sheet(FREE)
    arm.inputs = PRESENT
    assert gate(arm).wait_for_sheet(FREE)


def test_other_inputs_are_no_sheet(gate: Gates) -> None:
    arm = ArmDouble()
    arm.inputs = ~PRESENT
    with pytest.raises(DeviceTimeout):
        gate(arm).wait_for_sheet(FREE)


def test_reset_lowers_every_line_and_leaves_other_outputs_alone(gate: Gates) -> None:
    arm = ArmDouble()
    arm.outputs = ACCEPT | 1 << 6
    gate(arm).reset(FREE)
    assert arm.outputs == 1 << 6


def test_a_sheet_left_unfinished_has_to_go_before_the_first(gate: Gates) -> None:
    arm = ArmDouble()
    arm.outputs, arm.inputs = BUSY, PRESENT
    with pytest.raises(DeviceTimeout, match="taken away"):
        gate(arm).reset(FREE)
    arm.outputs, arm.inputs = BUSY, 0
    gate(arm).reset(FREE)


def test_a_sheet_that_has_its_verdict_has_to_go_before_the_first(gate: Gates) -> None:
    """The process before ended while the verdict was held: this sheet is not a new one."""
    arm = ArmDouble()
    arm.outputs, arm.inputs = ACCEPT, PRESENT
    with pytest.raises(DeviceTimeout, match="taken away"):
        gate(arm).reset(FREE)


def test_a_sheet_that_stays_through_a_reset_is_no_new_one_at_the_next(gate: Gates) -> None:
    """Its lines are low by then: without a memory the second reset would let it be inspected."""
    arm = ArmDouble()
    arm.inputs = PRESENT
    gate(arm).begin()
    for _ in range(3):
        with pytest.raises(SheetAwaited, match="take the sheet away by hand"):
            gate(arm).reset(FREE)
        assert arm.outputs == 0
    arm.inputs = 0
    gate(arm).reset(FREE)
    arm.inputs = PRESENT
    gate(arm).reset(FREE)
    assert gate(arm).wait_for_sheet(FREE), "this one was never begun"


def test_a_stop_while_the_sheet_is_awaited_forgets_nothing(gate: Gates) -> None:
    arm = ArmDouble()
    arm.inputs = PRESENT
    gate(arm).begin()
    gate(arm).reset(stopped())
    with pytest.raises(SheetAwaited):
        gate(arm).reset(FREE)


def test_a_sheet_whose_busy_never_rose_is_offered_to_the_line_as_none(gate: Gates) -> None:
    """The link was cut just then: the line waits for a fall that would never come."""
    arm = ArmDouble()
    arm.inputs = PRESENT
    arm.trouble_with_outputs = True
    with pytest.raises(DeviceTimeout):
        gate(arm).begin()
    arm.trouble_with_outputs = False

    def take_away(outputs: int) -> None:
        if not outputs:
            arm.inputs = 0

    arm.on_output = take_away
    gate(arm).reset(FREE)
    assert arm.lines == [BUSY, 0]


def test_a_manual_gate_asks_and_waits_for_no_line(tmp_path: Path) -> None:
    arm = ArmDouble()
    asked: list[int] = []
    manual = Gate(arm, LINES, 0.1, tmp_path / "sheet", ask=lambda *_: asked.append(1))
    manual.reset(FREE)
    assert manual.wait_for_sheet(FREE)
    manual.begin()
    manual.sort(Verdict.REJECT)
    arm.inputs = PRESENT
    manual.release()
    assert asked == [1]
    assert arm.outputs == REJECT, "the verdict is shown until the next sheet begins"
    assert not manual.wait_for_sheet(stopped())
    assert not (tmp_path / "sheet").exists(), "there is no line that tells when it goes"


def test_a_person_is_asked_while_the_robot_is_looked_at(tmp_path: Path) -> None:
    arm = ArmDouble()
    arm.safety = "protective stop"
    manual = Gate(arm, LINES, 0.1, tmp_path / "sheet", ask=lambda _, check_ready: check_ready())
    with pytest.raises(RobotStopped, match="protective stop"):
        manual.wait_for_sheet(FREE)


def test_a_stop_is_noticed_while_a_sheet_is_awaited(gate: Gates) -> None:
    arm = ArmDouble()
    arm.safety = "protective stop"
    with pytest.raises(RobotStopped, match="protective stop"):
        gate(arm, 5.0).wait_for_sheet(FREE)


@pytest.mark.parametrize("present", [True, False])
def test_what_was_awaited_in_vain_is_told(gate: Gates, present: bool) -> None:
    arm = ArmDouble()
    arm.inputs = 0 if present else PRESENT
    with pytest.raises(SheetAwaited) as caught:
        gate(arm).wait_for_sheet(FREE) if present else gate(arm).release()
    assert caught.value.present is present


@pytest.mark.bad_input("089-sheet-gone-while-busy")
def test_a_sheet_that_goes_while_it_is_worked_on_is_an_error(gate: Gates) -> None:
    arm = ArmDouble()
    arm.inputs = PRESENT
    gate(arm).begin()
    gate(arm).check_laid()
    arm.inputs = 0
    with pytest.raises(SheetGone, match="input 3: the sheet was taken away while it was worked"):
        gate(arm).check_laid()


def accepted(arm: ArmDouble, gate: Gate) -> None:
    """Bring a sheet to where its accept is told and busy has not fallen yet."""
    arm.inputs = PRESENT
    assert gate.wait_for_sheet(FREE)
    gate.begin()
    gate.sort(Verdict.ACCEPT)


@pytest.mark.bad_input("089-sheet-exchanged-between-two-looks")
def test_a_sheet_exchanged_while_nobody_looked_is_gone(gate: Gates) -> None:
    arm = ArmDouble()
    one = gate(arm)
    accepted(arm, one)
    arm.inputs = 0
    arm.inputs = PRESENT
    with pytest.raises(SheetGone):
        one.release()
    assert arm.outputs == BUSY, "busy has not fallen, so the line has read no accept"
    assert arm.lines[-1] == BUSY
    with pytest.raises(SheetAwaited):
        gate(arm).reset(FREE)  # what lies there was not inspected and goes as none
    assert arm.outputs == 0


def test_a_sheet_exchanged_at_once_is_a_new_one(gate: Gates) -> None:
    """The line was fast: it took the sheet and laid the next between two looks."""
    arm = ArmDouble()
    one = gate(arm)
    accepted(arm, one)

    def exchange(outputs: int) -> None:
        if outputs == ACCEPT:
            arm.inputs = 0
            arm.inputs = PRESENT

    arm.on_output = exchange
    one.release()
    assert arm.outputs == 0
    one.reset(FREE)
    assert one.wait_for_sheet(FREE)
    one.begin()
    one.check_laid()


class Bouncing(ArmDouble):
    """A sheet whose sensor falls between the first looks at it."""

    left = 4

    def status(self) -> RobotStatus:
        if self.left:
            self.left -= 1
            self.inputs = 0
            self.inputs = PRESENT
        return super().status()


def test_a_sensor_that_bounces_tells_of_one_sheet(gate: Gates) -> None:
    arm = Bouncing()
    one = gate(arm, 5.0)
    assert one.wait_for_sheet(FREE)
    assert not arm.left
    one.check_laid()


def test_a_manual_gate_has_no_line_to_tell_that_a_sheet_has_gone(tmp_path: Path) -> None:
    Gate(ArmDouble(), LINES, 0.1, tmp_path / "sheet", ask=lambda *_: None).check_laid()
