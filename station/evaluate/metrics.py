"""What a detector is worth, image by image: ranks, and shares with the interval they are known to.

Every interval is meant to hold the true value 95 times in 100. Scores of one unit (a sheet, a strip
of cloth) go together, so a unit counts once in an exact interval and is drawn whole in a bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from station.intervals import clopper_pearson
from station.model_card import ModelCard
from station.strict import Strict

RESAMPLES = 1000
BLOCK = 1 << 22  # entries of the resampled counts held at once

Floats = NDArray[np.float64]


class Estimate(Strict):
    """A measured value and its 95 % interval; no bounds where the data cannot give any."""

    value: float
    low: float | None
    high: float | None


class Rate(Estimate):
    """A share, `count` of `total`, with its exact interval."""

    low: float
    high: float
    count: int
    total: int


class ImageMetrics(Strict):
    """What scores of images (or sheets) say; None where there is nothing to compare."""

    good: int
    defective: int
    image_auroc: Estimate | None
    average_precision: Estimate | None
    false_rejects_at_zero_escapes: Rate | None
    zero_escape_threshold: float | None
    threshold: float | None = None
    escapes: Rate | None = None
    false_rejects: Rate | None = None
    f1: Estimate | None = None


@dataclass(frozen=True)
class LabelledScores:
    """Scores with the truth; `units` names what each belongs to."""

    scores: Floats
    defective: NDArray[np.bool_]
    units: Sequence[str]

    def only(self, chosen: NDArray[np.bool_]) -> LabelledScores:
        """Keep the chosen entries."""
        units = [self.units[i] for i in np.flatnonzero(chosen).tolist()]
        return LabelledScores(self.scores[chosen], self.defective[chosen], units)


def image_auroc(good: Sequence[float] | Floats, defective: Sequence[float] | Floats) -> float:
    """Return the chance that a defective image scores above a good one; a tie counts half."""
    ranks = rankdata(np.concatenate([good, defective]))
    n, m = len(good), len(defective)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def average_precision(good: Sequence[float], defective: Sequence[float]) -> float:
    """Return the mean, over defective images, of the precision at their own score."""
    levels, place = np.unique(np.concatenate([good, defective]), return_inverse=True)
    counts = [np.bincount(p, minlength=len(levels)) for p in np.split(place, [len(good)])]
    return float(_average_precision(*(c.astype(np.float64) for c in counts)))


def measure(labelled: LabelledScores, threshold: float | None, seed: int = 0) -> ImageMetrics:
    """Compute every figure that needs scores alone; an image is rejected from the threshold on."""
    good, defective = (labelled.only(labelled.defective == kind) for kind in (False, True))
    both = len(good.scores) > 0 and len(defective.scores) > 0
    auroc, precision = _ranking(labelled, seed) if both else (None, None)
    lowest = float(defective.scores.min()) if both else np.nan
    metrics = ImageMetrics(
        good=len(good.scores),
        defective=len(defective.scores),
        image_auroc=auroc,
        average_precision=precision,
        false_rejects_at_zero_escapes=share(good, good.scores >= lowest) if both else None,
        zero_escape_threshold=lowest if both else None,
    )
    if threshold is None:
        return metrics
    judged = {
        "threshold": threshold,
        "escapes": share(defective, defective.scores < threshold),
        "false_rejects": share(good, good.scores >= threshold),
        "f1": _f1(good, defective, threshold),
    }
    return metrics.model_copy(update=judged)


def held_out_rejects(card: ModelCard, threshold: float) -> tuple[int, int, float, float]:
    """Count the held-out good units that the threshold rejects: count, total and 95 % interval."""
    scores = card.held_out_scores
    count = sum(not score < threshold for score in scores)
    return count, len(scores), *clopper_pearson(count, len(scores))


def draw_units(
    units: Sequence[str], defective: NDArray[np.bool_], seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float32]:
    """Draw units with replacement; return how often each entry counts, (resamples, entries).

    Units with a defect are drawn apart from those without, so every resample has both.
    """
    names, unit_of = np.unique(np.asarray(units), return_inverse=True)
    spoilt = np.bincount(unit_of, weights=defective, minlength=len(names)) > 0
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(names)), np.float32)
    for stratum in (np.flatnonzero(spoilt), np.flatnonzero(~spoilt)):
        if len(stratum):
            chances = np.full(len(stratum), 1 / len(stratum))
            drawn[:, stratum] = rng.multinomial(len(stratum), chances, size=resamples)
    return drawn[:, unit_of]


def estimate(value: float, resampled: Floats) -> Estimate:
    """Put the middle 95 % of the resampled values around a value.

    No bounds where all resamples agree: that says the data are few, not that the value is sure.
    """
    finite = resampled[np.isfinite(resampled)]
    if len(finite) == 0 or np.ptp(finite) < 1e-12:
        return Estimate(value=value, low=None, high=None)
    low, high = (float(bound) for bound in np.percentile(finite, [2.5, 97.5]))
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _ranking(labelled: LabelledScores, seed: int) -> tuple[Estimate, Estimate]:
    """Return AUROC and average precision with the bootstrap over units."""
    good, defective = (
        labelled.only(labelled.defective == k).scores.tolist() for k in (False, True)
    )
    weights = draw_units(labelled.units, labelled.defective, seed)
    aurocs, precisions = [], []
    for counts in _resampled(labelled, weights):
        with np.errstate(invalid="ignore"):  # a resample may lack one kind where units hold both
            aurocs.append(_auroc(*counts))
            precisions.append(_average_precision(*counts))
    auroc = estimate(image_auroc(good, defective), np.concatenate(aurocs))
    # A perfect order of so few units shows no more than this, so an imperfect one neither.
    few = min(len(set(labelled.only(labelled.defective == k).units)) for k in (False, True))
    most = clopper_pearson(few, few)[0]
    if auroc.low is None and auroc.value == 1.0:
        auroc = auroc.model_copy(update={"low": most, "high": 1.0})
    elif auroc.low is not None:
        auroc = auroc.model_copy(update={"low": min(auroc.low, most)})
    precision = estimate(average_precision(good, defective), np.concatenate(precisions))
    return auroc, precision


def resampled_aurocs(labelled: LabelledScores, weights: NDArray[np.float32]) -> Floats:
    """Return the image AUROC of every resample that `draw_units` drew."""
    with np.errstate(invalid="ignore"):
        return np.concatenate([_auroc(*counts) for counts in _resampled(labelled, weights)])


def _resampled(
    labelled: LabelledScores, weights: NDArray[np.float32]
) -> Iterator[tuple[Floats, Floats]]:
    """Yield blocks of resamples as counts of good and defective per distinct score, ascending."""
    levels, place = np.unique(labelled.scores, return_inverse=True)
    for block in np.array_split(weights, max(1, len(weights) * len(levels) // BLOCK)):
        counts = []
        for kind in (False, True):
            part = np.flatnonzero(labelled.defective == kind)
            # One row a score, so that equal ones can be added up.
            rows = np.zeros((len(levels), len(block)))
            np.add.at(rows, place[part], block[:, part].T)
            counts.append(rows.T)
        yield counts[0], counts[1]


def _auroc(good: Floats, defective: Floats) -> Floats:
    """Rank counts per distinct score, (..., scores) in ascending order."""
    below = good.cumsum(-1) - good / 2
    pairs = good.sum(-1) * defective.sum(-1)
    return np.asarray((defective * below).sum(-1) / pairs)


def _average_precision(good: Floats, defective: Floats) -> Floats:
    found = defective[..., ::-1].cumsum(-1)
    called = found + good[..., ::-1].cumsum(-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return np.asarray((defective[..., ::-1] * precision).sum(-1) / defective.sum(-1))


def share(
    labelled: LabelledScores, hit: NDArray[np.bool_], confidence: float = 0.95
) -> Rate | None:
    """Count hits; the exact interval is that of as many trials as there are units."""
    count, total, units = int(hit.sum()), len(hit), len(set(labelled.units))
    if total == 0:
        return None
    # The share among that many trials need not be a whole count: rounded away from it.
    low, _ = clopper_pearson(count * units // total, units, confidence)
    _, high = clopper_pearson(-(-count * units // total), units, confidence)
    return Rate(value=count / total, low=low, high=high, count=count, total=total)


def _f1(good: LabelledScores, defective: LabelledScores, threshold: float) -> Estimate | None:
    """Return F1 at this share of defects; its bounds are those of its two rates, 97.5 % each."""
    found = share(defective, defective.scores >= threshold, 0.975)
    wrong = share(good, good.scores >= threshold, 0.975)
    if found is None or wrong is None:
        return None

    def f1(recall: float, rejected: float) -> float:
        return 2 * recall * found.total / ((1 + recall) * found.total + rejected * wrong.total)

    return Estimate(
        value=f1(found.value, wrong.value),
        low=f1(found.low, wrong.high),
        high=f1(found.high, wrong.low),
    )
