"""The figures of a comparison: detectors over each other, and beside what was published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from station.evaluate.compare import Contender
from station.evaluate.published import Family, Published
from station.pages.evaluation_figures import (
    COLOURS,
    GRID_COLOUR,
    HALF,
    INK,
    MARKS,
    WIDE,
    judged,
    label_roc,
)
from station.pages.page import svg

FAMILY_COLOURS: dict[Family, str] = {
    "reconstructs": "#9aa3af",
    "synthesises": "#b9854b",
    "embeds": "#6b8fb5",
}
FAMILY_MARKS: dict[Family, str] = {"reconstructs": "v", "synthesises": "s", "embeds": "o"}


def roc_overlay(found: Sequence[Contender]) -> Markup:
    """Draw every detector's ROC, one line a seed, and where each first lets no defect escape."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#9aa3af", linewidth=1, linestyle=(0, (2, 3)))
        for i, contender in enumerate(found):
            colour, mark = COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]
            for n, evaluation in enumerate(contender.evaluations):
                _, good, defective = judged(evaluation)
                thresholds = np.unique(np.concatenate([good, defective]))[::-1]
                x = [0.0, *((good >= t).mean() for t in thresholds)]
                y = [0.0, *((defective >= t).mean() for t in thresholds)]
                axes.plot(x, y, color=colour, linewidth=1.8 if n == 0 else 0.9, zorder=3,
                          alpha=1.0 if n == 0 else 0.6)  # fmt: skip
                at = (good >= defective.min()).mean()
                axes.plot(at, 1.0, mark, color=colour, markersize=9 if n == 0 else 6, zorder=4,
                          markeredgecolor="white", markeredgewidth=1, clip_on=False,
                          label=contender.name if n == 0 else None)  # fmt: skip
        label_roc(axes, judged(found[0].evaluations[0]).unit)

    return svg("roc", HALF, draw)


def latency_scatter(found: Sequence[Contender]) -> Markup:
    """Draw what a detector costs in time against what it costs in good sheets."""
    unit = found[0].evaluations[0].judged_unit

    def draw(axes: Axes) -> None:
        for i, contender in enumerate(found):
            rejects = contender.judged("false_rejects_at_zero_escapes")
            if rejects is None:
                continue
            colour, x = COLOURS[i % len(COLOURS)], contender.latency_ms
            if rejects.low is not None and rejects.high is not None:
                axes.vlines(x, rejects.low, rejects.high, color=colour, linewidth=1.4, alpha=0.55)
            axes.plot(x, rejects.value, MARKS[i % len(MARKS)], color=colour, markersize=10,
                      markeredgecolor="white", markeredgewidth=1, zorder=4, clip_on=False,
                      label=contender.name)  # fmt: skip
        axes.set(xlabel="milliseconds a picture (p50)",
                 ylabel=f"good {unit}s rejected at zero escapes")  # fmt: skip
        axes.set_xlim(0, 1.15 * max(c.latency_ms for c in found))
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(color=GRID_COLOUR, linewidth=0.8, zorder=0)
        axes.legend(frameon=False, fontsize=9, loc="upper right")

    return svg("latency", HALF, draw)


def families(found: Sequence[Contender], table: Published) -> Markup:
    """Draw image AUROC against pixel AUROC: published averages by family, and what was measured."""

    def draw(axes: Axes) -> None:
        points: list[tuple[float, float, str, bool]] = []
        for family, mark in FAMILY_MARKS.items():
            pairs = [
                (image, pixel, system.name)
                for system, (image, pixel) in zip(
                    table.systems, table.figures["Average"], strict=True
                )
                if system.family == family and pixel is not None
            ]
            axes.plot([p[0] for p in pairs], [p[1] for p in pairs], mark, markersize=8, alpha=0.9,
                      color=FAMILY_COLOURS[family], markeredgecolor="white",
                      label=f"{family} (published)")  # fmt: skip
            points += [(x, y, name, False) for x, y, name in pairs]
        for i, contender in enumerate(found):
            image, pixel = contender.figure("image_auroc"), contender.figure("pixel_auroc")
            if image is None or pixel is None:
                continue
            x, y = 100 * image.value, 100 * pixel.value
            axes.plot(x, y, MARKS[i % len(MARKS)], color=COLOURS[i % len(COLOURS)], markersize=11,
                      markeredgecolor=INK, markeredgewidth=1.2, zorder=5)  # fmt: skip
            points.append((x, y, contender.name, True))
        axes.set(xlabel="image AUROC, %", ylabel="pixel AUROC, %")
        axes.margins(0.09, 0.12)
        axes.grid(color=GRID_COLOUR, linewidth=0.8, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(9))
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        _name(axes, points)

    return svg("families", (WIDE[0], 4.6), draw)


def _name(axes: Axes, points: Sequence[tuple[float, float, str, bool]]) -> None:
    """Write names beside points, each at the first place around it that is still free."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101
    figure.draw_without_rendering()  # lays it out: before that no point has its place
    points_per_pixel = 72 / figure.dpi
    around = [(9, -3), (0, 9), (0, -16), (-9, -3), (9, 10), (9, -16), (-9, 10), (-9, -16),
              (0, 22), (0, -29), (14, 22), (14, -29)]  # fmt: skip
    places = [axes.transData.transform(point[:2]) * points_per_pixel for point in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for (x, y), (*at, name, ours) in zip(places, points, strict=True):
        size = 5.4 * len(name), 11.0  # about what the browser's font takes
        boxes = []
        for dx, dy in around:
            left = x + dx - (0 if dx > 0 else size[0] if dx < 0 else size[0] / 2)
            boxes.append((left, y + dy, left + size[0], y + dy + size[1]))
        free = [i for i, box in enumerate(boxes) if not any(_overlap(box, t) for t in taken)]
        best = free[0] if free else 0
        taken.append(boxes[best])
        dx, dy = around[best]
        axes.annotate(name, (at[0], at[1]), (dx, dy),
                      textcoords="offset points", fontsize=9, color=INK if ours else "#5b6573",
                      fontweight="bold" if ours else "normal",
                      ha="left" if dx > 0 else "right" if dx < 0 else "center")  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
