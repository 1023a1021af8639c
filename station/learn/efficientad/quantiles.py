"""Quantiles of any number of values, exact and the same at every call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from station.errors import DatasetError


def quantiles(values: Tensor, shares: Sequence[float]) -> list[float]:
    """Return the quantiles, interpolated linearly between the two nearest values.

    `torch.quantile` finds its place in single precision, too coarse for millions of values, and
    takes four times as long.
    """
    flat = values.detach().float().flatten()
    if not len(flat):
        raise DatasetError("no values to take a quantile of")
    places = [share * (len(flat) - 1) for share in shares]
    wanted = sorted({edge for place in places for edge in (math.floor(place), math.ceil(place))})
    if flat.is_cuda:
        at = {edge: float(flat.kthvalue(edge + 1).values) for edge in wanted}
    else:
        ordered = np.partition(flat.numpy(), wanted)
        at = {edge: float(ordered[edge]) for edge in wanted}
    found = []
    for place in places:
        low, high = at[math.floor(place)], at[math.ceil(place)]
        found.append(low + (high - low) * (place - math.floor(place)))
    return found
