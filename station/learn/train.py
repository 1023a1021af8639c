"""Train a detector on good images and write it to models/<name>/<n>/, never over another."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from station.errors import ConfigError, DatasetError, ModelError
from station.learn.backbones import load_backbone
from station.learn.curve import Curve
from station.learn.export import Detector, InputForm, Network, freeze, to_bytes, write_model
from station.learn.features import Extractor, fill_bank, open_bank, pools_for
from station.learn.held_out import hold_out, score, score_held_out, to_frames, unit_scores
from station.learn.images import Loaded, TrainingImages, check_alike, read_image
from station.learn.simplenet import Fit, Head, fold
from station.model import CurvePoint, Golden, ModelCard, ModelInput, Training, TrainingData
from station.preset import DEFAULT, Preset
from station.recipe import MODEL_PATTERN, SetupScore
from station.records import Image

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
    reader = _Reader(images)
    state = _State(workspace, options, reader.digest)
    backbone = load_backbone(preset.backbone, preset.levels)
    pools = pools_for(backbone, preset)
    first = reader.read(training.files[0])
    height, width = first.shape[:2]
    form = InputForm.of_frames(height, width, preset)
    prepare = Detector(torch.nn.Identity(), form, 0.0).prepare
    extractor = Extractor(backbone, pools)

    def patches_of(image: Image) -> Tensor:
        with torch.inference_mode():
            found: Tensor = extractor(prepare(to_frames(image))).flatten(0, 1)
        return found  # (tiles * tiles * P, D)

    def cached(done: int, size: int) -> None:
        progress(Progress("features", done, len(training.files), f"{size / 1e6:.0f} MB"))
        if stop.is_set():
            raise TrainingStopped("stopped while reading the images; nothing was learned yet")

    if not state.bank.exists():
        read = reader.read
        count, seed = preset.patches, options.seed
        fill_bank(training.files, lambda f: patches_of(read(f)), count, seed, state.bank, cached)
    bank = open_bank(state.bank)
    fit = Fit(bank, preset, options.seed)
    curve = Curve(held_out[0].files, reader.read, patches_of, options.seed)
    state.load(fit, curve)
    _fit(fit, curve, state, preset.meta_epochs, progress, stop)

    def detector_of(heads: list[Head]) -> Detector:
        network = Network(backbone, pools, fold(heads))
        return Detector(network, form, preset.smoothing)

    detector = detector_of(fit.heads)
    owners = [unit for unit, files in training.units.items() for _ in files]
    judges = [(part, detector) for part in held_out]
    if few:
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
    detector.zero.fill_(result.scale.raw_zero)
    detector.gain.fill_(1.0 / (result.scale.raw_one - result.scale.raw_zero))
    graph = freeze(detector)
    weights = to_bytes(graph)
    card = ModelCard(
        name=options.name,
        version=1,
        detector="simplenet",
        backbone=preset.backbone,
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
        golden=tuple(
            Golden(file=f"golden-{i}.png", score=score(graph, image))
            for i, image in enumerate(result.golden)
        ),
        held_out_scores=tuple(unit_scores(result, options.setup_score)),
        software=_software(),
        created=datetime.now(UTC),
    )
    card = write_model(workspace, card, weights, result.golden, reader.sums(images.folder))
    state.remove()
    return card


class TrainingStopped(Exception):
    """Somebody asked the training to stop; the text says what is kept."""


def _fit(
    fit: Fit,
    curve: Curve,
    state: _State,
    meta_epochs: int,
    progress: Callable[[Progress], None],
    stop: threading.Event,
) -> None:
    """Train to the last meta-epoch, saving the state after each."""
    state.save(fit, curve)
    while fit.done < meta_epochs:
        steps = []
        for step in fit.meta_epoch():
            steps.append(step)
            if stop.is_set():
                raise TrainingStopped(
                    f"stopped after {len(curve.points)} of {meta_epochs} meta-epochs, kept in "
                    f"{state.folder}; the same command with --resume goes on"
                )
        point = curve.measure(fit.heads, steps)
        state.save(fit, curve)
        note = f"loss {point.loss:.3f}, on the right side: good {point.good_right:.0%}, "
        note += f"noisy {point.noisy_right:.0%}"
        progress(Progress("training", fit.done, meta_epochs, note))


def _run(fit: Fit, meta_epochs: int, stop: threading.Event) -> None:
    """Train a fold: short, so nothing is told or saved."""
    while fit.done < meta_epochs:
        for _ in fit.meta_epoch():
            if stop.is_set():
                raise TrainingStopped("stopped while holding out; --resume goes on")


class _State:
    """What a stopped training leaves under run/training/, named after all that decides it."""

    def __init__(self, workspace: Path, options: TrainOptions, digest: str) -> None:
        decides = [digest, options.name, options.seed, options.preset.model_dump(mode="json")]
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = workspace / "run" / "training" / f"{options.name}-{key}"
        self.bank = self.folder / "features.npy"
        self._saved = self.folder / "state.pt"
        if options.resume and not self._saved.exists():
            raise ConfigError(
                f"{self.folder}: no training to resume with these images, preset, name and seed"
            )
        if not options.resume:
            self.remove()

    def save(self, fit: Fit, curve: Curve) -> None:
        unfinished = self._saved.with_suffix(".part")
        points = [point.model_dump() for point in curve.points]
        torch.save({"fit": fit.state(), "curve": points}, unfinished)
        unfinished.replace(self._saved)

    def load(self, fit: Fit, curve: Curve) -> None:
        if not self._saved.exists():
            return
        try:
            saved = torch.load(self._saved, weights_only=True)
            fit.resume(saved["fit"])
            curve.points.extend(CurvePoint.model_validate(point) for point in saved["curve"])
        except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise ModelError(f"{self._saved}: cannot be read; train without --resume") from error

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Reader:
    """Reads files, each like the first one; all are checked before anything is learned."""

    def __init__(self, images: TrainingImages) -> None:
        self._sums: dict[Path, str] = {}
        self._first: tuple[Path, Image] | None = None
        seen: dict[str, tuple[str, Path]] = {}
        for unit, files in images.units.items():
            for file in files:
                loaded = self._load(file)
                twin_unit, twin = seen.setdefault(loaded.sha256, (unit, file))
                if twin_unit != unit:
                    # One to learn from and one to be measured on would tell nothing.
                    raise DatasetError(f"{file} and {twin} are the same picture; keep one")
                self._sums[file] = loaded.sha256
        self.digest = hashlib.sha256("\n".join(sorted(seen)).encode()).hexdigest()

    def read(self, path: Path) -> Image:
        """Return a file's image; it must be the one that was checked."""
        loaded = self._load(path)
        if loaded.sha256 != self._sums[path]:
            raise DatasetError(f"{path}: changed during training")
        return loaded.image

    def sums(self, folder: Path) -> str:
        """List every file as `sha256sum` would, so that it can check them."""
        lines = [f"{sha256}  {file.relative_to(folder)}" for file, sha256 in self._sums.items()]
        return "\n".join(lines) + "\n"

    def _load(self, path: Path) -> Loaded:
        loaded = read_image(path)
        if self._first is None:
            self._first = path, loaded.image
        check_alike(loaded.image, path, self._first[1], self._first[0])
        return loaded


def _software() -> dict[str, str]:
    packages = ["station", "torch", "torchvision", "timm", "numpy", "opencv-python-headless"]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}
