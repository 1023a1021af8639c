"""How wide the features lie: the deviation of every dimension, before and after the adaptor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from station.learn.simplenet.network import Head
from station.model_card import Deviations

PATCHES = 10_000  # enough for a histogram; all of them would cost an epoch
BINS = 24


def deviations(bank: Tensor, head: Head) -> Deviations:
    """Count dimensions by their deviation over patches from all over a bank (N, P, D)."""
    patches = bank.flatten(0, 1)
    some = patches[:: max(1, len(patches) // PATCHES)].float()
    with torch.inference_mode():
        local, adapted = (x.std(0).double().numpy() for x in (some, head.adapt(some)))
    both = np.concatenate([local, adapted])
    low, high = max(float(both.min()), 1e-4), max(float(both.max()), 2e-4)
    edges = np.geomspace(low, high, BINS + 1)
    # Rounding must not push the outermost dimensions out of the histogram.
    counts = [np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] for x in (local, adapted)]
    return Deviations(
        edges=tuple(float(f"{edge:.4g}") for edge in edges),
        local=tuple(counts[0].tolist()),
        adapted=tuple(counts[1].tolist()),
    )
