"""Painted masks: where a defect is, read strictly, and maps brought to their size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from station.errors import DatasetError
from station.evaluate.examples import GOOD, Example
from station.learn.images import SUFFIXES, read_image


def check_masks(folder: Path, examples: Iterable[Example]) -> None:
    """Refuse a mask that belongs to no image: nothing painted may be left out unseen."""
    known = {example.mask for example in examples}
    for file in sorted((folder / "ground_truth").glob("*/*")):
        if file.parent.name == GOOD or file.suffix.lower() not in SUFFIXES or file in known:
            continue
        label = file.parent.name
        raise DatasetError(
            f"{file}: belongs to no image; the mask of test/{label}/X.* is "
            f"ground_truth/{label}/X_mask.png"
        )


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the mask of an image of this height and width; whatever is not black is defect."""
    pixels = read_image(path).image
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise DatasetError(f"{path}: a mask in colour; black and one other grey are needed")
        pixels = pixels[..., 0]
    if pixels.shape != size:
        found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, size))
        raise DatasetError(f"{path}: mask has {found} pixels, its image {wanted}")
    values = np.unique(pixels)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        listed = ", ".join(map(str, values[:4])) + (", …" if len(values) > 4 else "")
        raise DatasetError(f"{path}: mask has the values {listed}; 0 and one other are needed")
    if not pixels.any():
        raise DatasetError(f"{path}: mask is all black; paint the defect or remove the file")
    return pixels > 0


def at_size(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a map to a height and width, bilinear between the centres of its cells."""
    height, width = size
    resized = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
