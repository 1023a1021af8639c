"""The figures of an evaluation, drawn from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

from station.evaluate.evaluation import Evaluation, RegionRow
from station.evaluate.metrics import Estimate
from station.model_card import CurvePoint, Deviations
from station.pages.page import ACCEPT_COLOUR, REJECT_COLOUR, svg

# Okabe and Ito's colours again, and marks that tell the same.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKS = "osD^vPX"
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++", "oo")
INK, GRID_COLOUR = "#111827", "#e5e7eb"
BINS = 32
WIDE, HALF = (10.4, 3.5), (5.1, 3.9)


class Judged(NamedTuple):
    """Scores of what the line judges: of sheets where there are any, else of images."""

    unit: str  # "sheets" or "images"
    good: np.ndarray
    defective: np.ndarray


class Mark(NamedTuple):
    """A lettered point of the ROC: a threshold and what it does to these sheets or images."""

    letter: str
    meaning: str
    threshold: float
    false_rejects: int
    escapes: int


def grouped_bars(
    name: str, labels: Sequence[str], series: Mapping[str, Sequence[Estimate | None]]
) -> Markup:
    """Draw estimates between 0 and 1 side by side, one group a label, one bar a series."""

    def draw(axes: Axes) -> None:
        width = 0.8 / len(series)
        crowded = len(labels) * len(series) > 24
        for i, (title, estimates) in enumerate(series.items()):
            places = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
            axes.bar(
                places, [0.0 if e is None else e.value for e in estimates], 0.92 * width,
                color=COLOURS[i % len(COLOURS)], hatch=HATCHES[i % len(HATCHES)],
                edgecolor="white", linewidth=0.4, label=title, zorder=2,
            )  # fmt: skip
            for place, found in zip(places, estimates, strict=True):
                top = 0.0 if found is None else found.high or found.value
                if found is not None and found.low is not None and found.high is not None:
                    axes.vlines(place, found.low, found.high, color=INK, linewidth=1.1, zorder=3)
                axes.annotate(
                    "-" if found is None else f"{found.value:.2f}", (place, top), (0, 3),
                    textcoords="offset points", ha="center", va="bottom", fontsize=8,
                    rotation=90 if crowded and found else 0, color=INK,
                )  # fmt: skip
        margin = max(0.5, 2 - len(labels) / 2)  # one group alone is not as wide as the page
        axes.set(ylim=(0, 1.2 if crowded else 1.12), xlim=(-margin, len(labels) - 1 + margin))
        axes.set_yticks(np.linspace(0, 1, 6))
        turned = len(labels) > 8
        axes.set_xticks(
            range(len(labels)),
            labels,
            rotation=35 if turned else 0,
            ha="right" if turned else "center",
        )
        axes.tick_params(axis="x", length=0, labelcolor=INK)
        axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8, zorder=0)
        _legend_above(axes)

    return svg(name, WIDE, draw)


def marks(evaluation: Evaluation) -> list[Mark]:
    """Read thresholds worth knowing off the scores; the first is the one that judges."""
    unit, good, defective = judged(evaluation)
    # A score is rejected from the threshold on, so just above one is where it is accepted.
    allowed = np.sort(good)[::-1][int(0.05 * len(good))]
    found = [
        ("the threshold that judges", evaluation.threshold or 0.0),
        ("the highest that lets no defect escape", float(defective.min())),
        ("the lowest that rejects at most 5 % of the good", float(np.nextafter(allowed, np.inf))),
        (f"the lowest that rejects no good {unit[:-1]}", float(np.nextafter(good.max(), np.inf))),
    ]
    return [
        Mark("TABC"[i], meaning, t, int((good >= t).sum()), int((defective < t).sum()))
        for i, (meaning, t) in enumerate(found)
    ]


def roc(evaluation: Evaluation) -> Markup:
    """Draw share found against share of the good rejected, with the lettered thresholds."""
    unit, good, defective = judged(evaluation)

    def draw(axes: Axes) -> None:
        thresholds = np.unique(np.concatenate([good, defective]))[::-1]
        x = [0.0, *((good >= t).mean() for t in thresholds)]
        y = [0.0, *((defective >= t).mean() for t in thresholds)]
        axes.plot(
            [0, 1], [0, 1], color="#9aa3af", linewidth=1, linestyle=(0, (2, 3)), label="chance"
        )
        axes.plot(x, y, color=ACCEPT_COLOUR, linewidth=2, label="this model", zorder=3)
        taken: dict[tuple[float, float], str] = {}
        for mark in marks(evaluation):
            point = mark.false_rejects / len(good), 1 - mark.escapes / len(defective)
            taken[point] = f"{taken[point]}, {mark.letter}" if point in taken else mark.letter
        named: list[tuple[float, float]] = []
        for (fpr, tpr), letters in taken.items():
            below = sum(abs(x - fpr) < 0.08 and abs(y - tpr) < 0.08 for x, y in named)
            named.append((fpr, tpr))
            judges = letters.startswith("T")
            fill, edge = (REJECT_COLOUR, REJECT_COLOUR) if judges else ("white", INK)
            axes.plot(fpr, tpr, "o", markersize=8, color=fill, markeredgecolor=edge,
                      markeredgewidth=1.4, zorder=4)  # fmt: skip
            axes.annotate(letters, (fpr, tpr), (9, -13 - 13 * below), textcoords="offset points",
                          fontsize=11, fontweight="bold", color=INK, zorder=5)  # fmt: skip
        label_roc(axes, unit)

    return svg("roc", HALF, draw)


def label_roc(axes: Axes, unit: str = "images") -> None:
    """Label what every ROC of these pages has in common."""
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05),
             xlabel=f"good {unit} rejected", ylabel=f"defective {unit} found")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color=GRID_COLOUR, linewidth=0.8, zorder=0)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def histogram(evaluation: Evaluation) -> Markup:
    """Draw how scores of the good and the defective lie about the threshold."""
    unit, *parts = judged(evaluation)

    def draw(axes: Axes) -> None:
        together = np.concatenate(parts)
        edges = _edges(together, evaluation.threshold)
        names = ("good", "defective")
        for scores, name, colour, hatch in zip(
            parts, names, (ACCEPT_COLOUR, REJECT_COLOUR), ("", "///"), strict=True
        ):
            axes.hist(scores, bins=edges.tolist(), color=colour, alpha=0.7, hatch=hatch, label=name,
                      edgecolor="white", linewidth=0.6)  # fmt: skip
        if evaluation.threshold is not None:
            axes.axvline(evaluation.threshold, color=INK, linewidth=1.2, linestyle=(0, (5, 3)),
                         label=f"threshold {evaluation.threshold:.3g}")  # fmt: skip
        axes.set(xlabel="score", ylabel=unit)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_above(axes)

    return svg("histogram", HALF, draw)


def _edges(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return the edges of the bars, one of them at the threshold: no bar lies on both sides."""
    if threshold is None or np.ptp(scores) == 0:
        return np.histogram_bin_edges(scores, BINS)
    width = np.ptp(scores) / BINS
    first = np.floor((scores.min() - threshold) / width)
    last = np.floor((scores.max() - threshold) / width) + 1
    return np.asarray(threshold + width * np.arange(first, last + 1))


