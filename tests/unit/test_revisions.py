"""A change of the threshold keeps the recipe's comments, its old text and who answers for it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from station.errors import ConfigError, DatasetError
from station.recipe import list_recipes, load_recipe
from station.revisions import (
    Author,
    Basis,
    revision_path,
    revisions,
    set_threshold,
)

ROOT = Path(__file__).parents[2]
AUTHOR = Author("M. Weaver", "twelve more nuts")
SHIPPED = load_recipe(ROOT, "glassfiber").recipe.threshold or 0.0
BASIS = Basis(
    model="glassfiber/1",
    model_sha256="1" * 64,
    policy="zero-escape",
    data="data/glassfiber",
    split="select",
    digest="2" * 64,
    files=240,
    unit="sheet",
    good=12,
    defective=8,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path


def path(workspace: Path, name: str = "glassfiber") -> Path:
    return workspace / "recipes" / f"{name}.yaml"


def test_only_the_threshold_changes_and_comments_stay(workspace: Path) -> None:
    before = path(workspace).read_text()
    set_threshold(workspace, "glassfiber", 0.1395, AUTHOR, BASIS)
    after = path(workspace).read_text()
    assert load_recipe(workspace, "glassfiber").recipe.threshold == 0.1395
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == 1
    assert changed[0][1].startswith("threshold: 0.1395 ")
    assert changed[0][1].endswith("1 a typical synthetic defect")


def test_the_revision_keeps_the_old_text_and_says_who_when_why_and_on_what(
    workspace: Path,
) -> None:
    before = path(workspace).read_text()
    sha256 = load_recipe(workspace, "glassfiber").sha256
    set_threshold(workspace, "glassfiber", 0.1395, AUTHOR, BASIS)
    (kept,) = revisions(workspace, "glassfiber")
    assert kept.before == before
    assert (kept.before_sha256, kept.number) == (sha256, 1)
    assert kept.after_sha256 == load_recipe(workspace, "glassfiber").sha256
    assert (kept.who, kept.why) == ("M. Weaver", "twelve more nuts")
    assert (kept.change.before, kept.change.after) == (SHIPPED, 0.1395)
    assert kept.basis == BASIS
    assert timedelta(0) <= datetime.now(UTC) - kept.when < timedelta(minutes=1)


def test_the_same_threshold_again_writes_nothing(workspace: Path) -> None:
    assert set_threshold(workspace, "glassfiber", SHIPPED, AUTHOR, BASIS) is None
    assert revisions(workspace, "glassfiber") == []
    set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS)
    assert set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS) is None
    assert len(revisions(workspace, "glassfiber")) == 1


def test_revisions_count_up_and_are_never_replaced(workspace: Path) -> None:
    for number, threshold in enumerate((0.2, 0.3, 0.2), start=1):
        made = set_threshold(workspace, "glassfiber", threshold, AUTHOR, BASIS)
        assert made is not None
        assert made.number == number
    found = revisions(workspace, "glassfiber")
    assert [r.change.before for r in found] == [SHIPPED, 0.2, 0.3]
    assert [a.after_sha256 for a in found[:-1]] == [b.before_sha256 for b in found[1:]]


def test_a_recipe_without_a_threshold_gets_one(workspace: Path) -> None:
    made = set_threshold(workspace, "photograph", 0.05, AUTHOR, BASIS)
    assert made is not None
    assert made.change.before is None
    assert load_recipe(workspace, "photograph").recipe.threshold == 0.05
    assert sorted(list_recipes(workspace)) == ["glassfiber", "photograph", "soak"]


@pytest.mark.parametrize(
    "author", [Author("", "why"), Author("who", "  "), Author("who", "two\nlines")]
)
def test_nobody_changes_a_recipe_namelessly_or_without_a_reason(
    workspace: Path, author: Author
) -> None:
    before = path(workspace).read_text()
    with pytest.raises(ConfigError, match=r"--wh[oy]: one line"):
        set_threshold(workspace, "glassfiber", 0.2, author, BASIS)
    assert path(workspace).read_text() == before
    assert revisions(workspace, "glassfiber") == []


def test_a_recipe_that_cannot_be_written_leaves_no_revision(workspace: Path) -> None:
    before = path(workspace).read_text()
    # The recipe is written through this name, which is taken by a folder.
    (workspace / "recipes" / ".glassfiber.yaml.tmp").mkdir()
    with pytest.raises(DatasetError, match=r"glassfiber\.yaml"):
        set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS)
    assert path(workspace).read_text() == before
    assert list(revision_path(workspace, "glassfiber", 1).parent.iterdir()) == []


def test_revisions_that_cannot_be_kept_leave_the_recipe_alone(workspace: Path) -> None:
    before = path(workspace).read_text()
    (workspace / "recipes" / ".revisions").write_text("a file, not a folder")
    with pytest.raises(DatasetError, match=r"1\.yaml"):
        set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS)
    assert path(workspace).read_text() == before


def test_a_damaged_revision_is_named(workspace: Path) -> None:
    set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS)
    revision_path(workspace, "glassfiber", 1).write_text("who: nobody\n")
    with pytest.raises(ConfigError, match=r"1\.yaml"):
        revisions(workspace, "glassfiber")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    comment=st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\ufeff")),
    ending=st.sampled_from(["", "\n", "\n\n", "\n# end", "\n  # end  \n"]),
)
def test_any_text_is_kept_to_the_last_character(workspace: Path, comment: str, ending: str) -> None:
    shutil.rmtree(workspace / "recipes" / ".revisions", ignore_errors=True)
    text = (ROOT / "recipes" / "glassfiber.yaml").read_text().rstrip("\n")
    text = f"# {comment}\n{text}{ending}"
    path(workspace).write_text(text)
    set_threshold(workspace, "glassfiber", 0.2, AUTHOR, BASIS)
    assert revisions(workspace, "glassfiber")[0].before == text
