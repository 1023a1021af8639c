"""Synthetic defects painted into good images, where no real ones are at hand.

Single ones of three kinds (`KINDS`) fix the scale's 1 and draw the learning curve. Others are
strewn over the images that a detector learns from, as examples of what is not good.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.records.sheet import Image

KINDS = ("cut_paste", "scratch", "blob")
STREWN = 6  # defects in one image to learn from


class Strewn(NamedTuple):
    """An image with defects in many places, and where they are."""

    image: Image
    mask: NDArray[np.uint8]  # (H, W), 0 or 255


def strew(image: Image, rng: np.random.Generator) -> Strewn:
    """Return a copy with defects of all sizes: pieces of itself, shade or light, smooth spots."""
    height, width = image.shape[:2]
    pixels = image.astype(np.float32)
    everywhere = np.zeros((height, width), np.uint8)
    for _ in range(STREWN):
        mask = _shape(height, width, rng)
        cover = (_piece, _shaded, _smooth)[rng.integers(3)](pixels, rng)
        blend = mask if image.ndim == 2 else mask[..., None]
        pixels += blend * (cover - pixels)
        everywhere[mask > 0.5] = 255
    return Strewn(np.clip(np.round(pixels), 0, 255).astype(np.uint8), everywhere)


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


def _shape(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a bar, an ellipse or an uneven spot, of a hundredth to a sixth of the short side."""
    short = min(height, width)
    length = rng.uniform(0.015, 0.16) * short
    breadth = max(0.012 * short, length * rng.uniform(0.1, 1.0))
    centre = rng.uniform(0.03, 0.97, 2) * (width, height)
    # Half of them lie along the image's axes, as woven and machined things do.
    upright = 90.0 * rng.integers(2) + rng.normal(0, 3)
    degrees = float(upright if rng.random() < 0.5 else rng.uniform(0, 180))
    mask = np.zeros((height, width), np.float32)
    turned = (centre.tolist(), (float(length), float(breadth)), degrees)
    kind = rng.integers(3)
    if kind == 0:
        cv2.fillPoly(mask, [np.round(cv2.boxPoints(turned)).astype(np.int32)], 1.0)
    elif kind == 1:
        cv2.ellipse(mask, turned, 1.0, -1)
    else:
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        radius = 1 + 0.35 * np.sin(angles * rng.integers(2, 6) + rng.uniform(0, 2 * np.pi))
        ring = np.c_[length * np.cos(angles), breadth * np.sin(angles)] * radius[:, None] / 2
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        spot = ring @ np.array([[c, s], [-s, c]]) + centre
        cv2.fillPoly(mask, [np.round(spot).astype(np.int32)], 1.0)
    soft = max(0.5, rng.uniform(0, 0.004) * short)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)


def _piece(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the same image moved by any distance, mirrored or not, a little lighter or darker."""
    height, width = pixels.shape[:2]
    moved = np.roll(pixels, (int(rng.integers(height)), int(rng.integers(width))), (0, 1))
    moved = moved[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    return np.asarray(moved * np.float32(rng.uniform(0.85, 1.15)), np.float32)


def _shaded(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return it darker by 15 to 50 % or lighter by a third more."""
    amount = rng.uniform(0.15, 0.5) * (-1 if rng.random() < 0.5 else 1.3)
    return np.asarray(pixels * np.float32(1 + amount), np.float32)


def _smooth(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return it without structure, lighter or darker."""
    height, width = pixels.shape[:2]
    cell = rng.uniform(0.02, 0.06) * min(height, width)
    few = (max(2, round(width / cell)), max(2, round(height / cell)))
    small = cv2.resize(pixels, few, interpolation=cv2.INTER_AREA)
    level = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(level * np.float32(rng.uniform(0.6, 1.4)), np.float32)
