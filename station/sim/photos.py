"""Photographs in place of rendered sheets: an MVTec-style tree, a split, or one folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.errors import ConfigError

FORMATS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})

Bytes = NDArray[np.uint8]


class Photograph(NamedTuple):
    """One file, what it shows, and its mask where somebody drew one."""

    path: Path
    label: str
    mask: Path | None


class Photographs:
    """A folder of photographs in a fixed order, all of one size and one kind."""

    def __init__(self, folder: Path, size: tuple[int, int] | None = None) -> None:
        self.entries = find(folder)
        self._resize = size
        self._told_resized = False
        first = decode(self.entries[0].path)
        self.color = first.ndim == 3
        self.size = size or (first.shape[1], first.shape[0])
        if size is None:
            self._check_alike(first)

    def read(self, number: int) -> tuple[Bytes, Bytes]:
        """Decode photograph `number` and its mask; an empty mask where there is none."""
        entry = self.entries[number]
        image = decode(entry.path)
        mask = np.zeros(image.shape[:2], np.uint8)
        if entry.mask is not None:
            drawn = decode(entry.mask)
            if drawn.shape[:2] != image.shape[:2]:
                raise ConfigError(f"{entry.mask}: not the size of {entry.path.name}")
            drawn = drawn if drawn.ndim == 2 else drawn.max(axis=2)
            mask = np.where(drawn > 127, 255, 0).astype(np.uint8)
        if self._resize is None:
            return image, mask
        self._tell_resized(entry.path, image)
        if image.ndim == 3 and not self.color:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        if image.ndim == 2 and self.color:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
        image = np.asarray(cv2.resize(image, self._resize, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, self._resize, interpolation=cv2.INTER_NEAREST), np.uint8)
        return image, mask

    def _tell_resized(self, path: Path, image: Bytes) -> None:
        """Say once that what the camera sees is no longer the file, pixel for pixel."""
        height, width = image.shape[:2]
        if not self._told_resized and (width, height) != self._resize:
            self._told_resized = True
            sys.stderr.write(
                f"station sim: photographs are resized to {self.size[0]}x{self.size[1]} pixels; "
                f"{path} has {width}x{height}\n"
            )

    def _check_alike(self, first: Bytes) -> None:
        """Refuse a folder whose pictures one camera could not have taken."""
        name = self.entries[0].path.name
        for entry in self.entries[1:]:
            image = decode(entry.path)
            if image.ndim != first.ndim:
                raise ConfigError(f"{entry.path}: {_kind(image)}, but {name} is {_kind(first)}")
            if image.shape != first.shape:
                raise ConfigError(
                    f"{entry.path}: {image.shape[1]}x{image.shape[0]} pixels, but {name} has "
                    f"{first.shape[1]}x{first.shape[0]}; give a size to resize all of them"
                )


def find(folder: Path) -> list[Photograph]:
    """List a folder's photographs: those for training first, then the test ones, labels mixed."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if (folder / "train").is_dir() or (folder / "test").is_dir():
        tests = _labelled(folder / "test", folder / "ground_truth")
        found = _labelled(folder / "train", None) + _spread(tests)
    else:
        found = _spread(_labelled(folder, folder.parent / "ground_truth"))
    found = found or [Photograph(path, "good", None) for path in _images(folder)]
    if not found:
        known = ", ".join(sorted(suffix[1:] for suffix in FORMATS))
        raise ConfigError(f"{folder}: no photographs in it ({known})")
    return found


def decode(path: Path) -> Bytes:
    """Return a file's pixels as they are: (H, W) grey or (H, W, 3) RGB."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise ConfigError(f"{path}: not a readable image")
    if image.dtype != np.uint8:
        raise ConfigError(f"{path}: {8 * image.dtype.itemsize} bits per channel, not 8")
    if image.ndim == 2:
        return np.asarray(image, np.uint8)
    if image.shape[2] not in (3, 4):
        raise ConfigError(f"{path}: {image.shape[2]} channels, neither grey nor RGB nor RGBA")
    return np.ascontiguousarray(image[..., 2::-1], np.uint8)


def _labelled(split: Path, truth: Path | None) -> list[Photograph]:
    """List a split: its folders are labels."""
    if not split.is_dir():
        return []
    found = []
    for folder in sorted(split.iterdir()):
        if not folder.is_dir() or folder.name == "ground_truth" or folder.name.startswith("extra_"):
            continue
        for path in _images(folder):
            mask = truth and truth / folder.name / f"{path.stem}_mask.png"
            found.append(Photograph(path, folder.name, mask if mask and mask.is_file() else None))
    return found


def _spread(found: list[Photograph]) -> list[Photograph]:
    """Mix the labels evenly, so that the first few are a fair sample of all."""
    total = Counter(entry.label for entry in found)
    seen: Counter[str] = Counter()
    places = []
    for entry in found:
        places.append((seen[entry.label] + 0.5) / total[entry.label])
        seen[entry.label] += 1
    order = sorted(range(len(found)), key=places.__getitem__)
    return [found[number] for number in order]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS)


def _kind(image: Bytes) -> str:
    return "grey" if image.ndim == 2 else "colour"
