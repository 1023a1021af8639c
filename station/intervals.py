"""Exact intervals for shares: what a count is worth."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from scipy.stats import beta

CONFIDENCE = 0.95
MOST_UNITS = 10**9  # nobody counts further


@dataclass(frozen=True)
class Share:
    """`count` of `total`, with the interval of the true share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share itself; None of nothing."""
        return self.count / self.total if self.total else None


def share(count: int, total: int, confidence: float = CONFIDENCE) -> Share:
    """Return a share with its exact two-sided interval."""
    return Share(count, total, *clopper_pearson(count, total, confidence))


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact two-sided interval of a share, `count` of `total`."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 1, total - count))
    return low, high


def upper_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return the exact one-sided bound: the true share is at most this."""
    return 1.0 if count == total else float(beta.ppf(confidence, count + 1, total - count))


def units_needed(count: int, limit: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many units, `count` of them counted, support a true share of at most `limit`.

    None where that is beyond any counting.
    """
    totals = range(count + 1, MOST_UNITS)
    first = bisect_left(totals, True, key=lambda n: upper_bound(count, n, confidence) <= limit)
    return totals[first] if first < len(totals) else None
