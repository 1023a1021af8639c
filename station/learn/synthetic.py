"""Synthetic defects painted into good images: they fix the scale's 1 where no defect is at hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from station.records.sheet import Image

KINDS = ("cut_paste", "scratch", "blob")


def spoil(image: Image, kind: str, rng: np.random.Generator) -> Image:
    """Return a copy of the image with one defect of that kind."""
    return {"cut_paste": _cut_paste, "scratch": _scratch, "blob": _blob}[kind](image, rng)


def _cut_paste(image: Image, rng: np.random.Generator) -> Image:
    """Put a piece of the image, turned by a quarter, somewhere else."""
    height, width = image.shape[:2]
    short = min(height, width)
    rows, columns = rng.integers(max(1, short // 16), max(2, short // 6), 2)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    piece = np.rot90(image[top : top + rows, left : left + columns])
    rows, columns = piece.shape[:2]
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    spoilt = image.copy()
    spoilt[top : top + rows, left : left + columns] = piece
    return spoilt


def _scratch(image: Image, rng: np.random.Generator) -> Image:
    """Draw a bent line, lighter or darker than what it crosses."""
    height, width = image.shape[:2]
    short = min(height, width)
    start = rng.uniform(0.1, 0.9, 2) * (width, height)
    heading, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15)
    length = rng.uniform(0.1, 0.35) * short
    points = [start]
    for _ in range(10):
        heading += bend
        points.append(points[-1] + length / 10 * np.array([np.cos(heading), np.sin(heading)]))
    mask = np.zeros((height, width), np.float32)
    thickness = max(1, round(short * rng.uniform(0.004, 0.012)))
    path = np.round(np.array(points)).astype(np.int32)
    cv2.polylines(mask, [path], isClosed=False, color=1.0, thickness=thickness)
    return _shade(image, cv2.GaussianBlur(mask, (3, 3), 0), rng)


def _blob(image: Image, rng: np.random.Generator) -> Image:
    """Lay down an uneven spot, lighter or darker than what it covers."""
    height, width = image.shape[:2]
    short = min(height, width)
    radius = rng.uniform(0.015, 0.05) * short
    centre = rng.uniform(0.1, 0.9, 2) * (width, height)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = 1 + 0.3 * np.sin(angles * rng.integers(2, 5) + rng.uniform(0, 2 * np.pi))
    stretch = np.array([1.0, rng.uniform(0.5, 1.0)])
    ring = centre + radius * wobble[:, None] * stretch * np.c_[np.cos(angles), np.sin(angles)]
    mask = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [np.round(ring).astype(np.int32)], 1.0)
    return _shade(image, cv2.GaussianBlur(mask, (0, 0), max(0.5, radius / 6)), rng)


def _shade(image: Image, mask: NDArray[Any], rng: np.random.Generator) -> Image:
    """Lighten or darken by two to four times the image's own spread, at least by 20."""
    amount = max(20.0, rng.uniform(2.0, 4.0) * float(image.std()))
    sign = 1 if rng.random() < 0.5 else -1
    if image.ndim == 3:
        mask = mask[..., None]
    shaded = image.astype(np.float32) + sign * amount * mask
    return np.clip(np.round(shaded), 0, 255).astype(np.uint8)
