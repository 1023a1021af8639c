"""The link to a UR controller: what it streams, its watchdog, and whose the pendant says it is."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence

from rtde_receive import RTDEReceiveInterface

from station.devices import INPUTS, RobotStatus
from station.devices.ur import dashboard
from station.errors import DeviceTimeout
from station.geometry import Pose
from station.kinematics import Joints
from station.worker import give_up, parent_age_s

POLL_S = 0.005
STALE_S = 0.5  # a frozen stream keeps its last values, so only a standing timestamp tells
WATCH_S = 0.05
REMOTE_S = 0.25  # how often the pendant is asked whether it still leaves control to us
PENDANT_S = 1.5
PARENT_GONE_S = 0.5
STEADY_RAD_S = 5e-3  # of the noisiest joint: a CB3 at rest tells up to 0.003

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


class Link:
    """The stream of one controller, and what has to be done to keep or to end its program."""

    def __init__(self, host: str, device: str) -> None:
        self._host = host
        self.device = device
        self.pendant = Pendant(host, device, self.attend)
        self.quiet_watchdog: Callable[[], object] | None = None
        """Keeps the controller's watchdog quiet; None while this link only reads."""
        self._receive = RTDEReceiveInterface(host, variables=_VARIABLES)
        self.stamp = -1.0  # the controller's time in the newest state that was looked at
        self._changed = time.monotonic()
        self._falls = [0] * INPUTS
        self._stopped = ""
        self._status: RobotStatus | None = None
        self._parent = os.getppid()

    def watch(self) -> None:
        """From here on, end this process once the stream stands still."""
        threading.Thread(target=self._watch_stream, name="stream", daemon=True).start()

    def first_status(self) -> RobotStatus:
        """Return the first state the controller sends."""
        end = time.monotonic() + 1.0
        while self._receive.getTimestamp() == 0.0 and time.monotonic() < end:
            time.sleep(POLL_S)
        return self.status()

    def status(self) -> RobotStatus:
        """Return the newest state; DeviceTimeout once it is old."""
        age_s = self.look()
        if age_s > STALE_S or not self._receive.isConnected():
            raise self._lost(age_s)
        if self._status is None:
            self._status = self._read()
        return self._status._replace(
            age_s=age_s,
            remote=self.pendant.remote,
            falls=tuple(self._falls),
            stopped=self._stopped and f"stopped for a moment ({self._stopped})",
        )

    def _read(self) -> RobotStatus:
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
            age_s=0.0,
        )

    def status_from_now(self) -> RobotStatus:
        """Return a state that the controller measured after this was called."""
        self.look()
        stamp = self.stamp
        while True:
            status = self.status()  # raises once the stream has stood still for too long
            if self.stamp != stamp:
                return status
            self.kick()
            time.sleep(POLL_S)

    def payload_kg(self) -> float:
        """Return the payload as installed on the controller."""
        return float(self._receive.getPayload())

    def look(self) -> float:
        """Take in what is new; return seconds since the stream's timestamp last advanced."""
        stamp = self._receive.getTimestamp()
        now = time.monotonic()
        if stamp != self.stamp:
            self.stamp, self._changed = stamp, now
            self._take_in(self._read())
        return now - self._changed

    def attend(self) -> None:
        """Whatever else is done: miss nothing that comes and goes; keep the watchdog quiet."""
        self.look()
        self.kick()

    def _take_in(self, status: RobotStatus) -> None:
        """Keep a state, and what it shows that may be over when somebody asks."""
        before, self._status = self._status, status
        if before is None:
            return
        for line in range(INPUTS):
            self._falls[line] += (before.inputs & ~status.inputs) >> line & 1
        if self.quiet_watchdog is not None and before.program_running and not self._stopped:
            self._stopped = status.problem

    def kick(self) -> None:
        """Keep the controller's watchdog quiet, while the parent lives."""
        running = self._receive.getRuntimeState() == _PLAYING
        if self.quiet_watchdog is not None and running and parent_age_s() < PARENT_GONE_S:
            self.quiet_watchdog()

    def check_parent(self) -> None:
        """End the program and this process once the parent is gone or halted."""
        if os.getppid() != self._parent or parent_age_s() > PARENT_GONE_S:
            self.stop_program()
            os._exit(1)

    def leave(self) -> None:
        """End the program, if it is ours."""
        if self.quiet_watchdog is not None:
            self.stop_program()

    def stop_program(self) -> None:
        """End the program over the dashboard, which needs nothing of ur_rtde."""
        try:
            dashboard(self._host, "stop")
        except OSError:
            return  # the controller is gone too; its own watchdog stops the arm

    def _watch_stream(self) -> None:
        """End the process once the stream stands still: ur_rtde may hang for minutes meanwhile."""
        stamp, still_s = self._receive.getTimestamp(), 0.0
        while True:
            time.sleep(WATCH_S)
            before, stamp = stamp, self._receive.getTimestamp()
            # Counted in turns, not by the clock: a computer that was halted has lost no link.
            still_s = 0.0 if stamp != before else still_s + WATCH_S
            if still_s > STALE_S or not self._receive.isConnected():
                give_up(self._lost(still_s), self.leave)

    def _lost(self, age_s: float) -> DeviceTimeout:
        connected = self._receive.isConnected()
        problem = f"no fresh data for {age_s:.1f} s" if connected else "the connection was lost"
        last = millimetres(Pose.of(self._receive.getActualTCPPose()))
        return DeviceTimeout(
            self.device, f"{problem}, last at {last}", "check cable and controller"
        )


class Pendant:
    """Whether it leaves control to us, asked in a thread of its own: it may be slow to answer."""

    def __init__(self, host: str, device: str, meanwhile: Callable[[], None]) -> None:
        self._host = host
        self._device = device
        self._meanwhile = meanwhile
        self.remote = True
        self._asking = threading.Event()
        self._wanted = self._answered = 0

    def watch(self) -> None:
        """Keep `remote` up to date from here on."""
        threading.Thread(target=self._watch, name="remote", daemon=True).start()

    def ask(self) -> bool:
        """Ask and wait for the answer, before anything else goes on."""
        try:
            self.remote = self._asked()
        except OSError as error:
            raise self._silent() from error
        return self.remote

    def ask_now(self) -> None:
        """Have an answer that was asked for after this was called; the watchdog hears on of us."""
        self._wanted += 1
        self._asking.set()
        end = time.monotonic() + PENDANT_S
        while self._answered < self._wanted:
            if time.monotonic() > end:
                raise self._silent()
            self._meanwhile()
            time.sleep(POLL_S)

    def _watch(self) -> None:
        while True:
            self._asking.wait(REMOTE_S)
            self._asking.clear()
            wanted = self._wanted
            with contextlib.suppress(OSError):  # a lost link is told by the stream
                self.remote = self._asked()
                self._answered = wanted

    def _asked(self) -> bool:
        """Ask; a CB3 has no such switch, and says so."""
        answer = dashboard(self._host, "is in remote control").lower()
        if not answer:
            raise ConnectionError("no answer")  # the dashboard has gone: nobody knows
        return answer != "false"

    def _silent(self) -> DeviceTimeout:
        return DeviceTimeout(
            self._device, "its dashboard does not answer", "restart the controller"
        )


def millimetres(pose: Pose) -> str:
    """Return a place as messages name it."""
    return f"x {pose.x * 1e3:.1f} y {pose.y * 1e3:.1f} z {pose.z * 1e3:.1f} mm"


def _steady(joint_speeds: Sequence[float]) -> bool:
    return max(abs(speed) for speed in joint_speeds) < STEADY_RAD_S
