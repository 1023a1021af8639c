"""Pixel metrics against their published definitions, and cases whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from station.evaluate import region_metrics
from station.evaluate.metrics import draw_units, image_auroc
from station.evaluate.region_metrics import (
    FPR_LIMIT,
    OVERLAP_FPR,
    LabelledMap,
    PixelMetrics,
    area_right_of,
    measure,
)

Mask = NDArray[np.bool_]


def measured(maps: list[LabelledMap]) -> PixelMetrics:
    units = [str(i) for i in range(len(maps))]
    labels = ["good" if mask is None or not mask.any() else "defect" for _, mask in maps]
    found = measure(maps, units, labels)
    assert found is not None
    return found


def regions_of(mask: Mask) -> list[Mask]:
    """Flood each region through all eight neighbours."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        region, border = np.zeros_like(mask), [left.pop()]
        while border:
            y, x = border.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy, dx in itertools.product((-1, 0, 1), repeat=2)} & left
            left -= near
            border += near
        regions.append(region)
    return regions


def curve(maps: list[LabelledMap], *, by_region: bool) -> tuple[list[float], list[float]]:
    """Write the definition out: every threshold, false positives against mean overlap."""
    solid = [(m, np.zeros(m.shape, bool) if mask is None else mask) for m, mask in maps]
    total = sum(int((~mask).sum()) for _, mask in solid)
    parts = [
        (m, region) for m, mask in solid for region in (regions_of(mask) if by_region else [mask])
    ]
    x, y = [0.0], [0.0]
    for threshold in sorted({float(v) for m, _ in solid for v in m.ravel()}, reverse=True):
        x.append(sum(int((m[~mask] >= threshold).sum()) for m, mask in solid) / total)
        found = [int((m[part] >= threshold).sum()) for m, part in parts]
        sizes = [int(part.sum()) for _, part in parts]
        if by_region:
            y.append(float(np.mean([n / size for n, size in zip(found, sizes, strict=True)])))
        else:
            y.append(sum(found) / sum(sizes))
    return x, y


def area_up_to(x: list[float], y: list[float], limit: float) -> float:
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(zip(x, y, strict=True)):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def random_maps(seed: int, levels: int) -> list[LabelledMap]:
    rng = np.random.default_rng(seed)
    maps: list[LabelledMap] = []
    for number in range(4):
        shape = int(rng.integers(5, 9)), int(rng.integers(5, 9))
        values = rng.integers(0, levels, shape).astype(np.float32)
        mask = rng.random(shape) < 0.25
        mask[0, 0] = True
        maps.append((values + 2 * mask.astype(np.float32), mask) if number else (values, None))
    return maps


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_au_pro_is_the_area_under_the_published_curve(seed: int, levels: int) -> None:
    maps = random_maps(seed, levels)
    expected = area_up_to(*curve(maps, by_region=True), FPR_LIMIT)
    assert measured(maps).au_pro.value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_pixel_auroc_is_the_rank_statistic_of_all_pixels(seed: int, levels: int) -> None:
    maps = random_maps(seed, levels)
    good = np.concatenate([m.ravel() if mask is None else m[~mask] for m, mask in maps])
    bad = np.concatenate([m[mask] for m, mask in maps if mask is not None])
    found = measured(maps).pixel_auroc
    assert found.value == pytest.approx(image_auroc(good, bad))
    assert found.value == pytest.approx(area_up_to(*curve(maps, by_region=False), 1.0))


@pytest.mark.parametrize("seed", range(8))
def test_region_table_is_what_counting_by_hand_gives(seed: int) -> None:
    maps = random_maps(seed, 40)
    good = np.concatenate([m.ravel() if mask is None else m[~mask] for m, mask in maps])
    expected = []
    for image, (values, mask) in enumerate(maps):
        for region in [] if mask is None else regions_of(mask):
            pixels = values[region]
            found = [np.mean(good >= v) <= OVERLAP_FPR for v in pixels]
            expected.append((image, len(pixels), float(pixels.max()), float(np.mean(found))))
    table = measured(maps).regions
    assert sorted((r.image, r.area_px, r.highest_score, r.overlap) for r in table) == sorted(
        expected
    )
    assert np.mean([r.au_pro for r in table]) == pytest.approx(measured(maps).au_pro.value)


