"""Labelled images of a tree in MVTec form: what a detector is measured on, never trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from station.errors import DatasetError
from station.learn.images import CAPTURE, SUFFIXES, group_by_unit, pictures

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
    _refuse_unlabelled(test)
    examples = []
    for place in sorted(p for p in test.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if place.name != GOOD and place.name.lower() == GOOD:
            raise DatasetError(f"{place}: good images lie in a folder named {GOOD}")
        files = pictures(place)
        _refuse_one_name_twice(files)
        masks = _masks(folder / "ground_truth" / place.name, files) if place.name != GOOD else {}
        for unit, members in group_by_unit(files).items():
            for file in members:
                setup = file.stem.rpartition("_")[0] or file.stem
                examples.append(Example(file, place.name, masks.get(file.stem), unit, setup))
    if not examples:
        raise DatasetError(f"{test}: no image in it")
    return examples


def sheet_of(file: Path) -> str | None:
    """Return the sheet that one of the station's own captures shows; None for other names."""
    return file.stem.partition("_")[0] if CAPTURE.fullmatch(file.stem) else None


def _masks(folder: Path, files: list[Path]) -> dict[str, Path]:
    """Find the masks by the stems of their images."""
    found = {file.stem: folder / f"{file.stem}_mask.png" for file in files}
    masks = {stem: mask for stem, mask in found.items() if mask.is_file()}
    if not masks and folder.is_dir():
        strange = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if strange:
            wanted = found[files[0].stem].name
            raise DatasetError(f"{strange[0]}: fits no image by its name; {wanted} would")
    return masks


def _refuse_unlabelled(test: Path) -> None:
    for path in sorted(test.iterdir()):
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            raise DatasetError(f"{path}: lies in no class; move it to test/good or test/<defect>")


def _refuse_one_name_twice(files: list[Path]) -> None:
    """Two images of one stem in a class would share a mask."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.stem, file)
        if other != file:
            raise DatasetError(f"{file}: named like {other}; masks go by the name")
