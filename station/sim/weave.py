"""Weave a glass-fibre sheet: flat rovings over and under each other, and their fibres.

A cloth is four byte layers in sheet coordinates, from which any view is shaded: how bright it is
by itself, how its fibres slope, how strongly they mirror, and which way they run.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PX_PER_MM = 9.0  # the default camera sees 9.1 pixels per millimetre
MARGIN_MM = 2.0  # around the sheet, for frayed edges
PITCH_MM = 4.5
ALBEDO, TILT, GLOSS, ALONG = range(4)
TILT_SCALE = 127.0  # slope of 1 is 127 steps away from the middle, 128
OPAQUE = 24  # a cloth is nowhere darker; below, the table shows through
LOBE = 0.20  # half width of a fibre's mirror lobe, as a slope

_CRIMP = 0.42  # slope of a roving where it dives under the next


class Cloth(NamedTuple):
    """A sheet's layers and the mask of its defect, both in sheet pixels."""

    layers: Bytes  # (H, W, 4)
    mask: Bytes  # (H, W), 0 or 255
    width_mm: float
    height_mm: float


class _Rovings(NamedTuple):
    number: NDArray[np.int64]
    place: Layer  # -1 to 1 across the roving
    edge: Layer  # above 1 lies the gap between two rovings
    level: Layer


def weave(rng: np.random.Generator, width_mm: float, height_mm: float) -> Cloth:
    """Draw a sheet without any fault."""
    width = round((width_mm + 2 * MARGIN_MM) * PX_PER_MM)
    height = round((height_mm + 2 * MARGIN_MM) * PX_PER_MM)
    warp, weft = _rovings(rng, width), _rovings(rng, height)
    over = ((warp.number[None, :] + weft.number[:, None]) & 1).astype(bool)

    def choose(of_warp: Layer, of_weft: Layer) -> Layer:
        return np.where(over, of_warp, of_weft)

    def across(roving: _Rovings) -> tuple[Layer, Layer, Layer]:
        place = roving.place
        return 0.10 * place**4, 0.35 * place**6, -_CRIMP * np.sin(0.5 * np.pi * place)

    pinch_x, dive_x, slope_x = across(warp)
    pinch_y, dive_y, slope_y = across(weft)
    edge = choose(warp.edge[None, :] + pinch_y[:, None], weft.edge[:, None] + pinch_x[None, :])
    round_x, round_y = 0.22 * warp.edge**4, 0.22 * weft.edge**4
    shade = choose(
        warp.level[None, :] - round_x[None, :] - dive_y[:, None],
        weft.level[:, None] - round_y[:, None] - dive_x[None, :],
    )
    fibre = choose(_fibres(rng, height, width), _fibres(rng, width, height).T)
    slope = choose(
        np.broadcast_to(slope_y[:, None], over.shape),
        np.broadcast_to(slope_x[None, :], over.shape),
    )
    covered = np.clip((1.0 - edge) * 9.0, 0.0, 1.0)
    shade *= 1.0 + 0.10 * fibre
    layers = np.empty((height, width, 4), np.uint8)
    layers[..., ALBEDO] = np.clip(OPAQUE + 12 + covered * (94.0 * shade - 12), OPAQUE, 255)
    slope += 0.10 * np.roll(fibre, (37, 53), (0, 1))
    layers[..., TILT] = np.clip(128.0 + TILT_SCALE * slope, 0, 255)
    # the few fibres that lie bare of size mirror much more strongly than the rest
    bare = np.clip(fibre - 2.0, 0.0, 1.0)
    layers[..., GLOSS] = covered * np.clip(62.0 + 14.0 * fibre + 70.0 * bare, 0, 255)
    layers[..., ALONG] = np.where(over, np.uint8(0), np.uint8(255))
    layers = _disturb(rng, layers)
    _fray(rng, layers)
    return Cloth(layers, np.zeros((height, width), np.uint8), width_mm, height_mm)


def look(layers: Bytes, half_x: float, half_y: float) -> Layer:
    """Shade `layers` in even light whose mirror direction slopes by (half_x, half_y)."""
    along = layers[..., ALONG] * np.float32(1 / 255)
    slope = (layers[..., TILT].astype(np.float32) - 128) * np.float32(1 / TILT_SCALE)
    slope += half_y + along * (half_x - half_y)
    mirrored = layers[..., GLOSS] * np.exp(-np.square(slope / LOBE))
    return np.asarray(layers[..., ALBEDO] + mirrored, np.float32)


