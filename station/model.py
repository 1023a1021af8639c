"""A trained model: its card, and the child process that runs it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from station.errors import ConfigError, ModelError
from station.preset import Preset
from station.records import Image, Prediction
from station.strict import Strict
from station.worker import Worker, WorkerError

WEIGHTS, CARD = "weights.pt", "card.yaml"
SUMS = "images.sha256"  # of every training image, as sha256sum writes it
GOLDEN_TOLERANCE = 1e-3  # another processor rounds otherwise; another graph differs by far more
START_DEADLINE_S = 60.0  # importing torch on a busy machine takes many seconds

Sha256 = str


class ModelInput(Strict):
    """What the network is given, and the frames it was trained on."""

    width: int
    height: int
    tiles: int = Field(ge=1)
    channels: Literal["grey", "color"]
    frame_width: int
    frame_height: int


class Scale(Strict):
    """Raw scores that became 0 and 1: medians over held-out good images, plain and spoilt."""

    raw_zero: float
    raw_one: float
    synthetic_seed: int
    synthetic_kinds: tuple[str, ...]


class TrainingData(Strict):
    """What the model saw; `digest` is the sha256 over the sorted sha256 of all files."""

    folder: str
    digest: Sha256
    images: int
    units: int
    held_out_units: tuple[str, ...]


class CurvePoint(Strict):
    """How learning stood after a meta-epoch; measured on held-out images, never on the test's."""

    meta_epoch: int
    loss: float
    good_right: float = Field(description="share of normal patches on the good side")
    noisy_right: float = Field(description="share of noisy patches on the other side")
    synthetic_auroc: float


class Training(Strict):
    """How it was trained; with the same data and software this gives the same model."""

    preset: Preset
    seed: int
    patches: int
    threads: int
    curve: tuple[CurvePoint, ...]


class Golden(Strict):
    """An image beside the card and the score it must get at every load."""

    file: str = Field(pattern=r"^[a-z0-9_-]+\.png$")
    score: float


class ModelCard(Strict):
    """Everything known about a model; the threshold belongs to the recipe."""

    name: str
    version: int = Field(ge=1)
    detector: Literal["simplenet"]
    backbone: str
    sha256: Sha256
    input: ModelInput
    precision: Literal["fp32"] = "fp32"
    runtime: Literal["torchscript"] = "torchscript"
    scale: Scale
    data: TrainingData
    training: Training
    golden: tuple[Golden, ...] = Field(min_length=1)
    held_out_scores: tuple[float, ...] = Field(
        min_length=1, description="per held-out unit the highest score of its good images"
    )
    software: dict[str, str]
    created: datetime


class Model:
    """An opened model; a child that hangs or dies stays gone, and every further call says so."""

    def __init__(self, card: ModelCard, worker: Worker, deadline_s: float) -> None:
        self.card = card
        self._name = f"{card.name}/{card.version}"
        self._worker = worker
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._pixels: SharedMemory | None = None

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
            except WorkerError as error:
                raise ModelError(f"model {self._name}: {_one_line(error)}") from error
        if not (np.isfinite(score) and np.isfinite(anomaly_map).all()):
            raise ModelError(f"model {self._name}: a score is not a finite number")
        return Prediction(score, anomaly_map)

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

    def _block(self, size: int) -> SharedMemory:
        """Return memory for an image; the child sees the same pages."""
        if self._pixels is None or self._pixels.size < size:
            if self._pixels is not None:
                self._pixels.close()
                self._pixels.unlink()
            self._pixels = SharedMemory(create=True, size=size)
        return self._pixels


@contextmanager
def open_model(workspace: Path, name: str, deadline_s: float = 10.0) -> Iterator[Model]:
    """Start a model's child; its weights' hash and its golden images are checked first."""
    card = load_card(workspace, name)
    folder = workspace / "models" / name
    try:
        worker = Worker(
            "model",
            "station.torchscript:Scorer",
            (str(folder / WEIGHTS), card.sha256),
            START_DEADLINE_S,
        )
    except WorkerError as error:
        raise ModelError(f"{folder / WEIGHTS}: {_one_line(error)}") from error
    model = Model(card, worker, deadline_s)
    try:
        for golden in card.golden:
            _check_golden(model, folder / golden.file, golden.score)
        yield model
    finally:
        model.close()


def load_card(workspace: Path, name: str) -> ModelCard:
    """Read the card of "name/3"; a missing model lists what there is."""
    path = workspace / "models" / name / CARD
    if name not in list_models(workspace):
        found = ", ".join(list_models(workspace)) or "none"
        raise ModelError(f"no model {name!r} in {workspace / 'models'}; there are: {found}")
    try:
        card = ModelCard.load(path)
    except ConfigError as error:
        raise ModelError(str(error)) from error
    if f"{card.name}/{card.version}" != name:
        raise ModelError(f"{path}: name and version say {card.name}/{card.version}, not {name}")
    return card


def check_files(workspace: Path, card: ModelCard) -> None:
    """Compare the model's files with its card, without loading them."""
    folder = workspace / "models" / card.name / str(card.version)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path}: missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise ModelError(f"{path}: not the file its card describes (sha256 differs)")
    for golden in card.golden:
        read_golden(folder / golden.file)


def list_models(workspace: Path) -> list[str]:
    """Return "name/version" of every model in a workspace, versions in order."""
    cards = (workspace / "models").glob(f"*/*/{CARD}")
    found = [(p.parts[-3], int(p.parts[-2])) for p in cards if p.parts[-2].isdecimal()]
    return [f"{name}/{version}" for name, version in sorted(found)]


def read_golden(path: Path) -> Image:
    """Read a golden image."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if pixels is None:
        raise ModelError(f"{path}: golden image missing or unreadable")
    return np.asarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1]))


def _check_golden(model: Model, path: Path, expected: float) -> None:
    score = model.predict(read_golden(path)).score
    if abs(score - expected) > GOLDEN_TOLERANCE:
        raise ModelError(f"{path}: golden image scores {score:.4f}, its card says {expected:.4f}")


def _one_line(error: WorkerError) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
