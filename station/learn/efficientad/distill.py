"""Distil a teacher for EfficientAD: a small network that describes like a large backbone.

As published, the target is the backbone's features of twice the side, averaged and pooled to 384
channels, each normalised; the student is the teacher-to-be, padded, so that both have a cell for
the same four pixels. What differs is what it learns from, and for how long: the published teachers
took 60,000 steps of 16 pictures from ImageNet.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.checkpoint import Checkpoint
from station.learn.efficientad import textures
from station.learn.efficientad.pdn import CHANNELS, ImageNetPixels, Size, pdn
from station.learn.efficientad.teachers import Teacher, keep_teacher, teachers
from station.learn.features.backbones import Backbone, load_backbone
from station.learn.features.local import upsample
from station.learn.images import read_image
from station.learn.method import Device, Progress, TrainingStopped, check_device, memory_told
from station.records.sheet import Image

PUBLISHED_STEPS = 60_000
SAVE_EVERY_S = 60.0
TOLD_EVERY = 10  # steps
CALIBRATION = 64  # pictures that the channels' mean and deviation come from; published: 10,000
LARGEST_PX = 1024  # long side of the pictures kept in memory


@dataclass(frozen=True)
class DistillOptions:
    """What can be chosen; the rest follows from the published way."""

    name: str
    backbone: str
    size: Size = "s"
    steps: int = 1200  # half an hour on two slow cores
    batch: int = 4
    side: int = 128  # of the pictures; a description sees 33 pixels, so larger ones add nothing
    learning_rate: float = 5e-4  # published 1e-4, for forty times as many steps
    seed: int = 0
    resume: bool | None = False  # None: where one was stopped
    device: Device = "cpu"


class Pictures(NamedTuple):
    """The images pieces are cut from, and their digest."""

    images: list[Image]
    digest: str


def read_pictures(files: Sequence[Path]) -> Pictures:
    """Read images, shrunk to what is of use; each is checked."""
    images, sums = [], []
    for file in files:
        loaded = read_image(file)
        step = -(-max(loaded.image.shape[:2]) // LARGEST_PX)
        images.append(np.ascontiguousarray(loaded.image[::step, ::step]))
        sums.append(loaded.sha256)
    return Pictures(images, hashlib.sha256("\n".join(sorted(sums)).encode()).hexdigest())


class Target(nn.Module):
    """A backbone's levels of images twice as large, pooled to as many channels as a teacher has.

    Each level's neighbourhoods of 3x3 are listed and pooled to 1024 values, all levels' to 384.
    """

    def __init__(self, backbone: Backbone, channels: int = CHANNELS) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Describe (N, 3, H, W), 0 to 255: (N, channels, H / 4, W / 4)."""
        height, width = images.shape[2:]
        large = F.interpolate(images, (2 * height, 2 * width), mode="bilinear", align_corners=False)
        lists = []
        for level in self.backbone(large):
            taps = F.unfold(level, 3, padding=1).transpose(1, 2)  # (N, h w, 9 C)
            pooled = F.adaptive_avg_pool1d(taps, 1024).transpose(1, 2)
            pooled = pooled.reshape(len(level), 1024, *level.shape[2:])
            lists.append(upsample(pooled, (height // 4, width // 4)))
        joined = torch.cat(lists, 1).flatten(2).transpose(1, 2)  # (N, h w, 1024 levels)
        found = F.adaptive_avg_pool1d(joined, self.channels).transpose(1, 2)
        return found.reshape(len(images), self.channels, height // 4, width // 4)


class Distillation:
    """A distillation under way; a step's pictures follow from the seed and its number alone."""

    def __init__(self, target: Target, pictures: Pictures, options: DistillOptions) -> None:
        self.done = 0
        self._target, self._pictures = target.to(options.device), pictures
        self._options = options
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.network = pdn(options.size, target.channels, padding=True)
        self.network.to(options.device).to(memory_format=torch.channels_last)
        self._pixels = ImageNetPixels().to(options.device)
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), lr=options.learning_rate, weight_decay=1e-5
        )
        self.mean = self.deviation = torch.zeros(0)

    def measure(self) -> None:
        """Measure the target's channels, on pictures that no step uses."""
        parts = [self._describe(self._draw(1, number)) for number in range(CALIBRATION)]
        values = torch.cat(parts).double()
        self.mean = values.mean((0, 2, 3), keepdim=True).float()
        self.deviation = values.std((0, 2, 3), keepdim=True).clamp_min(1e-6).float()

    def step(self) -> float:
        """Take one step; return its loss, 1 where nothing is known yet."""
        images = torch.cat([
            self._draw(0, self.done * self._options.batch + i) for i in range(self._options.batch)
        ])  # fmt: skip
        target = (self._describe(images) - self.mean) / self.deviation
        pixels = self._pixels(images).contiguous(memory_format=torch.channels_last)
        loss = ((self.network(pixels) - target) ** 2).mean()
        # Down to nothing along half a cosine: the last steps only settle.
        share = self.done / self._options.steps
        for group in self._optimiser.param_groups:
            group["lr"] = self._options.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self.done += 1
        return float(loss.detach())

    def teacher(self) -> nn.Sequential:
        """Return the network without padding, as it is used."""
        plain = pdn(self._options.size, self._target.channels)
        plain.load_state_dict(self.network.state_dict())
        return plain

    def state(self) -> dict[str, Any]:
        """Return everything that `resume` needs to go on as if nothing had happened."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "mean": self.mean,
            "deviation": self.deviation,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.done = state["done"]
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        device = self._options.device
        self.mean, self.deviation = state["mean"].to(device), state["deviation"].to(device)

    def _draw(self, stream: int, number: int) -> Tensor:
        rng = np.random.default_rng([self._options.seed, stream, number])
        found = textures.picture(self._pictures.images, self._options.side, rng)
        return torch.from_numpy(found).permute(2, 0, 1)[None].float().to(self._options.device)

    def _describe(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self._target(images)
        return found


def first_teacher(
    files: Sequence[Path],
    options: DistillOptions,
    workspace: Path,
    progress: Callable[[Progress], None],
    stop: threading.Event,
) -> str:
    """Return the name of the teacher in the store that these options name.

    Where there is none, one is made of these images, named by their digest too, and kept: the
    next training on the same images takes it.
    """
    there = {teacher.name for teacher in teachers()}
    if options.name in there:
        return options.name
    pictures = read_pictures(files)
    own = replace(options, name=f"{options.name}-{pictures.digest[:8]}", resume=None)
    if own.name not in there:
        progress(Progress("teacher", 0, own.steps))
        distil(pictures, own, workspace, lambda p: progress(p._replace(stage="teacher")), stop)
    return own.name


@memory_told()
def distil(
    pictures: Pictures,
    options: DistillOptions,
    workspace: Path,
    progress: Callable[[Progress], None],
    stop: threading.Event,
) -> tuple[Teacher, float]:
    """Distil a teacher into the store; return what is known of it, and the last steps' loss.

    Where `stop` is set, `TrainingStopped` says how to go on.
    """
    check_device(options.device)
    backbone = load_backbone(options.backbone)
    decides = [pictures.digest, options.backbone, options.size, options.steps, options.batch,
               options.side, options.learning_rate, options.seed, options.device]  # fmt: skip
    with Checkpoint(workspace, f"teacher-{options.name}", decides, options.resume) as checkpoint:
        run = Distillation(Target(backbone), pictures, options)
        checkpoint.load(run.resume)
        if not run.done:
            run.measure()
        saved_s, losses = time.monotonic(), list[float]()
        while run.done < options.steps:
            if stop.is_set():
                checkpoint.save(run.state())
                how = "" if options.resume is None else " with --resume"
                raise TrainingStopped(
                    f"stopped after {run.done} of {options.steps} steps of the teacher, kept in "
                    f"{checkpoint.folder}; the same command{how} goes on"
                )
            losses = [*losses[-49:], run.step()]
            if run.done % TOLD_EVERY == 0 or run.done == options.steps:
                progress(Progress("steps", run.done, options.steps, f"loss {np.mean(losses):.3f}"))
            if time.monotonic() - saved_s > SAVE_EVERY_S:
                checkpoint.save(run.state())
                saved_s = time.monotonic()
        teacher = keep_teacher(
            run.teacher(),
            Teacher(
                name=options.name, size=options.size, sha256="", origin="distilled",
                backbone=options.backbone, steps=run.done, images=len(pictures.images),
                images_digest=pictures.digest, created=datetime.now(UTC),
            ),
        )  # fmt: skip
        checkpoint.remove()
    return teacher, float(np.mean(losses)) if losses else float("nan")
