"""A UR5's motion and safety state, stepped by dt: no sockets, no clock, no program."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from station.geometry import Pose
from station.kinematics import JOINT_LIMIT_RAD, Joints, forward, inverse

JOINT_SPEED_LIMIT_RAD_S = 3.2  # 183 degrees a second, where a real UR5 trips
SAFETY_STOP_S = 0.2
EMERGENCY_STOP_S = 0.1
TURN_AS_TRAVEL_M = 0.2  # a line that mostly turns is paced by its angle, as if at this lever
SETTLING_RAD_S = 0.02  # what the joints still report until the camera has its picture
STILL = Joints.of([0.0] * 6)


class Safety(IntEnum):
    """Safety modes, numbered as RTDE reports them."""

    NORMAL = 1
    REDUCED = 2
    PROTECTIVE_STOP = 3
    SAFEGUARD_STOP = 5
    ROBOT_EMERGENCY_STOP = 7


class Mode(IntEnum):
    """Robot modes, numbered as RTDE reports them."""

    POWER_OFF = 3
    POWER_ON = 4
    IDLE = 5
    RUNNING = 7


@dataclass
class Path:
    """A way from rest to rest: `at(fraction)` is None where the arm cannot follow."""

    at: Callable[[float], Joints | None]
    length: float
    speed: float
    acceleration: float
    goal: Joints | None


class Arm:
    """Follows one path at a time; its trapezoidal profile obeys slider, stops and holds.

    A move stays `busy` after the arm has come to rest until `release` is called: whoever owns
    the camera calls it once the picture for the resting pose can be taken.
    """

    def __init__(self, joints: Joints, tool: Pose, payload_kg: float) -> None:
        self.joints = joints
        self.joint_speeds = STILL
        self.tool = tool  # where the tool really is on the flange
        self.tcp = tool  # where the controller believes it is
        self.payload_kg = payload_kg
        self.slider = 1.0
        self.offset_m = (0.0, 0.0, 0.0)  # a fault: every later target is missed by this
        self.mode = Mode.RUNNING
        self.safety = Safety.NORMAL
        self.busy = False
        self.flange = forward(joints)
        self.tcp_speed = [0.0] * 6
        self._path: Path | None = None
        self._next: Callable[[], Path] | None = None
        self._travelled = 0.0
        self._velocity = 0.0
        self._brake: float | None = None
        self._held = False

    @property
    def tcp_pose(self) -> Pose:
        """Return the pose of the TCP the controller believes in."""
        return self.flange @ self.tcp

    @property
    def tool_pose(self) -> Pose:
        """Return where the tool truly is."""
        return self.flange @ self.tool

    @property
    def destination(self) -> Joints | None:
        """Return where the present path ends, or None if it will not get there."""
        if self._path is None or self._held or self._brake is not None or self._next is not None:
            return None
        return self._path.goal

    @property
    def at_rest(self) -> bool:
        """Tell whether the arm stands still and will stay so until told otherwise."""
        if self._velocity > 0 or self._next is not None:
            return False
        return self._path is None or self._held or self._travelled >= self._path.length

    @property
    def held(self) -> bool:
        """Tell whether a path is waiting to be continued."""
        return self._held

    def solve(self, tcp_pose: Pose, near: Joints | None = None) -> Joints | None:
        """Return joints that bring the TCP there, nearest to `near` or to where they are."""
        if not all(map(math.isfinite, tcp_pose)):
            return None
        return inverse(tcp_pose @ self.tcp.inverse(), self.joints if near is None else near)

    def move_joints(self, target: Joints, speed: float, acceleration: float) -> None:
        """Go there with every joint arriving together; the leading joint sets the pace."""
        self._begin(lambda: self._joint_path(target, speed, acceleration))

    def move_line(self, target: Pose, speed: float, acceleration: float) -> None:
        """Bring the TCP there in a straight line."""
        self._begin(lambda: self._line_path(target, speed, acceleration))

    def stop(self, deceleration: float) -> None:
        """Come to rest along the present path and forget the rest of it."""
        self._next = None
        self._held = False
        if self._path is None:
            return
        self._brake = max(deceleration, 0.1)
        if self._velocity <= 0:
            self._rest()

    def hold(self, seconds: float = SAFETY_STOP_S) -> None:
        """Come to rest along the present path within that time, ready to continue it."""
        self._next = None
        if self._path is not None and not self._held:
            self._held = True
            self._brake = max(self._velocity / seconds, 1e-3)

    def resume(self) -> None:
        """Continue the path that was held: only a person asks for this."""
        self._held = False
        self._brake = None

    def release(self) -> None:
        """Report arrival; only at rest, and never while held."""
        if self.at_rest and not self._held:
            self._path = None
            self.busy = False

    def step(self, dt: float) -> None:
        """Advance by `dt` seconds."""
        before, flange = self.joints, self.flange
        if self._path is not None and not (self._held and self._velocity <= 0):
            self._advance(self._path, dt)
        if self.joints != before:
            self.flange = forward(self.joints)
            self.joint_speeds = Joints(
                *((b - a) / dt for a, b in zip(before, self.joints, strict=True))
            )
            self.tcp_speed = _speed(flange @ self.tcp, self.tcp_pose, dt)
        elif self.busy and not self._held:
            self.joint_speeds = Joints.of([SETTLING_RAD_S] * 6)
            self.tcp_speed = [SETTLING_RAD_S, 0.0, 0.0, 0.0, 0.0, 0.0]
        else:
            self.joint_speeds = STILL
            self.tcp_speed = [0.0] * 6

    def trip(self, safety: Safety) -> None:
        """Enter a safety stop: hold the path; an emergency stop forgets it and cuts power."""
        self.safety = safety
        if safety is Safety.ROBOT_EMERGENCY_STOP:
            self.mode = Mode.POWER_OFF
            self.stop(max(self._velocity / EMERGENCY_STOP_S, 0.1))
        else:
            self.hold()

    def place(self, joints: Joints) -> None:
        """Be elsewhere at once: a person has moved the arm."""
        self._rest()
        self._path = None
        self.joints, self.flange = joints, forward(joints)

    def allows(self, joints: Joints) -> bool:
        """Tell whether these angles lie within the joint limits."""
        return all(abs(angle) <= JOINT_LIMIT_RAD for angle in joints)

    def _begin(self, plan: Callable[[], Path]) -> None:
        self.busy = True
        self._held = False
        if self._velocity > 0:  # the old move is braked first, as the controller does
            self._brake = max(self._velocity / EMERGENCY_STOP_S, 0.1)
            self._next = plan
        else:
            self._start(plan)

    def _start(self, plan: Callable[[], Path]) -> None:
        self._next = None
        self._brake = None
        self._travelled = 0.0
        self._velocity = 0.0
        self._path = plan()

    def _advance(self, path: Path, dt: float) -> None:
        remaining = path.length - self._travelled
        if self._brake is not None:
            self._velocity = max(0.0, self._velocity - self._brake * dt)
        else:
            self._velocity = self._pace(path, remaining, dt)
        travelled = min(path.length, self._travelled + self._velocity * dt)
        joints = path.at(travelled / path.length if path.length > 0 else 1.0)
        if joints is None or not self._can_follow(joints, dt):
            self._velocity = 0.0
            self.trip(Safety.PROTECTIVE_STOP)
            return
        self.joints = joints
        self._travelled = travelled
        if travelled >= path.length:
            self._velocity = 0.0
        if self._velocity <= 0 and self._brake is not None:
            self._rest()

    def _pace(self, path: Path, remaining: float, dt: float) -> float:
        """Return the fastest speed that obeys limits and can still stop at the end.

        The braking curve is the discrete one, so the last step lands on the end exactly.
        """
        step = path.acceleration * dt
        if remaining <= step * dt:
            return remaining / dt
        stoppable = math.sqrt((step / 2) ** 2 + 2 * path.acceleration * remaining) - step / 2
        cruise = max(path.speed * self.slider, self._velocity - step)
        return min(self._velocity + step, cruise, stoppable)

    def _rest(self) -> None:
        """Braking has ended: stay held, begin the move that waited, or forget the path."""
        self._brake = None
        self._velocity = 0.0
        if self._next is not None:
            self._start(self._next)
        elif not self._held:
            self._path = None

    def _can_follow(self, joints: Joints, dt: float) -> bool:
        if not self.allows(joints):
            return False
        return joints.largest_step_rad(self.joints) <= JOINT_SPEED_LIMIT_RAD_S * dt

    def _joint_path(self, target: Joints, speed: float, acceleration: float) -> Path:
        start, goal = self.joints, self._missed(target)
        change = [b - a for a, b in zip(start, goal, strict=True)]

        def at(fraction: float) -> Joints:
            return Joints(*(a + fraction * d for a, d in zip(start, change, strict=True)))

        length = max(abs(d) for d in change)
        speed = min(speed, JOINT_SPEED_LIMIT_RAD_S * 0.98)
        return Path(at, length, speed, acceleration, goal if self.allows(goal) else None)

    def _line_path(self, target: Pose, speed: float, acceleration: float) -> Path:
        start, goal = self.tcp_pose, _shifted(target, self.offset_m)

        def at(fraction: float) -> Joints | None:
            return self.solve(goal if fraction >= 1 else start.interpolate(goal, fraction))

        length = max(start.distance_m(goal), start.angle_rad(goal) * TURN_AS_TRAVEL_M)
        return Path(at, length, speed, acceleration, self.solve(goal))

    def _missed(self, target: Joints) -> Joints:
        if self.offset_m == (0.0, 0.0, 0.0):
            return target
        return inverse(_shifted(forward(target), self.offset_m), target) or target


def _shifted(pose: Pose, offset_m: tuple[float, float, float]) -> Pose:
    x, y, z = offset_m
    return pose._replace(x=pose.x + x, y=pose.y + y, z=pose.z + z)


def _speed(before: Pose, after: Pose, dt: float) -> list[float]:
    turn = cv2.Rodrigues(after.matrix()[:3, :3] @ before.matrix()[:3, :3].T)[0].ravel()
    return [
        *((b - a) / dt for a, b in zip(before[:3], after[:3], strict=True)),
        *(np.asarray(turn) / dt),
    ]
