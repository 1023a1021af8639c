"""UR5 kinematics with the manufacturer's nominal DH parameters (CB3, "UR5 series 3").

A real arm carries its own calibration, so its poses differ from these by millimetres: good for
asking whether a line can be travelled, never for deciding where the tool is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from station.geometry import Matrix, Pose

JOINT_LIMIT_RAD = 2 * math.pi

# Standard DH parameters in metres: T_i = RotZ(q_i) TransZ(d_i) TransX(a_i) RotX(alpha_i).
A2, A3 = -0.42500, -0.39225
D1, D4, D5, D6 = 0.089159, 0.10915, 0.09465, 0.0823
_DH = (
    (D1, 0.0, math.pi / 2),
    (0.0, A2, 0.0),
    (0.0, A3, 0.0),
    (D4, 0.0, math.pi / 2),
    (D5, 0.0, -math.pi / 2),
    (D6, 0.0, 0.0),
)
_SINGULAR = 1e-9


class Joints(NamedTuple):
    """Joint angles in radians, base to wrist 3."""

    base: float
    shoulder: float
    elbow: float
    wrist_1: float
    wrist_2: float
    wrist_3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Joints:
        """Build from six numbers in UR's order."""
        if len(values) != 6:
            raise ValueError(f"a UR5 has 6 joints, not {len(values)}")
        return cls(*(float(value) for value in values))

    def largest_step_rad(self, other: Joints) -> float:
        """Largest single joint difference."""
        return max(abs(a - b) for a, b in zip(self, other, strict=True))


def forward(joints: Joints) -> Pose:
    """Return the flange's pose in the base frame."""
    return Pose.from_matrix(_chain(joints, 0, 6))


def inverse(flange: Pose, near: Joints) -> Joints | None:
    """Return the joint angles nearest to `near` that put the flange there, or None out of reach.

    The closed form gives principal values; each joint is also taken a full turn away, so that a
    cable-wound arm is not asked to unwind.
    """
    best: Joints | None = None
    matrix = flange.matrix()
    if not np.isfinite(matrix).all():
        return None
    for solution in _solutions(matrix, near):
        candidate = Joints(*map(_nearest_turn, solution, near))
        if best is None or _travel(candidate, near) < _travel(best, near):
            best = candidate
    return best


def _solutions(flange: Matrix, near: Joints) -> Iterator[tuple[float, ...]]:
    """Yield up to eight solutions: shoulder left or right, wrist up or down, elbow up or down."""
    wrist = flange[:3, 3] - D6 * flange[:3, 2]
    reach = math.hypot(wrist[0], wrist[1])
    if reach < D4:
        return
    for shoulder in (1, -1):
        q1 = math.atan2(wrist[1], wrist[0]) + shoulder * math.acos(D4 / reach) + math.pi / 2
        s1, c1 = math.sin(q1), math.cos(q1)
        cosine5 = (flange[0, 3] * s1 - flange[1, 3] * c1 - D4) / D6
        if abs(cosine5) > 1 + _SINGULAR:
            continue
        for wrist_side in (1, -1):
            q5 = wrist_side * math.acos(max(-1.0, min(1.0, cosine5)))
            s5 = math.sin(q5)
            if abs(s5) < _SINGULAR:
                q6 = (
                    near.wrist_3
                )  # wrists 1 and 3 turn about one axis: any share between them will do
            else:
                q6 = math.atan2(
                    (flange[1, 1] * c1 - flange[0, 1] * s1) / s5,
                    (flange[0, 0] * s1 - flange[1, 0] * c1) / s5,
                )
            wrist_1 = (
                np.linalg.inv(_link(q1, 0)) @ flange @ np.linalg.inv(_link(q5, 4) @ _link(q6, 5))
            )
            x, y = (wrist_1 @ (0.0, -D4, 0.0, 1.0))[:2]
            length = math.hypot(x, y)
            cosine3 = (length**2 - A2**2 - A3**2) / (2 * A2 * A3)
            if abs(cosine3) > 1 or length < _SINGULAR:
                continue
            for elbow in (1, -1):
                q3 = elbow * math.acos(cosine3)
                q2 = math.asin(max(-1.0, min(1.0, A3 * math.sin(q3) / length))) - math.atan2(y, -x)
                # Links 2 to 4 turn about parallel axes: wrist 1 gets what is left of the sum.
                q4 = math.atan2(wrist_1[1, 0], wrist_1[0, 0]) - q2 - q3
                yield q1, q2, q3, q4, q5, q6


def _link(angle: float, index: int) -> Matrix:
    d, a, alpha = _DH[index]
    s, c, sa, ca = math.sin(angle), math.cos(angle), math.sin(alpha), math.cos(alpha)
    return np.array(
        [
            [c, -s * ca, s * sa, a * c],
            [s, c * ca, -c * sa, a * s],
            [0.0, sa, ca, d],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _chain(joints: Sequence[float], first: int, last: int) -> Matrix:
    matrix = np.eye(4)
    for index in range(first, last):
        matrix = matrix @ _link(joints[index], index)
    return matrix


def _nearest_turn(angle: float, near: float) -> float:
    principal = math.remainder(angle, 2 * math.pi)
    turns = (principal - 2 * math.pi, principal, principal + 2 * math.pi)
    return min((a for a in turns if abs(a) <= JOINT_LIMIT_RAD), key=lambda a: abs(a - near))


def _travel(joints: Joints, near: Joints) -> float:
    return sum((a - b) ** 2 for a, b in zip(joints, near, strict=True))
