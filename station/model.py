"""A model at work: the child process that runs it, and what its answers must be like."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from station.errors import ModelError
from station.golden import GoldenScore, score_golden
from station.model_card import WEIGHTS, ModelCard, load_card
from station.records.sheet import Image, Prediction
from station.worker import Worker, WorkerError

SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
CACHE = Path("run", "openvino")  # what OpenVINO converted, by the hash of the weights
# Importing torch on a busy machine takes many seconds, compiling a large network as many again.
START_DEADLINE_S = 120.0
DEADLINE_S = 10.0  # of one picture; past it the child is ended

log = structlog.get_logger()


class Model:
    """An opened model; a child that hangs or dies stays gone, and every further call says so."""

    def __init__(self, card: ModelCard, worker: Worker, deadline_s: float) -> None:
        self.card = card
        self._name = f"{card.name}/{card.version}"
        self._worker = worker
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._pixels: SharedMemory | None = None
        self._last: tuple[Image, NDArray[np.float32]] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child."""
        return self._worker.pid

    def predict(self, image: Image) -> Prediction:
        """Score one frame, uint8 (H, W) grey or (H, W, 3) RGB."""
        self._check(image)
        with self._lock:
            block = self._block(image.nbytes)
            np.ndarray(image.shape, np.uint8, block.buf)[:] = image
            try:
                score, anomaly_map = self._worker.request(
                    "score", block.name, image.shape, deadline_s=self._deadline_s
                )
            except (WorkerError, ModelError) as error:
                raise ModelError(f"model {self._name}: {_one_line(error)}") from error
        if not (np.isfinite(score) and np.isfinite(anomaly_map).all()):
            raise ModelError(f"model {self._name}: a score is not a finite number")
        self._refuse_blind(image, anomaly_map)
        return Prediction(score, anomaly_map)

    def bf16(self) -> tuple[bool, float]:
        """Tell whether this processor has bf16 instructions, and how many times faster it is."""
        try:
            native, speedup = self._worker.request("bf16", deadline_s=self._deadline_s)
        except WorkerError as error:
            raise ModelError(f"model {self._name}: {_one_line(error)}") from error
        return native, speedup

    def close(self) -> None:
        """End the child and give the shared memory back."""
        self._worker.close()
        if self._pixels is not None:
            self._pixels.close()
            self._pixels.unlink()
            self._pixels = None

    def _check(self, image: NDArray[np.generic]) -> None:
        wanted = self.card.input.channels
        if image.dtype != np.uint8 or image.ndim not in {2, 3} or image.size == 0:
            raise ModelError(f"model {self._name}: image is {image.dtype} {image.shape}, not uint8")
        if image.ndim == 3 and image.shape[2] != 3:
            raise ModelError(f"model {self._name}: image has {image.shape[2]} channels, not 1 or 3")
        found = "grey" if image.ndim == 2 else "color"
        if found != wanted:
            raise ModelError(f"model {self._name}: trained on {wanted} images, this one is {found}")
        height, width = image.shape[:2]
        if (refusal := self.card.input.refusal(width, height)) is not None:
            raise ModelError(f"model {self._name}: {refusal}")

    def _refuse_blind(self, image: Image, anomaly_map: NDArray[np.float32]) -> None:
        """Refuse a map that is, bit for bit, also the last one's, though the picture is not."""
        last, self._last = self._last, (image, anomaly_map)
        if last is None or not np.array_equal(last[1], anomaly_map):
            return
        if not np.array_equal(last[0], image):
            raise ModelError(f"model {self._name}: answers the same whatever the picture")

    def _block(self, size: int) -> SharedMemory:
        """Return memory for an image; the child sees the same pages."""
        if self._pixels is None or self._pixels.size < size:
            if self._pixels is not None:
                self._pixels.close()
                self._pixels.unlink()
            self._pixels = None
            try:
                self._pixels = SharedMemory(create=True, size=size)
                # Made, it has its size but no pages: a full /dev/shm would end this process later.
                with (SHARED / self._pixels.name).open("rb+") as pages:
                    os.posix_fallocate(pages.fileno(), 0, size)
            except OSError as error:
                if self._pixels is not None:
                    self._pixels.close()
                    self._pixels.unlink()
                    self._pixels = None
                raise ModelError(
                    f"model {self._name}: no shared memory for {size} bytes "
                    f"({error.strerror or error}): look at /dev/shm and at ulimit -f"
                ) from error
        return self._pixels


@contextmanager
def open_model(
    workspace: Path,
    name: str,
    deadline_s: float = DEADLINE_S,
    threshold: float | None = None,
    niceness: int = 0,
) -> Iterator[Model]:
    """Start a model's child; its weights' hash and its golden images are checked first.

    With the recipe's threshold, golden images must also keep the verdicts of their card.
    """
    card = load_card(workspace, name)
    folder = workspace / "models" / name
    with start_model(workspace, folder, card, deadline_s, niceness=niceness) as model:
        for golden in golden_scores(model, folder, threshold):
            if golden.problem:
                raise ModelError(golden.problem)
        yield model


def golden_scores(model: Model, folder: Path, threshold: float | None) -> Iterator[GoldenScore]:
    """Score the golden images of a model's folder one after the other."""
    cards = ((folder / golden.file, golden.score) for golden in model.card.golden)
    return score_golden(model, cards, model.card.precision, threshold)


@contextmanager
def start_model(
    workspace: Path,
    folder: Path,
    card: ModelCard,
    deadline_s: float = DEADLINE_S,
    threads: int | None = None,
    niceness: int = 0,
) -> Iterator[Model]:
    """Start the child that runs a folder's weights as this card says; nothing is scored yet.

    On as many threads as on the line, unless others are asked for; with a niceness above zero
    it takes what others leave of the processor.
    """
    arguments = (
        str(folder / WEIGHTS), card.sha256, card.runtime, card.precision, str(workspace / CACHE),
        threads, niceness,
    )  # fmt: skip
    try:
        worker = Worker("model", "station.torchscript:Scorer", arguments, START_DEADLINE_S)
    except WorkerError as error:
        raise ModelError(f"{folder / WEIGHTS}: {_one_line(error)}") from error
    model = Model(card, worker, deadline_s)
    try:
        if card.precision == "bf16":
            _log_bf16(model)
        yield model
    finally:
        model.close()


def _log_bf16(model: Model) -> None:
    native, speedup = model.bf16()
    name = f"{model.card.name}/{model.card.version}"
    tell = log.info if native else log.warning
    tell("model.bf16", model=name, native=native, speedup=round(speedup, 2))


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
