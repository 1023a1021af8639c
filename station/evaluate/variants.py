"""One way to train, one seed, one model: trained if it is missing, measured if that is missing.

Experiments and comparisons both stand on it. What is done stays done, so a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from station.detectors import AnyPreset, FeaturePreset
from station.evaluate import evaluation as evaluations
from station.evaluate.evaluation import Evaluation
from station.evaluate.measure import Examples, evaluate, own_threshold, score
from station.evaluate.root import finished_before
from station.evaluate.splits import check_unseen, digest, file_sha256
from station.learn.features.weights import find, known
from station.learn.images import from_mvtec
from station.learn.method import Progress
from station.learn.train import TrainOptions, train
from station.model import Model, open_model
from station.model_card import list_models, load_card
from station.preset import Preset
from station.recipe import HIGHEST, SheetRule
from station.records.dataset import write_durably
from station.strict import Strict

# No line waits for these answers, and a machine that trains beside is slow to give them.
DEADLINE_S = 60.0


class Variant(NamedTuple):
    """One way to train."""

    name: str
    preset: AnyPreset
    units: int | None = None  # all
    grey: bool = False  # colour images turned to grey, in training and test alike


class Cost(Strict):
    """What a model took; None where a stop came between training and writing it down."""

    training_s: float | None
    memory_mb: float | None = None  # the most its process held while it scored


class Measured(NamedTuple):
    """A model with what it is worth and what it took."""

    workspace: Path
    model: str  # of the workspace: "name/1"
    evaluation: Evaluation
    cost: Cost


@dataclass(frozen=True)
class Place:
    """Where models are trained from and kept, and who is told."""

    dataset: Path
    folder: Path
    progress: Callable[[Progress], None]
    stop: threading.Event
    rule: SheetRule = HIGHEST  # how a sheet's score is made of its shots


def weights_absent(preset: AnyPreset) -> bool:
    """Tell whether the preset needs a backbone whose weights are not in the store."""
    return isinstance(preset, Preset | FeaturePreset) and find(known(preset.backbone)) is None


def measured(variant: Variant, seed: int, examples: Examples, place: Place) -> Measured:
    """Train the variant's model and measure it on the examples, as far as that is not done."""
    name = model_name(variant, place.dataset, seed, place.rule)
    if f"{name}/1" not in list_models(place.folder):
        # Stopped in the middle, it goes on.
        options = TrainOptions(name, variant.preset, variant.units, seed, place.rule, resume=None)
        started = time.perf_counter()
        train(from_mvtec(place.dataset), options, place.folder, place.progress, place.stop)
        cost = Cost(training_s=time.perf_counter() - started)
        _write(place.folder / f"{name}-cost.json", cost)
    return measured_model(place.folder, f"{name}/1", examples, place.folder / name)


def measured_model(workspace: Path, model: str, examples: Examples, kept_as: Path) -> Measured:
    """Measure a model that is there; what is found is kept beside `kept_as`."""
    spent = kept_as.with_name(f"{kept_as.name}-cost.json")
    kept = kept_as.with_name(f"{kept_as.name}-{examples.split}.json")
    card = load_card(workspace, model)
    judging = own_threshold(card)
    before = finished_before(kept, examples, card.sha256, judging.threshold)
    if before is not None:
        return Measured(workspace, model, before, _read(spent))
    check_unseen(workspace, model, [example.file for example in examples.members])
    with open_model(workspace, model, DEADLINE_S) as opened:
        scored = score(opened.predict, examples, lambda _: None)
        cost = _read(spent).model_copy(update={"memory_mb": memory_mb(opened)})
    evaluation = evaluate(card, examples, scored, judging)
    _write(spent, cost)
    evaluations.save(evaluation, kept)
    return Measured(workspace, model, evaluation, cost)


def model_name(variant: Variant, dataset: Path, seed: int, rule: SheetRule = HIGHEST) -> str:
    """Name a model after all that makes it, so that no other experiment is taken for it."""
    makes = (
        f"{_training_digest(dataset)} {variant.units} {variant.preset.model_dump_json()} "
        f"{importlib.metadata.version('station')} {rule}"
    )
    words = "".join(c if c.isalnum() else "-" for c in variant.name.lower())
    return f"{words}-{hashlib.sha256(makes.encode()).hexdigest()[:8]}-seed{seed}"


@functools.cache
def _training_digest(dataset: Path) -> str:
    images = from_mvtec(dataset)
    names = [f"{file_sha256(file)} {file.relative_to(images.folder)}" for file in images.files]
    return digest(names)


def memory_mb(model: Model) -> float | None:
    """Return the most memory the model's process has held so far; None where it cannot be read."""
    try:
        status = Path(f"/proc/{model.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def _read(path: Path) -> Cost:
    try:
        return Cost.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Cost(training_s=None)


def _write(path: Path, cost: Cost) -> None:
    write_durably(path, cost.model_dump_json().encode())
