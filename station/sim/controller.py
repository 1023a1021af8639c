"""The controller box: one arm, the program that moves it, its lines; advanced tick by tick."""

from __future__ import annotations

import random
import time
from enum import IntEnum
from typing import NamedTuple

from station.config import Lines
from station.geometry import Pose
from station.kinematics import forward
from station.sim.arm import Arm, Mode, Safety
from station.sim.feed import Camera
from station.sim.journal import Journal
from station.sim.script import MARK, ControlScript, Registers, ScriptError
from station.sim.table import Table

UNLOCK_DELAY_S = 5.0  # a protective stop cannot be unlocked earlier
PROGRAM_STOP = 3.0  # deceleration, in m/s2 on a line and rad/s2 on a joint move
MEASURING_NOISE_M = 0.05e-3  # root mean square over the three axes
# Root mean square of each joint: logs of a CB3 at rest show up to 0.003 rad/s.
SPEED_NOISE_RAD_S = 0.8e-3


class Runtime(IntEnum):
    """Program states, numbered as RTDE reports them."""

    STOPPING = 0
    STOPPED = 1
    PLAYING = 2
    PAUSING = 3
    PAUSED = 4
    RESUMING = 5


class Series(NamedTuple):
    """What a client can tell about the controller's make."""

    version: tuple[int, int, int, int]
    polyscope: str
    tick_hz: int
    has_remote_control: bool


SERIES = {
    "cb3": Series((3, 15, 8, 106339), "URSoftware 3.15.8.106339 (Jul 01 2022)", 125, False),
    "e": Series((5, 11, 0, 108249), "URSoftware 5.11.0.108249 (Jul 01 2022)", 250, True),
}


