"""The simulated arm's motion: profile, stops, and what it does where it cannot go."""

from __future__ import annotations

import math

import pytest

from station.geometry import Pose
from station.kinematics import Joints, inverse
from station.sim.arm import SETTLING_RAD_S, Arm, Mode, Safety

TOOL = Pose(0.0, 0.0, 0.10, 0.0, 0.0, 0.0)
HOME = Pose(0.0, -0.45, 0.45, math.pi, 0.0, 0.0)
LOW = HOME._replace(z=0.25)
DT = 0.008


@pytest.fixture
def arm() -> Arm:
    joints = inverse(HOME @ TOOL.inverse(), Joints(-1.6, -1.4, -1.8, -1.5, 1.57, 0.0))
    assert joints is not None
    return Arm(joints, TOOL, 1.2)


def until_rest(arm: Arm, dt: float = DT) -> float:
    """Step until the arm rests; return the time that took."""
    for step in range(5000):
        if arm.at_rest:
            return step * dt
        arm.step(dt)
    raise AssertionError("the arm never came to rest")


def test_line_takes_the_time_of_its_trapezoid(arm: Arm) -> None:
    arm.move_line(LOW, 0.25, 0.5)
    assert until_rest(arm) == pytest.approx(0.2 / 0.25 + 0.25 / 0.5, abs=3 * DT)
    assert arm.tcp_pose.distance_m(LOW) < 1e-9


def test_short_move_is_a_triangle(arm: Arm) -> None:
    arm.move_line(HOME.raised(-0.02), 1.0, 0.5)
    assert until_rest(arm) == pytest.approx(2 * math.sqrt(0.02 / 0.5), abs=3 * DT)


def test_line_is_straight_and_keeps_its_orientation(arm: Arm) -> None:
    target = Pose(0.1, -0.35, 0.25, math.pi, 0.0, 0.0)
    arm.move_line(target, 0.5, 1.0)
    while not arm.at_rest:
        arm.step(DT)
        fraction = HOME.distance_m(arm.tcp_pose) / HOME.distance_m(target)
        assert arm.tcp_pose.distance_m(HOME.interpolate(target, fraction)) < 1e-6
        assert arm.tcp_pose.angle_rad(target) < 1e-5


def test_joints_arrive_together_and_exactly(arm: Arm) -> None:
    target = Joints(*(angle + step for angle, step in zip(arm.joints, range(6), strict=True)))
    target = target._replace(wrist_2=arm.joints[4], wrist_3=arm.joints[5] + 0.5)
    arm.move_joints(target, 1.0, 2.0)
    assert until_rest(arm) == pytest.approx(3 / 1.0 + 1.0 / 2.0, abs=3 * DT)
    assert arm.joints == pytest.approx(target, abs=1e-12)


def test_arm_is_busy_and_settling_until_released(arm: Arm) -> None:
    arm.move_line(LOW, 0.5, 1.0)
    until_rest(arm)
    arm.step(DT)
    assert arm.busy
    assert max(arm.joint_speeds) == SETTLING_RAD_S
    arm.release()
    arm.step(DT)
    assert not arm.busy
    assert max(arm.joint_speeds) == 0.0


def test_release_means_nothing_on_the_way(arm: Arm) -> None:
    arm.move_line(LOW, 0.5, 1.0)
    arm.step(DT)
    arm.release()
    assert arm.busy


def test_stop_rests_part_way_and_forgets_the_goal(arm: Arm) -> None:
    arm.move_line(LOW, 0.25, 0.5)
    for _ in range(75):
        arm.step(DT)
    arm.stop(1.0)
    assert arm.destination is None
    assert until_rest(arm) < 0.3
    rest = arm.tcp_pose
    assert 0.01 < rest.distance_m(HOME) < 0.19
    arm.release()
    for _ in range(50):
        arm.step(DT)
    assert arm.tcp_pose == rest


