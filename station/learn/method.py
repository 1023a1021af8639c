"""The seam between a training and a method: what every detector gets, and what it hands back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.checkpoint import Checkpoint
from station.learn.export import Detector, InputForm
from station.learn.held_out import to_frames
from station.learn.images import TrainingImages
from station.model_card import CurvePoint, Deviations, StudentTraining
from station.records.sheet import Image
from station.torchscript import has_cuda

Device = Literal["cpu", "cuda"]  # where students and teachers learn; all else takes minutes


class Progress(NamedTuple):
    """How far a training is; stage is "features", "training", "teacher", "held-out" and others."""

    stage: str
    done: int
    total: int
    note: str = ""


class TrainingStopped(Exception):
    """Somebody asked the training to stop; the text says what is kept."""


@dataclass(frozen=True)
class Task:
    """What a method learns from, and where it tells and keeps how far it is."""

    training: TrainingImages
    watched: Sequence[Path]  # good images for the learning curve: held out, but where units are few
    form: InputForm
    read: Callable[[Path], Image]
    seed: int
    precision: Literal["fp32", "int8"]
    checkpoint: Checkpoint
    progress: Callable[[Progress], None]
    stop: threading.Event
    penalty: Path | None = None  # a folder of images from elsewhere, for methods that use them
    device: Device = "cpu"

    def prepare(self, image: Image) -> Tensor:
        """Return what the network is given of an image, (tiles * tiles, 3, H, W), 0 to 255."""
        return Detector(nn.Identity(), self.form, 0.0).prepare(to_frames(image))

    def check_stop(self, kept: str) -> None:
        """Raise `TrainingStopped` with what is kept if somebody asked to stop."""
        if self.stop.is_set():
            raise TrainingStopped(kept)


class Learned(NamedTuple):
    """What a method hands back: prepared frames to the raw anomaly map (M, 1, h, w)."""

    network: nn.Module  # as it is exported
    reference: nn.Module  # as it was trained, which the exported one must agree with
    without: Callable[[Collection[str]], nn.Module]  # learned again without these units
    backbone: str
    patches: int  # learned from
    curve: tuple[CurvePoint, ...] = ()
    deviations: Deviations | None = None  # of methods with an adaptor
    student: StudentTraining | None = None


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise ModelError with what to do where torch or numpy is given no memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Torch's own error for the processor is a RuntimeError like any other.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and (
            "allocate memory" not in str(error)
        ):
            raise
        said = str(error).strip().splitlines() or ["no more is given"]
        raise ModelError(
            f"out of memory: {said[0]}; a smaller --input-size or fewer --images need less, and "
            "what was kept goes on with --resume"
        ) from error


def check_device(device: Device) -> None:
    """Refuse a GPU that torch cannot use."""
    if device == "cuda" and not has_cuda():
        raise ConfigError("--device cuda: torch can use no GPU here; leave it out to learn on CPU")
