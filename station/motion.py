"""MotionGuard: checks every target and is the only caller of `robot.move`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from station.config import MotionLimits
from station.devices import Robot, RobotStatus
from station.errors import DeviceError, MoveRefused
from station.geometry import Pose
from station.kinematics import JOINT_LIMIT_RAD, Joints, inverse
from station.recipe import Leg

SAMPLE_M = 0.005
SAMPLE_RAD = math.radians(2)
TURN_RAD_S = 1.0  # how fast the tool is taken to turn where the line itself is short
BRANCH_JUMP_RAD = math.radians(20)  # between neighbouring samples: the arm would swing round
ELSEWHERE = (
    "correct the recipe or the box; an arm that stands there already is moved at the pendant"
)
Points = dict[str, tuple[float, float, float]]

RETREAT_M_S = 0.03
RETREAT_M_S2 = 0.3
HEIGHT_M = 1e-3  # an arm this little below a height stands at it
DEADLINE_FACTOR = 3.0
DEADLINE_EXTRA_S = 5.0
SLOWEST_SLIDER = 0.05


class MotionGuard:
    """Lets the arm travel only where the cell file, its own state and its kinematics allow.

    After anything went wrong in a move it refuses all others: a person looks first.
    """

    def __init__(self, robot: Robot, limits: MotionLimits, tcp: Pose) -> None:
        self._robot = robot
        self._limits = limits
        self._lines = LineChecker(limits, tcp)
        self._trouble = ""

    def forward(self, joints: Joints) -> Pose:
        """Ask the controller where these joint angles put the tool."""
        return self._robot.forward(joints)

    def status(self) -> RobotStatus:
        """Return the arm's newest state."""
        return self._robot.status()

    def go(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, settle_s: float = 0.0
    ) -> RobotStatus:
        """Travel to pose in a straight line; return the state once steady and settled there."""
        if self._trouble:
            raise MoveRefused(
                "motion", f"no move after: {self._trouble}", "clear the cause, then start again"
            )
        speed_m_s = min(speed_m_s, self._limits.speed_limit_m_s)
        acceleration_m_s2 = min(acceleration_m_s2, self._limits.acceleration_limit_m_s2)
        status = self._robot.status()
        if status.safety_mode not in {"normal", "reduced"}:
            raise MoveRefused(
                "motion", f"the robot is in {status.safety_mode}", "clear it at the pendant"
            )
        self._lines.check(status.pose, status.joints, pose, speed_m_s)
        travel_s = status.pose.distance_m(pose) / speed_m_s
        turn_s = status.pose.angle_rad(pose) / TURN_RAD_S
        expected_s = max(travel_s, turn_s) + 2 * speed_m_s / acceleration_m_s2
        slider = max(status.speed_slider, SLOWEST_SLIDER)
        deadline_s = DEADLINE_EXTRA_S + DEADLINE_FACTOR * expected_s / slider
        try:
            reached = self._robot.move(pose, speed_m_s, acceleration_m_s2, deadline_s)
            time.sleep(settle_s)
            self._check_reached(pose, reached)
        except DeviceError as error:
            self._trouble = str(error)
            raise
        except BaseException:
            self._trouble = "a move was interrupted"
            raise
        return reached

    def check_ready(self) -> None:
        """Raise where the arm could not be moved now: a stop is noticed though nothing moves."""
        self._robot.status().check_ready(self._robot.device)

    def stands_below(self, z_m: float) -> bool:
        """Tell whether the arm stands lower than that."""
        return self._robot.status().pose.z < z_m - HEIGHT_M

    def retreat(self, z_m: float) -> None:
        """Go slowly straight up to a height, from where the arm really stands."""
        self.go(self._robot.status().pose._replace(z=z_m), RETREAT_M_S, RETREAT_M_S2)

    def check_route(self, legs: Iterable[Leg]) -> None:
        """Walk a whole route in thought, from where the arm stands; raise where it cannot go."""
        status = self._robot.status()
        self._lines.check_route(status.pose, status.joints, legs)

    def _check_reached(self, asked: Pose, status: RobotStatus) -> None:
        away_m, turned_rad = asked.distance_m(status.pose), asked.angle_rad(status.pose)
        known = all(map(math.isfinite, status.pose))
        near = known and away_m <= self._limits.pose_tolerance_m
        if not (near and turned_rad <= self._limits.pose_tolerance_rad):
            raise DeviceError(
                self._robot.device,
                f"stands {away_m * 1e3:.2f} mm and {math.degrees(turned_rad):.2f}° from its "
                f"target, at {_place(status.pose)}",
                "check payload, mounting and brakes before starting again",
            )


