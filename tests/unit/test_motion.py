"""MotionGuard: what it lets pass, what it refuses and why, and what it does after trouble."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from arm_double import HOME, TCP, ArmDouble, limits

from station.config import KeepOut, MotionLimits
from station.errors import DeviceError, MoveRefused, RobotStopped
from station.geometry import Pose
from station.motion import LineChecker, MotionGuard

ASIDE = HOME._replace(x=0.10)
CORNERS = ((-0.03, -0.03, 0.04), (0.03, -0.03, 0.04), (-0.03, 0.03, 0.04), (0.03, 0.03, 0.04))


@dataclass
class Bench:
    arm: ArmDouble
    guard: MotionGuard

    def go(self, pose: Pose, speed_m_s: float = 0.2) -> Pose:
        return self.guard.go(pose, speed_m_s, 1.0).pose

    def refusal(self, pose: Pose, speed_m_s: float = 0.2) -> str:
        before = len(self.arm.moves)
        with pytest.raises(MoveRefused) as caught:
            self.go(pose, speed_m_s)
        assert len(self.arm.moves) == before, "a refused move must not reach the robot"
        return str(caught.value)


def bench(given: MotionLimits | None = None, start: Pose = HOME) -> Bench:
    arm = ArmDouble(start)
    return Bench(arm, MotionGuard(arm, given or limits(), TCP))


def plate(thickness_m: float) -> KeepOut:
    """A keep-out plate that stands between HOME and ASIDE."""
    return KeepOut(name="plate", min_m=(0.052, -0.7, 0.1), max_m=(0.052 + thickness_m, -0.2, 0.7))


def test_a_free_line_is_travelled_and_the_measured_place_returned() -> None:
    cell = bench()
    cell.arm.miss = Pose(0.0002, 0, 0, 0, 0, 0)
    assert cell.go(ASIDE).x == pytest.approx(0.1002)
    assert [move[0] for move in cell.arm.moves] == [ASIDE]


def test_speed_and_acceleration_are_capped_by_the_cell_file() -> None:
    cell = bench()
    cell.guard.go(ASIDE, 3.0, 10.0)
    _, speed_m_s, acceleration_m_s2, deadline_s = cell.arm.moves[0]
    assert (speed_m_s, acceleration_m_s2) == (0.25, 1.2)
    assert 5 < deadline_s < 10


def test_a_slow_slider_stretches_the_deadline() -> None:
    fast, slow = bench(), bench()
    slow.arm.slider = 0.1
    fast.go(ASIDE)
    slow.go(ASIDE)
    assert slow.arm.moves[0][3] > 2 * fast.arm.moves[0][3]


@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        (HOME._replace(x=0.36), "leave the workspace"),
        (HOME._replace(z=0.05), "leave the workspace"),
        (HOME._replace(y=0.45), "leave the workspace"),
        (HOME._replace(x=math.nan), "not finite"),
        (HOME._replace(rz=math.inf), "not finite"),
    ],
)
def test_a_target_outside_the_workspace_is_refused(pose: Pose, reason: str) -> None:
    assert reason in bench().refusal(pose)


def test_a_refusal_names_place_and_limit() -> None:
    text = bench().refusal(HOME._replace(z=0.05))
    assert "the tool would leave the workspace" in text
    assert "is not within 100 to 700 mm" in text


def test_a_target_out_of_reach_is_refused() -> None:
    wide = limits(low=(-3, -3, -3), high=(3, 3, 3))
    assert "out of the arm's reach" in bench(wide).refusal(HOME._replace(y=-1.2), 0.01)


def test_a_corner_of_the_camera_counts_as_much_as_the_tool() -> None:
    low = HOME._replace(z=0.13)  # the tool is 30 mm inside, the lens 10 mm outside
    assert bench(limits()).go(low)
    assert "tool corner" in bench(limits(corners=CORNERS)).refusal(low)


def test_a_tilted_camera_swings_its_corners() -> None:
    near = HOME._replace(z=0.145)
    guarded = limits(corners=CORNERS)
    assert bench(guarded).go(near)
    assert "tool corner" in bench(guarded).refusal(near._replace(rx=math.pi - 0.5))


def test_a_line_through_a_keep_out_box_is_refused_though_both_ends_are_free() -> None:
    text = bench(limits(plate(0.02))).refusal(ASIDE)
    assert "keep-out box 'plate'" in text


def test_a_thin_keep_out_box_between_two_samples_is_found() -> None:
    assert "plate" in bench(limits(plate(0.001))).refusal(ASIDE)


def test_a_line_through_the_arms_own_base_is_refused() -> None:
    wide = limits(low=(-1, -1, -1), high=(1, 1, 1))
    refused = bench(wide).refusal(HOME._replace(y=0.45))
    assert "reach" in refused or "swing" in refused or "rad/s" in refused


def test_a_joint_that_would_race_is_refused() -> None:
    """Close past the base's axis the shoulder has to whirl round."""
    wide = limits(low=(-1, -1, -1), high=(1, 1, 1))
    start = Pose(-0.3, -0.16, 0.4, math.pi, 0, 0)
    text = bench(wide, start).refusal(start._replace(x=0.3), 0.25)
    assert "rad/s" in text or "swing" in text


def test_turning_on_the_spot_is_allowed() -> None:
    turned = HOME @ Pose(0, 0, 0, 0, 0, 0.5)
    assert bench().go(turned).angle_rad(turned) < 1e-6


def test_a_large_turn_with_a_small_shift_is_allowed_like_a_turn_on_the_spot() -> None:
    turned = HOME @ Pose(0.002, 0, 0, 0, 0, 0.5)
    assert bench().go(turned).angle_rad(turned) < 1e-6