def table(rng: np.random.Generator, size: int) -> Bytes:
    """Draw a dark table top at 2 pixels per millimetre, to be continued by reflection."""
    grain = smooth(rng, size, size, 96) * 5 + smooth(rng, size, size, 400) * 3
    brushed = cv2.resize(
        rng.standard_normal((size, 24)).astype(np.float32),
        (size, size),
        interpolation=cv2.INTER_LINEAR,
    )
    top = np.clip(34 + grain + 3.0 * brushed, 12, 80)
    for _ in range(60):  # scratches from use
        start = rng.uniform(0, size, 2)
        end = start + rng.normal(0, 60, 2)
        cv2.line(top, _point(start), _point(end), float(rng.uniform(30, 60)), 1, cv2.LINE_AA)
    return top.astype(np.uint8)


def smooth(rng: np.random.Generator, height: int, width: int, knots: int) -> Layer:
    """Smooth noise of about unit deviation with `knots` over the longer side."""
    step = max(height, width) / knots
    rows, columns = max(2, round(height / step)), max(2, round(width / step))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(
        np.float32, copy=False
    )


def _point(place: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))


def _rovings(rng: np.random.Generator, length: int) -> _Rovings:
    count = int(length / PX_PER_MM / PITCH_MM) + 3
    bounds = np.cumsum(PITCH_MM * (1 + rng.normal(0, 0.035, count)))
    bounds += rng.uniform(-2, -1) * PITCH_MM - bounds[0]
    x = np.arange(length) / PX_PER_MM
    number = np.searchsorted(bounds, x)
    low, high = bounds[number - 1], bounds[np.minimum(number, count - 1)]
    place = (2 * (x - low) / np.maximum(high - low, 1e-6) - 1).clip(-1, 1).astype(np.float32)
    width = rng.normal(0.93, 0.02, count + 1)[number].clip(0.86, 0.985)
    level = rng.normal(1.0, 0.035, count + 1)[number]
    edge = (np.abs(place) / width).astype(np.float32)
    return _Rovings(number + int(rng.integers(2)), place, edge, level.astype(np.float32))


def _fibres(rng: np.random.Generator, length: int, across: int) -> Layer:
    """Streaks along the first axis: fine ones, and bundles of three."""
    fine = rng.standard_normal((max(2, length // 110), across)).astype(np.float32)
    coarse = rng.standard_normal((max(2, length // 200), across // 4)).astype(np.float32)
    streaks = cv2.resize(fine, (across, length), interpolation=cv2.INTER_LINEAR)
    streaks = 0.8 * streaks + 0.7 * cv2.resize(
        coarse, (across, length), interpolation=cv2.INTER_LINEAR
    )
    return streaks.astype(np.float32, copy=False)


def _disturb(rng: np.random.Generator, layers: Bytes) -> Bytes:
    """Let the rovings wander, each a little by itself and all of them together."""
    height, width = layers.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for target in (x, y):
        target += 0.9 * PX_PER_MM * 0.5 * smooth(rng, height, width, 5)
        target += 0.10 * PX_PER_MM * smooth(rng, height, width, 40)
    disturbed = cv2.remap(layers, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    # the sheet drapes: it mirrors differently from place to place
    drape = TILT_SCALE * 0.07 * smooth(rng, height, width, 6)
    disturbed[..., TILT] = np.clip(disturbed[..., TILT] + drape, 0, 255)
    stain = 1.0 + 0.05 * smooth(rng, height, width, 9)
    disturbed[..., ALBEDO] = np.clip(disturbed[..., ALBEDO] * stain, OPAQUE, 255)
    return disturbed.astype(np.uint8, copy=False)


def _fray(rng: np.random.Generator, layers: Bytes) -> None:
    """Cut the sheet's four edges as shears do, with some fibres longer than others."""
    height, width = layers.shape[:2]
    margin = MARGIN_MM * PX_PER_MM
    for side in range(4):
        length = width if side % 2 else height
        depth = margin * (1 + 0.15 * smooth(rng, 1, length, 8)[0])
        depth -= 0.12 * margin * np.abs(rng.standard_normal(length))
        band = round(2 * margin)
        strip = np.rot90(layers, side)[:, :band]
        strip[np.arange(band)[None, :] < depth[:, None]] = 0
