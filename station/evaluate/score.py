"""Score files, draw what the model saw in them, and measure how long a model takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from station.errors import ConfigError, ModelError
from station.heatmap import map_over
from station.learn.images import pictures as pictures_below
from station.learn.images import read_image
from station.model import Model, open_model
from station.records.dataset import save_image
from station.records.sheet import Image, Prediction, Verdict

FRAME_WIDTH = 2448  # pixels, of the five-megapixel sensor


def score_files(
    workspace: Path, model_name: str, files: Iterable[Path]
) -> Iterator[tuple[Path, Prediction]]:
    """Score image files one by one.

    An unreadable one raises DatasetError, one that the model cannot judge ModelError.
    """
    with open_model(workspace, model_name) as model:
        for file in files:
            try:
                yield file, model.predict(read_image(file).image)
            except ModelError as error:
                raise ModelError(f"{file}: {error}") from error


def pictures(places: Sequence[Path]) -> list[Path]:
    """List files as they are, and of a folder every picture in it."""
    files = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        files += pictures_below(place)
    return files


def overlay_place(
    folder: Path, file: Path, prediction: Prediction, verdict: Verdict | None
) -> Path:
    """Name an overlay after its picture, its score and its verdict."""
    judged = f"_{verdict}" if verdict else ""
    return folder / f"{file.parent.name}_{file.stem}_{prediction.score:.3f}{judged}.png"


def check_overlays(folder: Path, places: Sequence[Path]) -> None:
    """Refuse a folder whose overlays would lie among the pictures to be scored."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder")
    inside = {folder.resolve(), *folder.resolve().parents}
    for place in places:
        if place.resolve() in inside or place.resolve().parent == folder.resolve():
            raise ConfigError(f"{folder}: overlays would mix with the pictures of {place}")


def write_overlay(path: Path, file: Path, prediction: Prediction, threshold: float | None) -> None:
    """Write the picture and, beside it, the picture under its heat map."""
    image = read_image(file).image
    colour = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
    picture = np.asarray(cv2.cvtColor(image, colour), np.uint8)
    pair = np.hstack([picture, map_over(picture, prediction.anomaly_map, threshold)])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.ascontiguousarray(pair[..., ::-1]))


def bench_model(workspace: Path, name: str, repeats: int) -> dict[str, float]:
    """Measure milliseconds from pixels to answer, the way to the child and back included."""
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}
    with open_model(workspace, name) as model:
        taken = model.card.input
        channels = () if taken.channels == "grey" else (3,)
        for label, width in {"256": 256, "frame": FRAME_WIDTH}.items():
            height = round(width * taken.frame_height / taken.frame_width)  # the shape it takes
            image = rng.integers(0, 256, (height, width, *channels), np.uint8)
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
