"""Labelled images of a tree in MVTec form: what a detector is measured on, never trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from station.errors import DatasetError
from station.learn.images import SUFFIXES, group_by_unit

GOOD = "good"


class Example(NamedTuple):
    """One labelled image; `unit` (the sheet, the strip) is what no split may cut."""

    file: Path
    label: str  # "good" or the folder's name
    mask: Path | None  # None where nobody painted one, and for good images
    unit: str
    setup: str  # what the shots of one setup share of their names

    @property
    def defective(self) -> bool:
        """Tell whether there is something to find."""
        return self.label != GOOD


def read_test(folder: Path) -> list[Example]:
    """List DIR/test/<label>/ with the masks of DIR/ground_truth/<label>/<stem>_mask.png."""
    test = folder / "test"
    if not test.is_dir():
        raise DatasetError(f"{folder}: no folder test in it")
    examples = []
    for place in sorted(p for p in test.iterdir() if p.is_dir()):
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
        for unit, members in group_by_unit(files).items():
            for file in members:
                mask = folder / "ground_truth" / place.name / f"{file.stem}_mask.png"
                setup = file.stem.rpartition("_")[0] or file.stem
                there = place.name != GOOD and mask.is_file()
                found = Example(file, place.name, mask if there else None, unit, setup)
                examples.append(found)
    if not examples:
        raise DatasetError(f"{test}: no image in it")
    return examples
