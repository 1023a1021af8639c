"""Universal Robots arm through ur_rtde, which lives in a child process (ur_child.py, ur_link.py).

ur_rtde can block for minutes, hold the interpreter in a constructor and crash after a reconnect
(docs/decisions/0003-children-with-deadlines.md), so every request here has a deadline and a lost
child leads to one thing: `stop` over a plain dashboard socket.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import structlog
from pydantic import Field, field_validator

from station.devices import RobotInfo, RobotStatus
from station.errors import ConfigError, DeviceError, DeviceNotFound, DeviceTimeout
from station.geometry import Pose
from station.kinematics import Joints
from station.strict import Strict
from station.worker import Worker, WorkerError

DASHBOARD_PORT = 29999
RTDE_PORT = 30004
ANSWER_S = 2.0
SILENCE_S = 1.0  # a child that hangs in a move is ended long before the move's own deadline
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")

log = structlog.get_logger()


class Settings(Strict):
    """How to reach the controller."""

    host: str = Field(description="host name or IPv4 address of the controller")
    connect_timeout_s: float = Field(default=10.0, gt=0, le=120)
    control: bool = Field(default=True, description="false only reads: no script, no motion")

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        labels = host.split(".")
        if host.isascii() and all(label.isdecimal() for label in labels):
            valid = len(labels) == 4 and all(int(label) < 256 for label in labels)
        else:
            valid = len(host) < 254 and all(_LABEL.fullmatch(label) for label in labels)
        if not valid:
            raise ValueError(f"{host[:80]!r} is no host name and no IPv4 address")
        return host


def dashboard(host: str, command: str, timeout_s: float = 1.0) -> str:
    """Send one line to the Dashboard server over a plain socket; return its answer."""
    with socket.create_connection((host, DASHBOARD_PORT), timeout=timeout_s) as connection:
        stream = connection.makefile("rw", encoding="utf-8", newline="\n")
        # Said before the greeting comes: a controller that hangs hears it once it wakes up.
        stream.write(f"{command}\n")
        stream.flush()
        stream.readline()  # the greeting
        return stream.readline().strip()


class UrRobot:
    """One UR arm; a request that goes wrong stops the arm and ends the connection for good."""

    def __init__(self, settings: Settings) -> None:
        self.device = f"robot {settings.host}"
        self._settings = settings
        self._check_answering()
        try:
            self._worker = Worker(
                "robot",
                "station.devices.ur_child:Server",
                (settings.host, self.device, settings.control),
                start_deadline_s=settings.connect_timeout_s,
            )
        except WorkerError as error:
            raise DeviceTimeout(
                self.device,
                f"did not finish connecting within {settings.connect_timeout_s:g} s",
                "restart the controller if this repeats",
            ) from error

    def info(self) -> RobotInfo:
        """Return version, tool and payload as installed on the controller."""
        return cast(RobotInfo, self._request("info", deadline_s=5.0))

    def status(self) -> RobotStatus:
        """Return the newest state; raises where it is stale."""
        return cast(RobotStatus, self._request("status", deadline_s=ANSWER_S))

    def move(
        self, pose: Pose, speed_m_s: float, acceleration_m_s2: float, deadline_s: float
    ) -> RobotStatus:
        """Go to pose in a straight line; return the state once steady there."""
        return cast(
            RobotStatus,
            self._request(
                "move",
                pose,
                speed_m_s,
                acceleration_m_s2,
                deadline_s,
                deadline_s=deadline_s + ANSWER_S,
                silence_s=SILENCE_S,
            ),
        )

    def reachable(self, pose: Pose) -> bool:
        """Ask the controller whether it has a solution inside its safety limits."""
        return cast(bool, self._request("reachable", pose, deadline_s=5.0))

    def forward(self, joints: Joints) -> Pose:
        """Ask the controller where these joint angles put the tool."""
        return cast(Pose, self._request("forward", joints, deadline_s=5.0))

    def set_outputs(self, values: dict[int, bool], deadline_s: float) -> None:
        """Set digital outputs and wait until the controller reports them so."""
        self._request("set_outputs", values, deadline_s, deadline_s=deadline_s + ANSWER_S)

    def close(self) -> None:
        """End the control script and the child."""
        self._worker.close()

    def _request(
        self, method: str, *args: Any, deadline_s: float, silence_s: float = math.inf
    ) -> Any:
        try:
            return self._worker.request(method, *args, deadline_s=deadline_s, silence_s=silence_s)
        except WorkerError as error:
            self._stop_by_dashboard()
            raise DeviceTimeout(
                self.device,
                f"{error}; the arm was told to stop",
                "look at the pendant before starting again",
            ) from error
        except DeviceTimeout:
            # The link is lost: ur_rtde would reconnect by itself and may crash doing so.
            self._worker.kill()
            self._stop_by_dashboard()
            raise
        except BaseException as error:
            if not self._worker.alive:  # interrupted mid-request, so the arm may still move
                self._stop_by_dashboard()
            raise error

    def _stop_by_dashboard(self) -> None:
        if not self._settings.control:
            return  # a reader has moved nothing and must not stop another's program
        try:
            answer = dashboard(self._settings.host, "stop")
        except OSError as error:
            answer = str(error)
        log.warning("robot.stop_sent", answer=answer)

    def _check_answering(self) -> None:
        """Try the port first: ur_rtde's constructors hold the interpreter while they wait."""
        try:
            socket.create_connection((self._settings.host, RTDE_PORT), timeout=2.0).close()
        except (OSError, UnicodeError) as error:
            self._absent(error)

    def _absent(self, error: OSError | UnicodeError) -> NoReturn:
        raise DeviceNotFound(
            self.device,
            f"nothing answers on port {RTDE_PORT} ({getattr(error, 'strerror', None) or error})",
            "is the controller on, its network cable in, and the address right?",
        ) from error


@contextmanager
def connect(settings: Settings) -> Iterator[UrRobot]:
    """Connect to the arm for the length of the block."""
    if sys.version_info >= (3, 13):
        raise ConfigError(
            "robot commands need Python 3.11 or 3.12: ur-rtde has no wheel for later ones yet"
        )
    robot = UrRobot(settings)
    try:
        yield robot
    finally:
        with contextlib.suppress(DeviceError):
            robot.close()
