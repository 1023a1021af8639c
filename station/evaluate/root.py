"""Every category of an MVTec AD folder: what is done stays done, and the averages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from station.errors import DatasetError
from station.evaluate import evaluation as evaluations
from station.evaluate.evaluation import Evaluation
from station.evaluate.measure import Examples, software
from station.evaluate.metrics import Estimate

# The published averages are of these; other categories count overall only.
TEXTURES = frozenset({"carpet", "grid", "leather", "tile", "wood"})
OBJECTS = frozenset(
    {
        "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush",
        "transistor", "zipper",
    }
)  # fmt: skip
AVERAGED = ("image_auroc", "pixel_auroc", "au_pro")


class Average(NamedTuple):
    """Means over categories; a category without a figure is left out of that mean."""

    name: str
    categories: int
    figures: dict[str, Estimate | None]


def categories(root: Path) -> list[Path]:
    """List the trees of a folder."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    found = sorted(place for place in root.iterdir() if (place / "test").is_dir())
    if not found:
        raise DatasetError(f"{root}: no folder with a folder test in it")
    return found


def finished_before(
    path: Path, examples: Examples, sha256: str, threshold: float
) -> Evaluation | None:
    """Read a finished result if model, images, split, threshold and station are still the same."""
    try:
        found = evaluations.load(path)
    except DatasetError:
        return None
    same = (
        found.data_digest == examples.digest
        and found.split == examples.split
        and found.model_sha256 == sha256
        and found.threshold == threshold
        and found.software.get("station") == software()["station"]
    )
    return found if same else None


def averages(results: Sequence[Evaluation]) -> list[Average]:
    """Average textures, objects and all; groups without a member are left out."""
    groups = [
        ("textures", [r for r in results if r.dataset in TEXTURES]),
        ("objects", [r for r in results if r.dataset in OBJECTS]),
        ("all", list(results)),
    ]
    return [
        Average(
            name,
            len(members),
            {field: mean([getattr(r, field) for r in members]) for field in AVERAGED},
        )
        for name, members in groups
        if members
    ]


def mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Average independent estimates; the distances to their bounds add up as squares (MOVER)."""
    known = [e for e in estimates if e is not None]
    if not known:
        return None
    value = math.fsum(e.value for e in known) / len(known)
    below = [e.value - e.low for e in known if e.low is not None]
    above = [e.high - e.value for e in known if e.high is not None]
    if min(len(below), len(above)) < len(known):
        return Estimate(value=value, low=None, high=None)
    low, high = (math.hypot(*distances) / len(known) for distances in (below, above))
    return Estimate(value=value, low=max(0.0, value - low), high=min(1.0, value + high))
