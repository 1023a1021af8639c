"""An experiment as one HTML page: every variant beside the others, with what its seeds gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from station.evaluate.experiment import METRICS, Mean, Plan, Row
from station.evaluate.metrics import Estimate
from station.heatmap import colour_stops
from station.pages import evaluation_figures as figures
from station.pages.evaluation_report import NAMES
from station.pages.page import environment, write_page

# Image and pixel AUROC on MVTec AD, as the method's authors give them; the last is preset `paper`.
PUBLISHED = {
    "resnet18": "0.983 / 0.957",
    "resnet50": "0.996 / 0.980",
    "resnet101": "0.992 / 0.976",
    "wide_resnet50_2": "0.996 / 0.981",
}


def write_experiment(out: Path, what: str, plan: Plan, rows: Sequence[Row]) -> None:
    """Write the page."""
    series = {NAMES[m][0]: [_bar(row.figures[m]) for row in rows] for m in METRICS}
    page = environment().get_template("experiment.html.j2").render(
        what=what,
        plan=plan,
        rows=rows,
        published=PUBLISHED if what == "backbones" else {},
        metrics=[(metric, NAMES[metric][0]) for metric in METRICS],
        bars=figures.grouped_bars("experiment", [row.variant for row in rows], series),
        colours=colour_stops(),
        written=written,
    )  # fmt: skip
    write_page(out, page)


def written(found: Mean | None) -> str:
    """Write mean and deviation."""
    if found is None:
        return "-"
    spread = "" if found.deviation is None else f" ± {found.deviation:.3f}"
    return f"{found.mean:.3f}{spread}"


def _bar(found: Mean | None) -> Estimate | None:
    """Return the mean with one standard deviation to both sides in place of an interval."""
    if found is None:
        return None
    if found.deviation is None:
        return Estimate(value=found.mean, low=None, high=None)
    low, high = max(0.0, found.mean - found.deviation), min(1.0, found.mean + found.deviation)
    return Estimate(value=found.mean, low=low, high=high)
