"""The control script ur_rtde uploads: its framing, and the handshake it speaks in registers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from station.geometry import Pose
from station.kinematics import Joints, forward
from station.sim.arm import Arm, Safety
from station.sim.journal import Journal

REGISTERS = 48
MARK = "# RTDE Control script"
_NUMBER = r"[-+0-9.eE]+"
_MOVE = re.compile(rf"^\s*(movej|movel|movep)\((p?)\[([^\]]*)\],a=({_NUMBER}),v=({_NUMBER})")
_READY, _DONE = 1, 2
_STOP_SCRIPT = 255
_END = object()
# Processed on every cycle while they stand in the register, without the answer "done".
_REALTIME = frozenset({6, 9, 10, 11, 24, 25, 26, 27, 38, 58, 66, 67, 68, 69, 70, 71})


class Registers:
    """General purpose registers, shared by the program and every RTDE client."""

    def __init__(self) -> None:
        self.int_in = [0] * REGISTERS
        self.double_in = [0.0] * REGISTERS
        self.int_out = [0] * REGISTERS
        self.double_out = [0.0] * REGISTERS
        self.written = [0.0] * REGISTERS
        """When each integer input was last written, for the watchdog.

        In the controller's time: a machine that has no time for the simulator does not count."""


class ScriptError(Exception):
    """The program died, as a URScript program does of a runtime error."""


class Command(NamedTuple):
    """A command's name, how many doubles it reads, and whether it reads the first integer."""

    name: str
    doubles: int
    flag: bool = False


class Waypoint(NamedTuple):
    """One move of a path that was written into the script."""

    straight: bool
    cartesian: bool
    target: tuple[float, ...]
    acceleration: float
    speed: float


COMMANDS = {
    1: Command("moveJ", 8, flag=True),
    2: Command("moveJ_IK", 8, flag=True),
    3: Command("moveL", 8, flag=True),
    4: Command("moveL_FK", 8, flag=True),
    8: Command("zeroFtSensor", 0),
    17: Command("setPayload", 4),
    26: Command("getStepTime", 0),
    29: Command("setTcp", 6),
    30: Command("getInverseKinematics", 14),
    31: Command("triggerProtectiveStop", 0),
    33: Command("stopL", 1, flag=True),
    34: Command("stopJ", 1, flag=True),
    35: Command("setWatchdog", 1),
    36: Command("isPoseWithinSafetyLimits", 6),
    37: Command("isJointsWithinSafetyLimits", 6),
    38: Command("getJointTorques", 0),
    39: Command("poseTrans", 12),
    40: Command("getTCPOffset", 0),
    43: Command("getForwardKinematics", 0),
    44: Command("getForwardKinematics", 12),
    45: Command("movePath", 0, flag=True),
    46: Command("getInverseKinematics", 6),
    47: Command("isSteady", 0),
    58: Command("getActualToolFlangePose", 0),
    60: Command("getInverseKinematicsHasSolution", 6),
    61: Command("getInverseKinematicsHasSolution", 14),
}


def framed(buffer: str) -> tuple[str | None, str]:
    """Take one whole program off a buffer: `def` or `sec` in column 1, up to `end` there."""
    start = re.search(r"^(def|sec) ", buffer, re.MULTILINE)
    if start is None:
        return None, buffer
    end = re.search(r"^end[ \t\r]*\n", buffer[start.start() :], re.MULTILINE)
    if end is None:
        return None, buffer
    stop = start.start() + end.end()
    return buffer[start.start() : stop], buffer[stop:]


