"""Things people leave on a sheet: screwdrivers, nuts, washers, plates, screws."""

from __future__ import annotations

import numpy as np

from station.sim.paint import (
    Matter,
    box,
    choose_spot,
    cover,
    hexagon,
    inside,
    metal,
    relight,
    shadow,
)
from station.sim.weave import Cloth


def screwdriver(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave a screwdriver: steel shaft, plastic grip."""
    shaft, grip = rng.uniform(35, 85), rng.uniform(30, 65)
    blade, handle = rng.uniform(2.0, 5.0), rng.uniform(7.0, 17.0)
    length = shaft + grip
    spot = choose_spot(rng, cloth, length, handle)
    p, q = spot.p + np.float32(length / 2), spot.q
    rod = box(p - np.float32(shaft / 2 + 3), q, shaft / 2, blade / 2, 0.3)
    tip = box(p - np.float32(3), q, 3.0, blade / 2 * rng.uniform(1.0, 1.5), 0.2)
    rod = np.minimum(rod, tip)
    waist = 0.86 + 0.14 * np.cos((p - shaft - grip / 2) / grip * 2 * np.pi * 0.8)
    grips = box(p - np.float32(shaft + grip / 2), q / waist, grip / 2, handle / 2, handle / 4)
    shadow(spot, np.minimum(rod, grips))
    steel = metal(rng, rod, blade / 2)
    cover(spot, inside(rod), steel)
    ribs = np.cos(np.clip(q / (handle / 2), -1, 1) * np.pi * 3.5)
    colour = float(rng.uniform(30, 150))
    round_off = np.sqrt(np.clip(1 - np.square(q / (handle / 2)), 0.05, 1))
    across = (q / (handle / 2) * 0.8).astype(np.float32)
    plastic = Matter(
        colour * (0.55 + 0.45 * round_off) * (1 + 0.08 * ribs),
        across,
        float(rng.uniform(20, 120)) * (0.8 + 0.2 * ribs),
    )
    cover(spot, inside(grips), plastic)


def nut(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave a nut, M3 to M8."""
    flats, hole = ((5.5, 3.0), (7.0, 4.0), (8.0, 5.0), (10.0, 6.0), (13.0, 8.0))[
        int(rng.integers(5))
    ]
    spot = choose_spot(rng, cloth, flats * 1.16, flats * 1.16)
    outer = hexagon(spot.p, spot.q, flats / 2)
    radius = np.hypot(spot.p, spot.q)
    corner = radius - np.float32(flats / 2 * 1.10)
    outer = np.maximum(outer, corner)
    body = np.maximum(outer, np.float32(hole / 2) - radius)
    shadow(spot, outer)
    relight(spot, 1 - float(rng.uniform(0.3, 0.65)) * inside(radius - np.float32(hole / 2)))
    cover(spot, inside(body), metal(rng, body, 0.09 * flats))
    spot.mask[outer <= 0] = 255  # what shows through the hole lies in its shadow


def washer(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave a washer."""
    outer = float(rng.uniform(3.5, 14))
    spot = choose_spot(rng, cloth, outer, outer)
    radius = np.hypot(spot.p, spot.q)
    hole = np.float32(outer * rng.uniform(0.40, 0.55) / 2)
    ring = np.maximum(radius - np.float32(outer / 2), hole - radius)
    shadow(spot, radius - np.float32(outer / 2), 0.25)
    relight(spot, 1 - 0.5 * inside(radius - hole))
    cover(spot, inside(ring), metal(rng, ring, 0.25))
    spot.mask[radius <= outer / 2] = 255


def plate(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave a small plate."""
    length = float(rng.uniform(3, 14))
    width = max(3.0, length * float(rng.uniform(0.35, 1.0)))
    spot = choose_spot(rng, cloth, length, width)
    shape = box(spot.p, spot.q, length / 2, width / 2, 0.3)
    shadow(spot, shape, 0.25)
    cover(spot, inside(shape), metal(rng, shape, 0.3))


def screw(rng: np.random.Generator, cloth: Cloth) -> None:
    """Leave a screw on its side."""
    thread, length = float(rng.uniform(1.8, 4.0)), float(rng.uniform(5, 18))
    head, cap = 1.8 * thread, 0.7 * thread
    spot = choose_spot(rng, cloth, length + cap, head)
    p, q = spot.p + np.float32((length + cap) / 2), spot.q
    wave = np.float32(0.06 * thread) * np.cos(p * np.float32(2 * np.pi / (0.2 * thread + 0.15)))
    rod = box(p - np.float32(cap + length / 2), q + wave, length / 2, thread / 2, 0.25 * thread)
    top = box(p - np.float32(cap / 2), q, cap / 2, head / 2, 0.2 * thread)
    shape = np.minimum(rod, top)
    shadow(spot, shape)
    steel = metal(rng, shape, thread / 2)
    turns = np.where(rod < top, 1 + 0.35 * np.sign(wave), 1.0).astype(np.float32)
    cover(spot, inside(shape), steel._replace(gloss=steel.gloss * turns))
