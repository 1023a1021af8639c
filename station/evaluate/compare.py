"""Detectors beside each other on the same images, splits and seeds, and which of them to take.

The rule is written out in docs/compare.md. Differences are paired: every resample draws the same
units for both detectors, so what makes a unit hard for both cancels.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from station.detectors import preset_of
from station.errors import ConfigError, ModelError
from station.evaluate.evaluation import Evaluation
from station.evaluate.measure import Examples
from station.evaluate.metrics import (
    RESAMPLES,
    Estimate,
    Floats,
    LabelledScores,
    draw_units,
    resampled_aurocs,
)
from station.evaluate.variants import (
    Measured,
    Place,
    Variant,
    measured,
    measured_model,
    weights_absent,
)
from station.model_card import load_card
from station.preset import changed

NEAR = 0.01  # AUROC that is given away for a faster answer, where no difference can be shown
CONFIDENCE = 0.95  # of all differences together
IMAGE_FIGURES = (
    "image_auroc",
    "average_precision",
    "false_rejects_at_zero_escapes",
    "escapes",
    "false_rejects",
    "f1",
)
FIGURES = (*IMAGE_FIGURES, "pixel_auroc", "au_pro")


class Contender(NamedTuple):
    """A detector with what each of its seeds gave."""

    name: str  # as it was asked for: "gaussian:per-position", "rd/1"
    runs: tuple[Measured, ...]

    @property
    def evaluations(self) -> list[Evaluation]:
        """Seed by seed."""
        return [run.evaluation for run in self.runs]

    def figure(self, name: str) -> Estimate | None:
        """Return an evaluation's figure; its mean over the seeds."""
        return _mean([getattr(evaluation, name) for evaluation in self.evaluations])

    def judged(self, name: str) -> Estimate | None:
        """Return a figure of what the line judges: of sheets where there are any."""
        return _mean([getattr(evaluation.judged, name) for evaluation in self.evaluations])

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the image AUROC over the seeds."""
        values = [e.image_auroc.value for e in self.evaluations if e.image_auroc is not None]
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def latency_ms(self) -> float:
        """Median of a picture's median, with the way to the model's process and back."""
        return statistics.median(e.latency_ms.p50 for e in self.evaluations)

    @property
    def latency_p95_ms(self) -> float:
        """Median over the seeds."""
        return statistics.median(e.latency_ms.p95 for e in self.evaluations)

    @property
    def training_s(self) -> float | None:
        """Mean seconds from files to written model, of the seeds that are known."""
        known = [run.cost.training_s for run in self.runs if run.cost.training_s is not None]
        return statistics.fmean(known) if known else None

    @property
    def memory_mb(self) -> float | None:
        """The most that a seed's process held."""
        known = [run.cost.memory_mb for run in self.runs if run.cost.memory_mb is not None]
        return max(known) if known else None

    def resampled(self) -> Floats:
        """Return the AUROC, of what the line judges, in every resample; seeds averaged."""
        found = []
        for evaluation in self.evaluations:
            labelled = _labelled(evaluation)
            # One seed for all: the same units are drawn for every detector.
            weights = draw_units(labelled.units, labelled.defective, 0, RESAMPLES)
            found.append(resampled_aurocs(labelled, weights))
        return np.asarray(np.mean(found, axis=0))


def _mean(found: Sequence[Estimate | None]) -> Estimate | None:
    """Return the seeds' mean; None where one of them has none.

    Its bounds are means too: all seeds saw the same images, so more of them narrow nothing.
    """
    known = [estimate for estimate in found if estimate is not None]
    if len(known) < len(found):
        return None
    lows = [e.low for e in known if e.low is not None]
    highs = [e.high for e in known if e.high is not None]
    return Estimate(
        value=statistics.fmean(e.value for e in known),
        low=statistics.fmean(lows) if len(lows) == len(known) else None,
        high=statistics.fmean(highs) if len(highs) == len(known) else None,
    )


def _labelled(evaluation: Evaluation) -> LabelledScores:
    """Return the scores of what the line judges, with the units that resamples draw."""
    if evaluation.sheet_scores:
        rows = [(s.score, s.defective, s.sheet) for s in evaluation.sheet_scores]
    else:
        rows = [(s.score, s.label != "good", s.unit) for s in evaluation.scores]
    scores, defective, units = zip(*rows, strict=True)
    return LabelledScores(np.array(scores), np.array(defective, np.bool_), units)


