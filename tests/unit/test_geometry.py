"""Poses as Universal Robots writes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from station.geometry import Pose

ORIGIN = Pose(0, 0, 0, 0, 0, 0)
DOWN = Pose(0.1, -0.4, 0.3, math.pi, 0, 0)
metres = st.floats(-1, 1, allow_nan=False)
# In thousandths: rotations below 1e-5 become none.
radians = st.integers(-3000, 3000).map(lambda thousandths: thousandths / 1000)
poses = st.builds(Pose, metres, metres, metres, radians, radians, radians)


def same(a: Pose, b: Pose) -> bool:
    return a.distance_m(b) < 1e-9 and a.angle_rad(b) < 1e-6


def test_a_pose_has_six_numbers() -> None:
    with pytest.raises(ValueError, match="a pose has 6 numbers, not 5"):
        Pose.of([1, 2, 3, 4, 5])


@settings(max_examples=40)
@given(poses)
def test_a_pose_survives_its_matrix(pose: Pose) -> None:
    assert same(Pose.from_matrix(pose.matrix()), pose)


@settings(max_examples=40)
@given(poses, poses, poses)
def test_composition_is_associative_and_the_inverse_undoes_it(a: Pose, b: Pose, c: Pose) -> None:
    assert same((a @ b) @ c, a @ (b @ c))
    assert same(a @ a.inverse(), ORIGIN)
    assert same(a.inverse() @ (a @ b), b)


def test_composition_moves_in_the_tools_frame() -> None:
    assert same(DOWN @ Pose(0.01, 0.02, 0.05, 0, 0, 0), Pose(0.11, -0.42, 0.25, math.pi, 0, 0))


def test_raising_goes_up_whatever_the_tool_points_at() -> None:
    assert DOWN.raised(0.05).z == pytest.approx(0.35)


def test_a_rotation_that_becomes_none_moves_less_than_the_arms_noise() -> None:
    tool = Pose(0, 0, 1, 0, 0, 0)
    for angle in (1e-7, 9e-6, 1.1e-5):
        turned = Pose(0, 0, 0, angle, 0, 0)
        exact = Pose(0, -math.sin(angle), math.cos(angle), angle, 0, 0)
        assert (Pose.from_matrix(turned.matrix()) @ tool).distance_m(exact) < 2e-5


def test_distance_and_angle_are_apart() -> None:
    turned = DOWN @ Pose(0, 0, 0, 0, 0, 0.3)
    assert DOWN.distance_m(turned) < 1e-12
    assert DOWN.angle_rad(turned) == pytest.approx(0.3)


def test_a_rotation_vector_that_flips_sign_is_the_same_orientation() -> None:
    """At half a turn a controller answers with either sign."""
    a, b = Pose(0, 0, 0, math.pi - 1e-4, 0, 0), Pose(0, 0, 0, -math.pi + 1e-4, 0, 0)
    assert a.angle_rad(b) == pytest.approx(2e-4, rel=1e-3)
    assert DOWN.angle_rad(DOWN._replace(rx=-math.pi)) < 1e-6


def test_half_a_turn_about_every_axis_survives_its_matrix() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        axis = rng.normal(size=3)
        vector = axis / np.linalg.norm(axis) * math.pi
        pose = Pose(0, 0, 0, *map(float, vector))
        assert Pose.from_matrix(pose.matrix()).angle_rad(pose) < 1e-6


@settings(max_examples=40)
@given(poses, poses, st.floats(0, 1))
def test_a_line_runs_evenly_from_start_to_end(a: Pose, b: Pose, fraction: float) -> None:
    between = a.interpolate(b, fraction)
    assert same(a.interpolate(b, 0), a)
    assert same(a.interpolate(b, 1), b)
    assert a.distance_m(between) == pytest.approx(fraction * a.distance_m(b), abs=1e-9)
    assert a.angle_rad(between) == pytest.approx(fraction * a.angle_rad(b), abs=1e-5)
