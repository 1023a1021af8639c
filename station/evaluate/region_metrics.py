"""What a detector's maps are worth, pixel by pixel and region by region, exact on raw scores.

A curve of overlap against false positives is a sum of steps, one for each defective pixel, at the
share of good pixels that score above it. So is the area under it: each pixel adds what lies right
of its step. Only the defective pixels are kept; good ones are sorted and counted in portions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from station.evaluate.metrics import Estimate, Floats, draw_units, estimate

FPR_LIMIT = 0.3  # as far as the published AU-PRO is integrated
OVERLAP_FPR = 0.05  # of good pixels; where the table reads the overlap of each region
PORTION = 1 << 24  # good pixels sorted at once
GRID = 1024  # thresholds of the bootstrap
EIGHT_CONNECTED = np.ones((3, 3), np.int8)  # diagonal neighbours belong to one region

# A map at its mask's size and the mask, (H, W) each; no mask means every pixel is good.
LabelledMap = tuple[NDArray[np.float32], NDArray[np.bool_] | None]


class Region(NamedTuple):
    """One connected defect of a mask; the areas are means over its pixels."""

    image: int
    area_px: int
    highest_score: float
    au_pro: float  # its own share in AU-PRO, which is the mean over regions
    overlap: float  # share of it found where OVERLAP_FPR of all good pixels are


class PixelMetrics(NamedTuple):
    """Figures over all defects and over those of each label."""

    pixel_auroc: Estimate
    au_pro: Estimate
    by_label: dict[str, tuple[Estimate, Estimate]]  # pixel AUROC, AU-PRO
    regions: list[Region]
    good_pixels: int
    defective_pixels: int


class _Defects(NamedTuple):
    """Defective pixels, region after region."""

    scores: NDArray[np.float32]
    areas: NDArray[np.int64]
    images: NDArray[np.int64]  # of each region

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.areas) - self.areas

    def mean_by_region(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self.starts) / self.areas)


@dataclass(frozen=True)
class _Counts:
    """Per image, how much scores at or above each threshold of the grid (descending)."""

    good: NDArray[np.float32]  # (images, grid) pixels
    overlap: NDArray[np.float32]  # (images, grid) sum over regions of the share found
    found: NDArray[np.float32]  # (images, grid) defective pixels
    totals: NDArray[np.float32]  # (3, images) good pixels, regions, defective pixels


def measure(
    maps: Iterable[LabelledMap], units: Sequence[str], labels: Sequence[str], seed: int = 0
) -> PixelMetrics | None:
    """Measure maps, gone through twice; None without a defective or without a good pixel."""
    defects = _collect(maps)
    if len(defects.areas) == 0:
        return None
    levels, place = np.unique(defects.scores, return_inverse=True)
    grid = _grid(levels, place, defects)
    above, equal, counts = _count(maps, levels, grid, defects, len(units))
    total = int(counts.totals[0].sum(dtype=np.float64))
    if total == 0:
        return None
    right, tied = (n[place] / total for n in (above, equal))
    auc = area_right_of(right, tied, 1.0)
    pro = defects.mean_by_region(area_right_of(right, tied, FPR_LIMIT))
    found = (right + tied <= OVERLAP_FPR).astype(np.float64)
    overlaps = defects.mean_by_region(found)
    highest = np.maximum.reduceat(defects.scores, defects.starts)
    regions = [
        Region(int(image), int(area), float(high), float(own), float(overlap))
        for image, area, high, own, overlap in zip(
            defects.images, defects.areas, highest, pro, overlaps, strict=True
        )
    ]
    bootstrap = _Bootstrap(counts, units, seed)
    owner = np.asarray(labels)[defects.images]
    by_label = {}
    for label in dict.fromkeys(owner.tolist()):
        mine = owner == label
        pixels = np.repeat(mine, defects.areas)
        images = np.unique(defects.images[mine])
        by_label[label] = bootstrap.estimates(auc[pixels].mean(), pro[mine].mean(), images)
    whole = bootstrap.estimates(auc.mean(), pro.mean(), np.unique(defects.images))
    return PixelMetrics(*whole, by_label, regions, total, len(defects.scores))


def area_right_of(right: Floats, tied: Floats, limit: float) -> Floats:
    """Return the area up to `limit` under a step at `right`, divided by `limit`.

    `right` is the share of good pixels above a score, `tied` of those equal to it: there the curve
    is a straight line, as the trapezoid rule has it.
    """
    room = np.clip(limit - right, 0, None)
    ramp = np.minimum(room, tied)
    slope = np.divide(1, tied, out=np.zeros_like(tied), where=tied > 0)
    return np.asarray((room - ramp + ramp**2 * slope / 2) / limit)


def _collect(maps: Iterable[LabelledMap]) -> _Defects:
    scores = [np.empty(0, np.float32)]
    areas = [np.empty(0, np.int64)]
    images: list[int] = []
    for i, (values, mask) in enumerate(maps):
        if mask is None:
            continue
        named, count = ndimage.label(mask, EIGHT_CONNECTED)
        owner = named[mask]
        order = np.lexsort((values[mask], owner))
        scores.append(values[mask][order])
        areas.append(np.bincount(owner, minlength=count + 1)[1:])
        images += [i] * count
    return _Defects(np.concatenate(scores), np.concatenate(areas), np.array(images, np.int64))


def _grid(
    levels: NDArray[np.float32], place: NDArray[np.int64], defects: _Defects
) -> NDArray[np.float32]:
    """Choose thresholds, descending: equal steps of overlap, and equal steps of pixels.

    The curve moves only at scores of defects, so between two of them it is off by a step at most.
    """
    if len(levels) <= GRID:
        return levels[::-1]
    steps = np.linspace(0, 1, GRID // 2)
    chosen = []
    for weights in (np.repeat(1 / defects.areas, defects.areas), None):
        mass = np.bincount(place, weights=weights, minlength=len(levels)).cumsum()
        chosen.append(np.searchsorted(mass, steps * mass[-1]).clip(max=len(levels) - 1))
    return np.asarray(levels[np.unique(np.concatenate(chosen))[::-1]])


def _count(
    maps: Iterable[LabelledMap],
    levels: NDArray[np.float32],
    grid: NDArray[np.float32],
    defects: _Defects,
    images: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], _Counts]:
    """Count good pixels above and at each level, and all that the bootstrap needs per image."""
    above, equal = np.zeros(len(levels), np.int64), np.zeros(len(levels), np.int64)
    good, overlap, found = (np.zeros((images, len(grid)), np.float32) for _ in range(3))
    totals = np.zeros((3, images), np.float32)
    for portion in _portions(_good_pixels(maps, grid, good, totals[0])):
        portion.sort()
        up_to = np.searchsorted(portion, levels, "right")
        above += len(portion) - up_to
        equal += up_to - np.searchsorted(portion, levels, "left")
    for start, area, image in zip(defects.starts, defects.areas, defects.images, strict=True):
        pixels = defects.scores[start : start + area]
        at_least = area - np.searchsorted(pixels, grid, "left")
        found[image] += at_least
        overlap[image] += at_least / area
        totals[1:, image] += 1, area
    return above, equal, _Counts(good, overlap, found, totals)


def _good_pixels(
    maps: Iterable[LabelledMap],
    grid: NDArray[np.float32],
    counts: NDArray[np.float32],
    totals: NDArray[np.float32],
) -> Iterator[NDArray[np.float32]]:
    """Yield the good pixels of each image, counted against the grid."""
    for i, (values, mask) in enumerate(maps):
        pixels = values.flatten() if mask is None else values[~mask]
        pixels.sort()
        counts[i] = len(pixels) - np.searchsorted(pixels, grid, "left")
        totals[i] = len(pixels)
        yield pixels


def _portions(parts: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    waiting: list[NDArray[np.float32]] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= PORTION:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


class _Bootstrap:
    """Draws units; the share of good pixels per resample and threshold serves every label."""

    def __init__(self, counts: _Counts, units: Sequence[str], seed: int) -> None:
        self._counts = counts
        self._weights = draw_units(units, counts.totals[1] > 0, seed)
        self._good = self._shares(counts.good, counts.totals[0], slice(None))

    def estimates(
        self, auroc: float, au_pro: float, images: NDArray[np.int64]
    ) -> tuple[Estimate, Estimate]:
        """Return pixel AUROC and AU-PRO of the defects in these images with their intervals."""
        counts = self._counts
        found = self._shares(counts.found, counts.totals[2], images)
        overlap = self._shares(counts.overlap, counts.totals[1], images)
        return (
            estimate(float(auroc), _area(self._good, found, 1.0)),
            estimate(float(au_pro), _area(self._good, overlap, FPR_LIMIT)),
        )

    def _shares(
        self,
        rows: NDArray[np.float32],
        totals: NDArray[np.float32],
        images: NDArray[np.int64] | slice,
    ) -> Floats:
        """Return (resamples, grid) shares; NaN where a resample lacks what is divided by."""
        weights = self._weights[:, images]
        whole = (weights @ totals[images]).astype(np.float64)
        whole[whole == 0] = np.nan
        return np.asarray((weights @ rows[images]) / whole[:, None])


def _area(x: Floats, y: Floats, limit: float) -> Floats:
    """Integrate each row from (0, 0) through its points to x = limit, divided by `limit`."""
    x, y = (np.pad(v, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))) for v in (x, y))
    width, rise = np.diff(x), np.diff(y)
    inside = np.clip(limit - x[:, :-1], 0, width)
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    return np.asarray((inside * (y[:, :-1] + inside * slope / 2)).sum(-1) / limit)
