"""Attach labels and masks to captures, by the sha256 of a picture's pixels or by its file name."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from station.errors import DatasetError
from station.records.dataset import Dataset, read_image, save_image, write_durably
from station.records.sheet import Capture, Image, Manifest

UNNAMED = "defect"  # a mask says that there is one, not which
_LABEL = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Truth(NamedTuple):
    """What is known of one picture: its own label, its sheet's, and a mask where one was given."""

    label: str
    sheet_label: str
    mask: Path | None


def find_truth(folder: Path, capture: Capture) -> Truth | None:
    """Look a picture up in a folder of `<pixels sha256>.json/.png` or `<picture>_mask.png` files.

    A mask without a .json says that there is a defect but not which.
    """
    painted = folder / f"{Path(capture.file).stem}_mask.png"
    hashed = folder / f"{capture.pixels_sha256}.png"
    mask = next((path for path in (painted, hashed) if path.exists()), None)
    path = folder / f"{capture.pixels_sha256}.json"
    if not path.exists():
        return Truth(UNNAMED, UNNAMED, mask) if mask else None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        sheet_label = content["label"]
        label = content.get("picture_label", sheet_label)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DatasetError(f"{path}: not a label file ({error})") from error
    for text in (label, sheet_label):
        if not isinstance(text, str) or not _LABEL.fullmatch(text):
            raise DatasetError(f"{path}: {text!r} cannot be a folder's name")
    return Truth(label, sheet_label, mask)


def sheet_truth(folder: Path, manifest: Manifest) -> str | None:
    """Return a sheet's label where any of its pictures is known: a defect outweighs good."""
    found = [find_truth(folder, capture) for capture in manifest.captures]
    labels = [truth.sheet_label for truth in found if truth is not None]
    return next((label for label in labels if label != "good"), labels[0] if labels else None)


class Attached(NamedTuple):
    """How many pictures got which label, and how many of all complete sheets none."""

    labels: dict[str, int]
    unmatched: int


def attach(dataset: Dataset, folder: Path) -> Attached:
    """Move labelled captures where they belong and lay their masks beside; incomplete sheets stay.

    Pictures already in train/ with a defect move to test/: nothing is trained on what is known bad.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    complete = [(path, manifest) for path, manifest in dataset.captures() if manifest.complete]
    pictures = sum(len(manifest.captures) for _, manifest in complete)
    labelled = [_labelled(path, manifest, folder, dataset) for path, manifest in complete]
    if not any(labelled):
        raise DatasetError(
            f"{folder}: belongs to none of the {pictures} pictures captured in {dataset.root}"
        )
    counts: Counter[str] = Counter()
    for sheet in labelled:
        if sheet is not None:
            counts.update(_write(sheet, dataset))
    return Attached(dict(sorted(counts.items())), pictures - counts.total())


class _Labelled(NamedTuple):
    """One sheet before and after, with the masks that were checked before anything is moved."""

    path: Path
    before: Manifest
    after: Manifest
    masks: dict[str, Image]
    known: list[str]


def _labelled(path: Path, manifest: Manifest, folder: Path, dataset: Dataset) -> _Labelled | None:
    found = {c.file: find_truth(folder, c) for c in manifest.captures}
    known = [truth for truth in found.values() if truth is not None]
    if not known:
        return None
    sheet_label = _sheet_label([truth.sheet_label for truth in known], str(manifest.label))
    captures = []
    masks = {}
    for capture in manifest.captures:
        truth = found[capture.file]
        if truth is None:
            captures.append(capture)
            continue
        label = sheet_label if truth.label == UNNAMED else truth.label
        captures.append(capture.model_copy(update={"label": label}))
        if truth.mask is not None and label != "good":
            masks[capture.file] = _read_mask(truth.mask, capture)
    after = manifest.model_copy(
        update={
            "label": sheet_label,
            "split": "test" if sheet_label != "good" else manifest.split,
            "captures": tuple(captures),
        }
    )
    for before, capture in zip(manifest.captures, after.captures, strict=True):
        place = dataset.place(manifest, before)
        # It lies where it belongs already where the process ended before the manifest was written.
        if not place.exists() and not dataset.place(after, capture).exists():
            raise DatasetError(f"{place}: missing, though its manifest names it")
    labels = [sheet_label if truth.label == UNNAMED else truth.label for truth in known]
    return _Labelled(path, manifest, after, masks, labels)


def _sheet_label(labels: list[str], before: str) -> str:
    """A named defect outweighs good; a mask alone keeps the defect the sheet was captured as."""
    named = [label for label in labels if label not in {"good", UNNAMED}]
    if named:
        return named[0]
    if UNNAMED in labels:
        return before if before != "good" else UNNAMED
    return "good"


def _write(sheet: _Labelled, dataset: Dataset) -> list[str]:
    for before, after in zip(sheet.before.captures, sheet.after.captures, strict=True):
        _move(dataset.place(sheet.before, before), dataset.place(sheet.after, after))
        old = _mask_place(dataset, sheet.before, before)
        new = _mask_place(dataset, sheet.after, after)
        if after.file in sheet.masks:
            new.parent.mkdir(parents=True, exist_ok=True)
            save_image(new, sheet.masks[after.file])
            if old != new:
                old.unlink(missing_ok=True)
        elif old.exists():
            _move(old, new)
    content = sheet.after.model_dump(mode="json", by_alias=True, exclude_none=True)
    write_durably(sheet.path, f"{json.dumps(content, indent=1)}\n".encode())
    return sheet.known


def _mask_place(dataset: Dataset, manifest: Manifest, capture: Capture) -> Path:
    label = str(capture.label or manifest.label)
    return dataset.root / "ground_truth" / label / f"{Path(capture.file).stem}_mask.png"


def _move(source: Path, target: Path) -> None:
    if source != target and source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        with contextlib.suppress(OSError):  # others are in it
            source.parent.rmdir()  # an empty class is a mistake to whoever evaluates the tree


def _read_mask(path: Path, capture: Capture) -> Image:
    mask = read_image(path)
    if mask.shape[:2] != (capture.height, capture.width):
        raise DatasetError(
            f"{path}: {mask.shape[1]}x{mask.shape[0]} pixels, "
            f"but {capture.file} has {capture.width}x{capture.height}"
        )
    grey = mask if mask.ndim == 2 else cv2.cvtColor(mask, cv2.COLOR_RGB2GRAY)
    return np.where(grey > 127, 255, 0).astype(np.uint8)
