"""Good units left out of training: they fix the score's scale and tell the false rejects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from station.errors import DatasetError, ModelError
from station.learn import synthetic
from station.learn.images import TrainingImages
from station.model_card import Scale, TrainingData
from station.recipe import SheetRule
from station.records.sheet import Image
from station.sheet_score import Map, ShotScore, recorded, sheet_score

SHARE = 0.2  # of the units
FEW = 10  # units; a fifth of fewer says nothing
FOLDS = 5  # trainings of the head that few units cost besides the one that is kept
GOOD_GOLDEN = 3


class Judge(Protocol):
    """What scores frames, with the size that it brings them to."""

    canvas_height: int
    canvas_width: int

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and maps."""


class HeldOut(NamedTuple):
    """What good units left out of training scored, before the scale was known."""

    units: list[str]  # one entry per image
    setups: list[str]  # likewise: what the shots of one setup share of their names
    good: list[float]
    maps: list[Map]  # of the good images
    scale: Scale
    good_golden: list[Image]
    spoilt_golden: list[Image]


def hold_out(images: TrainingImages, seed: int) -> list[TrainingImages]:
    """Choose what is measured by heads that have not seen it; shots of one unit stay together.

    One part, a fifth of the units, where there are enough. Of fewer than `FEW` units none can be
    spared: the parts then hold all of them, each for a training without it.
    """
    names = list(images.units)
    if len(names) < 2:
        raise DatasetError(
            f"{images.folder}: one unit ({names[0]}); at least 2 are needed, one to learn from and "
            "one to set the scale"
        )
    order = [names[i] for i in np.random.default_rng([seed, 1]).permutation(len(names))]
    if len(names) >= FEW:
        return [images.only(order[: round(SHARE * len(names))])]
    return [images.only(order[part::FOLDS]) for part in range(min(FOLDS, len(names)))]


def score_held_out(
    parts: Sequence[tuple[TrainingImages, Judge]],
    read: Callable[[Path], Image],
    seed: int,
    told: Callable[[int, int], None],
) -> HeldOut:
    """Score every held-out image as it is and with a synthetic defect; fix the scale by both."""
    rng = np.random.default_rng([seed, 2])
    units, setups, good, maps, spoilt = [], [], [], [], []
    plain: list[Image] = []
    seen: list[Image] = []
    todo = [
        (unit, path, detector)
        for images, detector in parts
        for unit, files in images.units.items()
        for path in files
    ]
    for i, (unit, path, detector) in enumerate(todo):
        image = read(path)
        kinds = synthetic.KINDS if len(todo) < FEW else [synthetic.KINDS[i % 3]]
        for kind in kinds:
            bad = synthetic.spoil(image, kind, rng)
            spoilt.append(score(detector, bad))
            seen.append(_small(bad, detector))
        units.append(unit)
        setups.append(path.stem.rpartition("_")[0] or path.stem)
        found, anomaly_map = answer(detector, image)
        good.append(found)
        maps.append(recorded(anomaly_map))
        if len(plain) < GOOD_GOLDEN:
            plain.append(_small(image, detector))
        told(i + 1, len(todo))
    zero, one = float(np.median(good)), float(np.median(spoilt))
    if not (np.isfinite([zero, one]).all() and one - zero > 1e-6):
        raise ModelError(
            f"synthetic defects score {one:.4g}, good images {zero:.4g}: nothing was learned to "
            "tell them apart, so there is no scale"
        )
    scale = Scale(raw_zero=zero, raw_one=one, synthetic_seed=seed, synthetic_kinds=synthetic.KINDS)
    order = np.argsort(spoilt)
    quartiles = [seen[order[len(order) * part // 4]] for part in (1, 2, 3)]
    return HeldOut(units, setups, good, maps, scale, plain, quartiles)


def unit_scores(held_out: HeldOut, rule: SheetRule) -> list[float]:
    """Score every held-out unit as the line would score the sheet."""
    shots: dict[str, list[ShotScore]] = {}
    zero, one = held_out.scale.raw_zero, held_out.scale.raw_one
    answers = zip(held_out.good, held_out.maps, strict=True)
    for unit, setup, (raw, raw_map) in zip(held_out.units, held_out.setups, answers, strict=True):
        score = (raw - zero) / (one - zero)
        anomaly_map = (raw_map.astype(np.float32) - zero) / (one - zero)
        shots.setdefault(unit, []).append(ShotScore(setup, score, anomaly_map))
    return [sheet_score(members, rule) for members in shots.values()]


def training_data(images: TrainingImages, digest: str, held_out: HeldOut) -> TrainingData:
    """Say what a model was made of, for its card; `digest` is that of all files read."""
    return TrainingData(
        folder="/".join(images.folder.parts[-3:]),
        digest=digest,
        images=len(images.files),
        units=len(images.units),
        held_out_units=tuple(dict.fromkeys(held_out.units)),
    )


def score(graph: Callable[[Tensor], tuple[Tensor, Tensor]], image: Image) -> float:
    """Score one image with a detector's graph."""
    return answer(graph, image)[0]


def answer(graph: Callable[[Tensor], tuple[Tensor, Tensor]], image: Image) -> tuple[float, Map]:
    """Return score and map (h, w) of one image."""
    with torch.inference_mode():
        scores, maps = graph(to_frames(image))
    return float(scores[0]), maps[0].numpy()


def to_frames(image: Image) -> Tensor:
    """View an image as a batch of one, (1, C, H, W)."""
    pixels = torch.from_numpy(image)
    return pixels[None, None] if image.ndim == 2 else pixels.permute(2, 0, 1)[None]


def _small(image: Image, detector: Judge) -> Image:
    """Shrink to about what the network sees: a golden image need not be larger.

    The aspect stays: another one would be letterboxed and score like nothing on the line.
    """
    height, width = image.shape[:2]
    scale = max(detector.canvas_width / width, detector.canvas_height / height)
    if scale >= 1:
        return image
    size = round(scale * width), round(scale * height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
