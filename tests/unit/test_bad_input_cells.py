"""Bad inputs 30 to 38: the cell file, and what it says of lens, tool and camera."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input import CELL, Case, Desk, check, each, edit, write

WHERE = "calibration/cell.yaml"
BOX = "min_m: [-0.35, -0.75, 0.10]"


def cut(desk: Desk) -> None:
    """Keep the first half of the file."""
    text = desk.path(CELL).read_bytes()
    desk.write(CELL, text[: len(text) // 2])


def other_resolution(desk: Desk) -> None:
    desk.write("calibration/camera.pfs", "Width\t640\nHeight\t480\nPixelFormat\tMono8\n")
    desk.edit(CELL, "# pfs: calibration/40000000", "pfs: calibration/camera")


def other_tool(desk: Desk) -> None:
    desk.edit(CELL, "tcp: [0, 0, 0.10, 0, 0, 0]", "tcp: [0, 0, 0.10, 0, 0]")


CASES = [
    Case(30, "missing", lambda desk: desk.path(CELL).unlink(), f"{WHERE}: no such cell file"),
    Case(30, "empty", write(CELL, ""), f"{WHERE}: empty"),
    Case(31, "lens-of-no-length", edit(CELL, "mm: 16", "mm: 0"), "lens.focal_length_mm: "),
    Case(31, "lens-not-a-number", edit(CELL, "mm: 16", "mm: .nan"), ".nan is not a finite"),
    Case(31, "negative-sensor", edit(CELL, "mm: 8.45", "mm: -8.45"), "lens.sensor_width_mm: "),
    Case(33, "tool-of-five-numbers", other_tool, "tcp: 5 numbers, not 6"),
    Case(34, "lens-in-metres", edit(CELL, "mm: 16", "mm: 0.016"), "lens.focal_length_mm: "),
    Case(34, "tool-in-mm", edit(CELL, "0, 0, 0.10,", "0, 0, 100,"), "positions are in metres"),
    Case(34, "tool-in-degrees", edit(CELL, "0.10, 0, 0, 0", "0.10, 0, 0, 90"), "are in radians"),
    Case(34, "workspace-in-mm", edit(CELL, BOX, "min_m: [-350, -750, 100]"), "are in metres"),
    Case(34, "corner-in-mm", edit(CELL, "[0.03, -0.03", "[30, -30"), "lengths are in metres"),
    Case(35, "other-resolution", other_resolution, "Width 640, but the model learned from", 0),
    Case(35, "no-settings-file", edit(CELL, "# pfs", "pfs"), "40000000.pfs: No such file"),
    Case(38, "cut-short", cut, f"{WHERE}:"),
    Case(38, "binary", write(CELL, b"PK\x03\x04\xff\xfe"), f"{WHERE}: not UTF-8 text"),
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


@each(CASES)
def test_bad_input(case: Case, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, desk, capsys)
