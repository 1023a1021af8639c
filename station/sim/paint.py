"""Draw on a cloth: places on it, shapes by signed distance, matter to cover them with."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from station.sim.weave import (
    ALBEDO,
    ALONG,
    GLOSS,
    MARGIN_MM,
    OPAQUE,
    PX_PER_MM,
    TILT,
    TILT_SCALE,
    Bytes,
    Cloth,
    Layer,
)

_EDGE_MM = 8.0  # what lies nearer to the sheet's edge could be outside all four views
_SHADOW_MM = 0.8


class Spot(NamedTuple):
    """A part of the cloth with the object's own millimetres: p along it, q across."""

    layers: Bytes  # views into the cloth: what is drawn here lies on it
    mask: Bytes
    p: Layer
    q: Layer
    angle: float


class Matter(NamedTuple):
    """What a surface looks like, in the cloth's terms."""

    albedo: Layer | float
    tilt: Layer | float
    gloss: Layer | float
    along: int = 128


def choose_spot(rng: np.random.Generator, cloth: Cloth, length_mm: float, width_mm: float) -> Spot:
    """Choose a place and direction where an object of this size lies wholly on the sheet."""
    for _ in range(200):
        angle = float(rng.uniform(0, 2 * np.pi))
        c, s = abs(np.cos(angle)), abs(np.sin(angle))
        half_x = (length_mm * c + width_mm * s) / 2 + _EDGE_MM
        half_y = (length_mm * s + width_mm * c) / 2 + _EDGE_MM
        if 2 * half_x < cloth.width_mm and 2 * half_y < cloth.height_mm:
            break
    x = float(rng.uniform(half_x, cloth.width_mm - half_x))
    y = float(rng.uniform(half_y, cloth.height_mm - half_y))
    return spot_at(cloth, (x, y), angle, (half_x - _EDGE_MM + 3, half_y - _EDGE_MM + 3))


def spot_at(
    cloth: Cloth, place_mm: tuple[float, float], angle: float, half_mm: tuple[float, float]
) -> Spot:
    """Cut the part around `place_mm` out of the cloth, as views."""
    height, width = cloth.mask.shape
    x, y = ((value + MARGIN_MM) * PX_PER_MM for value in place_mm)
    left, right = (round(x + sign * half_mm[0] * PX_PER_MM) for sign in (-1, 1))
    top, bottom = (round(y + sign * half_mm[1] * PX_PER_MM) for sign in (-1, 1))
    left, right = max(left, 0), min(right, width)
    top, bottom = max(top, 0), min(bottom, height)
    u = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)) / np.float32(PX_PER_MM)
    v = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)) / np.float32(PX_PER_MM)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    box = np.s_[top:bottom, left:right]
    return Spot(cloth.layers[box], cloth.mask[box], c * u + s * v, c * v - s * u, angle)


def inside(distance_mm: Layer) -> Layer:
    """Coverage of each pixel by a shape, from the signed distance to its border."""
    share = 0.5 - distance_mm * np.float32(PX_PER_MM)
    return np.asarray(np.clip(share, 0, 1), np.float32)


def cover(spot: Spot, share: Layer, matter: Matter) -> None:
    """Lay `matter` over the cloth and into the mask."""
    touched = share > 0
    for layer, value in ((ALBEDO, matter.albedo), (TILT, matter.tilt), (GLOSS, matter.gloss)):
        new = np.broadcast_to(np.asarray(value, np.float32), share.shape)
        if layer == TILT:
            new = 128 + TILT_SCALE * new
        old = spot.layers[..., layer]
        low = OPAQUE if layer == ALBEDO else 0
        mixed = np.clip(old + share * (new - old), low, 255)
        old[touched] = mixed[touched].astype(np.uint8)
    spot.layers[..., ALONG][share > 0.5] = matter.along
    spot.mask[share >= 0.5] = 255


def relight(spot: Spot, factor: Layer) -> None:
    """Scale the cloth's light by `factor`, leaving the table beside it alone."""
    touched = factor != 1
    for layer in (ALBEDO, GLOSS):
        old = spot.layers[..., layer]
        low = np.where(old > 0, OPAQUE, 0) if layer == ALBEDO else 0
        old[touched] = np.clip(np.rint(old * factor), low, 255).astype(np.uint8)[touched]


def shadow(spot: Spot, distance_mm: Layer, depth: float = 0.35) -> None:
    """Darken the cloth just beside an object, where ambient light does not reach."""
    away = np.maximum(distance_mm, 0) / np.float32(_SHADOW_MM / 2)
    relight(spot, np.asarray(1 - depth * np.exp(-np.square(away)), np.float32))


def box(p: Layer, q: Layer, half_p: float, half_q: float, radius: float = 0.0) -> Layer:
    """Return the signed distance to a rectangle with round corners."""
    a, b = np.abs(p) - (half_p - radius), np.abs(q) - (half_q - radius)
    return np.asarray(
        np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - radius,
        np.float32,
    )


def hexagon(p: Layer, q: Layer, half_flats: float) -> Layer:
    """Return the signed distance to a hexagon's nearest side."""
    turns = [(np.cos(a), np.sin(a)) for a in (0.0, np.pi / 3, 2 * np.pi / 3)]
    sides = [np.abs(np.float32(c) * p + np.float32(s) * q) for c, s in turns]
    return np.asarray(np.maximum.reduce(sides) - np.float32(half_flats), np.float32)


def metal(rng: np.random.Generator, distance: Layer, bevel_mm: float) -> Matter:
    """Brushed metal whose rim slopes away, lying not quite flat."""
    shape = distance.shape
    brushed = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 3, sigmaY=0.7)
    down = cv2.Sobel(distance, cv2.CV_32F, 0, 1) + cv2.Sobel(distance, cv2.CV_32F, 1, 0)
    down *= PX_PER_MM / 8 / 2
    rim = np.clip(1 + distance / bevel_mm, 0, 1)
    tilt = float(rng.uniform(-0.5, 0.2)) + 0.8 * rim * down + 0.12 * brushed
    # burnished steel is dark beside its mirror image of the lamp, zinc is bright all round
    if rng.uniform() < 0.5:
        albedo, gloss = rng.uniform(30, 60), rng.uniform(30, 170)
    else:
        albedo, gloss = rng.uniform(95, 165), rng.uniform(40, 130)
    return Matter(
        np.float32(albedo) * (1 + 0.10 * brushed),
        tilt.astype(np.float32),
        np.float32(gloss) * (1 + 0.15 * brushed),
    )
