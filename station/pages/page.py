"""What every HTML page is made of: templates, drawn figures and pictures, all inside one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from station.records.dataset import write_durably
from station.records.sheet import Image

PICTURE_WIDTH_PX = 480
JPEG_QUALITY = 74

# Okabe and Ito's colours, told apart by colour-blind eyes too; shape says the same again.
ACCEPT_COLOUR, REJECT_COLOUR, NONE_COLOUR = "#0072B2", "#D55E00", "#6b7280"


def environment() -> Environment:
    """Return the loader of the templates beside this file; all text is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["number"] = plain_number
    found.filters["when"] = lambda time: f"{time:%Y-%m-%d %H:%M:%S %Z}"
    return found


def plain_number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def write_page(out: Path, page: str) -> None:
    """Put a page in place, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(out, page.encode())


def smaller(picture: Image) -> Image:
    """Shrink a picture to the width that a page shows."""
    height, width = picture.shape[:2]
    if width <= PICTURE_WIDTH_PX:
        return picture
    size = (PICTURE_WIDTH_PX, max(1, round(height * PICTURE_WIDTH_PX / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def data_uri(picture: Image) -> str:
    """Return a picture, BGR as OpenCV has it, as a part of the page itself."""
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"


def svg(name: str, size: tuple[float, float], draw: Callable[[Axes], None]) -> Markup:
    """Draw one figure; text stays text, and ids differ between the figures of a page."""
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa3af")
    axes.tick_params(colors="#4b5563", labelsize=9)
    axes.set_facecolor("none")
    draw(axes)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color="#374151", fontsize=10)
    buffer = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    # From the tag on: a page has no place for an XML head. All text in it was escaped there.
    return Markup(text[text.index("<svg") :])  # noqa: S704