class Difference(NamedTuple):
    """By how much the leader's AUROC is above another's; below zero is possible."""

    other: str
    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the images show a difference."""
        return self.low > 0


class Recommendation(NamedTuple):
    """Which detector to take, and why; None where there is nothing to compare by."""

    take: str | None
    leader: str | None  # highest AUROC: of sheets where there are any, else of images
    differences: tuple[Difference, ...]
    words: str


class Made(NamedTuple):
    """A model that is measured as it is, whatever made it."""

    workspace: Path
    name: str  # "rd/1"


def contenders(names: Sequence[str], workspace: Path, tiles: int = 1) -> list[Variant | Made]:
    """Read detectors as "gaussian" or "gaussian:per-position", and models as "rd/1"."""
    if len(set(names)) < len(names):
        raise ConfigError(f"--detectors {','.join(names)}: one is there twice")
    found = list[Variant | Made]()
    for name in names:
        if "/" in name:
            load_card(workspace, name)
            found.append(Made(workspace, name))
            continue
        detector, _, preset = name.partition(":")
        chosen = preset_of(detector, preset or "default")
        if tiles != 1:
            chosen = changed(chosen, tiles=tiles)
        if weights_absent(chosen):
            raise ModelError(f"{name}: its backbone's weights are absent; see `station weights`")
        found.append(Variant(name, chosen))
    return found


def run(
    variants: Sequence[Variant | Made], seeds: int, examples: Examples, place: Place
) -> Iterator[Contender]:
    """Train and measure what is missing; yields each detector once all its seeds are done."""
    for variant in variants:
        if isinstance(variant, Made):
            kept_as = place.folder / variant.name.replace("/", "-")
            runs = [measured_model(variant.workspace, variant.name, examples, kept_as)]
        else:
            runs = [measured(variant, seed, examples, place) for seed in range(seeds)]
        yield Contender(variant.name, tuple(runs))


def recommend(found: Sequence[Contender]) -> Recommendation:
    """Say which to take: the best if that is shown, else a fast one of those that may be it."""
    aurocs = {c.name: c.judged("image_auroc") for c in found}
    values = {name: e.value for name, e in aurocs.items() if e is not None}
    if len(values) < len(found):
        return Recommendation(None, None, (), "Without good and defective images none is better.")
    auroc = f"{found[0].evaluations[0].judged_unit} AUROC"
    latency = {c.name: c.latency_ms for c in found}
    leader = min(values, key=lambda name: (-values[name], latency[name]))
    if len(found) == 1:
        return Recommendation(leader, leader, (), f"{leader} alone was measured.")
    differences = _differences(found, leader, values)
    level = [d.other for d in differences if not d.shown]
    if not level:
        words = f"{leader}: better than every other on these images."
        return Recommendation(leader, leader, differences, words)
    group = [leader, *level]
    near = [name for name in group if values[leader] - values[name] <= NEAR]
    take = min(near, key=lambda name: latency[name])
    words = f"No difference can be shown between {_listed(group)} on these images. "
    if take == leader:
        words += f"{take} has the highest {auroc}, {values[take]:.3f}"
        words += ", and none within 0.01 of it is faster." if len(near) > 1 else "."
    else:
        words += (
            f"{take} is the fastest of those within 0.01 of the highest {auroc}: "
            f"{latency[take]:.1f} ms a picture, {leader} {latency[leader]:.1f} ms."
        )
    return Recommendation(take, leader, differences, words)


def _differences(
    found: Sequence[Contender], leader: str, values: dict[str, float]
) -> tuple[Difference, ...]:
    resampled = {c.name: c.resampled() for c in found}
    others = [c.name for c in found if c.name != leader]
    # Bonferroni over all pairs, since the images also chose the leader: all intervals together
    # hold 95 times in 100.
    pairs = len(found) * len(others) / 2
    tail = 100 * (1 - CONFIDENCE) / pairs / 2
    differences = []
    for other in others:
        gaps = resampled[leader] - resampled[other]
        low, high = np.percentile(gaps[np.isfinite(gaps)], [tail, 100 - tail]).tolist()
        differences.append(Difference(other, values[leader] - values[other], low, high))
    return tuple(differences)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"
