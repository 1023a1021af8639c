"""The process ur_rtde lives in: asynchronous moves only, watched for freshness and safety."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from rtde_control import RTDEControlInterface
from rtde_io import RTDEIOInterface

from station.devices import MAY_MOVE, RobotInfo, RobotStatus
from station.devices.ur import dashboard
from station.devices.ur_link import POLL_S, Link, millimetres
from station.errors import DeviceError, DeviceTimeout, RobotStopped
from station.geometry import Pose
from station.kinematics import Joints
from station.worker import die_with_parent

STALL_S = 2.0
# Less than the slowest move turns some joint in that time, more than encoder noise.
STALL_RAD = 2e-4
NEAR_M = 2e-3
NEAR_RAD = 0.02
WATCHDOG_HZ = 4.0  # the controller stops its program after 250 ms without a word from us
STEADY_SAMPLES = 3
STOP_M_S2 = 2.0

_CLEAR = "clear the cause at the pendant, then start again"
_REMOTE = "switch the pendant to Remote Control"


P = ParamSpec("P")
R = TypeVar("R")


def _translated(method: Callable[Concatenate[Server, P], R]) -> Callable[Concatenate[Server, P], R]:
    """Raise what ur_rtde says of a broken link as the station's own error."""

    @functools.wraps(method)
    def call(self: Server, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except RuntimeError as error:
            told = str(error).strip().rstrip(".")
            raise DeviceTimeout(
                self.device, f"the connection was lost ({told})", "check cable and controller"
            ) from error

    return call


class Server:
    """Answers the requests of `UrRobot`; nothing here retries, resumes or unlocks anything."""

    idle_s = 0.02

    def __init__(self, host: str, device: str, control: bool) -> None:
        os.dup2(2, 1)  # ur_rtde prints; standard output is for results
        self._host = host
        self.device = device
        self._link = Link(host, device)
        self._control: RTDEControlInterface | None = None
        self._io: RTDEIOInterface | None = None
        if control:
            self._control = self._take_control()
            self._link.quiet_watchdog = self._control.kickWatchdog
            self._io = RTDEIOInterface(host)
        # From here on the arm is stopped before this process ends, so the parent's death is handled
        # by the link and by the controller's watchdog, not by the kernel.
        die_with_parent(0)
        self._link.watch()
        if control:
            self._link.pendant.watch()

    def idle(self) -> None:
        """Between requests: note inputs that fall; watchdog quiet while the parent is alive."""
        self._link.attend()

    @_translated
    def info(self) -> RobotInfo:
        """Return version, tool and payload as installed on the controller."""
        version = dashboard(self._host, "PolyscopeVersion")
        tcp = Pose.of(self._controls().getTCPOffset())
        return RobotInfo(version, tcp, self._link.payload_kg())

    @_translated
    def status(self) -> RobotStatus:
        """Return the newest state."""
        return self._link.status()

    @_translated
    def move(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, deadline_s: float
    ) -> RobotStatus:
        """Go to pose in a straight line; return the state once steady there.

        After anything that ends it early the program is ended too: one that a light curtain paused
        would go on with the line once the curtain is free.
        """
        control = self._controls()
        self._link.status_from_now().check_may_begin(self.device)  # no move begins on old data
        try:
            return self._move(control, pose, speed_m_s, acceleration_m_s2, deadline_s)
        except DeviceTimeout:
            raise  # the link is lost: whoever asked ends this process and stops the program
        except DeviceError:
            self._link.stop_program()
            raise

    def _move(
        self,
        control: RTDEControlInterface,
        pose: Pose,
        speed_m_s: float,
        acceleration_m_s2: float,
        deadline_s: float,
    ) -> RobotStatus:
        end = time.monotonic() + deadline_s
        before = control.getAsyncOperationProgressEx().operationId()
        if not control.moveL(list(pose), speed_m_s, acceleration_m_s2, True):
            # ur_rtde may know of a stop before the state that tells of it is here.
            self._link.status_from_now().check_ready(self.device)
            raise DeviceError(self.device, "did not take the move", "look at the pendant's log")
        steady = 0
        stamp = self._link.stamp
        progress = _Progress(pose)
        while True:
            self._link.check_parent()
            try:
                status = self._check_moving_allowed()
            except RobotStopped:
                if not self._link.pendant.remote:  # it still plays, but is no longer ours to play
                    self._stop()
                raise
            self._link.kick()
            operation = control.getAsyncOperationProgressEx()
            arrived = operation.operationId() != before and not operation.isAsyncOperationRunning()
            if self._link.stamp != stamp:  # count samples of the controller, not our own polls
                stamp = self._link.stamp
                steady = steady + 1 if arrived and status.steady else 0
            if steady >= STEADY_SAMPLES:
                return status
            if progress.stalled(status):
                self._stop()
                raise DeviceTimeout(
                    self.device,
                    f"stands still on its way at {millimetres(status.pose)} "
                    f"(speed slider {status.speed_slider:.0%})",
                    "raise the speed slider, look what holds the arm, then start again",
                )
            if time.monotonic() > end:
                self._stop()
                raise DeviceTimeout(
                    self.device,
                    f"move not done in {deadline_s:.1f} s (speed slider {status.speed_slider:.0%})",
                    "check the speed slider and the way of the arm",
                )
            time.sleep(POLL_S)

    @_translated
    def reachable(self, pose: Pose) -> bool:
        """Ask the controller whether it has a solution inside its safety limits."""
        control = self._controls()
        # The first question comes first: without a solution the second kills the control script.
        return bool(
            control.getInverseKinematicsHasSolution(list(pose))
            and control.isPoseWithinSafetyLimits(list(pose))
        )

    @_translated
    def forward(self, joints: Joints) -> Pose:
        """Ask the controller where these joint angles put the tool."""
        control = self._controls()
        tcp = control.getTCPOffset()
        if not any(tcp):
            tcp[2] = 1e-12  # an all-zero offset makes ur_rtde send a stale one
        return Pose.of(control.getForwardKinematics(list(joints), tcp))

    @_translated
    def set_outputs(self, values: dict[int, bool], deadline_s: float) -> None:
        """Set digital outputs and wait until the controller reports them so."""
        self._controls()
        if self._io is None:
            raise DeviceError(self.device, "was opened for reading only")
        if any(values.values()):
            # A line that rises is a statement: not about a robot that has stopped meanwhile, nor
            # of somebody else's.
            self._link.pendant.ask_now()
            self._link.status_from_now().check_may_begin(self.device)
        for line, value in values.items():
            if not self._io.setStandardDigitalOut(line, value):
                self._link.status_from_now().check_ready(self.device)
                raise DeviceError(
                    self.device, f"did not take digital output {line}", "check remote control"
                )
        end = time.monotonic() + deadline_s
        while True:
            outputs = self._link.status().outputs
            wrong = [line for line, value in values.items() if bool(outputs >> line & 1) != value]
            if not wrong:
                return
            if time.monotonic() > end:
                raise DeviceError(
                    self.device,
                    f"digital output {wrong[0]} does not read back as set",
                    "is another client or the pendant holding the output?",
                )
            self._link.kick()
            time.sleep(POLL_S)

    def close(self) -> None:
        """Stop the arm and the control script, then leave without ur_rtde's destructors."""
        self._link.leave()
        # Its destructors wait half a second each and abort the process after a lost link.
        os._exit(0)

    def _take_control(self) -> RTDEControlInterface:
        status = self._link.first_status()
        if status.safety_mode not in MAY_MOVE:
            raise RobotStopped(self.device, f"is in {status.safety_mode}", _CLEAR)
        if status.robot_mode != "running":
            raise DeviceError(
                self.device,
                f"robot mode is {status.robot_mode}",
                "switch the arm on and release the brakes",
            )
        if not self._link.pendant.ask():
            raise DeviceError(self.device, "is in local control", _REMOTE)
        try:
            control = RTDEControlInterface(self._host)
        except RuntimeError as error:
            raise _refused(self.device, str(error).strip()) from error
        if not control.setWatchdog(WATCHDOG_HZ):
            raise DeviceError(self.device, "did not take the watchdog", "restart the controller")
        return control

    def _controls(self) -> RTDEControlInterface:
        if self._control is None:
            raise DeviceError(self.device, "was opened for reading only")
        return self._control

    def _stop(self) -> None:
        control = self._controls()
        if control.isProgramRunning():
            control.stopL(STOP_M_S2, True)

    def _check_moving_allowed(self) -> RobotStatus:
        status = self._link.status()
        status.check_ready(self.device)
        return status


class _Progress:
    """Tells whether the arm comes on; at the target itself the move may take its time to end."""

    def __init__(self, target: Pose) -> None:
        self._target = target
        self._joints: Joints | None = None
        self._since = 0.0

    def stalled(self, status: RobotStatus) -> bool:
        """Note where the arm is; tell whether it has stood still on its way for too long."""
        away_m = self._target.distance_m(status.pose)
        near = away_m < NEAR_M and self._target.angle_rad(status.pose) < NEAR_RAD
        moved = self._joints is None or self._joints.largest_step_rad(status.joints) > STALL_RAD
        if near or moved:
            self._joints, self._since = status.joints, time.monotonic()
        return time.monotonic() - self._since > STALL_S


def _refused(device: str, told: str) -> DeviceError:
    """Say what ur_rtde says of a controller it got no control of."""
    if "in use" in told:
        return DeviceError(
            device,
            "another program or a fieldbus holds the registers",
            "end the other program (a `station` in another workspace?), "
            "or disable EtherNet/IP, PROFINET and MODBUS at the controller",
        )
    advice = _REMOTE if "remote" in told.lower() else "is the arm switched on?"
    return DeviceError(device, told, advice)
