"""Good images to learn from: a folder in MVTec form, read once and checked file by file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from station.decode import decode
from station.errors import DatasetError
from station.records.sheet import Image

# What is wrong with a file is told in one line of ours.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
ALIKE = 0.1  # of a side, by which pictures to learn from may differ in size
# Decoded pictures that are kept between checking and learning; the rest is decoded twice.
KEPT_BYTES = 1 << 29
# The station's own captures: <station>-<boot>-<counter>_<setup>_<shot>
CAPTURE = re.compile(r"[a-z0-9-]+-\d+-\d+_[a-z0-9-]+_\d+")


class Loaded(NamedTuple):
    """An image with the hash of the file it came from."""

    image: Image  # (H, W) grey or (H, W, 3) RGB
    sha256: str


@dataclass(frozen=True)
class TrainingImages:
    """Files of good parts, grouped by the unit (the sheet) that they show."""

    folder: Path
    units: dict[str, tuple[Path, ...]]

    @property
    def files(self) -> list[Path]:
        """Every file, unit by unit."""
        return [file for files in self.units.values() for file in files]

    def only(self, names: Sequence[str]) -> TrainingImages:
        """Keep the named units, in the order they stand in."""
        return replace(self, units={n: files for n, files in self.units.items() if n in names})

    def draw(self, count: int, seed: int) -> TrainingImages:
        """Keep `count` units, chosen by the seed alone."""
        if not 1 <= count <= len(self.units):
            raise DatasetError(
                f"{self.folder}: {count} units asked for, there are {len(self.units)}"
            )
        order = np.random.default_rng(seed).permutation(len(self.units))[:count]
        names = list(self.units)
        return self.only([names[i] for i in order])


def from_mvtec(folder: Path) -> TrainingImages:
    """List DIR/train/good; nothing else of the tree is ever looked at."""
    good = folder / "train" / "good"
    if not good.is_dir():
        raise DatasetError(f"{folder}: no folder train/good in it")
    return TrainingImages(good, group_by_unit(pictures(good)))


def pictures(folder: Path) -> list[Path]:
    """List every picture below a folder; one that would be left out unseen is refused by name.

    A name that begins with a dot is what some systems lay beside a file, not a picture.
    """
    found = []
    for place, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(place, name).is_symlink():
                raise DatasetError(f"{Path(place, name)}: a link to a folder; copy its pictures")
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            # The list of what a model learned from is text, a name a line.
            if not str(path)[len(str(folder)) :].isprintable():
                raise DatasetError(f"{str(path)!r}: the name is not plain text; rename it")
            if not path.is_file():
                raise DatasetError(f"{path}: neither a file nor a link to one")
            found.append(path)
    if not found:
        raise DatasetError(f"{folder}: no image in it ({' '.join(sorted(SUFFIXES))})")
    return sorted(found)


def _refuse_unreadable(error: OSError) -> None:
    raise DatasetError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error


def group_by_unit(files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Group files by what stands before the first `_`: shots of one sheet, tiles of one strip.

    Where all names begin alike (img_001, img_002) they tell nothing and every file is its own unit,
    unless they are the station's own captures: these show one sheet.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem.partition("_")[0], []).append(file)
    if len(groups) == 1 and not all(is_capture(file) for file in files):
        groups = {}
        for file in files:
            groups.setdefault(file.stem, []).append(file)
    return {unit: tuple(members) for unit, members in groups.items()}


def is_capture(file: Path) -> bool:
    """Tell whether a file is named as the station names its own captures."""
    return CAPTURE.fullmatch(file.stem) is not None


def read_image(path: Path) -> Loaded:
    """Decode one file, or say what is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not content:
        raise DatasetError(f"{path}: empty file")
    if _cut_short(content):
        raise DatasetError(f"{path}: the file is cut short")
    pixels = decode(content)
    if pixels is None:
        raise DatasetError(f"{path}: not a readable image")
    return Loaded(_to_rgb(pixels, path), hashlib.sha256(content).hexdigest())


def check_alike(image: Image, path: Path, first: Image, first_path: Path) -> None:
    """Refuse an image that differs from the first in colour, or in size by more than a tenth.

    Up to there each is letterboxed; beyond, a model pixel would show another part of a millimetre.
    """
    if image.ndim != first.ndim:
        kinds = {2: "grey", 3: "colour"}
        raise DatasetError(f"{first_path} is {kinds[first.ndim]}, {path} is {kinds[image.ndim]}")
    sides = zip(image.shape[:2], first.shape[:2], strict=True)
    if any(abs(side - wanted) > ALIKE * wanted for side, wanted in sides):
        sizes = [f"{i.shape[1]}x{i.shape[0]}" for i in (first, image)]
        raise DatasetError(
            f"{first_path} has {sizes[0]} pixels, {path} has {sizes[1]}: sizes may differ by a "
            "tenth, not more"
        )


class Reader:
    """Reads files, each like the first one; all are checked before anything is learned."""

    def __init__(self, images: TrainingImages) -> None:
        self._sums: dict[Path, str] = {}
        self._first: tuple[Path, Image] | None = None
        self._kept: dict[Path, Image] = {}
        room = KEPT_BYTES
        seen: dict[str, tuple[str, Path]] = {}
        for unit, files in images.units.items():
            for file in files:
                loaded = self._load(file)
                twin_unit, twin = seen.setdefault(loaded.sha256, (unit, file))
                if twin_unit != unit:
                    # One to learn from and one to be measured on would tell nothing.
                    raise DatasetError(f"{file} and {twin} are the same picture; keep one")
                self._sums[file] = loaded.sha256
                room -= loaded.image.nbytes
                if room >= 0:
                    self._kept[file] = loaded.image
        self.digest = hashlib.sha256("\n".join(sorted(seen)).encode()).hexdigest()

    def read(self, path: Path) -> Image:
        """Return a file's image; it must be the one that was checked."""
        if path in self._kept:
            return self._kept[path]
        loaded = self._load(path)
        if loaded.sha256 != self._sums[path]:
            raise DatasetError(f"{path}: changed during training")
        return loaded.image

    def sums(self, folder: Path) -> str:
        """List every file as `sha256sum` would, so that it can check them."""
        lines = [f"{sha256}  {file.relative_to(folder)}" for file, sha256 in self._sums.items()]
        return "\n".join(lines) + "\n"

    def _load(self, path: Path) -> Loaded:
        loaded = read_image(path)
        if self._first is None:
            self._first = path, loaded.image
        check_alike(loaded.image, path, self._first[1], self._first[0])
        return loaded


def _cut_short(content: bytes) -> bool:
    # OpenCV fills what is missing with grey and says nothing.
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-64:]
    if content.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in content[_jpeg_scan(content) :]
    return False


def _jpeg_scan(content: bytes) -> int:
    """Return where the pixels begin: a thumbnail before them has an end of its own."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return at


def _to_rgb(pixels: np.ndarray, path: Path) -> Image:
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{path}: {pixels.dtype.itemsize * 8} bits per channel; 8 are needed")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if pixels[..., 3].min() < 255:
            raise DatasetError(f"{path}: partly transparent; what lies behind is not known")
        pixels = pixels[..., :3]
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[..., ::-1])
    return pixels
