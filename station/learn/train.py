"""Train a detector on good images and write it to models/<name>/<n>/, never over another."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.backbones import Backbone, load_backbone
from station.learn.checkpoint import Checkpoint
from station.learn.collapse import CollapsedHead
from station.learn.curve import Curve
from station.learn.export import Detector, InputForm, freeze, from_bytes, to_bytes, write_model
from station.learn.features import BankOptions, Extractor, fill_bank, open_bank, pools_for
from station.learn.held_out import HeldOut, hold_out, score, score_held_out, to_frames, unit_scores
from station.learn.images import Reader, TrainingImages
from station.learn.quantise import Int8Network, QuantisedBackbone, int8_file, quantised_backbone
from station.learn.simplenet import Fit, Head, Unfolded, fold
from station.model import Golden, ModelCard, ModelInput, Training, TrainingData
from station.preset import DEFAULT, Preset
from station.recipe import MODEL_PATTERN, SetupScore
from station.records import Image

# Between the network as trained and as exported; the int8 one rounds at another place.
EXPORT_TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
CALIBRATION_IMAGES = 60  # about as many give int8 its ranges
THREADS = min(2, os.cpu_count() or 1)  # more changes the last digits of what is learned


@dataclass(frozen=True)
class TrainOptions:
    """What can be chosen; the preset's defaults are meant to be kept."""

    name: str
    preset: Preset = DEFAULT
    units: int | None = None  # train on this many units, drawn by the seed
    seed: int = 0
    setup_score: SetupScore = "highest"  # how the recipe makes a sheet's score of its shots
    resume: bool = False
    precision: Literal["fp32", "int8"] = "fp32"


