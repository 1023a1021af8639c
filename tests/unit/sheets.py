"""Sheets as records, for tests that need one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from station.geometry import Pose
from station.kinematics import Joints
from station.records.sheet import Capture, FileEntry, Image, Manifest, pixels_sha256

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PLACE = Pose(0.0, -0.45, 0.26, 3.14159265, 0.0, 0.0)


def picture(number: int, width: int = 8, height: int = 6) -> Image:
    """A small picture no other number has."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width), dtype=np.uint8)


def capture(number: int, sheet: str = "s1-0001-000001", **values: Any) -> Capture:
    image = picture(number)
    given: dict[str, Any] = {
        "file": f"{sheet}_left_{number}.png",
        "pixels_sha256": pixels_sha256(image),
        "width": image.shape[1],
        "height": image.shape[0],
        "setup": "left",
        "shot": number,
        "pose_asked": PLACE,
        "pose": PLACE,
        "joints_rad": Joints(0, 0, 0, 0, 0, 0),
        "exposure_us": 8000.0,
        "gain_db": 0.0,
        "frame": number,
        "taken_at": WHEN,
    }
    return Capture(**{**given, **values})


def manifest(sheet: str = "s1-0001-000001", shots: int = 3, **values: Any) -> Manifest:
    captures = tuple(capture(number, sheet) for number in range(1, shots + 1))
    given: dict[str, Any] = {
        "schema": 1,
        "kind": "capture",
        "sheet": sheet,
        "run": "s1-0001",
        "started_at": WHEN,
        "finished_at": WHEN,
        "complete": True,
        "recipe": "glassfiber",
        "recipe_sha256": "0" * 64,
        "cell_sha256": "1" * 64,
        "captures": captures,
        "files": {c.file: FileEntry(sha256="2" * 64, bytes=10) for c in captures},
        "software": {"station": "0.1.0"},
    }
    return Manifest(**{**given, **values})