def regions(rows: Sequence[RegionRow]) -> Markup:
    """Draw each region by its size: do small defects hide?"""

    def draw(axes: Axes) -> None:
        for i, label in enumerate(dict.fromkeys(sorted(row.label for row in rows))):
            mine = [row for row in rows if row.label == label]
            axes.plot(
                [row.area_px for row in mine], [row.au_pro for row in mine],
                MARKS[i % len(MARKS)], color=COLOURS[i % len(COLOURS)], markersize=6, alpha=0.8,
                markeredgecolor="white", markeredgewidth=0.6, label=label,
            )  # fmt: skip
        axes.set(xscale="log", ylim=(-0.04, 1.06), xlabel="area of the region, pixels",
                 ylabel="its share in AU-PRO")  # fmt: skip
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(color=GRID_COLOUR, linewidth=0.8, zorder=0)
        _legend_above(axes)

    return svg("regions", WIDE, draw)


def learning_curve(points: Sequence[CurvePoint]) -> tuple[Markup, Markup]:
    """Draw how training went on what it held out: shares on the right side, and the loss."""
    epochs = [point.meta_epoch for point in points]

    def shares(axes: Axes) -> None:
        for i, (field, text) in enumerate(
            {
                "synthetic_auroc": "image AUROC, synthetic defects",
                "good_right": "normal patches right",
                "noisy_right": "noisy patches right",
            }.items()
        ):
            axes.plot(epochs, [getattr(p, field) for p in points], color=COLOURS[i], label=text,
                      marker=MARKS[i], markersize=4)  # fmt: skip
        axes.set(ylim=(0, 1.04), xlabel="meta-epoch", ylabel="share")
        axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=9, loc="lower right")

    def loss(axes: Axes) -> None:
        axes.plot(epochs, [p.loss for p in points], color=INK, marker="o", markersize=4)
        axes.set(xlabel="meta-epoch", ylabel="loss")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.8, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg("curve", HALF, shares), svg("loss", HALF, loss)


def deviations(found: Deviations) -> Markup:
    """Draw how many feature dimensions deviate how much, before the adaptor and after it."""

    def draw(axes: Axes) -> None:
        for counts, name, colour, hatch in zip(
            (found.local, found.adapted), ("local features", "adapted features"),
            COLOURS, ("", "///"), strict=False,
        ):  # fmt: skip
            axes.stairs(counts, found.edges, fill=True, color=colour, alpha=0.55, hatch=hatch,
                        edgecolor="white", linewidth=0.6, label=name)  # fmt: skip
        axes.set(xscale="log", xlabel="standard deviation over training patches",
                 ylabel="dimensions")  # fmt: skip
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_above(axes)

    return svg("deviations", HALF, draw)


def judged(evaluation: Evaluation) -> Judged:
    """Return the scores that a threshold for the line would judge."""
    if not evaluation.sheet_scores:
        return Judged("images", *scores_of(evaluation))
    good, defective = (
        np.array([s.score for s in evaluation.sheet_scores if s.defective == kind])
        for kind in (False, True)
    )
    return Judged("sheets", good, defective)


def scores_of(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of good and of defective images."""
    good = [s.score for s in evaluation.scores if s.label == "good"]
    defective = [s.score for s in evaluation.scores if s.label != "good"]
    return np.array(good), np.array(defective)


def _legend_above(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower left", bbox_to_anchor=(0, 1),
                columnspacing=1.2, handlelength=1.4)  # fmt: skip
