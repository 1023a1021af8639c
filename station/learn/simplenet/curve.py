"""The learning curve: after every meta-epoch, held-out good images against synthetic defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from station.evaluate.metrics import image_auroc
from station.learn import synthetic
from station.learn.simplenet.network import Epoch, Head
from station.model_card import CurvePoint
from station.records.sheet import Image

IMAGES = 12  # enough for a curve; all of them would cost more than the training


class Curve:
    """Features of a few held-out images, kept in memory, and the points measured on them."""

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Image],
        patches_of: Callable[[Image], Tensor],
        seed: int,
    ) -> None:
        rng = np.random.default_rng([seed, 3])
        self.points: list[CurvePoint] = []
        self._good, self._spoilt = [], []
        for i, file in enumerate(files[:IMAGES]):
            image = read(file)
            spoilt = synthetic.spoil(image, synthetic.KINDS[i % len(synthetic.KINDS)], rng)
            self._good.append(patches_of(image).half())
            self._spoilt.append(patches_of(spoilt).half())

    def measure(self, heads: Sequence[Head], steps: Sequence[Epoch]) -> CurvePoint:
        """Add the point after a meta-epoch that went through these steps."""
        loss, good_right, noisy_right = (
            float(np.mean(values)) for values in zip(*steps, strict=True)
        )
        point = CurvePoint(
            meta_epoch=len(self.points) + 1,
            loss=loss,
            good_right=good_right,
            noisy_right=noisy_right,
            synthetic_auroc=image_auroc(
                [_peak(heads, patches) for patches in self._good],
                [_peak(heads, patches) for patches in self._spoilt],
            ),
        )
        self.points.append(point)
        return point

    def state(self) -> list[dict[str, Any]]:
        """Return what `resume` needs."""
        return [point.model_dump() for point in self.points]

    def resume(self, state: Sequence[dict[str, Any]]) -> None:
        """Take the points up to where `state` was taken."""
        self.points.extend(CurvePoint.model_validate(point) for point in state)


def _peak(heads: Sequence[Head], patches: Tensor) -> float:
    with torch.inference_mode():
        answers = torch.stack([head(patches.float()) for head in heads]).mean(0)
    return float((-answers).max())
