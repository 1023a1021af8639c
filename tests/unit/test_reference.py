"""The reference check as a lock: what opens it, what shuts it, and what cannot be got around."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from production_bench import RECIPE

from station import reference
from station.errors import ConfigError, ProductionLocked
from station.recipe import LoadedRecipe, load_recipe
from station.records.sheet import Verdict
from station.reference import Answer, Basis, Check, Release, why_locked

NOW = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
BASIS = Basis(recipe_sha256="1" * 64, cell_sha256="2" * 64, model_sha256="3" * 64)
KEYS = """reference:
  valid_h: 8
  sheets:
    - {name: good-1, expect: accept}
    - {name: nut, expect: reject}
"""
GOOD = Answer(
    name="good-1", expect="accept", verdict=Verdict.ACCEPT, score=0.1, sheet="s-0001-000001"
)
NUT = Answer(name="nut", expect="reject", verdict=Verdict.REJECT, score=0.9, sheet="s-0001-000002")
ESCAPE = NUT.model_copy(update={"verdict": Verdict.ACCEPT})
PASSED = Check(at=NOW, basis=BASIS, wanted=2, answers=(GOOD, NUT))


def recipe(folder: Path, keys: str = KEYS) -> LoadedRecipe:
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / "two.yaml").write_text(RECIPE + keys)
    return load_recipe(folder, "two")


def locked(folder: Path, keys: str = KEYS, *, hours: float = 1.0, basis: Basis = BASIS) -> str:
    found = why_locked(folder, recipe(folder, keys), basis, NOW + timedelta(hours=hours))
    return "" if found is None else str(found)


def test_a_recipe_without_known_sheets_is_never_locked(tmp_path: Path) -> None:
    assert locked(tmp_path, "") == ""


def test_a_complete_right_and_fresh_check_opens(tmp_path: Path) -> None:
    assert "were not judged yet; next: `station reference --recipe two`" in locked(tmp_path)
    reference.write(tmp_path, "two", PASSED)
    assert locked(tmp_path) == ""
    assert reference.read(tmp_path, "two") == PASSED


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        (8.1, "judged 8.1 h ago, 8 h are allowed"),
        (-0.5, "later than the computer's clock"),
    ],
)
def test_an_old_check_locks_and_so_does_one_from_the_future(
    tmp_path: Path, hours: float, told: str
) -> None:
    reference.write(tmp_path, "two", PASSED)
    assert told in locked(tmp_path, hours=hours)


def test_a_time_without_a_zone_is_damage(tmp_path: Path) -> None:
    reference.write(tmp_path, "two", PASSED)
    path = tmp_path / "run" / "reference" / "two.json"
    path.write_text(path.read_text().replace("06:00:00Z", "06:00:00"))
    assert "two.json: damaged; an engineer decides" in locked(tmp_path)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("recipe_sha256", "the recipe has"),
        ("cell_sha256", "the cell file has"),
        ("model_sha256", "the model has"),
    ],
)
def test_a_check_holds_for_the_files_it_was_made_with(
    tmp_path: Path, field: str, told: str
) -> None:
    reference.write(tmp_path, "two", PASSED)
    assert told in locked(tmp_path, basis=BASIS.model_copy(update={field: "9" * 64}))


def test_a_check_that_was_broken_off_does_not_open(tmp_path: Path) -> None:
    reference.write(tmp_path, "two", PASSED.model_copy(update={"answers": (GOOD,)}))
    assert "were not all judged" in locked(tmp_path)


def test_a_wrong_answer_locks_until_an_engineer_decides_and_the_check_is_repeated(
    tmp_path: Path,
) -> None:
    failed = Check(at=NOW, basis=BASIS, wanted=2).answered(ESCAPE)  # the first answer already
    reference.write(tmp_path, "two", failed)
    for keys in (KEYS, ""):  # taking the keys out of the recipe is no way around
        told = locked(tmp_path, keys)
        assert "reference sheet nut must be judged reject and was judged accept" in told
        assert "`station reference --recipe two --release --why TEXT`" in told
    decision = Release(at=NOW, who="anna", why="lens was dirty, cleaned")
    reference.release(tmp_path, "two", decision)
    assert "anna released it, its reference sheets have to be judged again" in locked(tmp_path)
    assert locked(tmp_path, "") == "", "an engineer has decided, and the recipe asks for no check"
    with pytest.raises(ProductionLocked, match="no wrong answer has locked it"):
        reference.release(tmp_path, "two", decision)


def test_a_damaged_file_locks_until_it_is_released(tmp_path: Path) -> None:
    reference.write(tmp_path, "two", PASSED)
    path = tmp_path / "run" / "reference" / "two.json"
    path.write_bytes(path.read_bytes()[:40])
    assert "two.json: damaged; an engineer decides" in locked(tmp_path)
    reference.release(tmp_path, "two", Release(at=NOW, who="anna", why="disk replaced"))
    assert "were not judged yet" in locked(tmp_path)


def test_a_passed_check_needs_no_release(tmp_path: Path) -> None:
    with pytest.raises(ProductionLocked):
        reference.release(tmp_path, "two", Release(at=NOW, who="anna", why="none"))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("reference: {sheets: [{name: a, expect: accept}]}\n", "at least 2"),
        (KEYS.replace("expect: reject", "expect: accept"), "one to reject"),
        (KEYS.replace("nut", "good-1"), "the same name"),
        (KEYS.replace("expect: reject", "expect: none"), "'accept' or 'reject'"),
        (KEYS.replace("valid_h: 8", "valid_h: 0"), "valid_h"),
    ],
)
def test_a_recipe_names_good_and_bad_sheets(tmp_path: Path, keys: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r"two\.yaml:\d+: reference") as caught:
        recipe(tmp_path, keys)
    assert told in str(caught.value)
