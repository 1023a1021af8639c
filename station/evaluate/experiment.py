"""Trainings beside each other: few against many images, backbones, grey against colour, ablation.

Each variant is trained once per seed in one folder and measured on one split, see `variants`.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2

from station.errors import DatasetError
from station.evaluate.evaluation import Evaluation, Split
from station.evaluate.measure import Examples, read_examples
from station.evaluate.splits import digest, file_sha256
from station.evaluate.variants import Place, Variant, measured, weights_absent
from station.learn.features.weights import WEIGHTS
from station.learn.images import TrainingImages, from_mvtec, read_image
from station.learn.method import Progress
from station.preset import Preset, changed
from station.records.dataset import write_durably

Experiment = Literal["seeds", "images", "backbones", "grey", "ablation"]
IMAGE_COUNTS = (2, 5, 10, 30, 90)
METRICS = ("image_auroc", "pixel_auroc", "au_pro", "false_rejects_at_zero_escapes")


class Mean(NamedTuple):
    """Mean and standard deviation over seeds; None where there is one seed."""

    mean: float
    deviation: float | None


class Row(NamedTuple):
    """What a variant is worth; without figures, `note` tells why."""

    variant: str
    seeds: int
    figures: dict[str, Mean | None]
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What to train and measure, and where it is kept."""

    variants: Sequence[Variant]
    dataset: Path
    folder: Path
    split: Split
    seeds: int


def variants(what: Experiment, preset: Preset, images: TrainingImages) -> list[Variant]:
    """List the variants of an experiment, the given preset among them."""
    if what == "seeds":
        return [Variant(preset.name, preset)]
    if what == "images":
        counts = [count for count in IMAGE_COUNTS if count < len(images.units)]
        return [Variant(f"{n} good", preset, n) for n in [*counts, len(images.units)]]
    if what == "backbones":
        return [Variant(name, changed(preset, backbone=name)) for name in WEIGHTS]
    if what == "grey":
        if read_image(images.files[0]).image.ndim == 2:
            raise DatasetError(f"{images.files[0]}: grey already; this needs colour images")
        return [Variant("colour", preset), Variant("grey", preset, grey=True)]
    changes: dict[str, dict[str, object]] = {
        "as it is": {},
        "no whitening": {"adaptor": {"kind": "whitening", "strength": 0.0}},
        "full whitening": {"adaptor": {"kind": "whitening", "strength": 1.0}},
        "one head": {"members": 1},
        "64 hidden": {"hidden": 64},
        "a quarter of the steps": {"batches": {"kind": "patches", "size": 2048, "steps": 20}},
        "noise 0.015": {"noise": (0.015,)},
        "noise 0.3": {"noise": (0.3,)},
        "no synthetic defects": {"strewn": 0.0},
        "strides 8, 16": {"levels": (8, 16)},
        "no smoothing": {"smoothing": 0.0},
        "512 px": {"input_size": 512},
        "512 px, strides 4-32": {"input_size": 512, "levels": (4, 8, 16, 32)},
        "2 x 2 tiles": {"tiles": 2},
        "lite2": {"backbone": "efficientnet_lite2"},
    }
    if preset.crop_from is not None:  # the crop is of one size
        changes = {k: v for k, v in changes.items() if not {"input_size", "tiles"} & set(v)}
    return [Variant(name, changed(preset, **change)) for name, change in changes.items()]


def run(
    plan: Plan,
    progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Iterator[Row]:
    """Train and measure; yields each variant once all its seeds are done."""
    for variant in plan.variants:
        if weights_absent(variant.preset):
            yield Row(variant.name, 0, dict.fromkeys(METRICS), "weights absent")
            continue
        dataset, examples = plan.dataset, read_examples(plan.dataset, plan.split)
        if variant.grey:
            dataset, examples = _in_grey(examples, plan.folder)
        place = Place(dataset, plan.folder, progress, stop)
        found = [measured(variant, seed, examples, place).evaluation for seed in range(plan.seeds)]
        yield Row(variant.name, len(found), {name: _mean(found, name) for name in METRICS})


def _mean(found: Sequence[Evaluation], name: str) -> Mean | None:
    # What the line judges is what it rejects: sheets, where there are any.
    of_line = name == "false_rejects_at_zero_escapes"
    estimates = [getattr(e.judged if of_line else e, name) for e in found]
    values = [estimate.value for estimate in estimates if estimate is not None]
    if len(values) < len(found):
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _in_grey(examples: Examples, folder: Path) -> tuple[Path, Examples]:
    """Return a tree with train/good in grey, and the very same test images in grey.

    Chosen before they are turned grey: a split goes by the file's bytes.
    """
    training = from_mvtec(examples.folder).files
    made_of = digest([*map(file_sha256, training), examples.digest])
    grey = folder / f"grey-{made_of[:8]}"
    for file in training:
        _copy_in_grey(file, grey / file.relative_to(examples.folder))
    members = []
    for example in examples.members:
        copy = _copy_in_grey(example.file, grey / example.file.relative_to(examples.folder))
        members.append(example._replace(file=copy))
    return grey, examples._replace(folder=grey, members=members)


def _copy_in_grey(file: Path, place: Path) -> Path:
    """Write a grey PNG, unless it is there."""
    target = place.with_suffix(".png")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        image = read_image(file).image
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # type: ignore[assignment]
        write_durably(target, cv2.imencode(".png", image)[1].tobytes())
    return target
