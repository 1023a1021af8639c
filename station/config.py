"""What stands in the cell: calibration/cell.yaml, and where a workspace keeps its folders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, model_validator

from station.errors import ConfigError
from station.recipe import Name, PoseField, Vector
from station.strict import Strict, form, parse, read

Point = tuple[float, float, float]
Line = Annotated[int, Field(ge=0, le=7)]


def _database_url(url: str) -> str:
    """Refuse what is no URL of a PostgreSQL database, without repeating a password in it."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "postgresql+psycopg" and parts.port != 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits:
        raise ValueError("postgresql+psycopg://user@host/name is expected")
    # Whoever may read the cell file, and every message that names the ledger, would show it.
    if parts.password is not None or "password" in parse_qs(parts.query, keep_blank_values=True):
        raise ValueError("a password has no place in this file; ~/.pgpass is read")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]


class Box(Strict):
    """An axis-aligned box in the robot's base frame, metres."""

    min_m: Vector
    max_m: Vector

    @model_validator(mode="after")
    def _has_volume(self) -> Self:
        if any(low >= high for low, high in zip(self.min_m, self.max_m, strict=True)):
            raise ValueError("every number of min_m must be below its number in max_m")
        return self

    def meets(self, start: Point, end: Point) -> bool:
        """Tell whether the straight way between two points touches the box."""
        enter, leave = 0.0, 1.0
        for low, a, b, high in zip(self.min_m, start, end, self.max_m, strict=True):
            if a == b:
                if not low <= a <= high:
                    return False
                continue
            near, far = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            enter, leave = max(enter, near), min(leave, far)
        return enter <= leave


class KeepOut(Box):
    """A box no corner of the tool may enter."""

    name: str


class Driver(Strict):
    """A device's driver module and the settings that module checks itself."""

    driver: Annotated[str, form(r"^[a-z0-9_]+$", "a driver's name, such as ur,")]
    settings: dict[str, Any]


class MotionLimits(Strict):
    """What MotionGuard holds every move to."""

    workspace: Box
    keep_out: tuple[KeepOut, ...] = ()
    tool_corners_m: tuple[Vector, ...] = Field(
        default=(), description="corner points of camera and lens in the tool's frame"
    )
    speed_limit_m_s: float = Field(gt=0, le=3)
    acceleration_limit_m_s2: float = Field(gt=0, le=10)
    joint_speed_limit_rad_s: float = Field(gt=0, le=3.14)
    pose_tolerance_m: float = Field(gt=0, le=0.01)
    pose_tolerance_rad: float = Field(gt=0, le=0.2)


class Lens(Strict):
    """What turns pixels into millimetres before a calibration exists."""

    focal_length_mm: float = Field(ge=1, le=1000)  # metres would come out below one
    sensor_width_mm: float = Field(ge=1, le=100)


class Lines(Strict):
    """Digital lines of the part handshake, on the robot controller."""

    part_present: Line
    accept: Line
    reject: Line
    busy: Line

    @model_validator(mode="after")
    def _outputs_differ(self) -> Self:
        if len({self.accept, self.reject, self.busy}) != 3:
            raise ValueError("accept, reject and busy must be three different outputs")
        return self


class DiskLimits(Strict):
    """How much room the records' file system must have, in 10^9 bytes."""

    start_free_gb: float = Field(default=2, ge=0, description="less refuses a start")
    warn_free_gb: float = Field(default=5, ge=0, description="less warns")
    suspend_free_gb: float = Field(default=1, ge=0, description="less lets no next sheet begin")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.suspend_free_gb <= self.start_free_gb <= self.warn_free_gb:
            raise ValueError("suspend_free_gb, start_free_gb, warn_free_gb must not fall")
        return self


class CellConfig(Strict):
    """The hardware of one station and the limits it works in."""

    station: Name
    robot: Driver
    camera: Driver
    lens: Lens
    motion: MotionLimits
    tcp: PoseField = Field(
        description="flange to tool, as installed on the robot; compared, never written"
    )
    payload_kg: float = Field(ge=0, le=5)
    polyscope: (
        Annotated[str, form(r"^[0-9]+(\.[0-9]+){1,3}$", "a version, such as 3.15,")] | None
    ) = Field(
        default=None,
        description="version of the robot's software, whole or its first numbers; compared",
    )
    lines: Lines
    gate: Literal["input", "manual"] = "input"
    sheet_timeout_s: float = Field(default=600, gt=0)
    noise_expected: bool = Field(
        default=True,
        description="no two pictures of this camera are ever equal; false for photographs shown",
    )
    disk: DiskLimits = DiskLimits()
    ledger: DatabaseUrl | None = Field(
        default=None,
        description="URL of a PostgreSQL database without a password; default: data/ledger.db",
    )
    scene_version: int | None = Field(
        default=None, description="only in the simulated cell's file; records carry it"
    )

    def view_width_mm(self, working_distance_m: float) -> float:
        """Width of the picture on the sheet."""
        return self.lens.sensor_width_mm / self.lens.focal_length_mm * working_distance_m * 1e3


class LoadedCell(NamedTuple):
    """A cell file together with its path and the text it was read from."""

    path: Path
    config: CellConfig
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_cell(path: Path) -> LoadedCell:
    """Read a cell file."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such cell file; copy calibration/cell.yaml and fill it in")
    text = read(path)
    return LoadedCell(path, parse(text, path, CellConfig), text)


def open_workspace(path: Path) -> Path:
    """Return the workspace's absolute path, or say what is missing and how to make it."""
    missing = [name for name in ("recipes", "calibration") if not (path / name).is_dir()]
    if missing:
        raise ConfigError(
            f"{path} is no workspace: no {' or '.join(missing)} folder; try `station init DIR`"
        )
    return path.resolve()
