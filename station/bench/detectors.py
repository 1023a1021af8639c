"""`station bench detectors`: from the camera's buffer to the verdict, as the line does it.

The model's own child, the shared memory, the graph and `judge` take part. A sheet of three shots
is three pictures one after another: that is how they come. Runtimes that a model cannot run in are
left out; whether a verdict survives one is for `station convert` to say.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from station import openvino_runtime
from station.errors import ModelError
from station.evaluate.measure import own_threshold
from station.evaluate.variants import memory_mb
from station.model import Model, start_model
from station.model_card import ModelCard, load_card
from station.recipe import HIGHEST
from station.records.sheet import Image, Precision, RuntimeName, judge
from station.sheet_score import ShotScore
from station.torchscript import has_bf16, has_cuda

SHOTS = (1, 3)
THREADS = (1, 2)
WARM_UP = 5


def bench_detectors(
    workspace: Path, names: Sequence[str], size: tuple[int, int] | None, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for every model, runtime, number of threads and of shots; `size` is (w, h)."""
    for name in names:
        card = load_card(workspace, name)
        width, height = size or (card.input.frame_width, card.input.frame_height)
        channels = () if card.input.channels == "grey" else (3,)
        # The camera driver hands out a buffer of bytes.
        buffer = np.random.default_rng(0).bytes(height * width * max(1, sum(channels)))
        shape = height, width, *channels
        for runtime, precision in runtimes(card):
            wanted = card.model_copy(update={"runtime": runtime, "precision": precision})
            for threads in THREADS:
                row = {"model": name, "detector": card.detector, "runtime": runtime,
                       "precision": precision, "threads": threads,
                       "frame": f"{width}x{height}"}  # fmt: skip
                try:
                    yield from _rows(workspace, wanted, row, buffer, shape, rounds)
                except ModelError as error:
                    yield {**row, "note": str(error)}


def runtimes(card: ModelCard) -> list[tuple[RuntimeName, Precision]]:
    """List what a model can run in on this machine."""
    found: list[tuple[RuntimeName, Precision]] = [(card.runtime, card.precision)]
    if card.precision != "fp32" or card.detector == "imported":
        return found
    if has_bf16():
        found.append(("torchscript", "bf16"))
    if openvino_runtime.installed():
        found.append(("openvino", "fp32"))
        if has_bf16():
            found.append(("openvino", "bf16"))
    if has_cuda():
        found += [("cuda", "fp32"), ("cuda", "bf16")]
    return list(dict.fromkeys(found))


def _rows(
    workspace: Path,
    card: ModelCard,
    row: dict[str, Any],
    buffer: bytes,
    shape: tuple[int, ...],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    folder = workspace / "models" / card.name / str(card.version)
    threshold = own_threshold(card).threshold
    with start_model(workspace, folder, card, threads=int(row["threads"])) as model:
        for shots in SHOTS:
            times = _times_ms(model, buffer, shape, shots, threshold, rounds)
            p50, p95, p99 = (float(np.percentile(times, part)) for part in (50, 95, 99))
            yield {
                **row,
                "shots": shots,
                "p50_ms": round(p50, 2),
                "p95_ms": round(p95, 2),
                "p99_ms": round(p99, 2),
                "pictures_per_s": round(1e3 * shots * len(times) / sum(times), 1),
                "memory_mb": memory_mb(model),
            }


def _times_ms(
    model: Model,
    buffer: bytes,
    shape: tuple[int, ...],
    shots: int,
    threshold: float,
    rounds: int,
) -> list[float]:
    times = []
    for i in range(WARM_UP + rounds):
        started = time.perf_counter()
        scored = []
        for _ in range(shots):
            image: Image = np.frombuffer(buffer, np.uint8).reshape(shape)
            scored.append(ShotScore("bench", model.predict(image).score))
        judge(scored, shots, threshold, HIGHEST)
        if i >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - started))
    return times