def square(size: int = 20) -> Mask:
    mask = np.zeros((size, size), bool)
    mask[2:6, 2:6] = True
    mask[10:12, 14:15] = True
    return mask


def test_perfect_map_has_one() -> None:
    mask = square()
    found = measured([(mask.astype(np.float32), mask)])
    assert (found.au_pro.value, found.pixel_auroc.value) == (1.0, 1.0)


def test_inverted_map_has_nothing() -> None:
    mask = square()
    found = measured([((~mask).astype(np.float32), mask)])
    assert (found.au_pro.value, found.pixel_auroc.value) == (0.0, 0.0)


def test_constant_map_is_a_straight_line() -> None:
    mask = square()
    found = measured([(np.full(mask.shape, 0.4, np.float32), mask)])
    assert found.pixel_auroc.value == pytest.approx(0.5)
    # The line from (0, 0) to (1, 1) up to 0.3, divided by 0.3.
    assert found.au_pro.value == pytest.approx(0.15)


def test_large_and_small_region_weigh_the_same() -> None:
    mask = square()
    values = np.zeros(mask.shape, np.float32)
    values[2:6, 2:6] = 1.0  # the large one found, the small one like the background
    found = measured([(values, mask)])
    assert found.au_pro.value == pytest.approx((1 + 0.15) / 2)
    assert found.pixel_auroc.value == pytest.approx((16 * 1 + 2 * 0.5) / 18)
    assert [r.area_px for r in found.regions] == [16, 2]


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = np.eye(6, dtype=bool)
    assert len(measured([(mask.astype(np.float32), mask)]).regions) == 1


def test_area_stops_within_a_tie() -> None:
    right, tied = np.array([0.2]), np.array([0.4])
    # A line rising from 0 at 0.2 to 1 at 0.6 has risen to 1/4 at 0.3.
    assert area_right_of(right, tied, 0.3)[0] == pytest.approx(0.1 * 0.25 / 2 / 0.3)


def test_good_pixels_in_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = random_maps(1, 5)
    whole = measured(maps)
    monkeypatch.setattr(region_metrics, "PORTION", 10)
    assert measured(maps) == whole


def test_bootstrap_gives_what_resampling_by_hand_gives() -> None:
    maps = random_maps(2, 30) + random_maps(3, 30)
    spoilt = np.array([mask is not None for _, mask in maps])
    units = [str(i) for i in range(len(maps))]
    values = []
    for counts in draw_units(units, spoilt, seed=0)[:60].astype(int):
        chosen = [maps[i] for i in np.repeat(np.arange(len(maps)), counts)]
        values.append(measured(chosen).au_pro.value)
    low, high = np.percentile(values, [2.5, 97.5])
    found = measured(maps).au_pro
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_few_thresholds_are_enough_for_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [m for seed in range(6) for m in random_maps(seed, 1000)]
    every = measured(maps)
    monkeypatch.setattr(region_metrics, "GRID", 64)
    few = measured(maps)
    assert few.au_pro.value == every.au_pro.value
    assert few.au_pro.low == pytest.approx(every.au_pro.low, abs=0.02)
    assert few.pixel_auroc.high == pytest.approx(every.pixel_auroc.high, abs=0.02)


def test_each_label_has_its_own_figures() -> None:
    mask = square()
    maps: list[LabelledMap] = [
        (mask.astype(np.float32), mask),
        ((~mask).astype(np.float32), mask),
    ]
    found = measure(maps, ["a", "b"], ["bright", "dark"])
    assert found is not None
    assert found.by_label["bright"][1].value > 0.2
    assert found.by_label["dark"][1].value < 0.1


def test_nothing_to_compare_has_no_figures() -> None:
    values = np.zeros((4, 4), np.float32)
    assert measure([(values, None)], ["a"], ["good"]) is None
    assert measure([(values, np.ones((4, 4), bool))], ["a"], ["defect"]) is None
