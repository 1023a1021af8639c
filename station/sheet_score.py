"""One score of a sheet's shots: how far the shots of a setup have to agree on a defect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.recipe import SheetRule

Map = NDArray[np.floating[Any]]


class ShotScore(NamedTuple):
    """What a model said of one shot; the map is needed where shots are compared by place."""

    setup: str
    score: float | None
    anomaly_map: Map | None = None  # (h, w)


def sheet_score(shots: Sequence[ShotScore], rule: SheetRule) -> float:
    """Return the highest score of any setup; every shot must have a score.

    A defect is there in all shots of a setup, a glint moves between them: where every place is
    seen by all shots of some setup, `lowest` and `consensus` tell them apart.
    """
    by_setup: dict[str, list[ShotScore]] = {}
    for shot in shots:
        by_setup.setdefault(shot.setup, []).append(shot)
    return max(_setup_score(members, rule) for members in by_setup.values())


def consensus(maps: Sequence[Map], same_place: float) -> float:
    """Return the highest value that all maps (h, w) reach at the same place.

    A place is as wide as the camera moved between the shots, `same_place` of the map's width, and
    half a cell more. Which way it moved is not needed: a camera may be mounted turned.

    Maps are compared as they are recorded, in half precision, so that anyone can do it again.
    """
    reach = same_place * maps[0].shape[1] + 0.5
    side = np.arange(-int(reach), int(reach) + 1)
    disk = (side**2 + side[:, None] ** 2 <= reach**2).astype(np.uint8)
    widened = [
        cv2.dilate(recorded(values).astype(np.float32), disk, borderType=cv2.BORDER_REPLICATE)
        for values in maps
    ]
    return float(np.min(widened, axis=0).max())


def recorded(anomaly_map: Map) -> NDArray[np.float16]:
    """Return a map as records keep it, in half precision: 8 kB for 64 x 64."""
    return anomaly_map.astype(np.float16)


def _setup_score(shots: Sequence[ShotScore], rule: SheetRule) -> float:
    scores = [shot.score for shot in shots if shot.score is not None]
    maps = [shot.anomaly_map for shot in shots if shot.anomaly_map is not None]
    if len(scores) < len(shots):
        raise ValueError("a shot has no score")
    if rule.setup_score == "highest":
        return max(scores)
    if rule.setup_score == "lowest":
        return min(scores)
    if len(maps) < len(shots):
        raise ValueError("consensus compares maps by place; a shot has none")
    return consensus(maps, rule.same_place)
