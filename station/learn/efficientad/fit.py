"""The training of EfficientAD and of lite: the teacher's descriptions once, then step by step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.detectors import EfficientadPreset, LitePreset, StudentPreset
from station.errors import ConfigError, DatasetError
from station.learn.efficientad.graph import AnomalyMap
from station.learn.efficientad.lite import lite
from station.learn.efficientad.pdn import MARGIN
from station.learn.efficientad.teachers import load_teacher
from station.learn.efficientad.training import (
    PUBLISHED_STEPS,
    Fit,
    Losses,
    MapScale,
    Pair,
    Plan,
    drawing,
    measure_maps,
    published,
    to_grey,
)
from station.learn.features.backbones import load_backbone
from station.learn.features.bank import open_bank, reserve
from station.learn.held_out import FEW, to_frames
from station.learn.images import pictures, read_image
from station.learn.method import Device, Learned, Progress, Task, TrainingStopped
from station.model_card import LossPoint, StudentTraining
from station.torchscript import bf16_speedup

SAVE_EVERY_S = 60.0
TOLD_EVERY = 20  # steps
POINTS = 20  # of the losses in the card
BF16_FROM = 1.2  # times as fast as fp32 here, measured; emulated, it is slower
HALF_EPSILON = 2.0**-11  # by which half precision rounds, relative


class Origin(NamedTuple):
    """Which teacher, and what was published of such a training."""

    teacher: str
    sha256: str | None
    origin: str
    steps_published: int | None


def learn_efficientad(task: Task, preset: EfficientadPreset) -> Learned:
    """Train EfficientAD with a teacher from the store."""
    network, teacher = load_teacher(preset.teacher or preset.size, preset.size)
    with _seeded(task.seed):
        trio = published(network, preset.size, (task.form.height, task.form.width))
    origin: str = teacher.origin
    if teacher.steps is not None:
        origin += f", {teacher.steps} steps from {teacher.backbone}"
    about = Origin(teacher.name, teacher.sha256, origin, PUBLISHED_STEPS)
    return learn_student(task, preset, trio, about, margin=MARGIN, bf16=_bf16_pays(task.device))


def learn_lite(task: Task, preset: LitePreset) -> Learned:
    """Train a narrow student with the embedded backbone for a teacher."""
    backbone = load_backbone(preset.backbone, preset.levels)
    with _seeded(task.seed):
        pair = lite(backbone)
    about = Origin(preset.backbone, None, "pretrained", None)
    return learn_student(task, preset, pair, about, margin=0, bf16=_bf16_pays(task.device))


class Penalty:
    """Images from elsewhere, of which every step takes others."""

    def __init__(self, folder: Path, task: Task, batch: int) -> None:
        self.files = pictures(folder)
        sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        self.digest = hashlib.sha256("\n".join(sorted(sums)).encode()).hexdigest()
        self._size, self._seed, self._batch = (task.form.height, task.form.width), task.seed, batch

    def __call__(self, step: int) -> Tensor:
        """Return the images of a step: twice as large, the middle cut out, at times grey."""
        return torch.cat([self._one(step * self._batch + i) for i in range(self._batch)])

    def _one(self, number: int) -> Tensor:
        generator = drawing(self._seed, 2, number)
        file = self.files[int(torch.randint(len(self.files), (1,), generator=generator))]
        frame = to_frames(read_image(file).image).float().expand(-1, 3, -1, -1)
        height, width = self._size
        large = F.interpolate(frame, (2 * height, 2 * width), mode="bilinear", antialias=True)
        middle = large[:, :, height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        if float(torch.rand(1, generator=generator)) < 0.3:
            middle = to_grey(middle).expand(-1, 3, -1, -1)
        return middle


def learn_student(
    task: Task, preset: StudentPreset, pair: Pair, about: Origin, *, margin: int, bf16: bool
) -> Learned:
    """Train the student; the maps are normalised by the held-out images, which it has not seen.

    A resumed training keeps to the precision that it began with, whatever `bf16` says.
    """
    if task.precision != "fp32":
        raise ConfigError(f"precision {task.precision}: a student is trained in fp32 or bf16 alone")
    if set(task.watched) & set(task.training.files):
        raise DatasetError(
            f"{len(task.training.units)} units are too few: from {FEW} on a fifth is held out, and "
            "the maps' quantiles need good images that nothing was learned from"
        )
    penalty = None if task.penalty is None else Penalty(task.penalty, task, preset.batch)
    images, targets = _banks(task, pair)
    settings = [about.sha256, penalty and penalty.digest]
    saved: dict[str, Any] = {}
    task.checkpoint.load(saved.update)
    if saved:
        if saved["settings"] != settings:
            raise ConfigError("the training to resume had another teacher or penalty folder")
        bf16 = saved["bf16"]
    plan = Plan(preset.steps, preset.batch, preset.learning_rate, preset.weight_decay, bf16=bf16)
    fit = Fit(pair, images, targets, plan, task.seed, penalty, task.device)
    points, lost = list[LossPoint](), list[Losses]()
    if saved:
        task.checkpoint.load(lambda state: fit.resume(state["fit"]))  # tells what does not fit it
        points.extend(LossPoint.model_validate(point) for point in saved["points"])
        lost.extend(Losses(*values) for values in saved["lost"])

    def save() -> None:
        task.checkpoint.save({
            "fit": fit.state(),
            "points": [point.model_dump() for point in points],
            "lost": [tuple(values) for values in lost],
            "settings": settings,
            "bf16": bf16,
        })  # fmt: skip

    _run(task, fit, (points, lost), save)
    frames = (part for f in task.watched for part in torch.split(task.prepare(task.read(f)), 1))
    scale = measure_maps(pair, list(frames))
    pair.to("cpu")
    return Learned(
        network=AnomalyMap(pair, scale, margin),
        reference=_Plain(pair, scale, margin),
        without=_never,
        backbone=about.teacher,
        patches=len(images) * targets.shape[2] * targets.shape[3],
        student=StudentTraining(
            steps_done=fit.done,
            steps_published=about.steps_published,
            teacher=about.teacher,
            teacher_sha256=about.sha256,
            teacher_origin=about.origin,
            penalty_images=0 if penalty is None else len(penalty.files),
            penalty_digest=None if penalty is None else penalty.digest,
            bf16=bf16,
            device=task.device,
            local_quantiles=scale[0],
            whole_quantiles=scale[1] if len(scale) > 1 else None,
            losses=tuple(points),
        ),
    )


def _run(
    task: Task, fit: Fit, told: tuple[list[LossPoint], list[Losses]], save: Callable[[], None]
) -> None:
    """Go through all steps, saving at times and when somebody asks to stop.

    `told` are the points so far and what the last steps lost.
    """
    points, lost = told
    save()
    saved_s = time.monotonic()
    for found in fit.steps():
        lost[:] = [*lost[-TOLD_EVERY + 1 :], found]
        means = Losses(*np.mean(lost, axis=0).tolist())
        if fit.done * POINTS // fit.total > (fit.done - 1) * POINTS // fit.total:
            points.append(LossPoint(step=fit.done, **means._asdict()))
        if fit.done % TOLD_EVERY == 0:
            terms = {name: value for name, value in means._asdict().items() if value}
            note = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
            task.progress(Progress("training", fit.done, fit.total, note))
        if task.stop.is_set():
            save()
            raise TrainingStopped(
                f"stopped after {fit.done} of {fit.total} steps, kept in {task.checkpoint.folder}; "
                "the same command with --resume goes on"
            )
        if time.monotonic() - saved_s > SAVE_EVERY_S:
            save()
            saved_s = time.monotonic()


def _banks(task: Task, pair: Pair) -> tuple[Tensor, Tensor]:
    """Compute every prepared image and the teacher's description of it once; measure the latter.

    An unchanged image is described at every step that takes it; it is always the same.
    """
    folder, files = task.checkpoint.folder, task.training.files
    paths = [folder / "images.npy", folder / "targets.npy"]
    if not all(path.exists() for path in paths):
        unfinished = [path.with_suffix(".part") for path in paths]
        folder.mkdir(parents=True, exist_ok=True)
        banks: list[Any] = []
        for i, file in enumerate(files):
            frames = task.prepare(task.read(file))
            with torch.inference_mode():
                found = [frames, torch.cat([pair.raw(frame) for frame in torch.split(frames, 1)])]
            if not banks:
                shapes = [(len(files) * len(x), *x.shape[1:]) for x in found]
                size = sum(2 * int(np.prod(shape)) for shape in shapes)
                task.progress(Progress("features", 0, len(files), f"{size / 1e6:.0f} MB"))
                pairs = zip(unfinished, shapes, strict=True)
                banks = [reserve(path, shape) for path, shape in pairs]
            for bank, values in zip(banks, found, strict=True):
                bank[i * len(frames) : (i + 1) * len(frames)] = values.half().numpy()
            task.progress(Progress("features", i + 1, len(files), f"{size / 1e6:.0f} MB"))
            task.check_stop("stopped while reading the images; nothing was learned yet")
        for bank, path, ready in zip(banks, unfinished, paths, strict=True):
            bank.flush()  # to the disk: a later state tells that it is whole
            path.replace(ready)
    images, targets = (open_bank(path) for path in paths)
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for part in torch.split(targets, 1):
        values = part.double()
        total, squares = total + values.sum((0, 2, 3)), squares + (values**2).sum((0, 2, 3))
        count += values[:, 0].numel()
    mean = total / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt()
    pair.mean.copy_(mean[:, None, None])
    # The descriptions are kept in half precision: a channel that varies less than that rounds is
    # constant, and divided by its deviation it would be rounding, magnified.
    least = (HALF_EPSILON * mean.abs()).clamp_min(1e-6)
    pair.deviation.copy_(deviation.maximum(least)[:, None, None])
    return images, targets


class _Plain(nn.Module):
    """The pair as it was trained, its maps normalised one by one: the graph must agree."""

    def __init__(self, pair: Pair, scale: MapScale, margin: int) -> None:
        super().__init__()
        self.pair, self.scale, self.margin = pair, scale, margin

    def forward(self, images: Tensor) -> Tensor:
        maps = zip(self.pair.maps(images), self.scale, strict=True)
        all_of_them = [0.1 * (found - low) / (high - low) for found, (low, high) in maps]
        return F.pad(torch.stack(all_of_them, 1).mean(1, True), [self.margin] * 4)


def _bf16_pays(device: Device) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bf16_speedup() > BF16_FROM


def _never(units: Collection[str]) -> nn.Module:
    raise AssertionError(f"few units are refused before anything is learned: {units}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw weights by this seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
