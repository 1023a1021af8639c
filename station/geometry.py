"""Poses as Universal Robots writes them: metres and a rotation vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Pose(NamedTuple):
    """Position in metres and orientation as a rotation vector in radians."""

    x: float
    y: float
    z: float
    rx: float
    ry: float
    rz: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Pose:
        """Build from six numbers in UR's order."""
        if len(values) != 6:
            raise ValueError(f"a pose has 6 numbers, not {len(values)}")
        return cls(*(float(value) for value in values))

    @classmethod
    def from_matrix(cls, matrix: Matrix) -> Pose:
        """Build from a 4x4 homogeneous transform.

        A rotation below 1e-5 rad becomes none, as cv2 has it: 10 micrometres at a metre's distance.
        """
        rotation_vector = cv2.Rodrigues(np.asarray(matrix[:3, :3], dtype=np.float64))[0].ravel()
        return cls.of([*matrix[:3, 3], *rotation_vector])

    def matrix(self) -> Matrix:
        """Return the 4x4 homogeneous transform."""
        matrix = np.eye(4)
        matrix[:3, :3] = cv2.Rodrigues(np.array(self[3:], dtype=np.float64))[0]
        matrix[:3, 3] = self[:3]
        return matrix

    def __matmul__(self, other: Pose) -> Pose:
        """Compose: `other`, given in this pose's frame, in the frame this pose is given in."""
        return Pose.from_matrix(self.matrix() @ other.matrix())

    def inverse(self) -> Pose:
        """Return the pose that undoes this one."""
        matrix = self.matrix()
        inverse = np.eye(4)
        inverse[:3, :3] = matrix[:3, :3].T
        inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
        return Pose.from_matrix(inverse)

    def raised(self, height_m: float) -> Pose:
        """Return the same orientation `height_m` higher along the base's z axis."""
        return self._replace(z=self.z + height_m)

    def distance_m(self, other: Pose) -> float:
        """Distance between the two positions."""
        return math.dist(self[:3], other[:3])

    def angle_rad(self, other: Pose) -> float:
        """Angle of the rotation between the two, safe where rotation vectors flip sign."""
        between = self.matrix()[:3, :3].T @ other.matrix()[:3, :3]
        return float(np.linalg.norm(cv2.Rodrigues(between)[0]))

    def interpolate(self, other: Pose, fraction: float) -> Pose:
        """Return the pose at `fraction` of the line: position linear, rotation about one axis."""
        start, end = self.matrix(), other.matrix()
        turn = cv2.Rodrigues(start[:3, :3].T @ end[:3, :3])[0]
        between = np.eye(4)
        between[:3, :3] = start[:3, :3] @ cv2.Rodrigues(turn * fraction)[0]
        between[:3, 3] = start[:3, 3] + fraction * (end[:3, 3] - start[:3, 3])
        return Pose.from_matrix(between)