def test_held_arm_continues_only_when_resumed(arm: Arm) -> None:
    arm.move_line(LOW, 0.25, 0.5)
    for _ in range(75):
        arm.step(DT)
    arm.trip(Safety.PROTECTIVE_STOP)
    assert until_rest(arm) <= 0.2 + 2 * DT
    rest = arm.tcp_pose
    for _ in range(50):
        arm.step(DT)
        arm.release()
    assert arm.tcp_pose == rest
    arm.safety = Safety.NORMAL
    arm.resume()
    until_rest(arm)
    assert arm.tcp_pose.distance_m(LOW) < 1e-9


def test_emergency_stop_cuts_power_and_forgets_the_goal(arm: Arm) -> None:
    arm.move_line(LOW, 0.25, 0.5)
    for _ in range(75):
        arm.step(DT)
    arm.trip(Safety.ROBOT_EMERGENCY_STOP)
    assert until_rest(arm) <= 0.1 + 2 * DT
    arm.resume()
    rest = arm.tcp_pose
    for _ in range(50):
        arm.step(DT)
    assert arm.tcp_pose == rest
    assert arm.mode is Mode.POWER_OFF


def test_line_out_of_reach_ends_in_a_protective_stop(arm: Arm) -> None:
    arm.move_line(HOME._replace(y=-1.5), 0.5, 1.0)
    assert arm.destination is None
    until_rest(arm)
    assert arm.safety is Safety.PROTECTIVE_STOP
    assert arm.held


def test_joint_beyond_its_limit_ends_in_a_protective_stop(arm: Arm) -> None:
    arm.move_joints(arm.joints._replace(wrist_3=7.0), 3.0, 10.0)
    until_rest(arm)
    assert arm.safety is Safety.PROTECTIVE_STOP
    assert abs(arm.joints.wrist_3) <= 2 * math.pi


def test_new_move_brakes_the_old_one_first(arm: Arm) -> None:
    arm.move_line(LOW, 0.25, 0.5)
    for _ in range(75):
        arm.step(DT)
    arm.move_line(HOME, 0.25, 0.5)
    previous = arm.tcp_pose
    while not arm.at_rest:
        arm.step(DT)
        assert arm.tcp_pose.distance_m(previous) <= 0.25 * DT + 1e-9
        previous = arm.tcp_pose
    assert arm.tcp_pose.distance_m(HOME) < 1e-9


def test_slider_scales_the_speed_reached(arm: Arm) -> None:
    arm.slider = 0.5
    arm.move_line(LOW, 0.25, 0.5)
    fastest = 0.0
    while not arm.at_rest:
        arm.step(DT)
        fastest = max(fastest, math.hypot(*arm.tcp_speed[:3]))
    assert fastest == pytest.approx(0.125, rel=1e-3)


@pytest.mark.parametrize("dt", [0.002, 0.008, 0.02, 0.16])
def test_end_is_exact_at_any_step(arm: Arm, dt: float) -> None:
    arm.move_line(LOW, 0.5, 1.2)
    until_rest(arm, dt)
    assert arm.tcp_pose.distance_m(LOW) < 1e-9
    assert arm.safety is Safety.NORMAL


def test_offset_fault_misses_later_targets_by_as_much(arm: Arm) -> None:
    arm.offset_m = (0.003, 0.0, 0.0)
    arm.move_line(LOW, 0.5, 1.0)
    until_rest(arm)
    assert arm.tcp_pose.x - LOW.x == pytest.approx(0.003, abs=1e-9)


def test_tcp_set_by_a_client_does_not_move_the_tool(arm: Arm) -> None:
    arm.tcp = Pose(0.0, 0.0, 0.20, 0.0, 0.0, 0.0)
    assert arm.tool_pose.distance_m(HOME) < 1e-9
    assert arm.tcp_pose.distance_m(HOME) == pytest.approx(0.1)


def test_move_of_no_length_is_still_a_move(arm: Arm) -> None:
    arm.move_line(HOME, 0.5, 1.0)
    assert arm.busy
    until_rest(arm)
    arm.step(DT)
    arm.release()
    assert not arm.busy
