"""The process ur_rtde lives in: asynchronous moves only, polled for freshness and safety."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from rtde_control import RTDEControlInterface
from rtde_io import RTDEIOInterface
from rtde_receive import RTDEReceiveInterface

from station.devices import MAY_MOVE, RobotInfo, RobotStatus
from station.devices.ur import dashboard
from station.errors import DeviceError, DeviceTimeout, RobotStopped
from station.geometry import Pose
from station.kinematics import Joints
from station.worker import die_with_parent, give_up, parent_age_s

POLL_S = 0.005
STALE_S = 0.5  # a frozen stream keeps its last values, so only a standing timestamp tells
WATCH_S = 0.05
REMOTE_S = 0.25  # how often the pendant is asked whether it still leaves control to us
PENDANT_S = 1.5
STALL_S = 2.0
STALL_RAD = (
    2e-4  # less than the slowest move turns some joint in that time, more than encoder noise
)
NEAR_M = 2e-3
NEAR_RAD = 0.02
PARENT_GONE_S = 0.5
WATCHDOG_HZ = 4.0  # the controller stops its program after 250 ms without a word from us
STEADY_RAD_S = 1e-3
STEADY_SAMPLES = 3
STOP_M_S2 = 2.0

_VARIABLES = [
    "timestamp", "actual_q", "actual_qd", "actual_TCP_pose", "robot_mode", "safety_mode",
    "runtime_state", "target_speed_fraction", "actual_digital_input_bits",
    "actual_digital_output_bits", "payload",
]  # fmt: skip
_ROBOT_MODES = {
    -1: "no controller", 0: "disconnected", 1: "confirm safety", 2: "booting", 3: "power off",
    4: "power on", 5: "idle", 6: "backdrive", 7: "running", 8: "updating firmware",
}  # fmt: skip
_SAFETY_MODES = {
    1: "normal", 2: "reduced", 3: "protective stop", 4: "recovery", 5: "safeguard stop",
    6: "system emergency stop", 7: "robot emergency stop", 8: "violation", 9: "fault",
    10: "joint id check", 11: "undefined safety mode", 12: "safeguard stop (automatic mode)",
    13: "stop of the enabling device",
}  # fmt: skip
_PLAYING = 2
_CLEAR = "clear the cause at the pendant, then start again"


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
        self._receive = RTDEReceiveInterface(host, variables=_VARIABLES)
        self._stamp = -1.0
        self._changed = time.monotonic()
        self._control: RTDEControlInterface | None = None
        self._io: RTDEIOInterface | None = None
        self._parent = os.getppid()
        self._remote = True
        self._asking = threading.Event()
        self._wanted = self._answered = 0  # answers of the pendant
        if control:
            self._control = self._take_control()
            self._io = RTDEIOInterface(host)
        # From here on the arm is stopped before this process ends, so the parent's death is handled
        # in `_check_parent` and by the controller's watchdog, not by the kernel.
        die_with_parent(0)
        threading.Thread(target=self._watch_stream, name="stream", daemon=True).start()
        if control:
            threading.Thread(target=self._watch_remote, name="remote", daemon=True).start()

    def idle(self) -> None:
        """Between requests: keep the controller's watchdog quiet while the parent is alive."""
        self._fresh()
        self._kick()

    @_translated
    def info(self) -> RobotInfo:
        """Return version, tool and payload as installed on the controller."""
        version = dashboard(self._host, "PolyscopeVersion")
        return RobotInfo(
            version, Pose.of(self._controls().getTCPOffset()), self._receive.getPayload()
        )

    @_translated
    def status(self) -> RobotStatus:
        """Return the newest state."""
        age_s = self._fresh()
        if age_s > STALE_S or not self._receive.isConnected():
            raise self._lost(age_s)
        receive = self._receive
        mode, safety = receive.getRobotMode(), receive.getSafetyMode()
        return RobotStatus(
            pose=Pose.of(receive.getActualTCPPose()),
            joints=Joints.of(receive.getActualQ()),
            robot_mode=_ROBOT_MODES.get(mode, str(mode)),
            safety_mode=_SAFETY_MODES.get(safety, str(safety)),
            program_running=receive.getRuntimeState() == _PLAYING,
            steady=_steady(receive.getActualQd()),
            speed_slider=receive.getTargetSpeedFraction(),
            inputs=receive.getActualDigitalInputBits(),
            outputs=receive.getActualDigitalOutputBits(),
            age_s=age_s,
            remote=self._remote,
        )

    @_translated
    def move(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, deadline_s: float
    ) -> RobotStatus:
        """Go to pose in a straight line; return the state once steady there.

        After anything that ends it early the program is ended too: one that a light curtain paused
        would go on with the line once the curtain is free.
        """
        control = self._controls()
        self._measured_from_now().check_may_begin(self.device)  # no move begins on old data
        try:
            return self._move(control, pose, speed_m_s, acceleration_m_s2, deadline_s)
        except DeviceTimeout:
            raise  # the link is lost: whoever asked ends this process and stops the program
        except DeviceError:
            self._stop_program()
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
            self._check_moving_allowed()
            raise DeviceError(self.device, "did not take the move", "look at the pendant's log")
        steady = 0
        stamp = self._stamp
        progress = _Progress(pose)
        while True:
            self._check_parent()
            try:
                status = self._check_moving_allowed()
            except RobotStopped:
                if not self._remote:  # the program still plays, but it is no longer ours to play
                    self.stop()
                raise
            self._kick()
            operation = control.getAsyncOperationProgressEx()
            arrived = operation.operationId() != before and not operation.isAsyncOperationRunning()
            if self._stamp != stamp:  # count samples of the controller, not our own polls
                stamp = self._stamp
                steady = steady + 1 if arrived and status.steady else 0
            if steady >= STEADY_SAMPLES:
                return status
            if progress.stalled(status):
                self.stop()
                raise DeviceTimeout(
                    self.device,
                    f"stands still on its way at {_millimetres(status.pose)} "
                    f"(speed slider {status.speed_slider:.0%})",
                    "raise the speed slider, look what holds the arm, then start again",
                )
            if time.monotonic() > end:
                self.stop()
                raise DeviceTimeout(
                    self.device,
                    f"move not done in {deadline_s:.1f} s (speed slider {status.speed_slider:.0%})",
                    "check the speed slider and the way of the arm",
                )
            time.sleep(POLL_S)

    @_translated
    def stop(self) -> None:
        """Bring the arm to rest."""
        control = self._controls()
        if control.isProgramRunning():
            control.stopL(STOP_M_S2, True)

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
            self._ask_pendant_now()
            self._measured_from_now().check_may_begin(self.device)
        for line, value in values.items():
            if not self._io.setStandardDigitalOut(line, value):
                raise DeviceError(
                    self.device, f"did not take digital output {line}", "check remote control"
                )
        end = time.monotonic() + deadline_s
        while True:
            outputs = self.status().outputs
            wrong = [line for line, value in values.items() if bool(outputs >> line & 1) != value]
            if not wrong:
                return
            if time.monotonic() > end:
                raise DeviceError(
                    self.device,
                    f"digital output {wrong[0]} does not read back as set",
                    "is another client or the pendant holding the output?",
                )
            self._kick()
            time.sleep(POLL_S)

    def close(self) -> None:
        """Stop the arm and the control script, then leave without ur_rtde's destructors."""
        self._leave()
        # Its destructors wait half a second each and abort the process after a lost link.
        os._exit(0)

    def _take_control(self) -> RTDEControlInterface:
        status = self._first_status()
        if status.safety_mode not in MAY_MOVE:
            raise RobotStopped(self.device, f"is in {status.safety_mode}", _CLEAR)
        if status.robot_mode != "running":
            raise DeviceError(
                self.device,
                f"robot mode is {status.robot_mode}",
                "switch the arm on and release the brakes",
            )
        if not self._ask_pendant():
            raise DeviceError(self.device, "is in local control", _advice("remote"))
        try:
            control = RTDEControlInterface(self._host)
        except RuntimeError as error:
            raise DeviceError(self.device, str(error).strip(), _advice(str(error))) from error
        if not control.setWatchdog(WATCHDOG_HZ):
            raise DeviceError(self.device, "did not take the watchdog", "restart the controller")
        return control

    def _first_status(self) -> RobotStatus:
        end = time.monotonic() + 1.0
        while self._receive.getTimestamp() == 0.0 and time.monotonic() < end:
            time.sleep(POLL_S)
        return self.status()

    def _controls(self) -> RTDEControlInterface:
        if self._control is None:
            raise DeviceError(self.device, "was opened for reading only")
        return self._control

    def _check_moving_allowed(self) -> RobotStatus:
        status = self.status()
        status.check_ready(self.device)
        return status

    def _measured_from_now(self) -> RobotStatus:
        """Return a state that the controller measured after this was called."""
        self._fresh()
        stamp = self._stamp
        while True:
            status = self.status()  # raises once the stream has stood still for too long
            if self._stamp != stamp:
                return status
            self._kick()
            time.sleep(POLL_S)

    def _watch_stream(self) -> None:
        """End the process once the stream stands still: ur_rtde may hang for minutes meanwhile."""
        stamp, still_s = self._receive.getTimestamp(), 0.0
        while True:
            time.sleep(WATCH_S)
            before, stamp = stamp, self._receive.getTimestamp()
            # Counted in turns, not by the clock: a computer that was halted has lost no link.
            still_s = 0.0 if stamp != before else still_s + WATCH_S
            if still_s > STALE_S or not self._receive.isConnected():
                give_up(self._lost(still_s), self._leave)

    def _ask_pendant_now(self) -> None:
        """Have an answer that was asked for after this was called; the watchdog hears on of us."""
        self._wanted += 1
        self._asking.set()
        end = time.monotonic() + PENDANT_S
        while self._answered < self._wanted:
            if time.monotonic() > end:
                raise DeviceTimeout(
                    self.device, "its dashboard does not answer", "restart the controller"
                )
            self._kick()
            time.sleep(POLL_S)

    def _ask_pendant(self) -> bool:
        try:
            return _in_remote_control(self._host)
        except OSError as error:
            raise DeviceTimeout(
                self.device, f"its dashboard does not answer ({error})", "restart the controller"
            ) from error

    def _watch_remote(self) -> None:
        """Ask the pendant in a thread of its own: a dashboard that hangs must delay nothing."""
        while True:
            self._asking.wait(REMOTE_S)
            self._asking.clear()
            wanted = self._wanted
            with contextlib.suppress(OSError):  # a lost link is told by the stream
                self._remote = _in_remote_control(self._host)
                self._answered = wanted

    def _lost(self, age_s: float) -> DeviceTimeout:
        connected = self._receive.isConnected()
        problem = f"no fresh data for {age_s:.1f} s" if connected else "the connection was lost"
        last = _millimetres(Pose.of(self._receive.getActualTCPPose()))
        return DeviceTimeout(
            self.device, f"{problem}, last at {last}", "check cable and controller"
        )

    def _leave(self) -> None:
        if self._control is not None:
            self._stop_program()

    def _check_parent(self) -> None:
        if os.getppid() != self._parent or parent_age_s() > PARENT_GONE_S:
            self._stop_program()
            os._exit(1)

    def _stop_program(self) -> None:
        try:
            dashboard(self._host, "stop")
        except OSError:
            return  # the controller is gone too; its own watchdog stops the arm

    def _kick(self) -> None:
        running = self._receive.getRuntimeState() == _PLAYING
        if self._control is not None and running and parent_age_s() < PARENT_GONE_S:
            self._control.kickWatchdog()

    def _fresh(self) -> float:
        """Note the stream's timestamp; return seconds since it last advanced."""
        stamp = self._receive.getTimestamp()
        now = time.monotonic()
        if stamp != self._stamp:
            self._stamp, self._changed = stamp, now
        return now - self._changed


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


def _in_remote_control(host: str) -> bool:
    """Tell whether the pendant lets others command; a CB3 has no such switch, and says so."""
    answer = dashboard(host, "is in remote control").lower()
    if not answer:
        raise ConnectionError("no answer")  # the dashboard has gone: nobody knows
    return answer != "false"


def _steady(joint_speeds: Sequence[float]) -> bool:
    return max(abs(speed) for speed in joint_speeds) < STEADY_RAD_S


def _millimetres(pose: Pose) -> str:
    return f"x {pose.x * 1e3:.1f} y {pose.y * 1e3:.1f} z {pose.z * 1e3:.1f} mm"


def _advice(problem: str) -> str:
    if "remote" in problem.lower():
        return "switch the pendant to Remote Control"
    if "in use" in problem:
        return "another program or a fieldbus holds the registers: end it or disable the fieldbus"
    return "is the arm switched on and in remote control?"
