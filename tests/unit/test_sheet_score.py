"""What the shots of a setup have to agree on."""

from __future__ import annotations

import numpy as np
import pytest

from station.recipe import SheetRule
from station.sheet_score import Map, ShotScore, consensus, sheet_score

WIDTH = 64
SAME_PLACE = 2 / WIDTH  # the camera moved by two cells


def spot(column: int, row: int, value: float) -> Map:
    """Return a map that is high in one cell."""
    found = np.zeros((48, WIDTH), np.float32)
    found[row, column] = value
    return found


def test_what_all_shots_show_at_one_place_counts() -> None:
    maps = [spot(20, 20, 0.75), spot(22, 20, 0.5), spot(20, 18, 1.0)]
    assert consensus(maps, SAME_PLACE) == 0.5


def test_glints_at_different_places_do_not_add_up_to_a_defect() -> None:
    maps = [spot(20, 20, 0.75), spot(30, 20, 0.5), spot(20, 40, 1.0)]
    assert consensus(maps, SAME_PLACE) == 0
    shots = [ShotScore("left", float(m.max()), m) for m in maps]
    assert sheet_score(shots, SheetRule("lowest")) == 0.5
    assert sheet_score(shots, SheetRule("consensus", SAME_PLACE)) == 0


def test_a_defect_at_the_border_is_not_lost() -> None:
    maps = [spot(0, 0, 0.75), spot(0, 2, 0.5), spot(2, 0, 1.0)]
    assert consensus(maps, SAME_PLACE) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_consensus_is_never_above_the_lowest_shot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [rng.standard_normal((30, 40)).astype(np.float16) for _ in range(3)]
    lowest = min(float(m.max()) for m in maps)
    assert consensus(maps, 0.05) <= lowest
    assert consensus(maps, 2.0) == lowest  # a place as wide as the picture


def test_the_sheet_is_as_bad_as_its_worst_setup() -> None:
    rule = SheetRule("consensus", SAME_PLACE)
    good = [ShotScore("left", 0.25, spot(5, 5, 0.25))] * 3
    bad = [ShotScore("right", 0.75, spot(5, 5, 0.75))] * 3
    assert sheet_score([*good, *bad], rule) == 0.75


def test_consensus_without_a_map_is_refused() -> None:
    shots = [ShotScore("left", 0.1, spot(5, 5, 0.1)), ShotScore("left", 0.1)]
    with pytest.raises(ValueError, match="a shot has none"):
        sheet_score(shots, SheetRule("consensus", SAME_PLACE))
