"""Thresholds with a contract: a policy chooses one, exact intervals say what it is worth.

A unit (a sheet, else an image) is accepted when its score is below the threshold; a score that is
not finite rejects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from station.errors import ConfigError
from station.intervals import Share, share, upper_bound

# Of a scale on which a typical defect is 1: processors agree no finer, and the number that is
# written is the number that was judged by.
STEP = Decimal("0.0001")

Scores = NDArray[np.float64]


class Policy(NamedTuple):
    """What a threshold is to reach."""

    name: Literal["zero-escape", "max-false-reject", "cost", "good-only"]
    limit: float = 0.0  # share of good units that may be rejected
    costs: tuple[float, float] = (0.0, 0.0)  # of an escape, of a false reject

    def __str__(self) -> str:
        if self.name == "zero-escape":
            return self.name
        if self.name == "cost":
            return f"cost {self.costs[0]:g}:{self.costs[1]:g}"
        return f"{self.name} {self.limit:g}"


class Reading(NamedTuple):
    """What a threshold does to the units it is tried on; None where there are none."""

    threshold: float
    escapes: Share | None
    false_rejects: Share | None


ZERO_ESCAPE = Policy("zero-escape")


def parse_policy(text: str) -> Policy:
    """Read a policy as it is written on the command line."""
    name, _, value = " ".join(text.split()).partition(" ")
    if name == "zero-escape" and not value:
        return ZERO_ESCAPE
    if name == "max-false-reject":
        limit = _number(value)
        if not 0 <= limit < 1:
            raise ConfigError(f"policy {text!r}: a share from 0 to below 1 is needed, as in 0.05")
        return Policy("max-false-reject", limit)
    if name == "good-only":
        limit = _number(value)
        if not 0 < limit < 1:
            raise ConfigError(f"policy {text!r}: a share between 0 and 1 is needed, as in 0.01")
        return Policy("good-only", limit)
    if name == "cost":
        escape, _, reject = value.partition(":")
        costs = _number(escape), _number(reject)
        if not all(cost > 0 for cost in costs):
            raise ConfigError(f"policy {text!r}: two costs above zero are needed, as in 50:1")
        return Policy("cost", costs=costs)
    raise ConfigError(
        f"policy {text!r}: there are zero-escape, max-false-reject P, cost A:B, good-only P"
    )


def choose(policy: Policy, good: Sequence[float], defective: Sequence[float]) -> Reading:
    """Return the threshold that the policy asks for, tried on the units it was chosen on.

    Units that cannot serve the policy are a ConfigError.
    """
    if not good:
        raise ConfigError(f"policy {policy}: no good unit, so its false rejects are unknown")
    if not defective and policy.name in {"zero-escape", "cost"}:
        raise ConfigError(
            f"policy {policy}: no defective unit to choose by; `good-only 0.01` needs none"
        )
    known = [*good] if policy.name == "good-only" else [*good, *defective]
    thresholds = _candidates(known)
    if not thresholds.size:
        raise ConfigError(f"policy {policy}: no unit has a finite score")
    rejected = _rejected(good, thresholds)
    escaped = len(defective) - _rejected(defective, thresholds)
    best = _best(policy, len(good), rejected, escaped)
    return read(float(thresholds[best]), good, defective)


def read(threshold: float, good: Sequence[float], defective: Sequence[float]) -> Reading:
    """Count what a threshold rejects of the good and accepts of the defective."""
    limit = np.array([threshold])
    rejects, finds = (int(_rejected(scores, limit)[0]) for scores in (good, defective))
    return Reading(
        threshold,
        share(len(defective) - finds, len(defective)) if defective else None,
        share(rejects, len(good)) if good else None,
    )


def at_most(score: float) -> float:
    """Return the highest threshold that rejects a score."""
    return float(Decimal(repr(float(score))).quantize(STEP, ROUND_FLOOR))


def above(score: float) -> float:
    """Return the lowest threshold that accepts a score."""
    return float(Decimal(repr(float(score))).quantize(STEP, ROUND_FLOOR) + STEP)


def _best(
    policy: Policy, good: int, rejected: NDArray[np.int64], escaped: NDArray[np.int64]
) -> int:
    """Return the index of the policy's threshold; thresholds ascend, so `rejected` descends."""
    if policy.name == "zero-escape":
        return int(np.flatnonzero(escaped == 0)[-1])
    if policy.name == "cost":
        escape, reject = policy.costs
        return int(np.argmin(escape * escaped + reject * rejected))  # the first of equals
    if policy.name == "max-false-reject":
        kept = rejected / good <= policy.limit
    else:
        # The rank of an order statistic depends on their number alone, so the bound on a count
        # holds for a threshold that is chosen by it, whatever the scores' distribution.
        too_many = bisect_left(range(good), True, key=lambda n: upper_bound(n, good) > policy.limit)
        kept = rejected < too_many
    # Where the units cannot keep it, the fewest rejects are the nearest there is.
    return int(np.argmax(kept)) if kept.any() else int(np.argmin(rejected))


def _candidates(scores: Sequence[float]) -> Scores:
    """List in ascending order the thresholds at which a count may change."""
    finite = [score for score in scores if np.isfinite(score)]
    return np.unique([*map(at_most, finite), *map(above, finite)])


def _rejected(scores: Sequence[float], thresholds: Scores) -> NDArray[np.int64]:
    """Count per threshold the scores that are not below it or not finite."""
    finite = np.sort(np.array([score for score in scores if np.isfinite(score)], np.float64))
    return len(scores) - np.searchsorted(finite, thresholds, side="left")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")
