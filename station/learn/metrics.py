"""What a detector is worth, exactly: ranks, and shares with the interval they were measured to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from station.intervals import clopper_pearson
from station.model import ModelCard


def image_auroc(good: Sequence[float], defective: Sequence[float]) -> float:
    """Return the chance that a defective image scores above a good one; a tie counts half."""
    ranks = rankdata(np.concatenate([good, defective]))
    n, m = len(good), len(defective)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def held_out_rejects(card: ModelCard, threshold: float) -> tuple[int, int, float, float]:
    """Count the held-out good units that the threshold rejects: count, total and 95 % interval."""
    scores = card.held_out_scores
    count = sum(not score < threshold for score in scores)
    return count, len(scores), *clopper_pearson(count, len(scores))
