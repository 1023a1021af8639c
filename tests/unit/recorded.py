"""Inspected sheets with real files on disk, for tests of what keeps and proves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sheets import manifest, picture

from station.records.dataset import Dataset, save_image, save_map
from station.records.sheet import Verdict, pixels_sha256

RECIPE = "glassfiber"


def sheet_id(number: int) -> str:
    return f"s1-0001-{number:06d}"


def record(dataset: Dataset, number: int, verdict: str = "accept", **values: Any) -> Path:
    """Record one inspected sheet of three pictures and maps, as the loop does; nothing is told."""
    sheet = sheet_id(number)
    folder = dataset.begin("inspection", sheet)
    files, captures = {}, []
    score = {"accept": 0.1, "reject": 0.9}.get(verdict)
    for capture in manifest(sheet).captures:
        map_file = f"{Path(capture.file).stem}_map.npy"
        image = picture(100 * number + capture.shot)
        files[capture.file] = save_image(folder / capture.file, image)
        files[map_file] = save_map(folder / map_file, np.zeros((4, 4), np.float32))
        own = {"score": score, "map_file": map_file, "pixels_sha256": pixels_sha256(image)}
        captures.append(capture.model_copy(update=own))
    given: dict[str, Any] = {
        "kind": "inspection",
        "verdict": Verdict(verdict),
        "score": score,
        "threshold": 0.5,
        "setup_score": "highest",
        "model": "glassfiber/1",
        "model_sha256": "3" * 64,
        "captures": tuple(captures),
        "files": files,
        "complete": verdict != "none",
    }
    return dataset.record_inspection(folder, manifest(sheet, **{**given, **values}))


def told(dataset: Dataset, number: int, verdict: str = "accept", **values: Any) -> Path:
    """Record a sheet and note that its line rose."""
    folder = record(dataset, number, verdict, **values)
    dataset.note(folder, "signalled", outcome=verdict)
    return folder
