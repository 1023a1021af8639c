"""The network of a model as a picture: stages, shapes and parameters of the file that runs."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from station.learn.anatomy import Anatomy
from station.model_card import ModelCard
from station.pages.page import svg
from station.records.dataset import write_durably

FROZEN, LEARNED, FIXED = "#dbe7f3", "#fbe3d6", "#f3f4f6"
INK, SOFT = "#111827", "#4b5563"
SIZE = (11.0, 5.6)


def write_network(out: Path, anatomy: Anatomy, card: ModelCard) -> None:
    """Draw the way from a frame to its score."""
    preset = anatomy.preset
    places = [46.0 + 20 * i for i in range(len(anatomy.stages))]
    last = places[-1]

    def draw(axes: Axes) -> None:
        axes.set(xlim=(0, last + 11), ylim=(0, 62))
        axes.axis("off")
        top, middle, bottom = 50.0, 30.0, 9.0
        _box(axes, (10, top), "frame, uint8", anatomy.frame, FIXED)
        fitted = "middle cut out" if preset.crop_from else "resized, letterboxed"
        tiles = f", {card.input.tiles}x{card.input.tiles} tiles" if card.input.tiles > 1 else ""
        _box(axes, (28, top), fitted + tiles, anatomy.given, FIXED)
        _arrow(axes, (10, top), (28, top))
        before = 28.0
        for x, stride, stage, pool in zip(
            places, preset.levels, anatomy.stages, anatomy.local, strict=True
        ):
            _box(axes, (x, top), f"stage, stride {stride}", stage.shape, FROZEN, stage.parameters)
            _box(axes, (x, middle), "3x3 local features", pool.shape, FIXED, pool.parameters)
            _arrow(axes, (before, top), (x, top))
            _arrow(axes, (x, top), (x, middle), down=True)
            _arrow(axes, (x, middle), (x, bottom), down=True)
            before = x
        wide = last - places[0]
        hidden = f"1x1 maps, on the finest grid added up: {preset.members} x {preset.hidden} hidden"
        centre = (places[0] + wide / 2, bottom)
        _box(axes, centre, hidden, anatomy.hidden.shape, LEARNED, anatomy.hidden.parameters, wide)
        _box(axes, (28, bottom), "leaky ReLU, 1x1", anatomy.raw.shape, LEARNED,
             anatomy.raw.parameters)  # fmt: skip
        _box(axes, (10, bottom), "smoothed, scaled", ("map", "score = maximum"), FIXED)
        _arrow(axes, (places[0], bottom), (28, bottom), back=True)
        _arrow(axes, (28, bottom), (10, bottom), back=True)
        frozen = sum(stage.parameters for stage in anatomy.stages)
        learned = anatomy.hidden.parameters + anatomy.raw.parameters
        noise = ", ".join(f"{sigma:g}" for sigma in preset.noise)
        lines = [
            f"{card.name}/{card.version}: {card.backbone}, {card.runtime} {card.precision}",
            f"frozen {frozen:,}, learned {learned:,} parameters",
            f"in training only: noise of {noise}",
            "on the adapted local features",
        ]
        for i, line in enumerate(lines):
            axes.text(1, middle + 6 - 3.6 * i, line, fontsize=9, color=SOFT if i else INK)
        for i, (colour, text) in enumerate(
            ((FROZEN, "frozen, pretrained"), (LEARNED, "learned"), (FIXED, "fixed"))
        ):
            box = FancyBboxPatch((1.4 + 15 * i, 60), 1.6, 1.2, "round,pad=0.2", facecolor=colour)
            box.set(edgecolor=SOFT, linewidth=0.8)
            axes.add_patch(box)
            axes.text(4 + 15 * i, 60.6, text, fontsize=9, color=SOFT, va="center")

    write_durably(out, str(svg("network", SIZE, draw)).encode())


def _box(
    axes: Axes,
    at: tuple[float, float],
    title: str,
    shape: tuple[object, ...],
    colour: str,
    parameters: int = 0,
    wider: float = 0.0,
) -> None:
    width, height = 16 + wider, 11
    axes.add_patch(FancyBboxPatch((at[0] - width / 2, at[1] - height / 2), width, height,
                                  "round,pad=0,rounding_size=1", facecolor=colour, edgecolor=SOFT,
                                  linewidth=1, zorder=2))  # fmt: skip
    size = " x ".join(map(str, shape)) if isinstance(shape[0], int) else ", ".join(map(str, shape))
    lines = [(title, INK, "bold"), (size, INK, "normal")]
    if parameters:
        lines.append((f"{parameters:,} parameters", SOFT, "normal"))
    for i, (text, ink, weight) in enumerate(lines):
        y = at[1] + 3.2 * ((len(lines) - 1) / 2 - i)
        axes.text(at[0], y, text, fontsize=8.5, color=ink, fontweight=weight, ha="center",
                  va="center", zorder=3)  # fmt: skip


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    down: bool = False,
    back: bool = False,
) -> None:
    """Draw an arrow from edge to edge of two boxes."""
    dx, dy = (0.0, -5.5) if down else (-8.0 if back else 8.0, 0.0)
    style = {"arrowstyle": "-|>", "color": SOFT, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end[0] - dx, end[1] - dy), (start[0] + dx, start[1] + dy), arrowprops=style)
