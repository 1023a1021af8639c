"""What goes wrong with the cloth itself, and what may be unusual about it without harm."""

from __future__ import annotations

import cv2
import numpy as np

from station.sim.paint import Matter, Spot, box, choose_spot, cover, inside, relight, spot_at
from station.sim.weave import (
    ALBEDO,
    ALONG,
    MARGIN_MM,
    PITCH_MM,
    PX_PER_MM,
    TILT,
    TILT_SCALE,
    Bytes,
    Cloth,
    Layer,
    smooth,
)

# ---------------------------------------------------------------- folds


def pleat(rng: np.random.Generator, cloth: Cloth) -> None:
    """Double the cloth along a line: the weave jumps, the crest shines, beside it is shadow."""
    length, width = float(rng.uniform(8, 90)), float(rng.uniform(3.0, 8.0))
    spot = choose_spot(rng, cloth, length, width + 2)
    taper = np.sqrt(np.clip(1 - np.square(spot.p / np.float32(length / 2)), 0, 1))
    half = np.float32(width / 2) * np.sqrt(taper)
    # beyond its ends the pleat has no width, but a line through its middle would remain
    share = inside((np.abs(spot.q) - half).astype(np.float32)) * (taper > 0)
    # the upper ply comes from two widths further on, and not quite parallel
    turn = np.float32(np.radians(rng.uniform(-7, 7)))
    _move(spot, share, -turn * spot.q, 2 * half * float(rng.choice([-1, 1])) + turn * spot.p)
    across = np.clip(spot.q / np.maximum(half, np.float32(1e-3)), -1, 1)
    lift = float(rng.uniform(0.35, 0.8)) * across**5
    cosine = np.float32(np.cos(spot.angle) - np.sin(spot.angle))
    tilt = spot.layers[..., TILT]
    tilt[:] = np.clip(tilt + share * TILT_SCALE * lift * cosine, 0, 255).astype(np.uint8)
    nearer = float(rng.uniform(0.05, 0.35))
    relight(spot, 1 + share * nearer * (1 - 1.6 * np.clip(across, 0, 1) ** 4))
    beside = np.maximum(spot.q - half, 0) / np.float32(rng.uniform(0.7, 1.6))
    depth = float(rng.uniform(0.45, 0.75))
    dark = np.where(spot.q > 0, np.exp(-np.square(beside)), 0) * (taper > 0.02) * (1 - share)
    relight(spot, 1 - depth * dark)
    spot.mask[(share >= 0.5) | (dark > 0.35)] = 255


def corner(rng: np.random.Generator, cloth: Cloth) -> None:
    """Turn a corner over: table where it lay, the cloth's back mirrored beside it."""
    depth = float(rng.uniform(12, 30))
    right, low = bool(rng.integers(2)), bool(rng.integers(2))
    place = (cloth.width_mm if right else 0.0, cloth.height_mm if low else 0.0)
    sign_u, sign_v = (-1 if right else 1), (-1 if low else 1)
    inward = float(np.arctan2(sign_v, sign_u) + np.radians(rng.uniform(-15, 15)))
    reach = 3.2 * depth
    spot = spot_at(cloth, place, inward, (reach, reach))
    beyond = spot.p - np.float32(depth)  # below zero lies what was turned over
    # a place on the flap shows the cloth that was at its mirror image
    u, v = _unturn(spot._replace(p=np.float32(2 * depth) - spot.p))
    flap = np.minimum(beyond, np.minimum(sign_u * u, sign_v * v))
    share = inside(-flap)
    _move(spot, share, np.float32(2 * depth) - 2 * spot.p, np.zeros_like(spot.p))
    along = spot.layers[..., ALONG]
    along[share > 0.5] = 255 - along[share > 0.5]
    relight(spot, 1 + share * float(rng.uniform(-0.08, 0.10)))
    shade = np.exp(-np.square(np.maximum(-flap, 0) / 0.6)) * (1 - share) * (beyond > 0)
    relight(spot, 1 - 0.5 * shade)
    here = spot.layers[..., ALBEDO] > 0
    spot.mask[((share >= 0.5) | (beyond < 0) | (shade > 0.35)) & here] = 255
    spot.layers[beyond < 0] = 0


