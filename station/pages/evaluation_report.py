"""An evaluation as one HTML page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from station.evaluate.evaluation import Evaluation, ScoredSheet
from station.evaluate.masks import read_mask
from station.evaluate.measure import Examples, Scored
from station.evaluate.metrics import Estimate, ImageMetrics, Rate
from station.evaluate.root import AVERAGED, Average
from station.heatmap import MAP_RANGE, colour_stops, map_over
from station.learn.images import read_image
from station.model_card import ModelCard
from station.pages import evaluation_figures as figures
from station.pages.page import data_uri, environment, smaller, write_page
from station.records.sheet import Image

NAMES = {
    "image_auroc": ("Image AUROC", "chance that a defective image scores above a good one"),
    "average_precision": ("Average precision", "mean precision at the score of each defect"),
    "pixel_auroc": ("Pixel AUROC", "the same chance for pixels; large defects count most"),
    "au_pro": ("AU-PRO", "mean share of each region found, up to 30 % false-positive pixels"),
    "false_rejects_at_zero_escapes": (
        "False rejects at zero escapes",
        "good images rejected if no defect of these images may escape",
    ),
    "escapes": ("Escapes", "defective images below the threshold"),
    "false_rejects": ("False rejects", "good images at the threshold or above"),
    "f1": ("F1", "of rejecting defects, at the threshold"),
}
SHEET_AUROC = ("Sheet AUROC", "chance that a defective sheet scores above a good one")
TILES = ("image_auroc", "pixel_auroc", "au_pro", "false_rejects_at_zero_escapes")
REGION_LIMIT = 25
PER_LABEL = 4
GOOD_SHOWN = 4


class Card(NamedTuple):
    """One image: as it is, as it was painted, as the model sees it; pictures as data URIs."""

    one: Scored
    name: str
    verdict: str
    correctness: str
    picture: str
    mask: str  # empty where nobody painted one
    overlay: str


def write_evaluation(
    out: Path,
    evaluation: Evaluation,
    examples: Examples,
    scored: Sequence[Scored],
    card: ModelCard,
) -> None:
    """Write the page of one evaluation."""
    judged = figures.judged(evaluation)
    both = bool(len(judged.good) and len(judged.defective))
    defects = [row for row in evaluation.classes if row.label != "good"]
    bars = {
        NAMES[field][0]: [getattr(row, field) for row in defects]
        for field in AVERAGED
        if getattr(evaluation, field) is not None
    }
    curve = () if card.training is None else card.training.curve
    deviations = None if card.training is None else card.training.deviations
    page = environment().get_template("evaluation.html.j2").render(
        evaluation=evaluation,
        card=card,
        facts=_facts(evaluation),
        tiles=_tiles(evaluation),
        tables=_tables(evaluation),
        verdict=_verdict(evaluation) if both else [],
        bars=figures.grouped_bars("bars", [row.label for row in defects], bars) if bars else None,
        roc=figures.roc(evaluation) if both else None,
        marks=figures.marks(evaluation) if both else [],
        judged=judged,
        histogram=figures.histogram(evaluation),
        region_figure=figures.regions(evaluation.regions) if evaluation.regions else None,
        regions=evaluation.regions[:REGION_LIMIT],
        learned_from_all=len(card.data.held_out_units) == card.data.units,
        curve=figures.learning_curve(curve) if curve else None,
        deviations=figures.deviations(deviations) if deviations else None,
        groups=_groups(evaluation, examples, scored),
        made_with=_made_with(evaluation, card),
        colours=colour_stops(),
        map_range=MAP_RANGE,
        estimate=_estimate,
    )  # fmt: skip
    write_page(out, page)


def write_overview(
    out: Path,
    root: str,
    results: Sequence[Evaluation],
    averages: Sequence[Average],
    missing: Sequence[str],
) -> None:
    """Write the page over all categories; each links to the page beside it."""
    rows = [(r.dataset, {f: getattr(r, f) for f in AVERAGED}) for r in results]
    lines = [*rows, *((a.name, a.figures) for a in averages)]
    series = {NAMES[field][0]: [figures[field] for _, figures in lines] for field in AVERAGED}
    page = environment().get_template("evaluation_overview.html.j2").render(
        root=root,
        results=results,
        averages=averages,
        missing=missing,
        fields=[(field, NAMES[field][0]) for field in AVERAGED],
        bars=figures.grouped_bars("overview", [name for name, _ in lines], series),
        colours=colour_stops(),
        estimate=_estimate,
    )  # fmt: skip
    write_page(out, page)


def _estimate(found: Estimate | None) -> tuple[str, str]:
    """Write a value and its interval: rates in percent, all else as a number."""
    if found is None:
        return "-", "not measured"
    if isinstance(found, Rate):
        value = f"{found.count} of {found.total} ({found.value:.1%})"
        return value, f"{found.low:.1%} to {found.high:.1%}"
    if found.low is None or found.high is None:
        return f"{found.value:.3f}", "too few to say"
    return f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}"


def _tiles(evaluation: Evaluation) -> list[tuple[tuple[str, str], Estimate | None]]:
    """Give the figures on top; what a threshold does is told of what the line judges."""
    unit = f"{evaluation.judged_unit}s"
    tiles = []
    for field in TILES:
        name, meaning = NAMES[field]
        source: ImageMetrics = evaluation
        if field == "false_rejects_at_zero_escapes":
            source, meaning = evaluation.judged, meaning.replace("images", unit)
        tiles.append(((name, meaning), getattr(source, field)))
    return tiles


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    images = f"{evaluation.images}: {evaluation.good} good, {evaluation.defective} defective"
    return [
        ("Data", evaluation.dataset),
        ("Model", f"{evaluation.model} ({evaluation.backbone})"),
        ("Test images", images),
        ("Split", evaluation.split),
        ("Masks", f"{evaluation.masks} of {evaluation.defective} defective images"),
        ("Threshold", f"{evaluation.threshold:.4g}"),
        (
            "Latency",
            f"p50 {evaluation.latency_ms.p50:.1f} ms, p95 {evaluation.latency_ms.p95:.1f} ms",
        ),
        ("Evaluated", f"{evaluation.evaluated:%Y-%m-%d %H:%M %Z}"),
    ]


def _tables(evaluation: Evaluation) -> list[tuple[str, list[tuple[tuple[str, str], Any]]]]:
    """Give name, meaning and estimate of each metric, by image and by sheet."""

    def lines(source: ImageMetrics, names: dict[str, tuple[str, str]]) -> list[Any]:
        return [(names[f], getattr(source, f)) for f in names if hasattr(source, f)]

    tables = [("By image", lines(evaluation, NAMES))]
    if evaluation.sheets is not None:
        names = {**NAMES, "image_auroc": SHEET_AUROC}
        tables.append(("By sheet", lines(evaluation.sheets, names)))
    return tables


def _verdict(evaluation: Evaluation) -> list[str]:
    """Explain the threshold in words."""
    found, unit = evaluation.judged, f"{evaluation.judged_unit}s"
    escapes, rejects = found.escapes, found.false_rejects
    at_zero = found.false_rejects_at_zero_escapes
    if escapes is None or rejects is None or at_zero is None:
        return []
    return [
        f"At the threshold {evaluation.threshold:.4g} (T; {evaluation.threshold_from}), "
        f"{escapes.count} of {escapes.total} defective {unit} escape: the true share lies between "
        f"{escapes.low:.1%} and {escapes.high:.1%}, 95 % sure. {rejects.count} of {rejects.total} "
        f"good {unit} are rejected: truly {rejects.low:.1%} to {rejects.high:.1%}.",
        f"For none of these {escapes.total} to escape, the threshold may be "
        f"{found.zero_escape_threshold:.4g} at most (A). It rejects {at_zero.count} of "
        f"{at_zero.total} good {unit}: truly {at_zero.low:.1%} to {at_zero.high:.1%}.",
        f"A, B and C are read off these very {unit}, so they flatter. `station threshold` chooses "
        "one for the line.",
    ]


def _made_with(evaluation: Evaluation, card: ModelCard) -> list[tuple[str, str]]:
    software = ", ".join(f"{name} {version}" for name, version in evaluation.software.items())
    units = f"{evaluation.images} images of {evaluation.units} units"
    trained = f"{card.data.images} images of {card.data.units} units"
    if card.training is not None:
        trained += f", seed {card.training.seed}"
    else:
        trained = f"elsewhere; its scale is of {trained}"
    return [
        ("test data", f"{evaluation.dataset}, split {evaluation.split}, {units}"),
        ("test data, sha256", evaluation.data_digest),
        ("model", f"{evaluation.model}, {evaluation.backbone}, {card.precision}, {card.runtime}"),
        ("model, sha256", evaluation.model_sha256),
        ("trained on", trained),
        ("training data, sha256", card.data.digest),
        ("threshold", f"{evaluation.threshold:.6g}: {evaluation.threshold_from}"),
        ("intervals", "95 %; exact for counts, else 1000 resamples of units, seed "
         f"{evaluation.seed}"),
        ("software", software),
    ]  # fmt: skip


# Pictures


def _groups(
    evaluation: Evaluation, examples: Examples, scored: Sequence[Scored]
) -> list[tuple[str, list[Card]]]:
    """Show each defect from its lowest score to its highest, and the highest of the good."""
    limit = evaluation.threshold or 0.0
    sheets = {sheet.sheet: sheet for sheet in evaluation.sheet_scores}
    groups = []
    for label in sorted({one.example.label for one in scored}, key=lambda x: (x == "good", x)):
        mine = sorted((s for s in scored if s.example.label == label), key=lambda s: s.score)
        if label == "good":
            title, chosen = "good, the highest scores", mine[::-1][:GOOD_SHOWN]
        else:
            title = f"{label}, from the lowest score to the highest of {len(mine)}"
            places = np.linspace(0, len(mine) - 1, min(PER_LABEL, len(mine))).astype(int)
            chosen = [mine[i] for i in places]
        cards = [_card(one, examples, limit, sheets.get(one.example.unit)) for one in chosen]
        groups.append((title, cards))
    return groups


def _card(one: Scored, examples: Examples, threshold: float, sheet: ScoredSheet | None) -> Card:
    """Draw an image; its verdict is that of its sheet, where there are any."""
    example = one.example
    score, defective = one.score, example.defective
    if sheet is not None:
        score, defective = sheet.score, sheet.defective
    image = read_image(example.file).image
    shown = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    picture = smaller(np.asarray(shown, np.uint8))
    rejected = score >= threshold
    right = rejected == defective
    wrong = "false reject" if rejected else "escape"
    return Card(
        one,
        example.file.relative_to(examples.folder).as_posix(),
        "reject" if rejected else "accept",
        "right" if right else wrong,
        data_uri(picture),
        "" if example.mask is None else data_uri(painted(example.mask, one.size)),
        data_uri(map_over(picture, one.anomaly_map, threshold)),
    )


def painted(path: Path, size: tuple[int, int]) -> Image:
    """Draw a mask as a picture of a page."""
    return smaller(np.where(read_mask(path, size), np.uint8(255), np.uint8(40)))
