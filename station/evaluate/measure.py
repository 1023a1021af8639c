"""Measure a model on labelled images, through the runtime that runs on the line."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from station.errors import DatasetError, ModelError
from station.evaluate import metrics, region_metrics
from station.evaluate.evaluation import (
    Evaluation,
    LabelMetrics,
    Latency,
    RegionRow,
    ScoredImage,
    ScoredSheet,
    Split,
)
from station.evaluate.examples import GOOD, Example, read_test, sheet_of
from station.evaluate.masks import at_size, check_masks, read_mask
from station.evaluate.metrics import LabelledScores
from station.evaluate.region_metrics import LabelledMap, PixelMetrics
from station.evaluate.splits import file_sha256, halves
from station.learn.images import read_image
from station.model_card import ModelCard
from station.recipe import HIGHEST, SheetRule
from station.records.sheet import Image, Prediction
from station.sheet_score import ShotScore, sheet_score

SEED = 0  # of the bootstrap: the same data give the same intervals


class Judging(NamedTuple):
    """What images are judged by, and where that comes from."""

    threshold: float
    source: str
    rule: SheetRule


class Scored(NamedTuple):
    """What the model said of one image."""

    example: Example
    score: float
    anomaly_map: NDArray[np.float32]  # (h, w) in the model's own cells
    size: tuple[int, int]  # height and width of the image
    latency_ms: float


class Examples(NamedTuple):
    """The chosen images of a tree, with what proves them unchanged."""

    folder: Path
    split: Split
    members: list[Example]
    digest: str


class LabelledMaps:
    """Maps at their masks' size, made anew each time they are gone through, so memory holds one."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        # A defective image without a mask would call its defect good.
        self.scored = [s for s in scored if s.example.mask or not s.example.defective]

    def __iter__(self) -> Iterator[LabelledMap]:
        for one in self.scored:
            values, mask = at_size(one.anomaly_map, one.size), one.example.mask
            yield values, None if mask is None else read_mask(mask, one.size)


def read_examples(folder: Path, split: Split) -> Examples:
    """List and hash the test images of a tree and their masks, once these are seen to fit."""
    examples = read_test(folder)
    check_masks(folder, examples)
    if split != "all":
        examples = halves(examples)[split]
        if not examples:
            raise DatasetError(f"{folder}: no test image falls into split {split}")
    lines, seen = list[str](), dict[str, Example]()
    for example in examples:
        sha256 = file_sha256(example.file)
        twin = seen.setdefault(sha256, example)
        if twin.label != example.label:
            raise DatasetError(f"{example.file}: the same file as {twin.file}, under another label")
        if example.mask is not None:
            height, width = read_image(example.file).image.shape[:2]
            read_mask(example.mask, (height, width))
        lines.append(f"{example.label} {sha256} {example.mask and file_sha256(example.mask)}")
    lines.sort()
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Examples(folder, split, examples, digest)


def own_threshold(card: ModelCard) -> Judging:
    """Judge by the highest score of the good units held out at training: no test data in it."""
    source = "the highest held-out good unit of the model's card"
    if card.imported is not None:
        source = "the highest good unit it was imported with, which it may have learned from"
    rule = HIGHEST if card.held_out_rule is None else card.held_out_rule.rule
    return Judging(max(card.held_out_scores), source, rule)


def score(
    predict: Callable[[Image], Prediction], examples: Examples, progress: Callable[[str], None]
) -> list[Scored]:
    """Score every image; a bad file is named, whatever is wrong with it."""
    scored = []
    for example in examples.members:
        image = read_image(example.file).image
        started = time.perf_counter()
        try:
            prediction = predict(image)
        except ModelError as error:
            raise ModelError(f"{example.file}: {error}") from error
        took_ms = 1e3 * (time.perf_counter() - started)
        size = image.shape[0], image.shape[1]
        scored.append(Scored(example, prediction.score, prediction.anomaly_map, size, took_ms))
        progress(example.file.name)
    return scored


def evaluate(
    card: ModelCard, examples: Examples, scored: Sequence[Scored], judging: Judging
) -> Evaluation:
    """Compute every figure from scores and maps."""
    labelled = _labelled(scored)
    image_metrics = metrics.measure(labelled, judging.threshold, SEED)
    pixels = _pixels(scored)
    latencies = [one.latency_ms for one in scored]
    masks = sum(one.example.mask is not None for one in scored)
    sheets = _sheets(scored, judging)
    return Evaluation(
        **dict(image_metrics),
        dataset=examples.folder.resolve().name,
        data_digest=examples.digest,
        split=examples.split,
        model=f"{card.name}/{card.version}",
        model_sha256=card.sha256,
        backbone=card.backbone,
        seed=SEED,
        threshold_from=judging.source,
        images=len(scored),
        units=len(set(labelled.units)),
        masks=masks,
        pixel_auroc=pixels and pixels.pixel_auroc,
        au_pro=pixels and pixels.au_pro,
        fpr_limit=region_metrics.FPR_LIMIT,
        overlap_fpr=region_metrics.OVERLAP_FPR,
        latency_ms=Latency(
            p50=float(np.percentile(latencies, 50)), p95=float(np.percentile(latencies, 95))
        ),
        sheets=_sheet_metrics(sheets, judging) if sheets else None,
        notes=_notes(image_metrics.good, image_metrics.defective, masks, pixels),
        classes=_classes(scored, labelled, judging, pixels),
        regions=_regions(examples, scored, pixels),
        scores=tuple(
            ScoredImage(file=_name(examples, e), label=e.label, unit=unit, score=one.score)
            for one, e, unit in zip(scored, _examples(scored), labelled.units, strict=True)
        ),
        sheet_scores=sheets,
        software=software(),
        evaluated=datetime.now(UTC),
    )