# ---------------------------------------------------------------- faults of the weave


def missing(rng: np.random.Generator, cloth: Cloth) -> None:
    """Take a length of one roving out: its neighbours below lie open, in shadow."""
    spot, length, width, upright = _one_roving(rng, cloth, float(rng.uniform(5, 70)))
    share = inside(box(spot.p, spot.q, length / 2, width / 2, 0.4))
    over = spot.layers[..., ALONG] == (0 if upright else 255)
    # the crossing rovings no longer dive: their crowns, stretched, run through
    step = over * np.float32(PITCH_MM * float(rng.choice([-1, 1]))) - np.float32(0.6) * spot.q
    _move(spot, share, np.zeros_like(spot.p), step)
    relight(spot, 1 - float(rng.uniform(0.20, 0.5)) * share)
    rim = np.exp(-np.square((np.abs(spot.q) - np.float32(width / 2)) / 0.35)) * (share > 0)
    relight(spot, 1 - 0.35 * rim)
    spot.mask[share >= 0.5] = 255


def pulled(rng: np.random.Generator, cloth: Cloth) -> None:
    """Pull a roving aside: the weave bends, and a slit opens behind it."""
    spot, length, _, _ = _one_roving(rng, cloth, float(rng.uniform(12, 60)))
    way = float(rng.choice([-1, 1]))
    bow = np.clip(np.cos(spot.p * np.float32(np.pi / length)), 0, 1)
    pull = float(rng.uniform(1.8, 3.5)) * bow * (np.abs(spot.p) < length / 2)
    near = np.clip(1 - np.square(spot.q / np.float32(1.25 * PITCH_MM)), 0, 1)
    push = way * pull * near**2
    _move(spot, np.ones_like(push), np.zeros_like(push), -push)
    slit = np.abs(spot.q + np.float32(way * 0.35 * PITCH_MM)) - np.float32(0.55) * pull
    share = inside(slit.astype(np.float32)) * (pull > 0.3)
    relight(spot, 1 - float(rng.uniform(0.55, 0.9)) * share)
    spot.mask[(np.abs(push) > 0.15) | (share >= 0.5)] = 255


def hole(rng: np.random.Generator, cloth: Cloth) -> None:
    """Push rovings apart until the table shows."""
    wide = float(rng.uniform(4, 11))
    high = wide * float(rng.uniform(0.6, 1.0))
    spot = choose_spot(rng, cloth, 2.2 * wide, 2.2 * high)
    radius = np.hypot(spot.p / np.float32(wide / 2), spot.q / np.float32(high / 2))
    # what was at half the distance is pressed into a ring around the hole
    inner = np.clip((2.0 - radius) / 2.0, 0, 1) * np.float32(0.55)
    _move(spot, np.ones_like(radius), -inner * spot.p, -inner * spot.q)
    ragged = radius * (1 + 0.10 * smooth(rng, radius.shape[0], radius.shape[1], 14))
    share = np.clip((1 - ragged) * 5, 0, 1).astype(np.float32)
    relight(spot, 1 - float(rng.uniform(0.6, 0.9)) * share)
    spot.mask[(inner * np.hypot(spot.p, spot.q) > 0.15) | (share >= 0.3)] = 255


