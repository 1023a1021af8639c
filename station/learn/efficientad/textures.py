"""Pictures to distil a teacher on: pieces of real ones, and drawn ones that look like nothing.

A teacher that has only seen good sheets answers arbitrarily where something lies on them. Drawn
pictures of overlapping shapes with textures have edges, corners and patterns of all kinds.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from station.records.sheet import Image

DRAWN = 0.5  # share of the pictures
GREY = 0.1  # share of them without colour, as published


def picture(images: list[Image], side: int, rng: np.random.Generator) -> Image:
    """Return a picture of this side, RGB: drawn, or a piece of one of the images, altered."""
    if rng.random() < DRAWN:
        found = drawn(side, rng)
    else:
        found = piece(images[rng.integers(len(images))], side, rng)
    if rng.random() < GREY:
        found = np.repeat(cv2.cvtColor(found, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return found


def piece(image: Image, side: int, rng: np.random.Generator) -> Image:
    """Cut out a square, from a quarter of the short side up to all of it; turn, mirror, relight."""
    height, width = image.shape[:2]
    length = int(min(height, width) * rng.uniform(0.25, 1.0)) or 1
    top, left = rng.integers(0, height - length + 1), rng.integers(0, width - length + 1)
    cut = np.rot90(image[top : top + length, left : left + length], int(rng.integers(4)))
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    how = cv2.INTER_AREA if length > side else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(cut), (side, side), interpolation=how)
    if small.ndim == 2:
        small = np.repeat(small[..., None], 3, 2)
    lit = small * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def drawn(side: int, rng: np.random.Generator) -> Image:
    """Lay shapes of all sizes over each other, each with a texture of its own."""
    canvas = _texture(side, rng)
    for _ in range(rng.integers(8, 24)):
        # Small ones are the more frequent.
        radius = side * 0.02 * (0.4 / 0.02) ** (rng.random() ** 1.5)
        corners = rng.integers(3, 12)
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.5, 1.0, corners)
        centre = rng.uniform(0, side, 2)
        ring = centre + reach[:, None] * np.c_[np.cos(angles), np.sin(angles)]
        mask = np.zeros((side, side), np.uint8)
        cv2.fillPoly(mask, [np.round(ring).astype(np.int32)], 255, lineType=cv2.LINE_AA)
        share = mask[..., None].astype(np.float32) / 255
        canvas = canvas + share * (_texture(side, rng) - canvas)
    noise = rng.normal(0, rng.uniform(0, 8), canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)


def _texture(side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a colour with waves or clouds in it."""
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    kind = rng.integers(3)
    if kind == 0:
        return np.broadcast_to(colour, (side, side, 3)).astype(np.float32)
    if kind == 1:
        y, x = np.mgrid[:side, :side].astype(np.float32)
        angle, length = rng.uniform(0, np.pi), rng.uniform(3, 40)
        waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / length))
        if rng.random() < 0.5:
            waves *= np.sin((y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / length))
        field = waves
    else:
        cells = int(rng.integers(3, max(4, side // 3)))
        coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    tint = rng.uniform(0.3, 1.0, 3).astype(np.float32)
    return np.asarray(colour + rng.uniform(10, 60) * field[..., None] * tint, np.float32)