class ControlScript:
    """One run of the uploaded program: main thread, asynchronous move, watchdog."""

    def __init__(self, text: str, arm: Arm, registers: Registers, journal: Journal) -> None:
        self._arm = arm
        self._registers = registers
        self._journal = journal
        offset = re.search(r"# int register offset\s*\n\s*(\d+)", text)
        self._offset = int(offset.group(1)) if offset else 0
        self._waypoints = [
            _waypoint(match) for match in map(_MOVE.match, text.splitlines()) if match
        ]
        self._main: Iterator[None] | None = None
        self._thread: Iterator[None] | None = None
        self._executed = False
        self._operation = 0
        self._writes = 0
        self._deadline_s: float | None = None
        self._table = self._handlers()
        self._signal(-1)
        self._answer(_READY)

    def cycle(self) -> bool:
        """Run one control cycle; False when the program ended by itself."""
        command = self._registers.int_in[self._offset]
        if self._main is None and command == _STOP_SCRIPT:
            return False
        if self._main is None and command in _REALTIME:
            for _ in self._execute(command):
                pass
            self._answer(_READY)
        elif self._main is None and command == 0:
            self._executed = False
            self._answer(_READY)
        elif self._main is None and not self._executed:
            self._main = self._execute(command)
        if self._main is not None and _finished(self._main):
            self._main = None
            self._executed = True
            self._answer(_DONE)
        if self._thread is not None and _finished(self._thread):
            self._thread = None
        return True

    def is_overdue(self, now: float) -> bool:
        """Tell whether the watchdog was set and its register has not been written in time."""
        if self._deadline_s is None:
            return False
        return now - self._registers.written[self._offset] > self._deadline_s

    def _execute(self, code: int) -> Iterator[None]:
        command = COMMANDS.get(code)
        if command is None:
            raise ScriptError(f"command {code} is not simulated")
        arguments: list[float] = self._doubles(0, command.doubles)
        if command.flag:
            arguments.append(self._int(1))
        if code not in _REALTIME:
            self._journal.write("command", name=command.name, args=arguments)
        if not all(map(math.isfinite, arguments)):
            raise ScriptError(f"{command.name}: an argument is not finite")
        yield from self._table[code]() or ()

    def _handlers(self) -> dict[int, Callable[[], Iterator[None] | None]]:
        return {
            1: lambda: self._move(self._to_joints),
            2: lambda: self._move(self._to_joints_of_pose),
            3: lambda: self._move(self._to_pose),
            4: lambda: self._move(self._to_pose_of_joints),
            8: lambda: None,
            17: self._set_payload,
            26: lambda: None,  # this software version has no get_steptime
            29: self._set_tcp,
            30: lambda: self._send(self._solved(self._pose(0), self._joints(6))),
            31: lambda: self._arm.trip(Safety.PROTECTIVE_STOP),
            33: self._stop,
            34: self._stop,
            35: self._set_watchdog,
            36: lambda: self._tell(self._arm.solve(self._pose(0)) is not None),
            37: lambda: self._tell(self._arm.allows(self._joints(0))),
            38: lambda: self._send([0.0] * 6),
            39: lambda: self._send(self._pose(0) @ self._pose(6)),
            40: lambda: self._send(self._arm.tcp),
            43: lambda: self._send(self._arm.tcp_pose),
            44: lambda: self._send(forward(self._joints(0)) @ self._pose(6)),
            45: self._move_path,
            46: lambda: self._send(self._solved(self._pose(0), self._arm.joints)),
            47: lambda: self._tell(not self._arm.busy),
            58: lambda: self._send(self._arm.flange),
            60: lambda: self._tell(self._arm.solve(self._pose(0)) is not None),
            61: lambda: self._tell(self._arm.solve(self._pose(0), self._joints(6)) is not None),
        }

    # Moves. A thread is a generator that yields once per control cycle.

    def _move(self, begin: Callable[[], None]) -> Iterator[None]:
        speed, acceleration = self._doubles(6, 2)
        if speed <= 0 or acceleration <= 0:
            raise ScriptError("speed and acceleration must be above zero")
        self._kill_thread()
        if self._int(1) == 1:
            # the target is read now: the registers may change before the thread's first cycle
            begin()
            self._thread = self._moving()
            return
        begin()
        yield from self._until_idle()

    def _moving(self) -> Iterator[None]:
        self._signal(0)
        yield from self._until_idle()
        self._signal(-1)

    def _to_joints(self) -> None:
        self._arm.move_joints(self._joints(0), *self._doubles(6, 2))

    def _to_joints_of_pose(self) -> None:
        self._arm.move_joints(self._solved(self._pose(0), self._arm.joints), *self._doubles(6, 2))

    def _to_pose(self) -> None:
        self._arm.move_line(self._pose(0), *self._doubles(6, 2))

    def _to_pose_of_joints(self) -> None:
        self._arm.move_line(forward(self._joints(0)) @ self._arm.tcp, *self._doubles(6, 2))

    def _move_path(self) -> Iterator[None]:
        self._kill_thread()
        if self._int(1) == 1:
            self._thread = self._follow(self._waypoints)
            return
        yield from self._follow(self._waypoints)

    def _follow(self, waypoints: list[Waypoint]) -> Iterator[None]:
        """Go from waypoint to waypoint; blends are not simulated, the arm stops at each."""
        self._signal(0)
        for index, waypoint in enumerate(waypoints):
            self._signal(index)
            pace = (waypoint.speed, waypoint.acceleration)
            if waypoint.straight and waypoint.cartesian:
                self._arm.move_line(Pose.of(waypoint.target), *pace)
            elif waypoint.straight:
                target = forward(Joints.of(waypoint.target)) @ self._arm.tcp
                self._arm.move_line(target, *pace)
            elif waypoint.cartesian:
                goal = self._solved(Pose.of(waypoint.target), self._arm.joints)
                self._arm.move_joints(goal, *pace)
            else:
                self._arm.move_joints(Joints.of(waypoint.target), *pace)
            yield from self._until_idle()
        self._signal(-1)

    def _stop(self) -> Iterator[None]:
        deceleration = self._doubles(0, 1)[0]
        self._kill_thread()
        self._arm.stop(deceleration)
        if self._int(1) == 1:
            self._thread = self._moving()
            return
        yield from self._until_idle()

    def _until_idle(self) -> Iterator[None]:
        while self._arm.busy:
            yield

    def _kill_thread(self) -> None:
        if self._thread is not None:
            self._thread = None
            self._signal(-1)

    # Settings.

    def _set_payload(self) -> None:
        self._arm.payload_kg = self._doubles(0, 1)[0]

    def _set_tcp(self) -> None:
        self._arm.tcp = self._pose(0)

    def _set_watchdog(self) -> None:
        frequency_hz = self._doubles(0, 1)[0]
        self._deadline_s = 1 / frequency_hz if frequency_hz > 0 else None

    def _solved(self, pose: Pose, near: Joints) -> Joints:
        solution = self._arm.solve(pose, near)
        if solution is None:
            raise ScriptError("get_inverse_kin found no solution")
        return solution

    # Registers.

    def _int(self, index: int) -> int:
        return self._registers.int_in[self._offset + index]

    def _doubles(self, first: int, count: int) -> list[float]:
        start = self._offset + first
        return self._registers.double_in[start : start + count]

    def _pose(self, first: int) -> Pose:
        return Pose.of(self._doubles(first, 6))

    def _joints(self, first: int) -> Joints:
        return Joints.of(self._doubles(first, 6))

    def _answer(self, value: int) -> None:
        self._registers.int_out[self._offset] = value

    def _tell(self, value: bool) -> None:
        self._registers.int_out[self._offset + 1] = int(value)

    def _send(self, values: list[float] | Pose | Joints) -> None:
        self._registers.double_out[self._offset : self._offset + 6] = list(values)

    def _signal(self, progress: int) -> None:
        """Write the word on asynchronous moves: operation, write count, running, progress.

        As in the script, progress 0 begins an operation and a negative one ends it.
        """
        self._writes = (self._writes + 1) % 128
        if progress == 0:
            self._operation = (self._operation + 1) % 128
        word = self._operation << 24 | self._writes << 16
        if progress >= 0:
            word |= 1 << 15 | progress
        self._registers.int_out[self._offset + 2] = word


def _waypoint(match: re.Match[str]) -> Waypoint:
    kind, pose, numbers, acceleration, speed = match.groups()
    target = tuple(float(number) for number in numbers.split(","))
    return Waypoint(kind != "movej", pose == "p", target, float(acceleration), float(speed))


def _finished(thread: Iterator[None]) -> bool:
    return next(thread, _END) is _END
