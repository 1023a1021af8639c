"""Train a detector on good images and write it to models/<name>/<n>/, never over another."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from station.errors import DatasetError, ModelError
from station.learn import synthetic
from station.learn.backbones import BACKBONES, load_backbone
from station.learn.export import Detector, InputForm, Network, freeze, to_bytes, write_model
from station.learn.images import Loaded, TrainingImages, check_alike, read_image
from station.learn.simplenet import HeadOptions, patch_features, train_heads
from station.model import (
    Golden,
    ModelCard,
    ModelInput,
    Scale,
    Training,
    TrainingData,
)
from station.recipe import MODEL_PATTERN, SetupScore
from station.records import Image, sheet_score

HELD_OUT_SHARE = 0.2  # of the units: they set the scale and tell the share of false rejects
THREADS = 1  # on a busy machine several threads mostly wait for each other
GOOD_GOLDEN = 2


@dataclass(frozen=True)
class TrainOptions:
    """What can be chosen; the defaults are meant to be kept."""

    name: str
    backbone: str = "efficientnet_lite0"
    input_size: int = 256  # long side, a multiple of 32
    tiles: int = 1
    units: int | None = None  # train on this many units, drawn by the seed
    seed: int = 0
    setup_score: SetupScore = "highest"  # how the recipe makes a sheet's score of its shots
    smoothing: float = 1.0  # of the map, in its own cells
    patches: int = 300_000  # kept of all training images together
    head: HeadOptions = field(default_factory=HeadOptions)


class Progress(NamedTuple):
    """How far a training is: stage is "features", "training" or "held-out"."""

    stage: str
    done: int
    total: int
    loss: float | None = None


class HeldOut(NamedTuple):
    """What good units left out of training scored, before the scale was known."""

    units: list[str]  # one entry per image
    setups: list[str]  # likewise: what the shots of one setup share of their names
    good: list[float]
    spoilt: list[float]
    scale: Scale
    golden: list[Image]


def train(
    images: TrainingImages,
    options: TrainOptions,
    workspace: Path,
    progress: Callable[[Progress], None],
) -> ModelCard:
    """Learn what good parts look like; return the card of the new model."""
    _check(options)
    if options.units is not None:
        images = images.draw(options.units, options.seed)
    training, held_out = split(images, options.seed)
    torch.set_num_threads(THREADS)
    reader = _Reader()
    backbone = load_backbone(options.backbone)

    first = reader.read(training.files[0])
    height, width = first.shape[:2]
    form = InputForm.of_frames(height, width, options.input_size, options.tiles)
    prepare = Detector(torch.nn.Identity(), form, 0.0).prepare
    bank = _collect(reader, training, lambda f: backbone(prepare(f)), options, progress)

    steps = options.head.steps * options.head.members

    def told(step: int, loss: float) -> None:
        progress(Progress("training", step, steps, loss))

    heads = train_heads(bank, options.head, options.seed, told)
    detector = Detector(Network(backbone, heads), form, options.smoothing)
    result = _score_held_out(reader, held_out, detector, options.seed, progress)
    detector.zero.fill_(result.scale.raw_zero)
    detector.gain.fill_(1.0 / (result.scale.raw_one - result.scale.raw_zero))
    graph = freeze(detector)
    weights = to_bytes(graph)

    golden_scores = [_score(graph, image) for image in result.golden]
    held_out_scores = _unit_scores(result, options.setup_score)
    epochs = options.head.steps * options.head.batch / len(bank)
    card = ModelCard(
        name=options.name,
        version=1,
        detector="simplenet",
        backbone=options.backbone,
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
            digest=hashlib.sha256("\n".join(sorted(reader.hashes)).encode()).hexdigest(),
            images=len(images.files),
            units=len(images.units),
            held_out_units=tuple(held_out.units),
        ),
        training=Training(
            seed=options.seed,
            steps=options.head.steps,
            batch=options.head.batch,
            epochs=round(epochs, 2),
            patches=len(bank),
            whitening=options.head.whitening,
            noise=options.head.noise,
            margin=options.head.margin,
            hidden=options.head.hidden,
            members=options.head.members,
            learning_rate=options.head.learning_rate,
            smoothing=options.smoothing,
            threads=THREADS,
        ),
        golden=tuple(
            Golden(file=f"golden-{i}.png", score=score) for i, score in enumerate(golden_scores)
        ),
        held_out_scores=tuple(held_out_scores.values()),
        software=_software(),
        created=datetime.now(UTC),
    )
    return write_model(workspace, card, weights, result.golden)


def _unit_scores(held_out: HeldOut, setup_score: SetupScore) -> dict[str, float]:
    """Score every held-out unit as the line would score the sheet."""
    shots: dict[str, tuple[list[float], list[str]]] = {}
    for unit, setup, raw in zip(held_out.units, held_out.setups, held_out.good, strict=True):
        scores, setups = shots.setdefault(unit, ([], []))
        scores.append(_scaled(raw, held_out.scale))
        setups.append(setup)
    return {
        unit: sheet_score(scores, setups, setup_score) for unit, (scores, setups) in shots.items()
    }


def split(images: TrainingImages, seed: int) -> tuple[TrainingImages, TrainingImages]:
    """Hold out a fifth of the units, at least one; shots of one unit stay together."""
    names = list(images.units)
    if len(names) < 2:
        raise DatasetError(
            f"{images.folder}: one unit ({names[0]}); at least 2 are needed, one to learn from and "
            "one to set the scale"
        )
    count = max(1, round(HELD_OUT_SHARE * len(names)))
    held = set(np.random.default_rng([seed, 1]).permutation(len(names))[:count].tolist())
    out = {name: images.units[name] for i, name in enumerate(names) if i in held}
    kept = {name: images.units[name] for i, name in enumerate(names) if i not in held}
    return TrainingImages(images.folder, kept), TrainingImages(images.folder, out)


class _Reader:
    """Reads files, each like the first one, and remembers their hashes."""

    def __init__(self) -> None:
        self.hashes: dict[str, None] = {}
        self._first: tuple[Path, Image] | None = None

    def read(self, path: Path) -> Image:
        loaded: Loaded = read_image(path)
        if self._first is None:
            self._first = path, loaded.image
        check_alike(loaded.image, path, self._first[1], self._first[0])
        self.hashes[loaded.sha256] = None
        return loaded.image


def _collect(
    reader: _Reader,
    images: TrainingImages,
    features: Callable[[Tensor], list[Tensor]],
    options: TrainOptions,
    progress: Callable[[Progress], None],
) -> Tensor:
    """Keep as many patches of every image, drawn by the seed: (P, D) in half precision."""
    generator = torch.Generator().manual_seed(options.seed)
    files = images.files
    share = max(1, options.patches // len(files))
    kept = []
    for done, path in enumerate(files, start=1):
        with torch.inference_mode():
            patches = patch_features(features(to_frames(reader.read(path))))
            patches = patches.flatten(0, 2)  # (tiles * tiles * h * w, D)
            chosen = torch.randperm(len(patches), generator=generator)[:share]
            kept.append(patches[chosen].half())
        progress(Progress("features", done, len(files)))
    return torch.cat(kept)


def _score_held_out(
    reader: _Reader,
    images: TrainingImages,
    detector: Detector,
    seed: int,
    progress: Callable[[Progress], None],
) -> HeldOut:
    """Score every held-out image as it is and with a synthetic defect; fix the scale by both."""
    rng = np.random.default_rng([seed, 2])
    units, setups, good, spoilt, seen = [], [], [], [], []
    owners = [unit for unit, files in images.units.items() for _ in files]
    for i, (unit, path) in enumerate(zip(owners, images.files, strict=True)):
        image = reader.read(path)
        kinds = synthetic.KINDS if len(owners) < 10 else [synthetic.KINDS[i % 3]]
        for kind in kinds:
            bad = synthetic.spoil(image, kind, rng)
            spoilt.append(_score(detector, bad))
            seen.append(_small(bad, detector))
        units.append(unit)
        setups.append(path.stem.rpartition("_")[0] or path.stem)
        good.append(_score(detector, image))
        progress(Progress("held-out", i + 1, len(owners)))
    zero, one = float(np.median(good)), float(np.median(spoilt))
    if not (np.isfinite([zero, one]).all() and one - zero > 1e-6):
        raise ModelError(
            f"synthetic defects score {one:.4g}, good images {zero:.4g}: nothing was learned to "
            "tell them apart, so there is no scale"
        )
    scale = Scale(raw_zero=zero, raw_one=one, synthetic_seed=seed, synthetic_kinds=synthetic.KINDS)
    typical = int(np.argsort(spoilt)[len(spoilt) // 2])
    golden = [_small(reader.read(path), detector) for path in images.files[:GOOD_GOLDEN]]
    return HeldOut(units, setups, good, spoilt, scale, [*golden, seen[typical]])


def _score(graph: torch.nn.Module, image: Image) -> float:
    with torch.inference_mode():
        return float(graph(to_frames(image))[0][0])


def _scaled(raw: float, scale: Scale) -> float:
    return (raw - scale.raw_zero) / (scale.raw_one - scale.raw_zero)


def to_frames(image: Image) -> Tensor:
    """View an image as a batch of one, (1, C, H, W)."""
    pixels = torch.from_numpy(image)
    return pixels[None, None] if image.ndim == 2 else pixels.permute(2, 0, 1)[None]


def _small(image: Image, detector: Detector) -> Image:
    """Shrink to the size that the network sees: a golden image need not be larger."""
    size = detector.canvas_width, detector.canvas_height
    if image.shape[1] <= size[0]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _software() -> dict[str, str]:
    packages = ["station", "torch", "timm", "numpy", "opencv-python-headless"]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}


def _check(options: TrainOptions) -> None:
    if not re.fullmatch(MODEL_PATTERN, f"{options.name}/1"):
        raise ModelError(f"name {options.name!r}: small letters, digits, _ and - only")
    if options.backbone not in BACKBONES:
        raise ModelError(f"no backbone {options.backbone!r}; there are: {', '.join(BACKBONES)}")
    if options.input_size % 32 or options.input_size < 64:
        raise ModelError(f"input size {options.input_size}: a multiple of 32 from 64 on is needed")
    if not 1 <= options.tiles <= 8:
        raise ModelError(f"{options.tiles} tiles per side: 1 to 8 are possible")
