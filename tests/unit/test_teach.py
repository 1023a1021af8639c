"""Teaching by hand: the arm's place becomes a setup, and the recipe keeps its comments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from arm_double import HOME, ArmDouble

from station.errors import ConfigError
from station.recipe import Recipe, load_recipe
from station.strict import parse
from station.teach import append, entry, entry_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path


def text(workspace: Path) -> str:
    return (workspace / "recipes" / "glassfiber.yaml").read_text(encoding="utf-8")


def test_the_arms_place_is_appended_as_a_setup(workspace: Path) -> None:
    before = load_recipe(workspace, "glassfiber").recipe
    assert append(workspace, "glassfiber", ArmDouble().status(), None) == "setup-5"
    after = load_recipe(workspace, "glassfiber").recipe
    assert after.setups[:4] == before.setups
    assert after.setups[4].pose is not None
    assert after.setups[4].pose.distance_m(HOME) < 2e-5
    assert after.model_copy(update={"setups": before.setups}) == before


def test_every_line_that_stood_there_stays(workspace: Path) -> None:
    before = text(workspace).splitlines()
    append(workspace, "glassfiber", ArmDouble().status(), "centre")
    after = text(workspace).splitlines()
    added = [line for line in after if line not in before]
    assert [line for line in before if line not in after] == []
    assert len(after) == len(before) + 3
    assert added[0] == "  - name: centre"


def test_the_new_setup_stands_with_the_others_and_comments_keep_their_place(
    workspace: Path,
) -> None:
    append(workspace, "glassfiber", ArmDouble().status(), "centre")
    lines = text(workspace).splitlines()
    comment = next(n for n, line in enumerate(lines) if line.startswith("# Three shots"))
    assert lines[comment + 1] == "offsets_m:"
    assert lines.index("  - name: centre") < comment


def test_several_places_can_be_taught_one_after_the_other(workspace: Path) -> None:
    arm = ArmDouble()
    names = [append(workspace, "glassfiber", arm.status(), None) for _ in range(3)]
    assert names == ["setup-5", "setup-6", "setup-7"]


def test_a_name_that_is_taken_is_not_given_again(workspace: Path) -> None:
    append(workspace, "glassfiber", ArmDouble().status(), "setup-6")
    assert append(workspace, "glassfiber", ArmDouble().status(), None) == "setup-7"
    before = text(workspace)
    with pytest.raises(ConfigError, match="already a setup 'left-back'"):
        append(workspace, "glassfiber", ArmDouble().status(), "left-back")
    assert text(workspace) == before


@pytest.mark.parametrize("name", ["Left", "a b", "../x", "a: b", "#", "x" * 41])
def test_a_wrong_name_is_refused_and_the_file_left_alone(workspace: Path, name: str) -> None:
    before = text(workspace)
    with pytest.raises(ConfigError, match="name"):
        append(workspace, "glassfiber", ArmDouble().status(), name)
    assert text(workspace) == before


@pytest.mark.parametrize("name", ["1", "true", "no", "1e3", "null"])
def test_a_name_that_looks_like_something_else_stays_a_name(workspace: Path, name: str) -> None:
    append(workspace, "glassfiber", ArmDouble().status(), name)
    assert load_recipe(workspace, "glassfiber").recipe.setups[4].name == name


def test_a_recipe_that_is_wrong_is_not_edited(workspace: Path) -> None:
    path = workspace / "recipes" / "glassfiber.yaml"
    path.write_text(text(workspace) + "x: 1\n")
    with pytest.raises(ConfigError, match="x: unknown key"):
        append(workspace, "glassfiber", ArmDouble().status(), None)
    assert text(workspace).endswith("x: 1\n")


def test_what_is_printed_can_be_pasted_into_a_recipe(workspace: Path) -> None:
    lines = text(workspace)
    place = lines.index("# Three shots")
    pasted = lines[:place] + entry_text(entry(ArmDouble().status(), "here")) + lines[place:]
    recipe = parse(pasted, Path("a.yaml"), Recipe)
    assert recipe.setups[4].name == "here"


def test_setups_on_one_line_can_be_taught_to_as_well(workspace: Path) -> None:
    path = workspace / "recipes" / "glassfiber.yaml"
    start, end = text(workspace).index("setups:"), text(workspace).index("# Three shots")
    flow = "setups: [{name: a, pose: [0, -0.45, 0.26, 3.14159265, 0, 0]}]\n"
    path.write_text(text(workspace)[:start] + flow + text(workspace)[end:])
    append(workspace, "glassfiber", ArmDouble().status(), "b")
    assert [s.name for s in load_recipe(workspace, "glassfiber").recipe.setups] == ["a", "b"]