class Controller:
    """Everything behind the wire protocols; they read it and call its methods, nothing else."""

    def __init__(
        self,
        series: Series,
        arm: Arm,
        camera: Camera,
        lines: Lines,
        journal: Journal,
        seed: int,
        exchange_s: float,
    ) -> None:
        self.series = series
        self.arm = arm
        self.registers = Registers()
        self.runtime = Runtime.STOPPED
        self.inputs = 0
        self.outputs = 0
        self.timestamp = 0.0
        self.popup = ""
        self.remote = True
        self.ticks = 0
        self._camera = camera
        self._journal = journal
        self._noise = random.Random(seed)  # noqa: S311 - measuring noise, not a secret
        self._program: ControlScript | None = None
        self._stopped_at = 0.0
        self._safety = Safety.NORMAL
        self.measured = arm.tcp_pose
        self.measured_speeds = list(arm.joint_speeds)
        self.ready = False
        self._moving = False
        self.table = Table(lines, camera, journal, self.set_input, exchange_s)

    def tick(self, now: float, dt: float, speed: float) -> None:
        """Advance by `dt` seconds; `speed` scales the arm's motion only."""
        self.ticks += 1
        self.timestamp += dt
        self.arm.step(dt * speed)
        if self._moving == self.arm.at_rest:
            self._moving = not self.arm.at_rest
            self._journal.write("moving", value=self._moving, pose=list(self.arm.tool_pose))
        in_view = self._see()
        self.table.step(now, self.outputs, in_view)
        self._run()
        self._watch_safety(now)
        self.measured = self._measure()
        self.measured_speeds = self._measure_speeds()

    def load(self, text: str) -> None:
        """Replace the running program by an uploaded one."""
        if self.series.has_remote_control and not self.remote:
            self._journal.write("refused", upload="the robot is in local mode")
            return
        if self._safety is not Safety.NORMAL or self.arm.mode is not Mode.RUNNING:
            self._journal.write("refused", upload=self._safety.name)
            return
        self.arm.stop(PROGRAM_STOP)
        if MARK not in text:
            self._end_program("not a control script")
            return
        self._program = ControlScript(text, self.arm, self.registers, self._journal)
        self.runtime = Runtime.PLAYING
        self._journal.write("program", state=self.runtime.name)

    def stop_program(self) -> None:
        """End the program and bring the arm to rest."""
        self._end_program("stopped")

    def pause_program(self) -> bool:
        """Pause the program and hold the arm; False when none plays."""
        if self.runtime is not Runtime.PLAYING:
            return False
        self.arm.hold()
        self.runtime = Runtime.PAUSED
        self._journal.write("program", state=self.runtime.name)
        return True

    def play_program(self) -> bool:
        """Continue a paused program and the move it was in: only a person asks for this."""
        if self._program is None or self._safety is not Safety.NORMAL:
            return False
        if self.runtime is Runtime.PAUSED:
            self.arm.resume()
            self.runtime = Runtime.PLAYING
            self._journal.write("program", state=self.runtime.name)
        return self.runtime is Runtime.PLAYING

    def trip(self, safety: Safety) -> None:
        """Enter a safety stop."""
        self.arm.trip(safety)
        self._watch_safety(time.monotonic())

    def release_safeguard(self) -> None:
        """Go on with program and move, as where a safeguard is set to resume by itself."""
        if self._safety is Safety.SAFEGUARD_STOP:
            self.arm.safety = Safety.NORMAL
            self._watch_safety(time.monotonic())
            self.play_program()

    def unlock(self, now: float) -> bool:
        """Release a protective stop as the pendant does; the program stays paused."""
        if self._safety is Safety.PROTECTIVE_STOP and now - self._stopped_at < UNLOCK_DELAY_S:
            return False
        if self._safety is Safety.PROTECTIVE_STOP:
            self.arm.safety = Safety.NORMAL
            self._watch_safety(now)
        return True

    def reset(self, now: float) -> None:
        """Do what a person does after a stop: clear it, power up, leave the program stopped."""
        self._end_program("reset")
        self.arm.safety = Safety.NORMAL
        self.arm.mode = Mode.RUNNING
        self._watch_safety(now)

    def jog(self, pose: Pose) -> bool:
        """Put the arm somewhere else, as a person does at the pendant; not while a program runs."""
        joints = self.arm.solve(pose)
        if self.runtime is Runtime.PLAYING or not self.arm.at_rest or joints is None:
            return False
        self.arm.place(joints)
        return True

    def power(self, mode: Mode) -> None:
        """Set the robot mode, as far as the safety state allows."""
        if mode is Mode.POWER_OFF:
            self._end_program("power off")
        if mode is Mode.POWER_OFF or self._safety is not Safety.ROBOT_EMERGENCY_STOP:
            self.arm.mode = mode
            self._journal.write("mode", mode=mode.name)

    def set_input(self, line: int, value: bool) -> None:
        """Drive one digital input."""
        changed = self._with_bit(self.inputs, line, value)
        if changed != self.inputs:
            self.inputs = changed
            self._journal.write("input", line=line, value=value)

    def set_outputs(self, mask: int, values: int, first: int = 0) -> None:
        """Drive those digital outputs that the mask names."""
        for bit in range(8):
            if mask >> bit & 1:
                line, value = first + bit, bool(values >> bit & 1)
                changed = self._with_bit(self.outputs, line, value)
                if changed != self.outputs:
                    self.outputs = changed
                    self._journal.write("output", line=line, value=value)

    @property
    def robot_status_bits(self) -> int:
        """Return power and program bits."""
        powered = self.arm.mode in (Mode.POWER_ON, Mode.IDLE, Mode.RUNNING)
        return int(powered) | int(self.runtime is Runtime.PLAYING) << 1

    @property
    def safety_status_bits(self) -> int:
        """Return the safety bits: normal, the stop by its kind, and bit 10 for any stop."""
        return {
            Safety.NORMAL: 1,
            Safety.REDUCED: 2,
            Safety.PROTECTIVE_STOP: 1 << 2 | 1 << 10,
            Safety.SAFEGUARD_STOP: 1 << 4 | 1 << 10,
            Safety.ROBOT_EMERGENCY_STOP: 1 << 6 | 1 << 7 | 1 << 10,
        }[self.arm.safety]

    def state(self) -> dict[str, object]:
        """Return what is true, for the control port."""
        sheet = self._camera.sheet
        return {
            "joints": list(self.arm.joints),
            "pose": list(self.arm.tool_pose),
            "moving": not self.arm.at_rest,
            "busy": self.arm.busy,
            "mode": self.arm.mode.name,
            "safety": self.arm.safety.name,
            "program": self.runtime.name,
            "slider": self.arm.slider,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "sheet": None if sheet is None else sheet.number,
            "label": None if sheet is None else sheet.label,
            "table": self.table.state.name,
            "popup": self.popup,
            "remote": self.remote,
        }

    def _see(self) -> bool:
        """Keep the picture true to where the arm stands; release the arm once it is."""
        if not self.arm.at_rest:
            goal = self.arm.destination
            if goal is not None:
                self._camera.look(forward(goal) @ self.arm.tool)
            return True
        if not self._camera.shows(self.arm.tool_pose):
            return False
        self.ready = True
        if self.arm.busy and not self.arm.held:
            self.arm.release()
            self._journal.write("rest", pose=list(self.arm.tool_pose))
        return True

    def _run(self) -> None:
        if self.runtime is not Runtime.PLAYING or self._program is None:
            return
        if self._program.is_overdue(self.timestamp):
            self._end_program("watchdog")
            return
        try:
            if not self._program.cycle():
                self._end_program("ended")
        except ScriptError as error:
            self._end_program(str(error))

    def _end_program(self, reason: str) -> None:
        self.arm.stop(PROGRAM_STOP)
        if self._program is not None or self.runtime is not Runtime.STOPPED:
            self._program = None
            self.runtime = Runtime.STOPPED
            self._journal.write("program", state=self.runtime.name, reason=reason)

    def _watch_safety(self, now: float) -> None:
        """Follow the arm into and out of safety stops, the arm's own included."""
        if self.arm.safety is self._safety:
            return
        self._safety = self.arm.safety
        self._journal.write("safety", mode=self._safety.name, bits=self.safety_status_bits)
        if self._safety is Safety.NORMAL:
            return
        self._stopped_at = now
        if self._safety is Safety.ROBOT_EMERGENCY_STOP:
            self._end_program("emergency stop")
        elif self.runtime is Runtime.PLAYING:
            self.runtime = Runtime.PAUSED
            self._journal.write("program", state=self.runtime.name)

    def _measure(self) -> Pose:
        """Return the TCP pose as the encoders tell it."""
        pose = self.arm.tcp_pose
        noise = self._draw(MEASURING_NOISE_M / 3**0.5, 3)
        return pose._replace(x=pose.x + noise[0], y=pose.y + noise[1], z=pose.z + noise[2])

    def _measure_speeds(self) -> list[float]:
        """Return the joints' speeds as the encoders tell them: never all 0."""
        noise = self._draw(SPEED_NOISE_RAD_S, 6)
        return [speed + off for speed, off in zip(self.arm.joint_speeds, noise, strict=True)]

    def _draw(self, sigma: float, count: int) -> list[float]:
        return [max(-3.0, min(3.0, self._noise.gauss())) * sigma for _ in range(count)]

    @staticmethod
    def _with_bit(bits: int, line: int, value: bool) -> int:
        return bits | 1 << line if value else bits & ~(1 << line)