def _examples(scored: Sequence[Scored]) -> list[Example]:
    return [one.example for one in scored]


def _labelled(scored: Sequence[Scored]) -> LabelledScores:
    examples = _examples(scored)
    return LabelledScores(
        np.array([one.score for one in scored], np.float64),
        np.array([example.defective for example in examples], np.bool_),
        [_unit(example) for example in examples],
    )


def _unit(example: Example) -> str:
    """Name the unit; a file that is its own unit shares it with no file of another label."""
    alone = example.unit == example.file.stem
    return f"{example.label}/{example.unit}" if alone else example.unit


def _pixels(scored: Sequence[Scored]) -> PixelMetrics | None:
    maps = LabelledMaps(scored)
    examples = _examples(maps.scored)
    units, labels = [_unit(e) for e in examples], [e.label for e in examples]
    return region_metrics.measure(maps, units, labels, SEED)


def _sheets(scored: Sequence[Scored], judging: Judging) -> tuple[ScoredSheet, ...]:
    """Score whole sheets where every file is a capture: a sheet is defective if one shot is."""
    if any(sheet_of(one.example.file) is None for one in scored):
        return ()
    sheets: dict[str, list[Scored]] = {}
    for one in scored:
        sheets.setdefault(one.example.unit, []).append(one)
    return tuple(
        ScoredSheet(
            sheet=sheet,
            defective=any(s.example.defective for s in shots),
            score=sheet_score(
                [ShotScore(s.example.setup, s.score, s.anomaly_map) for s in shots], judging.rule
            ),
        )
        for sheet, shots in sheets.items()
    )


def _sheet_metrics(sheets: Sequence[ScoredSheet], judging: Judging) -> metrics.ImageMetrics:
    labelled = LabelledScores(
        np.array([one.score for one in sheets]),
        np.array([one.defective for one in sheets], np.bool_),
        [one.sheet for one in sheets],
    )
    return metrics.measure(labelled, judging.threshold, SEED)


def _classes(
    scored: Sequence[Scored],
    labelled: LabelledScores,
    judging: Judging,
    pixels: PixelMetrics | None,
) -> tuple[LabelMetrics, ...]:
    labels = np.array([one.example.label for one in scored])
    rows = []
    for label in sorted(set(labels.tolist()), key=lambda name: (name != GOOD, name)):
        mine = labels == label
        own = labelled.only(mine | ~labelled.defective)
        found = metrics.measure(own, judging.threshold, SEED)
        drawn = pixels.by_label.get(label) if pixels else None
        scores = labelled.scores[mine]
        rows.append(
            LabelMetrics(
                label=label,
                images=int(mine.sum()),
                units=len(set(labelled.only(mine).units)),
                masks=sum(s.example.mask is not None for s in scored if s.example.label == label),
                image_auroc=None if label == GOOD else found.image_auroc,
                pixel_auroc=drawn and drawn[0],
                au_pro=drawn and drawn[1],
                rejected=metrics.share(labelled.only(mine), scores >= judging.threshold),
                lowest_score=float(scores.min()),
                median_score=float(np.median(scores)),
                highest_score=float(scores.max()),
            )
        )
    return tuple(rows)


def _regions(
    examples: Examples, scored: Sequence[Scored], pixels: PixelMetrics | None
) -> tuple[RegionRow, ...]:
    """List every region, the hardest first."""
    if pixels is None:
        return ()
    members = _examples(LabelledMaps(scored).scored)
    rows = [
        RegionRow(
            file=_name(examples, members[region.image]),
            label=members[region.image].label,
            **{k: v for k, v in region._asdict().items() if k != "image"},
        )
        for region in pixels.regions
    ]
    return tuple(sorted(rows, key=lambda row: (row.au_pro, row.highest_score)))


def _notes(good: int, defective: int, masks: int, pixels: PixelMetrics | None) -> tuple[str, ...]:
    notes = []
    if not good:
        notes.append("no good test image: nothing to compare defective ones with")
    if not defective:
        notes.append("no defective test image: nothing that could escape")
    elif masks == 0:
        notes.append("no masks: pixel AUROC and AU-PRO cannot be measured")
    elif masks < defective:
        notes.append(
            f"masks for {masks} of {defective} defective images: pixel metrics are of these "
            "and all good images"
        )
    elif pixels is None:
        notes.append("masks cover every pixel: pixel metrics need good ones to compare with")
    return tuple(notes)


def _name(examples: Examples, example: Example) -> str:
    return example.file.relative_to(examples.folder).as_posix()


def software() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    packages = ["station", "torch", "numpy", "scipy", "opencv-python-headless"]
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}
