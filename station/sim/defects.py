"""What may be wrong with a sheet or only unusual about it, drawn with its exact mask."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from station.sim import flaws, objects
from station.sim.weave import PX_PER_MM, Bytes, Cloth, Layer, look

Draw = Callable[[np.random.Generator, Cloth], None]

KINDS: dict[str, tuple[Draw, ...]] = {
    "screwdriver": (objects.screwdriver,),
    "nut": (objects.nut,),
    "metal_part": (objects.washer, objects.plate, objects.screw),
    "fold": (flaws.pleat, flaws.pleat, flaws.pleat, flaws.corner),
    "weave": (flaws.missing, flaws.pulled, flaws.hole),
}
HARMLESS: tuple[Draw, ...] = (flaws.glints, flaws.stray_fibres, flaws.crease)

FAINTEST = 1.5  # a defect's contrast over the local noise is never less
DRAWS = 60  # of one form of a kind, before another form is tried
FORMS = 10
VARIED = 1 / 3  # share of sheets with something harmless on them

_HALVES = (
    (0.05, 0.10),
    (0.17, 0.24),
    (0.30, 0.38),
)  # slopes that mirror the lamp, over the sheet


def spoil(kind: str, rng: np.random.Generator, cloth: Cloth) -> None:
    """Give the cloth one defect of `kind`, visible by at least `FAINTEST`."""
    before = cloth.layers.copy()
    for _ in range(FORMS):
        draw = KINDS[kind][int(rng.integers(len(KINDS[kind])))]
        for _ in range(DRAWS):
            draw(rng, cloth)
            if contrast(before, cloth) >= FAINTEST:
                return
            cloth.layers[:] = before
            cloth.mask[:] = 0
    raise RuntimeError(f"{kind}: {FORMS * DRAWS} draws were too faint")


def contrast(before: Bytes, cloth: Cloth) -> float:
    """Change inside the mask over the cloth's own unrest around it, at half a millimetre."""
    across, down = np.flatnonzero(cloth.mask.any(axis=0)), np.flatnonzero(cloth.mask.any(axis=1))
    if not across.size:
        return 0.0
    pad = round(10 * PX_PER_MM)
    # every second pixel is enough, and four times faster
    rows = slice(max(int(down[0]) - pad, 0), int(down[-1]) + pad, 2)
    columns = slice(max(int(across[0]) - pad, 0), int(across[-1]) + pad, 2)
    clean, spoilt = before[rows, columns], cloth.layers[rows, columns]
    mask = _half_mm(cloth.mask[rows, columns].astype(np.float32)) > 127
    if not mask.any():
        return 0.0
    worst = np.inf
    for slope in _HALVES:
        seen = _half_mm(look(clean, *slope))
        change = (_half_mm(look(spoilt, *slope)) - seen)[mask]
        worst = min(worst, float(np.sqrt(np.mean(change**2)) / seen.std()))
    return worst


def _half_mm(image: Layer) -> Layer:
    """Shrink what has `PX_PER_MM / 2` to 2 pixels per millimetre."""
    height, width = image.shape
    size = (max(1, round(width * 4 / PX_PER_MM)), max(1, round(height * 4 / PX_PER_MM)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def vary(rng: np.random.Generator, cloth: Cloth) -> None:
    """Put something harmless on a third of all sheets."""
    if rng.uniform() >= VARIED:
        return
    for draw in rng.permutation(len(HARMLESS))[: 1 + int(rng.uniform() < 0.4)]:
        HARMLESS[int(draw)](rng, cloth)
    cloth.mask[:] = 0
