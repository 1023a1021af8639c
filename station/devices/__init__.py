"""What the cell needs of its hardware, and how a driver is found by its module's name."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NamedTuple, Protocol, cast

from pydantic import ValidationError

from station.config import Driver
from station.errors import ConfigError, RobotStopped
from station.geometry import Pose
from station.kinematics import Joints
from station.records.sheet import Frame
from station.strict import Location, dotted, first_problem

MAY_MOVE = {"normal", "reduced"}  # safety modes
INPUTS = 8


class RobotStatus(NamedTuple):
    """What the controller says of itself, from data younger than `age_s`."""

    pose: Pose
    joints: Joints
    robot_mode: str
    safety_mode: str
    program_running: bool
    steady: bool
    speed_slider: float
    inputs: int
    outputs: int
    age_s: float
    remote: bool = True  # false only where the pendant has taken remote control away
    falls: tuple[int, ...] = (0,) * INPUTS
    """How often each digital input has fallen since connecting: also while nobody asked."""
    stopped: str = ""
    """What has stopped the arm since control was taken, though it may be over."""

    @property
    def problem(self) -> str:
        """Why the arm could not be moved now; empty where it could."""
        if self.safety_mode not in MAY_MOVE:
            return self.safety_mode
        if self.robot_mode != "running":
            return f"robot mode became {self.robot_mode}"
        if not self.program_running:
            return "the control program was stopped, at the pendant or by its watchdog,"
        return "" if self.remote else "remote control was taken away"

    def check_ready(self, device: str) -> None:
        """Raise RobotStopped where the arm is stopped or was, with the place it stands at."""
        problem = self.problem or self.stopped
        if problem:
            advice = "clear the cause at the pendant, then start again"
            raise RobotStopped(device, f"{problem} at {self._place}", advice)

    def check_may_begin(self, device: str) -> None:
        """Refuse also a speed slider at 0: a move sent now would begin when somebody raises it."""
        self.check_ready(device)
        if self.speed_slider <= 0:
            problem = f"the speed slider is at 0 % at {self._place}"
            raise RobotStopped(device, problem, "raise the speed slider, then start again")

    @property
    def _place(self) -> str:
        x, y, z = (f"{value * 1e3:.1f}" for value in self.pose[:3])
        return f"x {x} y {y} z {z} mm"


class RobotInfo(NamedTuple):
    """What a robot is, asked once."""

    version: str
    tcp: Pose
    payload_kg: float


class Robot(Protocol):
    """An arm with digital lines. Every call has a deadline and raises a DeviceError."""

    @property
    def device(self) -> str:
        """What a person would look for: robot and address."""

    def info(self) -> RobotInfo:
        """Return version, tool and payload as installed on the controller."""

    def status(self) -> RobotStatus:
        """Return the newest state; raises where it is stale."""

    def move(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, deadline_s: float
    ) -> RobotStatus:
        """Go to pose in a straight line; return the state once steady there."""

    def reachable(self, pose: Pose) -> bool:
        """Ask the controller whether it has a solution inside its safety limits."""

    def forward(self, joints: Joints) -> Pose:
        """Ask the controller where these joint angles put the tool."""

    def set_outputs(self, values: dict[int, bool], deadline_s: float) -> None:
        """Set digital outputs and wait until the controller reports them so."""


class Camera(Protocol):
    """A camera triggered by software, one frame a trigger."""

    @property
    def device(self) -> str:
        """What a person would look for: camera and serial number."""

    def configure(self, exposure_us: float, gain_db: float) -> None:
        """Set and read back; raises if the camera holds another value."""

    def trigger(self) -> Frame:
        """Expose once; return exactly that frame."""

    def reconnect(self) -> None:
        """Open the camera anew after it was lost."""

    def statistics(self) -> dict[str, int]:
        """Return counters since opening: triggers, frames, failed, retried, reconnected."""


def connect(device: Driver, where: str) -> AbstractContextManager[Any]:
    """Open a device by its driver's module name in station/devices.

    The module holds `Settings` and `connect(settings)`, a context manager.
    """
    check(device, where)
    module = _module(device.driver)
    return cast(AbstractContextManager[Any], module.connect(module.Settings(**device.settings)))


def check(device: Driver, where: str) -> None:
    """Check driver and settings without opening anything; `where` begins the message."""
    found = problem(device)
    if found is not None:
        at, text = found
        raise ConfigError(f"{where}.{dotted(at)}: {text}")


def problem(device: Driver) -> tuple[Location, str] | None:
    """Return what is wrong with a device's entry in the cell file, and which of its keys."""
    modules = {module.name for module in pkgutil.iter_modules(__path__)}
    # ur_child, ur_link and basler_exposure are parts of ur and basler, not drivers.
    names = sorted(name for name in modules if name.partition("_")[0] not in modules - {name})
    if device.driver not in names:
        return ("driver",), f"no driver {device.driver!r}; there are {', '.join(names)}"
    model = _module(device.driver).Settings
    try:
        model(**device.settings)
    except ValidationError as error:
        at, text = first_problem(error, model)
        return ("settings", *at), text
    return None


def _module(driver: str) -> ModuleType:
    return importlib.import_module(f"station.devices.{driver}")
