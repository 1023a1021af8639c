"""Score files and measure how long a model takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from station.learn.images import read_image
from station.model import Model, open_model
from station.records import Image, Prediction

FRAME = (2048, 2448)  # height and width of the five-megapixel sensor


def score_files(
    workspace: Path, model_name: str, files: Iterable[Path]
) -> Iterator[tuple[Path, Prediction]]:
    """Score image files one by one; an unreadable one raises DatasetError."""
    with open_model(workspace, model_name) as model:
        for file in files:
            yield file, model.predict(read_image(file).image)


def bench_model(workspace: Path, name: str, repeats: int) -> dict[str, float]:
    """Measure milliseconds from pixels to answer, the way to the child and back included."""
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    with open_model(workspace, name) as model:
        channels = () if model.card.input.channels == "grey" else (3,)
        for label, size in {"256": (256, 256), "frame": FRAME}.items():
            image = rng.integers(0, 256, (*size, *channels), np.uint8)
            times = _times_ms(model, image, repeats)
            figures[f"p50_ms_{label}"] = float(np.percentile(times, 50))
            figures[f"p95_ms_{label}"] = float(np.percentile(times, 95))
    return figures


def _times_ms(model: Model, image: Image, repeats: int) -> list[float]:
    for _ in range(3):
        model.predict(image)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        model.predict(image)
        times.append(1e3 * (time.perf_counter() - started))
    return times
