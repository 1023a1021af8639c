"""Closed-form kinematics against the manufacturer's figures and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from station.geometry import Pose
from station.kinematics import JOINT_LIMIT_RAD, Joints, forward, inverse

HALF = math.pi / 2
DOWN = Pose(0.0, -0.45, 0.40, math.pi, 0.0, 0.0)
ELBOW_UP = Joints(-1.6, -1.4, -1.8, -1.5, 1.57, 0.0)


@pytest.mark.parametrize(
    ("joints", "flange"),
    [
        ((0, 0, 0, 0, 0, 0), (-0.81725, -0.19145, -0.005491, HALF, 0, 0)),
        (
            (0, -HALF, HALF, -HALF, -HALF, 0),
            (-0.4869, -0.10915, 0.431859, 2.22144, 2.22144, 0),
        ),
    ],
)
def test_forward_matches_the_manufacturers_values(
    joints: tuple[float, ...], flange: tuple[float, ...]
) -> None:
    pose = forward(Joints.of(joints))
    assert pose.distance_m(Pose.of(flange)) < 1e-6
    assert pose.angle_rad(Pose.of(flange)) < 1e-5


def test_inverse_returns_to_the_joints_it_started_from() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        joints = Joints.of(rng.uniform(-math.pi, math.pi, 6).tolist())
        if abs(math.sin(joints.wrist_2)) < 0.05 or abs(math.sin(joints.elbow)) < 0.05:
            continue  # singular: one pose, many solutions
        solution = inverse(forward(joints), joints)
        assert solution is not None
        assert solution.largest_step_rad(joints) < 1e-6


def test_inverse_reaches_the_pose_from_far_away() -> None:
    solution = inverse(DOWN, ELBOW_UP)
    assert solution is not None
    assert forward(solution).distance_m(DOWN) < 1e-9
    assert forward(solution).angle_rad(DOWN) < 1e-6
    assert solution.elbow < 0, "elbow up, as asked for"


def test_pose_out_of_reach_has_no_solution() -> None:
    assert inverse(DOWN._replace(y=-1.5), ELBOW_UP) is None
    assert inverse(DOWN._replace(x=0.0, y=0.0), ELBOW_UP) is None, "inside the base's column"


def test_inverse_does_not_unwind_a_turned_wrist() -> None:
    near = inverse(DOWN, ELBOW_UP)
    assert near is not None
    turned = near._replace(wrist_3=near.wrist_3 + 2 * math.pi)
    if abs(turned.wrist_3) > JOINT_LIMIT_RAD:
        turned = near._replace(wrist_3=near.wrist_3 - 2 * math.pi)
    solution = inverse(DOWN, turned)
    assert solution is not None
    assert solution.largest_step_rad(turned) < 1e-6


def test_a_pose_needs_six_joints() -> None:
    with pytest.raises(ValueError, match="6 joints, not 5"):
        Joints.of([0.0] * 5)
