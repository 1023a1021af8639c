"""The opened hardware of one station: motion, camera and gate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from filelock import FileLock, Timeout

from station import devices
from station.config import CellConfig, Driver, LoadedCell
from station.devices import Camera, Robot, RobotInfo
from station.errors import ConfigError, DeviceError
from station.gate import Ask, Gate
from station.motion import MotionGuard
from station.strict import dotted, line_of

TCP_TOLERANCE_M = 1e-4
TCP_TOLERANCE_RAD = 1e-3
PAYLOAD_TOLERANCE_KG = 0.05

log = structlog.get_logger()


class Cell(NamedTuple):
    """Motion, camera and gate; whoever holds it is the only one to use them."""

    motion: MotionGuard
    camera: Camera
    gate: Gate


@contextmanager
def open_cell(config: CellConfig, workspace: Path, ask: Ask = None) -> Iterator[Cell]:
    """Open camera and robot for the length of the block; only one process at a time may."""
    with station_lock(workspace), open_devices(config, workspace, ask) as cell:
        yield cell


@contextmanager
def open_devices(config: CellConfig, workspace: Path, ask: Ask) -> Iterator[Cell]:
    """Open camera and robot; the caller holds the station's lock.

    The camera comes first: if it is missing, nothing has touched the robot.
    """
    with (
        devices.connect(camera_driver(config, workspace), "camera") as camera,
        devices.connect(config.robot, "robot") as robot,
    ):
        check_installation(config, robot.info())
        motion = MotionGuard(robot, config.motion, config.tcp)
        gate = Gate(robot, config.lines, config.sheet_timeout_s, workspace / "run" / "sheet", ask)
        log.info(
            "cell.opened",
            robot=config.robot.settings.get("host"),
            camera=config.camera.settings.get("serial"),
        )
        try:
            yield Cell(motion, camera, gate)
        finally:
            log.info("cell.closed", camera=camera.statistics())


@contextmanager
def open_camera(config: CellConfig, workspace: Path) -> Iterator[Camera]:
    """Open the camera alone."""
    with (
        station_lock(workspace),
        devices.connect(camera_driver(config, workspace), "camera") as camera,
    ):
        yield camera


@contextmanager
def open_robot(config: CellConfig, workspace: Path, *, control: bool) -> Iterator[Robot]:
    """Open the robot alone; without control it is only read."""
    driver = config.robot.model_copy(
        update={"settings": {**config.robot.settings, "control": control}}
    )
    with station_lock(workspace), devices.connect(driver, "robot") as robot:
        yield robot


@contextmanager
def station_lock(workspace: Path) -> Iterator[Lock]:
    """Hold run/station.lock for the length of the block."""
    lock = Lock(workspace)
    lock.take()
    try:
        yield lock
    finally:
        lock.give()


class Lock:
    """run/station.lock: two processes must never command one cell.

    Whoever lends the cell gives it, from whatever thread, and takes it back.
    """

    def __init__(self, workspace: Path) -> None:
        (workspace / "run").mkdir(exist_ok=True)
        self._file = FileLock(workspace / "run" / "station.lock", thread_local=False)

    def take(self) -> None:
        """Take it, or say that somebody else has it."""
        try:
            self._file.acquire(timeout=0)
        except Timeout as error:
            raise DeviceError(
                "cell",
                "another station command is using this cell",
                "end it first; `run/station.lock` is held",
            ) from error

    def give(self) -> None:
        """Let others take it; nothing where it is not held."""
        self._file.release(force=True)


def check_drivers(cell: LoadedCell, workspace: Path) -> None:
    """Check the drivers' own settings, and the file they name, before anything is opened."""
    for name, device in (("robot", cell.config.robot), ("camera", cell.config.camera)):
        found = devices.problem(device)
        if found is not None:
            at = (name, *found[0])
            line = line_of(cell.path, at)
            raise ConfigError(f"{cell.path}:{line}: {dotted(at)}: {found[1]}")
    check_settings_file(cell, workspace)


def check_settings_file(cell: LoadedCell, workspace: Path) -> None:
    """Refuse a camera's settings file that cannot be read."""
    pfs = camera_driver(cell.config, workspace).settings.get("pfs")
    if pfs is None:
        return
    try:
        Path(pfs).read_bytes()
    except OSError as error:
        line = line_of(cell.path, ("camera", "settings", "pfs"))
        raise ConfigError(
            f"{cell.path}:{line}: camera.settings.pfs: {pfs}: {error.strerror}"
        ) from error


def camera_driver(config: CellConfig, workspace: Path) -> Driver:
    """Return the camera's driver with its settings file made absolute."""
    settings: dict[str, Any] = dict(config.camera.settings)
    if isinstance(settings.get("pfs"), str):
        settings["pfs"] = str(workspace / settings["pfs"])
    return config.camera.model_copy(update={"settings": settings})


def check_installation(config: CellConfig, info: RobotInfo) -> None:
    """Compare what is installed on the robot with the cell file; refuse a difference."""
    away_m, turned_rad = config.tcp.distance_m(info.tcp), config.tcp.angle_rad(info.tcp)
    same = away_m <= TCP_TOLERANCE_M and turned_rad <= TCP_TOLERANCE_RAD
    if not (same and all(map(math.isfinite, info.tcp))):
        there = ", ".join(f"{value:.5f}" for value in info.tcp)
        raise ConfigError(
            f"tcp: the robot has [{there}] installed; correct the pendant or the cell file"
        )
    if not abs(config.payload_kg - info.payload_kg) <= PAYLOAD_TOLERANCE_KG:
        raise ConfigError(
            f"payload_kg: the robot has {info.payload_kg:g} kg set, not {config.payload_kg:g}"
        )
    if config.polyscope is not None and not _begins(info.version, config.polyscope):
        raise ConfigError(
            f"polyscope: the robot runs {info.version!r}, the cell file says {config.polyscope}; "
            "look what the update changed, then correct the cell file"
        )


def _begins(version: str, wanted: str) -> bool:
    """Tell whether "URSoftware 3.15.8.106339 (date)" begins with the numbers of "3.15"."""
    found = re.search(r"\d+(?:\.\d+)+", version)
    numbers = wanted.split(".")
    return found is not None and found[0].split(".")[: len(numbers)] == numbers
