"""A whole arm in memory, for the pure logic of MotionGuard and Gate."""

from __future__ import annotations

import math
from collections.abc import Callable

from station.config import Box, KeepOut, MotionLimits
from station.devices import INPUTS, RobotInfo, RobotStatus
from station.errors import DeviceError, DeviceTimeout
from station.geometry import Pose
from station.kinematics import Joints, forward, inverse

TCP = Pose(0.0, 0.0, 0.1, 0.0, 0.0, 0.0)
ELBOW_UP = Joints(-1.6, -1.4, -1.8, -1.5, 1.57, 0.0)
HOME = Pose(0.0, -0.45, 0.40, math.pi, 0.0, 0.0)


class ArmDouble:
    """Arrives at once; what it was asked is kept in `moves`, what it drove in `lines`."""

    def __init__(self, pose: Pose = HOME) -> None:
        joints = inverse(pose @ TCP.inverse(), ELBOW_UP)
        assert joints is not None
        self.pose = pose
        self.joints = joints
        self.safety = "normal"
        self.slider = 1.0
        self._inputs = 0
        self._falls = [0] * INPUTS
        self.outputs = 0
        self.moves: list[tuple[Pose, float, float, float]] = []
        self.lines: list[int] = []
        self.miss = Pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self.trouble: BaseException | None = None
        self.trouble_with_outputs = False
        self.on_output: Callable[[int], None] = lambda _: None

    device = "robot"

    @property
    def inputs(self) -> int:
        return self._inputs

    @inputs.setter
    def inputs(self, inputs: int) -> None:
        for line in range(INPUTS):
            self._falls[line] += (self._inputs & ~inputs) >> line & 1
        self._inputs = inputs

    def info(self) -> RobotInfo:
        return RobotInfo("3.15", TCP, 1.2)

    def status(self) -> RobotStatus:
        pose = Pose(*(a + b for a, b in zip(self.pose, self.miss, strict=True)))
        return RobotStatus(
            pose=pose,
            joints=self.joints,
            robot_mode="running",
            safety_mode=self.safety,
            program_running=True,
            steady=True,
            speed_slider=self.slider,
            inputs=self.inputs,
            outputs=self.outputs,
            age_s=0.0,
            falls=tuple(self._falls),
        )

    def move(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, deadline_s: float
    ) -> RobotStatus:
        self.moves.append((pose, speed_m_s, acceleration_m_s2, deadline_s))
        if self.trouble is not None:
            raise self.trouble
        joints = inverse(pose @ TCP.inverse(), self.joints)
        if joints is None:
            raise DeviceError("robot", "cannot go there")
        self.pose, self.joints = pose, joints
        return self.status()

    def reachable(self, pose: Pose) -> bool:
        return inverse(pose @ TCP.inverse(), self.joints) is not None

    def forward(self, joints: Joints) -> Pose:
        return forward(joints) @ TCP

    def set_outputs(self, values: dict[int, bool], deadline_s: float) -> None:
        """Drive one line after the other, as a controller does; never late."""
        assert deadline_s > 0
        if self.trouble_with_outputs:
            raise DeviceTimeout("robot", "the line does not rise")
        for line, value in values.items():
            before = self.outputs
            self.outputs = before | 1 << line if value else before & ~(1 << line)
            if self.outputs != before:
                self.lines.append(self.outputs)
                self.on_output(self.outputs)


def limits(
    *keep_out: KeepOut,
    low: tuple[float, float, float] = (-0.35, -0.75, 0.10),
    high: tuple[float, float, float] = (0.35, -0.20, 0.70),
    corners: tuple[tuple[float, float, float], ...] = (),
) -> MotionLimits:
    """The shipped cell's limits, with other boxes."""
    return MotionLimits(
        workspace=Box(min_m=low, max_m=high),
        keep_out=keep_out,
        tool_corners_m=corners,
        speed_limit_m_s=0.25,
        acceleration_limit_m_s2=1.2,
        joint_speed_limit_rad_s=1.5,
        pose_tolerance_m=0.001,
        pose_tolerance_rad=0.01,
    )