@pytest.mark.parametrize(
    "mode", ["protective stop", "robot emergency stop", "safeguard stop", "recovery", "fault"]
)
def test_no_move_begins_in_a_safety_stop(mode: str) -> None:
    cell = bench()
    cell.arm.safety = mode
    assert mode in cell.refusal(ASIDE)


def test_reduced_mode_may_move() -> None:
    cell = bench()
    cell.arm.safety = "reduced"
    cell.go(ASIDE)


@pytest.mark.parametrize(
    "trouble", [RobotStopped("robot", "protective stop"), DeviceError("robot", "no")]
)
def test_after_trouble_in_a_move_every_other_is_refused(trouble: DeviceError) -> None:
    cell = bench()
    cell.arm.trouble = trouble
    with pytest.raises(type(trouble)):
        cell.go(ASIDE)
    cell.arm.trouble = None
    text = cell.refusal(HOME._replace(z=0.42))
    assert trouble.problem in text
    assert "start again" in text


def test_after_an_interrupted_move_every_other_is_refused() -> None:
    cell = bench()
    cell.arm.trouble = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        cell.go(ASIDE)
    cell.arm.trouble = None
    assert "interrupted" in cell.refusal(ASIDE)


def test_a_refused_move_does_not_forbid_the_next() -> None:
    cell = bench()
    cell.refusal(HOME._replace(z=0.05))
    cell.go(ASIDE)


@pytest.mark.parametrize(
    "miss",
    [
        Pose(0.0011, 0, 0, 0, 0, 0),
        Pose(0, 0, -0.002, 0, 0, 0),
        Pose(0, 0, 0, 0, 0, 0.02),
        Pose(math.nan, 0, 0, 0, 0, 0),
        Pose(0, 0, 0, math.nan, 0, 0),
    ],
)
def test_an_arm_that_stands_elsewhere_is_trouble(miss: Pose) -> None:
    cell = bench()
    arm = cell.arm
    move = arm.move

    def astray(pose: Pose, speed: float, acceleration: float, deadline: float) -> object:
        move(pose, speed, acceleration, deadline)
        arm.miss = miss
        return arm.status()

    setattr(arm, "move", astray)  # noqa: B010 - this arm alone goes astray
    with pytest.raises(DeviceError):
        cell.go(ASIDE)
    arm.miss = Pose(0, 0, 0, 0, 0, 0)
    cell.refusal(HOME)


def test_an_arm_that_reports_nonsense_before_a_move_is_not_moved() -> None:
    cell = bench()
    cell.arm.miss = Pose(math.nan, 0, 0, 0, 0, 0)
    with pytest.raises(DeviceError):
        cell.go(ASIDE)
    assert not cell.arm.moves


def test_an_arm_outside_the_workspace_is_not_moved() -> None:
    cell = bench(start=HOME._replace(z=0.09))
    assert "leave the workspace" in cell.refusal(ASIDE)


def test_a_pose_on_the_workspaces_face_can_be_left_again() -> None:
    """The check takes it, so measuring noise must not strand the arm there."""
    cell = bench(limits(low=(-0.35, -0.75, 0.30)))
    edge = HOME._replace(z=0.30)
    cell.go(edge)
    cell.arm.miss = Pose(0, 0, -0.00005, 0, 0, 0)
    cell.go(HOME)


def test_lines_can_be_checked_without_a_robot() -> None:
    arm = ArmDouble()
    joints = LineChecker(limits(), TCP).check(arm.pose, arm.joints, ASIDE, 0.2)
    assert arm.forward(joints).distance_m(ASIDE) < 1e-6


def test_a_retreat_is_slow_and_straight_up_from_where_the_arm_stands() -> None:
    cell = bench(start=HOME._replace(x=0.03, z=0.27))
    cell.arm.miss = Pose(0.0003, 0, 0, 0, 0, 0)
    assert cell.guard.stands_below(0.31)
    cell.guard.retreat(0.31)
    ((target, speed_m_s, _, _),) = cell.arm.moves
    assert target[:3] == pytest.approx((0.0303, -0.45, 0.31))
    assert speed_m_s <= 0.03
    assert not cell.guard.stands_below(0.31)


def test_a_retreat_is_refused_where_a_move_would_be() -> None:
    cell = bench(start=HOME._replace(x=0.40, z=0.27))
    with pytest.raises(MoveRefused, match="leave the workspace"):
        cell.guard.retreat(0.31)
    cell = bench(start=HOME._replace(z=0.27))
    cell.arm.safety = "protective stop"
    with pytest.raises(MoveRefused, match="protective stop"):
        cell.guard.retreat(0.31)
    assert not cell.arm.moves


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"safety_mode": "safeguard stop"}, "safeguard stop at x 0.0 y -450.0 z 400.0 mm"),
        ({"robot_mode": "power off"}, "robot mode became power off"),
        ({"program_running": False}, "the control program was stopped"),
        ({"remote": False}, "remote control was taken away"),
        ({"stopped": "stopped for a moment (x)"}, r"stopped for a moment \(x\) at x 0.0"),
    ],
)
def test_an_arm_that_could_not_be_moved_is_told_with_its_place(
    state: dict[str, Any], said: str
) -> None:
    with pytest.raises(RobotStopped, match=said):
        ArmDouble().status()._replace(**state).check_ready("robot")


def test_at_a_slider_of_zero_nothing_begins() -> None:
    status = ArmDouble().status()._replace(speed_slider=0.0)
    status.check_ready("robot")  # an arm on its way may wait for the slider
    with pytest.raises(RobotStopped, match=r"the speed slider is at 0 % at x .* raise the speed"):
        status.check_may_begin("robot")
