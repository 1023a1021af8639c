"""Train a detector on good images and write it to models/<name>/<n>/, never over another."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from station import torchscript
from station.detectors import (
    AnyPreset,
    EfficientadPreset,
    GaussianPreset,
    LitePreset,
    PatchcorePreset,
    StudentPreset,
)
from station.errors import ConfigError, ModelError
from station.learn import gaussian, patchcore
from station.learn.checkpoint import Checkpoint
from station.learn.efficientad import fit as fit_student
from station.learn.efficientad.distill import DistillOptions, first_teacher
from station.learn.export import (
    Detector,
    InputForm,
    check_place,
    freeze,
    from_bytes,
    to_bytes,
    write_model,
)
from station.learn.features.quantise import Int8Network, int8_file
from station.learn.held_out import (
    HeldOut,
    answer,
    hold_out,
    score_held_out,
    training_data,
    unit_scores,
)
from station.learn.images import Reader, TrainingImages, pictures
from station.learn.method import Device, Learned, Progress, Task, check_device, memory_told
from station.learn.simplenet import fit as fit_simplenet
from station.model_card import WEIGHTS, Golden, HeldOutRule, ModelCard, ModelInput, Training
from station.preset import DEFAULT, Preset, changed
from station.recipe import HIGHEST, MODEL_PATTERN, SheetRule

# Between the network as trained and as exported; the int8 one rounds at another place.
EXPORT_TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
MAP_FACTOR = 10  # a distance near 0 is a root, which magnifies what rounding did
TEACHER = DistillOptions("s", "efficientnet_lite0")
THREADS = min(2, os.cpu_count() or 1)  # more changes the last digits of what is learned


@dataclass(frozen=True)
class TrainOptions:
    """What can be chosen; the preset's defaults are meant to be kept."""

    name: str
    preset: AnyPreset = DEFAULT
    units: int | None = None  # train on this many units, drawn by the seed
    seed: int = 0
    rule: SheetRule = HIGHEST  # how the recipe makes a sheet's score of its shots
    resume: bool | None = False  # None: where one was stopped
    precision: Literal["fp32", "int8"] = "fp32"
    penalty: Path | None = None  # a folder of images from elsewhere
    device: Device = "cpu"


@memory_told()
def train(
    images: TrainingImages,
    options: TrainOptions,
    workspace: Path,
    progress: Callable[[Progress], None],
    stop: threading.Event | None = None,
) -> ModelCard:
    """Learn what good parts look like; return the card of the new model.

    Where `stop` is set, `TrainingStopped` says how to go on.
    """
    preset = options.preset
    if not re.fullmatch(MODEL_PATTERN, f"{options.name}/1"):
        raise ConfigError(f"model name {options.name!r}: small letters, digits, _ and - only")
    check_device(options.device)
    if not isinstance(preset, StudentPreset):
        if options.device != "cpu":
            raise ConfigError(f"--device: {preset.detector} learns on the processor, in minutes")
        if options.penalty is not None:
            raise ConfigError(f"--penalty: {preset.detector} uses no images from elsewhere")
    check_place(workspace)
    if options.units is not None:
        images = images.draw(options.units, options.seed)
    held_out = hold_out(images, options.seed)
    few = len(held_out) > 1
    kept = [unit for unit in images.units if few or unit not in held_out[0].units]
    training = images.only(kept)
    torch.set_num_threads(THREADS)
    stop = stop or threading.Event()
    resume = options.resume
    if options.penalty is not None:
        pictures(options.penalty)  # refused now, not after the teacher was made
    if isinstance(preset, EfficientadPreset) and preset.teacher is None:
        # Of what it may learn from alone: a teacher that has seen what is held out flatters it.
        wanted = replace(TEACHER, name=preset.size, size=preset.size, device=options.device)
        name = first_teacher(training.files, wanted, workspace, progress, stop)
        preset = changed(preset, teacher=name)
        resume = None if resume else resume  # what was stopped may have been the teacher
    reader = Reader(images)
    settings = [options.seed, options.precision, options.device, preset.model_dump(mode="json")]
    made_of = {unit: [file.name for file in files] for unit, files in images.units.items()}
    decides = [reader.sums(images.folder), made_of, software(), *settings]
    with Checkpoint(workspace, options.name, decides, resume) as checkpoint:
        first = reader.read(training.files[0])
        height, width = first.shape[:2]
        form = InputForm.of_frames(height, width, preset)
        task = Task(
            training=training,
            watched=held_out[0].files,
            form=form,
            read=reader.read,
            seed=options.seed,
            precision=options.precision,
            checkpoint=checkpoint,
            progress=progress,
            stop=stop,
            penalty=options.penalty,
            device=options.device,
        )
        learned = learn(task, preset)
        detector = Detector(learned.network, form, preset.smoothing)
        judges = [(part, detector) for part in held_out]
        if few:
            judges = [
                (part, Detector(learned.without(part.units), form, preset.smoothing))
                for part in held_out
            ]
        result = score_held_out(
            judges,
            reader.read,
            options.seed,
            lambda done, total: progress(Progress("held-out", done, total)),
        )
        reference = Detector(learned.reference, form, preset.smoothing)
        for one in (detector, reference):
            one.zero.fill_(result.scale.raw_zero)
            one.gain.fill_(1.0 / (result.scale.raw_one - result.scale.raw_zero))
        weights, golden = _export(detector, reference, result)
        card = ModelCard(
            name=options.name,
            version=1,
            detector=preset.detector,
            backbone=learned.backbone,
            precision=options.precision,
            runtime="openvino" if options.precision == "int8" else "torchscript",
            sha256=hashlib.sha256(weights).hexdigest(),
            input=ModelInput(
                width=form.width,
                height=form.height,
                tiles=form.tiles,
                channels="grey" if first.ndim == 2 else "color",
                frame_width=width,
                frame_height=height,
            ),
            scale=result.scale,
            data=training_data(images, reader.digest, result),
            training=Training(
                preset=preset,
                seed=options.seed,
                patches=learned.patches,
                threads=THREADS,
                curve=learned.curve,
                deviations=learned.deviations,
                student=learned.student,
            ),
            golden=golden,
            held_out_scores=tuple(unit_scores(result, options.rule)),
            held_out_rule=HeldOutRule(**options.rule._asdict()),
            software=software(),
            created=datetime.now(UTC),
        )
        images_golden = [*result.good_golden, *result.spoilt_golden]
        card = write_model(workspace, card, weights, images_golden, reader.sums(images.folder))
        checkpoint.remove()
    return card


