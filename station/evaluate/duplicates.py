"""Tell copies from look-alikes: the same picture again, recompressed, brighter or slightly moved.

Two looks at a pair. The coarse one compares thumbnails with every other picture and is cheap; parts
that lie alike under one light pass it too. The fine one lays the two over each other and compares
the texture, which no two parts share. `docs/thresholds.md` has the figures behind the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.learn.images import Loaded, read_image
from station.records.sheet import Image, pixels_sha256

COARSE_LIMIT = 0.90  # copies moved by up to 1 % of the picture 0.90 to 1, unlike fabric 0.66
FINE_LIMIT = 0.93  # copies 0.94 to 1; different parts that pass the coarse look at most 0.84
NEAREST = 3  # pictures whose texture is compared: a copy is among the nearest thumbnails

_COARSE_PX = 32
_FINE_PX = 256

Pixels = NDArray[np.float32]


class Look(NamedTuple):
    """What is kept of a file to find it again."""

    file: Path
    sha256: str
    pixels: str  # sha256 of shape and decoded pixels
    thumbnail: Pixels  # (32 * 32), mean 0, length 1; all 0 where the picture is one flat grey


def look_at(file: Path) -> Look:
    """Read a file, or say what is wrong with it."""
    loaded: Loaded = read_image(file)
    pixels = f"{loaded.image.shape} {pixels_sha256(loaded.image)}"
    return Look(file, loaded.sha256, pixels, _thumbnail(loaded.image))


def find_copy(looks: Sequence[Look], among: Sequence[Look]) -> tuple[Look, Look, str] | None:
    """Return the first of `looks` that is also `among`, its likeness, and how they are alike."""
    by_file = {look.sha256: look for look in reversed(among)}
    by_pixels = {look.pixels: look for look in reversed(among)}
    for look in looks:
        if look.sha256 in by_file:
            return look, by_file[look.sha256], "the same file as"
        if look.pixels in by_pixels:
            return look, by_pixels[look.pixels], "pixel by pixel"
    if not among:
        return None
    known = np.array([look.thumbnail for look in among])  # (N, 1024)
    for look in looks:
        likeness = known @ look.thumbnail
        nearest = np.argsort(-likeness, kind="stable")[:NEAREST]
        for i in (int(i) for i in nearest if likeness[i] >= COARSE_LIMIT):
            if _same_texture(look.file, among[i].file):
                return look, among[i], "nearly the same picture as"
    return None


def _thumbnail(image: Image) -> Pixels:
    """Shrink without aliasing: a fine weave must not turn into chance patterns."""
    cell = 4
    small = _grey(image, _COARSE_PX * cell)
    blurred = cv2.GaussianBlur(small, (0, 0), cell)[cell // 2 :: cell, cell // 2 :: cell]
    return _normalised(blurred)


def _same_texture(first: Path, second: Path) -> bool:
    """Compare details where the two pictures lie best over each other."""
    spectra = [np.fft.rfft2(_detail(read_image(file).image)) for file in (first, second)]
    return float(np.fft.irfft2(spectra[0] * spectra[1].conj()).max()) >= FINE_LIMIT


def _detail(image: Image) -> Pixels:
    """Keep what is 1 to 4 pixels large; less is lost in a JPEG, more is light and outline."""
    small = _grey(image, _FINE_PX)
    band = cv2.GaussianBlur(small, (0, 0), 1) - cv2.GaussianBlur(small, (0, 0), 4)
    window = cv2.createHanningWindow((_FINE_PX, _FINE_PX), cv2.CV_32F)
    return _normalised(band * window).reshape(_FINE_PX, _FINE_PX)


def _grey(image: Image, side: int) -> Pixels:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _normalised(pixels: NDArray[np.generic]) -> Pixels:
    flat = np.asarray(pixels, np.float32).ravel()
    flat = flat - flat.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 1e-3 else np.zeros_like(flat)
