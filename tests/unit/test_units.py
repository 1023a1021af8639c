"""Images become the units that the line judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.errors import DatasetError
from station.evaluate.examples import Example, read_test
from station.evaluate.units import Unit, check_complete, group_sheets
from station.recipe import Recipe, load_recipe
from station.sheet_score import ShotScore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(ROOT, "glassfiber").recipe  # the lowest shot of the highest setup


def sheets(root: Path, *names: str) -> list[Example]:
    for name in names:
        (root / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "test" / name).write_bytes(b"-")
    return read_test(root)


def test_a_sheet_gets_the_score_that_the_line_would_give_it(tmp_path: Path, recipe: Recipe) -> None:
    examples = sheets(
        tmp_path,
        "good/s-1-1_left_1.png",
        "good/s-1-1_left_2.png",
        "nut/s-1-1_right_1.png",
        "nut/s-1-1_right_2.png",
        "good/s-1-2_left_1.png",
    )
    # The one defective picture makes sheet 1 defective; its good pictures count for its score.
    scores = {"left_1": 0.9, "left_2": 0.1, "right_1": 0.4, "right_2": 0.6}
    given = [ShotScore(e.setup, scores[e.file.stem.partition("_")[2]]) for e in examples]
    lowest = recipe.model_copy(update={"setup_score": "lowest"})
    assert group_sheets(examples, given, lowest) == [
        Unit("s-1-1", defective=True, score=0.4),
        Unit("s-1-2", defective=False, score=0.9),
    ]
    highest = recipe.model_copy(update={"setup_score": "highest"})
    assert group_sheets(examples, given, highest)[0].score == 0.9


def test_a_sheet_that_lacks_a_picture_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    setups = ("left-front", "left-back", "right-back", "right-front")
    names = [f"good/s-1-7_{setup}_{shot}.png" for setup in setups for shot in (1, 2, 3)]
    examples = sheets(tmp_path, *names)
    check_complete(examples, recipe.shots_per_sheet)
    with pytest.raises(DatasetError, match=r"sheet s-1-7 has 11 pictures, the recipe takes 12"):
        check_complete(examples[1:], recipe.shots_per_sheet)
