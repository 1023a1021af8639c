"""Figures of a run: every sheet's score, their distribution, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from station.pages.page import ACCEPT_COLOUR, NONE_COLOUR, REJECT_COLOUR, svg
from station.pages.sheet_row import ESCAPE, FALSE_REJECT, Row, finite, score_of
from station.records.sheet import Verdict

MARKS = {
    Verdict.ACCEPT: ("o", ACCEPT_COLOUR),
    Verdict.REJECT: ("^", REJECT_COLOUR),
    Verdict.NONE: ("x", NONE_COLOUR),
}
STAGES = {
    "motion_ms": ("motion", "#0072B2"),
    "camera_ms": ("camera", "#56B4E9"),
    "scoring_ms": ("scoring", "#E69F00"),
    "saving_ms": ("saving", "#009E73"),
}
BINS = 32
TAIL = 8  # a score this many thresholds high would flatten all others on a linear axis


def _thresholds(rows: list[Row]) -> list[float]:
    return sorted({row.manifest.threshold for row in rows if row.manifest.threshold is not None})


def _long_tail(rows: list[Row]) -> float | None:
    """Return the width of an axis' linear part where scores reach far beyond the threshold."""
    thresholds = _thresholds(rows)
    highest = max((score_of(row) for row in rows if math.isfinite(score_of(row))), default=0.0)
    if thresholds and 0 < TAIL * thresholds[-1] < highest:
        return 2 * thresholds[-1]
    return None


def axis_bends(rows: list[Row]) -> bool:
    """Tell whether the figures' axis of scores is not linear."""
    return _long_tail(rows) is not None


def strip(rows: list[Row]) -> Markup:
    """Draw every sheet's score, and its shots', in order of time."""

    def draw(axes: Axes) -> None:
        tail = _long_tail(rows)
        if tail is not None:
            axes.set_yscale("asinh", linear_width=tail)
            _plain_ticks(axes.yaxis)
        for row in rows:
            shots = finite(c.score for c in row.manifest.captures)
            axes.plot(
                [row.number] * len(shots), shots, "_", color="#9aa3af", markersize=5, zorder=2
            )
        for verdict, (marker, colour) in MARKS.items():
            members = [r for r in rows if r.verdict is verdict and math.isfinite(score_of(r))]
            axes.plot(
                [row.number for row in members], [score_of(row) for row in members], marker,
                color=colour, markersize=6.5, markeredgewidth=0.8, zorder=3,
                markeredgecolor=colour if marker == "x" else "white",
                label=str(verdict) if members else None,
            )  # fmt: skip
        wrong = [row for row in rows if row.correctness in {ESCAPE, FALSE_REJECT}]
        if wrong:
            axes.scatter(
                [row.number for row in wrong], [score_of(row) for row in wrong], s=150,
                facecolors="none", edgecolors="#111827", linewidths=1.2, zorder=4,
                label="not as the truth says",
            )  # fmt: skip
        without = [row.number for row in rows if not math.isfinite(score_of(row))]
        axes.plot(
            without,
            [0] * len(without),
            "x",
            color=NONE_COLOUR,
            label="no score" if without else None,
        )
        _threshold_lines(axes.axhline, rows)
        axes.set(xlabel="sheet, in order of time", ylabel="score", xlim=(0.2, len(rows) + 0.8))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.8, zorder=0)
        axes.legend(frameon=False, fontsize=9, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))

    return svg("strip", (10.4, 3.6), draw)


def _plain_ticks(axis: Axis) -> None:
    """Write numbers as people do on an axis that bends."""
    steps = [step * 10.0**power for power in range(7) for step in (1, 2, 5)]
    axis.set_major_locator(FixedLocator([0, *steps]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _threshold_lines(line: Callable[..., Any], rows: list[Row]) -> None:
    for threshold in _thresholds(rows):
        line(threshold, color="#111827", linewidth=1.2, linestyle=(0, (5, 3)), zorder=2,
             label=f"threshold {threshold:g}")  # fmt: skip


def histogram(rows: list[Row]) -> Markup:
    """Draw how many sheets score what: good against defective, where the truth is known."""
    if any(row.label for row in rows):
        names = "truly good", "truly defective"
        first = [row for row in rows if row.label and row.label.good]
        second = [row for row in rows if row.label and not row.label.good]
    else:
        names = "accepted", "rejected"
        first = [row for row in rows if row.verdict is Verdict.ACCEPT]
        second = [row for row in rows if row.verdict is Verdict.REJECT]
    values = [finite(row.manifest.score for row in members) for members in (first, second)]

    def draw(axes: Axes) -> None:
        tail = _long_tail(rows)
        if tail is not None:
            axes.set_xscale("asinh", linear_width=tail)
            _plain_ticks(axes.xaxis)
        thresholds = _thresholds(rows)
        bins = _bins([*values[0], *values[1], *thresholds, 0.0], min(thresholds, default=0.0), tail)
        styles = ((ACCEPT_COLOUR, ""), (REJECT_COLOUR, "///"))
        for name, (colour, hatch), scores in zip(names, styles, values, strict=True):
            axes.hist(
                scores, bins=bins, color=colour, alpha=0.7, hatch=hatch,
                edgecolor="white", linewidth=0.6, label=name,
            )  # fmt: skip
        _threshold_lines(axes.axvline, rows)
        axes.set(xlabel="score", ylabel="sheets")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))

    return svg("histogram", (5.1, 3.1), draw)


def _bins(values: list[float], edge: float, tail: float | None) -> list[float]:
    """Return bins over all values, evenly wide as they are seen, one beginning at `edge`."""

    def seen(value: float) -> float:
        return value if tail is None else math.asinh(value / tail)

    width = max(seen(max(values)) - seen(min(values)), 1e-3) / BINS
    first = math.floor((seen(min(values)) - seen(edge)) / width)
    last = math.floor((seen(max(values)) - seen(edge)) / width) + 1
    edges = seen(edge) + width * np.arange(first, last + 1)
    return [float(value) for value in (edges if tail is None else np.sinh(edges) * tail)]


def timing(rows: list[Row]) -> Markup | None:
    """Draw how long every sheet spent in each stage."""
    timed = [(row.number, row.manifest.timing) for row in rows if row.manifest.timing]
    if not timed:
        return None

    def draw(axes: Axes) -> None:
        numbers = [number for number, _ in timed]
        floor = np.zeros(len(timed))
        for field, (name, colour) in STAGES.items():
            heights = np.array([getattr(timing, field) for _, timing in timed]) / 1e3
            axes.bar(numbers, heights, bottom=floor, color=colour, width=0.85, label=name)
            floor += heights
        totals = [timing.total_ms / 1e3 for _, timing in timed]
        axes.plot(
            numbers, totals, "_", color="#111827", markersize=6, markeredgewidth=1.6, label="sheet"
        )
        axes.set(xlabel="sheet, in order of time", ylabel="seconds", xlim=(0.2, len(rows) + 0.8))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=9, ncols=5, loc="lower left", bbox_to_anchor=(0, 1),
                    columnspacing=1, handlelength=1.2)  # fmt: skip

    return svg("timing", (5.1, 3.1), draw)
