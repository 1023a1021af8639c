"""Attach labels and masks to captures, by the sha256 of a picture's pixels or by its file name."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from station.dataset import Dataset, read_image, save_image, write_durably
from station.errors import DatasetError
from station.records import Capture, Image, Manifest

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
        return Truth("defect", "defect", mask) if mask else None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        sheet_label = str(content["label"])
        label = str(content.get("picture_label", sheet_label))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DatasetError(f"{path}: not a label file ({error})") from error
    for text in (label, sheet_label):
        if not _LABEL.fullmatch(text):
            raise DatasetError(f"{path}: {text!r} cannot be a folder's name")
    return Truth(label, sheet_label, mask)


def sheet_truth(folder: Path, manifest: Manifest) -> str | None:
    """Return a sheet's label where any of its pictures is known: a defect outweighs good."""
    found = [find_truth(folder, capture) for capture in manifest.captures]
    labels = [truth.sheet_label for truth in found if truth is not None]
    return next((label for label in labels if label != "good"), labels[0] if labels else None)


def attach(dataset: Dataset, folder: Path) -> Counter[str]:
    """Move labelled captures where they belong and lay their masks beside; return counts by label.

    Pictures already in train/ with a defect move to test/: nothing is trained on what is known bad.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    counts: Counter[str] = Counter()
    for path, manifest in list(dataset.captures()):
        found = [(capture, find_truth(folder, capture)) for capture in manifest.captures]
        known = [truth for _, truth in found if truth is not None]
        if not known:
            continue
        sheet_label = next((t.sheet_label for t in known if t.sheet_label != "good"), "good")
        split = "test" if sheet_label != "good" else manifest.split
        captures = tuple(
            capture.model_copy(update={"label": truth.label if truth else capture.label})
            for capture, truth in found
        )
        labelled = manifest.model_copy(
            update={"label": sheet_label, "split": split, "captures": captures}
        )
        for (before, truth), after in zip(found, captures, strict=True):
            _move(dataset.place(manifest, before), dataset.place(labelled, after))
            if truth is not None:
                counts[truth.label] += 1
                _write_mask(dataset, after, truth)
        text = json.dumps(
            labelled.model_dump(mode="json", by_alias=True, exclude_none=True), indent=1
        )
        write_durably(path, f"{text}\n".encode())
    return counts


def _move(source: Path, target: Path) -> None:
    if source == target:
        return
    if not source.exists():
        raise DatasetError(f"{source}: missing, though its manifest names it")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _write_mask(dataset: Dataset, capture: Capture, truth: Truth) -> None:
    if truth.mask is None or truth.label == "good":
        return
    mask = _read_mask(truth.mask)
    if mask.shape != (capture.height, capture.width):
        raise DatasetError(
            f"{truth.mask}: {mask.shape[1]}x{mask.shape[0]} pixels, "
            f"but {capture.file} has {capture.width}x{capture.height}"
        )
    target = dataset.root / "ground_truth" / truth.label / f"{Path(capture.file).stem}_mask.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_image(target, mask)


def _read_mask(path: Path) -> Image:
    mask = read_image(path)
    grey = mask if mask.ndim == 2 else cv2.cvtColor(mask, cv2.COLOR_RGB2GRAY)
    return np.where(grey > 127, 255, 0).astype(np.uint8)