def learn(task: Task, preset: AnyPreset) -> Learned:
    """Learn by the method that the preset is for."""
    match preset:
        case Preset():
            return fit_simplenet.learn(task, preset)
        case GaussianPreset():
            return gaussian.learn(task, preset)
        case PatchcorePreset():
            return patchcore.learn(task, preset)
        case EfficientadPreset():
            return fit_student.learn_efficientad(task, preset)
        case LitePreset():
            return fit_student.learn_lite(task, preset)


def _export(
    detector: Detector, reference: Detector, result: HeldOut
) -> tuple[bytes, tuple[Golden, ...]]:
    """Freeze; refuse what does not answer to golden images as the network that was trained.

    What answers is what was read back from the bytes that will be written.
    """
    int8 = isinstance(detector.network, Int8Network)
    weights = int8_file(detector) if int8 else to_bytes(freeze(detector))
    graph = _read_back_int8(weights) if int8 else from_bytes(weights)
    allowed = EXPORT_TOLERANCE["int8" if int8 else "fp32"]
    golden = []
    images = [(image, False) for image in result.good_golden]
    images += [(image, True) for image in result.spoilt_golden]
    for i, (image, spoilt) in enumerate(images):
        (found, found_map), (trained, trained_map) = answer(graph, image), answer(reference, image)
        if not abs(found - trained) <= allowed:
            raise ModelError(
                f"the exported model scores {found:.6f} where the trained one scores {trained:.6f}"
            )
        apart = float(abs(found_map - trained_map).max())
        if not apart <= MAP_FACTOR * allowed * max(1.0, abs(trained)):
            raise ModelError(f"the exported model's map is {apart:.6f} from the trained one's")
        golden.append(Golden(file=f"golden-{i}.png", score=found, spoilt=spoilt))
    return weights, tuple(golden)


def _read_back_int8(weights: bytes) -> torchscript.Detector:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        path.write_bytes(weights)
        wanted = torchscript.Runtime("openvino", "int8")
        return torchscript.Detector(path, hashlib.sha256(weights).hexdigest(), wanted, None)


def software() -> dict[str, str]:
    """Return the versions that a model depends on."""
    packages = ["station", "torch", "torchvision", "timm", "numpy", "opencv-python-headless"]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}