class LineChecker:
    """Walks a straight line in thought: asks no robot, so `station check` uses it too."""

    def __init__(self, limits: MotionLimits, tcp: Pose) -> None:
        self._limits = limits
        self._flange_from_tool = tcp.inverse()

    def check_route(self, place: Pose, joints: Joints, legs: Iterable[Leg]) -> None:
        """Check line after line; the refusal says on which way."""
        for leg in legs:
            speed_m_s = min(leg.speed_m_s, self._limits.speed_limit_m_s)
            try:
                joints = self.check(place, joints, leg.pose, speed_m_s)
            except MoveRefused as error:
                raise MoveRefused(
                    error.device, f"on the way {leg.name}: {error.problem}", error.advice
                ) from error
            place = leg.pose

    def check(self, start: Pose, joints: Joints, end: Pose, speed_m_s: float) -> Joints:
        """Return the joints at the end of a line, or raise MoveRefused with the reason."""
        if not all(map(math.isfinite, end)):
            raise MoveRefused("motion", "the target is not finite")
        if not all(map(math.isfinite, (*start, *joints))):
            raise MoveRefused("motion", "the robot does not tell where it stands")
        self._check_inside(end, slack_m=0.0)
        length_m, turn_rad = start.distance_m(end), start.angle_rad(end)
        steps = max(1, math.ceil(length_m / SAMPLE_M), math.ceil(turn_rad / SAMPLE_RAD))
        step_s = max(length_m / speed_m_s, turn_rad / TURN_RAD_S) / steps
        before = self._tool_points(start)
        for index in range(steps + 1):
            pose = start.interpolate(end, index / steps)
            # Where the arm was measured to stand may be off by the tolerance; its target may not.
            self._check_inside(pose, slack_m=self._limits.pose_tolerance_m)
            points = self._tool_points(pose)
            self._check_keep_out(before, points, pose)
            before = points
            found = inverse(pose @ self._flange_from_tool, joints)
            if found is None:
                raise MoveRefused("motion", f"{_place(pose)} is out of the arm's reach")
            if index:
                self._check_joints(joints, found, step_s, pose)
            joints = found
        return joints

    def _check_inside(self, pose: Pose, slack_m: float) -> None:
        box = self._limits.workspace
        for name, point in self._tool_points(pose).items():
            for axis, low, value, high in zip("xyz", box.min_m, point, box.max_m, strict=True):
                if not low - slack_m <= value <= high + slack_m:
                    span = f"{low * 1e3:.0f} to {high * 1e3:.0f} mm"
                    raise MoveRefused(
                        "motion",
                        f"{name} would leave the workspace at {_place(pose)}: "
                        f"{axis} {value * 1e3:.1f} mm is not within {span}",
                        ELSEWHERE,
                    )

    def _check_keep_out(self, before: Points, after: Points, pose: Pose) -> None:
        for box in self._limits.keep_out:
            for name, point in after.items():
                if box.meets(before[name], point):
                    raise MoveRefused(
                        "motion",
                        f"{name} would enter keep-out box {box.name!r} at {_place(pose)}",
                        ELSEWHERE,
                    )

    def _check_joints(self, before: Joints, after: Joints, step_s: float, pose: Pose) -> None:
        step_rad = before.largest_step_rad(after)
        if max(abs(q) for q in after) > JOINT_LIMIT_RAD:
            raise MoveRefused("motion", f"{_place(pose)} needs a joint beyond its limit")
        if step_rad > BRANCH_JUMP_RAD:
            raise MoveRefused("motion", f"a joint would have to swing round at {_place(pose)}")
        if step_s > 0 and step_rad / step_s > self._limits.joint_speed_limit_rad_s:
            raise MoveRefused(
                "motion",
                f"a joint would turn at {step_rad / step_s:.1f} rad/s at {_place(pose)}",
                "slow down",
            )

    def _tool_points(self, pose: Pose) -> Points:
        matrix = pose.matrix()
        points = {"the tool": (pose.x, pose.y, pose.z)}
        for number, corner in enumerate(self._limits.tool_corners_m, start=1):
            x, y, z, _ = matrix @ (*corner, 1.0)
            points[f"tool corner {number}"] = (float(x), float(y), float(z))
        return points


def _place(pose: Pose) -> str:
    # A place may be unknown (not a number); and -0 is no place of its own.
    x, y, z = (f"{value * 1e3:.0f}".removeprefix("-0") or "0" for value in pose[:3])
    return f"x {x} y {y} z {z} mm"