class Progress(NamedTuple):
    """How far a training is: stage is "features", "training" or "held-out"."""

    stage: str
    done: int
    total: int
    note: str = ""


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
    if options.units is not None:
        images = images.draw(options.units, options.seed)
    held_out = hold_out(images, options.seed)
    few = len(held_out) > 1
    kept = [unit for unit in images.units if few or unit not in held_out[0].units]
    training = images.only(kept)
    torch.set_num_threads(THREADS)
    stop = stop or threading.Event()
    reader = Reader(images)
    settings = [options.seed, options.precision, preset.model_dump(mode="json")]
    checkpoint = Checkpoint(workspace, options.name, [reader.digest, *settings], options.resume)
    first = reader.read(training.files[0])
    height, width = first.shape[:2]
    form = InputForm.of_frames(height, width, preset)
    prepare = Detector(nn.Identity(), form, 0.0).prepare
    plain = load_backbone(preset.backbone, preset.levels)
    backbone: Backbone | QuantisedBackbone = plain
    if options.precision == "int8":
        some = training.files[:: max(1, len(training.files) // CALIBRATION_IMAGES)]
        frames = [prepare(to_frames(reader.read(file))) for file in some]
        # Tiles of one frame come as a batch; the network takes them one by one.
        backbone = quantised_backbone(plain, list(torch.split(torch.cat(frames), 1)))
    pools = pools_for(plain, preset)
    extractor = Extractor(backbone, pools)

    def patches_of(image: Image) -> Tensor:
        with torch.inference_mode():
            found: Tensor = extractor(prepare(to_frames(image))).flatten(0, 1)
        return found  # (tiles * tiles * P, D)

    def cached(done: int, size: int) -> None:
        progress(Progress("features", done, len(training.files), f"{size / 1e6:.0f} MB"))
        if stop.is_set():
            raise TrainingStopped("stopped while reading the images; nothing was learned yet")

    if not checkpoint.bank.exists():
        wanted = BankOptions(preset.patches, options.seed)
        fill_bank(
            training.files,
            lambda file: patches_of(reader.read(file)),
            wanted,
            checkpoint.bank,
            cached,
        )
    bank = open_bank(checkpoint.bank)
    fit = Fit(bank, preset, options.seed)
    curve = Curve(held_out[0].files, reader.read, patches_of, options.seed)
    checkpoint.load(fit, curve)
    _fit(fit, curve, checkpoint, preset.meta_epochs, progress, stop)

    def detector_of(heads: list[Head]) -> Detector:
        head = CollapsedHead(pools, *fold(heads))
        if isinstance(backbone, QuantisedBackbone):
            return Detector(Int8Network(backbone, head), form, preset.smoothing)
        return Detector(nn.Sequential(backbone, head), form, preset.smoothing)

    detector = detector_of(fit.heads)
    judges = [(part, detector) for part in held_out]
    if few:
        owners = [unit for unit, files in training.units.items() for _ in files]
        judges = []
        for part in held_out:
            rows = [i for i, unit in enumerate(owners) if unit not in part.units]
            without = Fit(bank[rows], preset, options.seed)
            _run(without, preset.meta_epochs, stop)
            judges.append((part, detector_of(without.heads)))
    result = score_held_out(
        judges,
        reader.read,
        options.seed,
        lambda done, total: progress(Progress("held-out", done, total)),
    )
    unfolded = Detector(Unfolded(backbone, pools, fit.heads), form, preset.smoothing)
    for one in (detector, unfolded):
        one.zero.fill_(result.scale.raw_zero)
        one.gain.fill_(1.0 / (result.scale.raw_one - result.scale.raw_zero))
    weights, golden = _export(detector, unfolded, result)
    card = ModelCard(
        name=options.name,
        version=1,
        detector="simplenet",
        backbone=preset.backbone,
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
        data=TrainingData(
            folder="/".join(images.folder.parts[-3:]),
            digest=reader.digest,
            images=len(images.files),
            units=len(images.units),
            held_out_units=tuple(dict.fromkeys(result.units)),
        ),
        training=Training(
            preset=preset,
            seed=options.seed,
            patches=bank.shape[0] * bank.shape[1],
            threads=THREADS,
            curve=tuple(curve.points),
        ),
        golden=golden,
        held_out_scores=tuple(unit_scores(result, options.setup_score)),
        software=_software(),
        created=datetime.now(UTC),
    )
    images_golden = [*result.good_golden, *result.spoilt_golden]
    card = write_model(workspace, card, weights, images_golden, reader.sums(images.folder))
    checkpoint.remove()
    return card


def _export(
    detector: Detector, unfolded: Detector, result: HeldOut
) -> tuple[bytes, tuple[Golden, ...]]:
    """Freeze; refuse what does not score the golden images like the network that was trained."""
    int8 = isinstance(detector.network, Int8Network)
    weights = int8_file(detector) if int8 else to_bytes(freeze(detector))
    graph = detector if int8 else from_bytes(weights)
    golden = []
    images = [(image, False) for image in result.good_golden]
    images += [(image, True) for image in result.spoilt_golden]
    for i, (image, spoilt) in enumerate(images):
        found, trained = score(graph, image), score(unfolded, image)
        if not abs(found - trained) <= EXPORT_TOLERANCE["int8" if int8 else "fp32"]:
            raise ModelError(
                f"the exported model scores {found:.6f} where the trained one scores {trained:.6f}"
            )
        golden.append(Golden(file=f"golden-{i}.png", score=found, spoilt=spoilt))
    return weights, tuple(golden)


class TrainingStopped(Exception):
    """Somebody asked the training to stop; the text says what is kept."""


def _fit(
    fit: Fit,
    curve: Curve,
    checkpoint: Checkpoint,
    meta_epochs: int,
    progress: Callable[[Progress], None],
    stop: threading.Event,
) -> None:
    """Train to the last meta-epoch, saving the state after each."""
    checkpoint.save(fit, curve)
    while fit.done < meta_epochs:
        steps = []
        for step in fit.meta_epoch():
            steps.append(step)
            if stop.is_set():
                raise TrainingStopped(
                    f"stopped after {len(curve.points)} of {meta_epochs} meta-epochs, kept in "
                    f"{checkpoint.folder}; the same command with --resume goes on"
                )
        point = curve.measure(fit.heads, steps)
        checkpoint.save(fit, curve)
        note = f"loss {point.loss:.3f}, on the right side: good {point.good_right:.0%}, "
        note += f"noisy {point.noisy_right:.0%}"
        progress(Progress("training", fit.done, meta_epochs, note))


def _run(fit: Fit, meta_epochs: int, stop: threading.Event) -> None:
    """Train a fold: short, so nothing is told or saved."""
    while fit.done < meta_epochs:
        for _ in fit.meta_epoch():
            if stop.is_set():
                raise TrainingStopped("stopped while holding out; --resume goes on")


def _software() -> dict[str, str]:
    packages = ["station", "torch", "torchvision", "timm", "numpy", "opencv-python-headless"]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}