def _one_roving(
    rng: np.random.Generator, cloth: Cloth, length: float
) -> tuple[Spot, float, float, bool]:
    """Choose a roving and the part of it; return also its width and whether it runs upright."""
    upright = bool(rng.integers(2))
    edge, half = 10.0, length / 2 + 10.0
    margin_x, margin_y = (edge, half) if upright else (half, edge)
    x = float(rng.uniform(margin_x, cloth.width_mm - margin_x))
    y = float(rng.uniform(margin_y, cloth.height_mm - margin_y))
    column, row = round((x + MARGIN_MM) * PX_PER_MM), round((y + MARGIN_MM) * PX_PER_MM)
    line = cloth.layers[row, :, ALONG] if upright else cloth.layers[:, column, ALONG]
    # where over turns to under, the roving ends
    changes = np.flatnonzero(np.diff((line > 127).astype(np.int8)))
    after = int(np.searchsorted(changes, column if upright else row))
    low, high = changes[max(after - 1, 0)], changes[min(after, len(changes) - 1)]
    width = float(np.clip((high - low) / PX_PER_MM, 0.7 * PITCH_MM, 1.2 * PITCH_MM))
    centre = float(low + high + 1) / 2 / PX_PER_MM - MARGIN_MM
    place = (centre, y) if upright else (x, centre)
    across, lengthwise = 3 * PITCH_MM, length / 2 + 3
    half_mm = (across, lengthwise) if upright else (lengthwise, across)
    angle = float(np.pi / 2) if upright else 0.0
    return spot_at(cloth, place, angle, half_mm), length, width, upright


# ---------------------------------------------------------------- harmless


def glints(rng: np.random.Generator, cloth: Cloth) -> None:
    """Let some fibre ends flash where they happen to mirror the lamp."""
    for _ in range(int(rng.integers(4, 14))):
        length = float(rng.uniform(0.4, 1.4))
        spot = choose_spot(rng, cloth, length, 0.5)
        share = inside(box(spot.p, spot.q, length / 2, float(rng.uniform(0.06, 0.14))))
        cover(spot, share, Matter(110.0, float(rng.uniform(-0.5, 0.0)), 220.0))


def stray_fibres(rng: np.random.Generator, cloth: Cloth) -> None:
    """Lay a few loose filaments on the sheet."""
    for _ in range(int(rng.integers(1, 5))):
        length = float(rng.uniform(8, 35))
        spot = choose_spot(rng, cloth, length, 6.0)
        bend = float(rng.uniform(-2.5, 2.5)) * np.square(spot.p / np.float32(length / 2))
        wave = float(rng.uniform(0, 0.6)) * np.sin(spot.p * np.float32(rng.uniform(0.2, 0.7)))
        shape = box(spot.p, spot.q - bend - wave, length / 2, float(rng.uniform(0.06, 0.11)))
        share = inside(shape) * np.float32(rng.uniform(0.5, 0.9))
        cover(spot, share, Matter(135.0, -0.2, 60.0))


def crease(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave the mark of an old, smoothed crease: a slope of a few hundredths."""
    length, width = float(rng.uniform(30, 120)), float(rng.uniform(4, 9))
    spot = choose_spot(rng, cloth, length, width)
    ends = np.clip(1 - np.square(spot.p / np.float32(length / 2)), 0, 1)
    across = spot.q / np.float32(width / 2)
    bump = ends * across * np.exp(-np.square(across)) * float(rng.uniform(0.08, 0.18))
    tilt = spot.layers[..., TILT]
    tilt[:] = np.clip(tilt + TILT_SCALE * bump, 0, 255).astype(np.uint8)
    relight(spot, 1 + 0.35 * bump)


# ---------------------------------------------------------------- moving cloth


def _unturn(spot: Spot) -> tuple[Layer, Layer]:
    """Return the object's millimetres in the sheet's directions."""
    c, s = np.float32(np.cos(spot.angle)), np.float32(np.sin(spot.angle))
    return c * spot.p - s * spot.q, s * spot.p + c * spot.q


def _move(spot: Spot, share: Layer, by_p: Layer, by_q: Layer) -> None:
    """Show, where `share` says so, the cloth that lies `by_p` and `by_q` further on."""
    dx, dy = _unturn(spot._replace(p=by_p, q=by_q))
    rows, columns = spot.mask.shape
    x = np.arange(columns, dtype=np.float32)[None, :] + dx * np.float32(PX_PER_MM)
    y = np.arange(rows, dtype=np.float32)[:, None] + dy * np.float32(PX_PER_MM)
    source: Bytes = spot.layers.copy()
    moved = cv2.remap(
        source,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.float32)
    mixed = source + share[..., None] * (moved - source)
    spot.layers[:] = np.where(share[..., None] > 0, mixed, source).astype(np.uint8)
