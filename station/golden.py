"""Golden images: pictures beside a model and the scores that it must give them wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from station.decode import decode_file
from station.errors import ModelError
from station.records.sheet import Image, Precision, Prediction

# How far a golden image may score from its card, where 1 is the way from a good sheet to a defect.
# In fp32 another processor rounds otherwise, another graph differs by far more. Between kernels for
# AMX and AVX-512, bf16 scores were seen to move by 0.011, int8 by 0.004; int8 without VNNI by 0.5.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.05}


class Predictor(Protocol):
    """Anything that scores a picture."""

    def predict(self, image: Image) -> Prediction:
        """Score one picture."""


class GoldenScore(NamedTuple):
    """What a model makes of one golden image today."""

    path: Path
    score: float
    expected: float
    allowed: float
    another_verdict_at: float | None

    def __str__(self) -> str:
        """Say which image, its score and its card's."""
        return (
            f"{self.path}: golden image scores {self.score:.4f}, its card says {self.expected:.4f}"
        )

    @property
    def problem(self) -> str | None:
        """What is wrong with it."""
        apart = abs(self.score - self.expected)
        if apart > self.allowed:
            return f"{self}: {apart:.2g} apart, {self.allowed:g} is allowed"
        if self.another_verdict_at is not None:
            return f"{self}: another verdict at threshold {self.another_verdict_at:g}"
        return None


def score_golden(
    predictor: Predictor,
    cards: Iterable[tuple[Path, float]],
    precision: Precision,
    threshold: float | None,
) -> Iterator[GoldenScore]:
    """Score golden images, each with the score of its card; with a threshold verdicts count too."""
    for path, expected in cards:
        score = predictor.predict(read_golden(path)).score
        other = None
        # In fp32 only rounding can carry a score over the threshold.
        if threshold is not None and precision != "fp32":
            other = threshold if (score < threshold) != (expected < threshold) else None
        yield GoldenScore(path, score, expected, TOLERANCE[precision], other)


def read_golden(path: Path) -> Image:
    """Read a golden image."""
    pixels = decode_file(path)
    if pixels is None:
        raise ModelError(f"{path}: golden image missing or unreadable")
    return np.asarray(
        pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1]), pixels.dtype
    )
