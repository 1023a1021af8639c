"""A comparison of detectors as one HTML page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from station.evaluate.compare import CONFIDENCE, NEAR, Contender, Recommendation
from station.evaluate.evaluation import Evaluation
from station.evaluate.examples import Example
from station.evaluate.measure import Examples
from station.evaluate.metrics import Estimate
from station.evaluate.published import Published, published
from station.evaluate.variants import DEADLINE_S
from station.heatmap import MAP_RANGE, colour_stops, map_over
from station.learn.images import read_image
from station.model import open_model
from station.pages import compare_figures as figures
from station.pages.evaluation_figures import COLOURS, MARKS
from station.pages.evaluation_report import NAMES, SHEET_AUROC, painted
from station.pages.page import data_uri, environment, smaller, write_page
from station.records.sheet import Image

SHARES = (0.0, 1 / 3, 2 / 3, 1.0)  # of the way from the hardest defect to the easiest
# What of the table's marks stands in text: the same shapes as in the figures.
SIGNS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}


class Seen(NamedTuple):
    """One image as one detector saw it."""

    score: float
    rejected: bool
    overlay: str  # a data URI


class Line(NamedTuple):
    """One image beside what every detector saw in it."""

    name: str
    why: str
    picture: str
    mask: str  # empty where there is none
    seen: list[Seen]


def write_comparison(
    out: Path,
    found: Sequence[Contender],
    recommendation: Recommendation,
    examples: Examples,
) -> None:
    """Write the page; heat maps are drawn by the models of the first seed."""
    first = found[0].evaluations[0]
    both = bool(first.good and first.defective)
    table = published()
    page = environment().get_template("compare.html.j2").render(
        found=found,
        first=first,
        seeds=len(found[0].runs),
        said=recommendation,
        columns=_columns(first),
        signs=[(SIGNS[MARKS[i % 7]], COLOURS[i % 7]) for i in range(len(found))],
        roc=figures.roc_overlay(found) if both else None,
        latency=figures.latency_scatter(found) if both else None,
        families=figures.families(found, table),
        lines=_lines(found, examples),
        table=table,
        best=_best(table),
        near=NEAR,
        confidence=CONFIDENCE,
        colours=colour_stops(),
        map_range=MAP_RANGE,
        written=_written,
    )  # fmt: skip
    write_page(out, page)


class Column(NamedTuple):
    """A figure of the table: of what the line judges, or of images."""

    name: str
    field: str
    judged: bool
    percent: bool = False

    def of(self, contender: Contender) -> Estimate | None:
        """Read it, as the mean over the seeds."""
        return contender.judged(self.field) if self.judged else contender.figure(self.field)


def _columns(evaluation: Evaluation) -> list[Column]:
    by_sheet = evaluation.judged_unit == "sheet"
    sheet_auroc = [Column(SHEET_AUROC[0], "image_auroc", judged=True)] if by_sheet else []
    rejects = "false_rejects_at_zero_escapes"
    name = f"{NAMES[rejects][0]}, by {evaluation.judged_unit}"
    return [
        *sheet_auroc,
        *(Column(NAMES[f][0], f, judged=False) for f in ("image_auroc", "pixel_auroc", "au_pro")),
        Column(name, rejects, judged=True, percent=True),
    ]


def _written(found: Estimate | None, *, percent: bool) -> tuple[str, str]:
    """Write a mean and its bounds."""
    if found is None:
        return "-", "not measured"
    form = "{:.0%}" if percent else "{:.3f}"
    if found.low is None or found.high is None:
        return form.format(found.value), "too few to say"
    return form.format(found.value), f"{form.format(found.low)} to {form.format(found.high)}"


def _best(table: Published) -> dict[str, tuple[float, float]]:
    """Return the highest image and pixel AUROC of every class."""
    return {
        name: (max(p[0] for p in pairs), max(p[1] for p in pairs if p[1] is not None))
        for name, pairs in table.figures.items()
    }


def _lines(found: Sequence[Contender], examples: Examples) -> list[Line]:
    chosen = _chosen(found, examples)
    lines = []
    for example, why in chosen:
        image = read_image(example.file).image
        size = image.shape[0], image.shape[1]
        mask = "" if example.mask is None else data_uri(painted(example.mask, size))
        name = example.file.relative_to(examples.folder).as_posix()
        lines.append(Line(name, why, data_uri(_shown(image)), mask, []))
    for contender in found:
        run = contender.runs[0]
        limit = run.evaluation.threshold or 0.0
        sheets = {sheet.sheet: sheet.score for sheet in run.evaluation.sheet_scores}
        with open_model(run.workspace, run.model, DEADLINE_S) as model:
            for (example, _), line in zip(chosen, lines, strict=True):
                image = read_image(example.file).image
                prediction = model.predict(image)
                overlay = map_over(_shown(image), prediction.anomaly_map, limit)
                # Where there are sheets, the verdict is the sheet's.
                score = sheets.get(example.unit, prediction.score)
                line.seen.append(Seen(score, score >= limit, data_uri(overlay)))
    return lines


def _chosen(found: Sequence[Contender], examples: Examples) -> list[tuple[Example, str]]:
    """Choose defects from the hardest to the easiest, and the good image most like a defect.

    By the mean of the detectors' ranks: none of them chooses what it is shown with.
    """
    scores = [[s.score for s in contender.evaluations[0].scores] for contender in found]
    ranks = np.mean([rankdata(row) for row in scores], axis=0)
    members = examples.members
    defects = sorted(
        (i for i, e in enumerate(members) if e.defective), key=lambda i: float(ranks[i])
    )
    good = [i for i, e in enumerate(members) if not e.defective]
    places = sorted({round(share * (len(defects) - 1)) for share in SHARES}) if defects else []
    chosen = []
    for place in places:
        why = "defect"
        if place == 0:
            why = "the hardest defect"
        elif place == len(defects) - 1:
            why = "the easiest defect"
        chosen.append((members[defects[place]], why))
    if good:
        worst = max(good, key=lambda i: float(ranks[i]))
        chosen.append((members[worst], "the good image most like a defect"))
    return chosen


def _shown(image: Image) -> Image:
    colour = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
    return smaller(np.asarray(cv2.cvtColor(image, colour), np.uint8))
