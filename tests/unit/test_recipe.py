"""A recipe is checked whole before anything moves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from station.errors import ConfigError
from station.geometry import Pose
from station.kinematics import Joints
from station.recipe import Recipe, list_recipes, load_recipe
from station.strict import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "recipes" / "glassfiber.yaml").read_text(encoding="utf-8")
FILE = Path("recipes/a.yaml")


def recipe(old: str = "", new: str = "") -> Recipe:
    assert old in TEXT
    return parse(TEXT.replace(old, new, 1), FILE, Recipe)


def no_joints(_: Joints) -> Pose:
    raise AssertionError("this recipe has poses")


def test_the_shipped_recipe_has_twelve_shots() -> None:
    loaded = load_recipe(ROOT, "glassfiber")
    shots = loaded.recipe.shots(no_joints)
    assert len(shots) == loaded.recipe.shots_per_sheet == 12
    assert len(loaded.sha256) == 64
    assert [shot.number for shot in shots[:4]] == [1, 2, 3, 1]
    assert all(math.isclose(shot.approach.z - 0.05, 0.29) for shot in shots)


def test_offsets_lie_in_the_tools_frame() -> None:
    turned = "[-0.064, -0.505, 0.29, 0, 0, 1.5707963267948966]"
    shots = recipe("[-0.064, -0.505, 0.29, 3.14159265, 0, 0]", turned).shots(no_joints)
    assert shots[1].pose.distance_m(Pose(-0.064, -0.502, 0.29, 0, 0, 0)) < 1e-9
    assert shots[2].pose.distance_m(Pose(-0.067, -0.505, 0.29, 0, 0, 0)) < 1e-9


def test_a_setups_own_offsets_replace_the_recipes() -> None:
    place = "pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]"
    loaded = recipe(place, place + "\n    offsets_m: [[0, 0, 0]]")
    assert loaded.shots_per_sheet == 10
    assert [shot.setup for shot in loaded.shots(no_joints)[:2]] == ["left-front", "left-back"]


def test_a_setup_taught_as_joints_asks_the_robot_where_that_is() -> None:
    asked = []

    def forward(joints: Joints) -> Pose:
        asked.append(joints)
        return Pose(1, 2, 3, 0, 0, 0)

    loaded = recipe(
        "pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]", "joints_rad: [0, 1, 2, 3, 4, 5]"
    )
    assert loaded.shots(forward)[0].pose == Pose(1, 2, 3, 0, 0, 0)
    assert asked == [Joints(0, 1, 2, 3, 4, 5)]


def test_a_camera_head_down_is_approached_from_above() -> None:
    shot = recipe().shots(no_joints)[1]
    assert shot.approach.x == -0.064, "the approach belongs to the setup, not to the offset"
    assert shot.approach.z > shot.pose.z


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "0.29, 3.14159265, 0, 0]",
            "0.29, 3.14159265, 0]",
            "recipes/a.yaml:9: setups[0].pose: 5 numbers, not 6",
        ),
        (
            "pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]",
            "pose: 5",
            "recipes/a.yaml:9: setups[0].pose: 6 numbers expected",
        ),
        ("[-0.064, -0.505", "[x, -0.505", "recipes/a.yaml:9: setups[0].pose: 'x' is not a number"),
        (
            "[-0.064, -0.505",
            "[.nan, -0.495",
            "recipes/a.yaml:9: setups[0].pose[0]: .nan is not a finite number",
        ),
        (
            "[-0.064, -0.505",
            "[true, -0.495",
            "recipes/a.yaml:9: setups[0].pose: True is not a number",
        ),
        (
            "  - [0.003, 0, 0]",
            "  - [0.003, 0]",
            "recipes/a.yaml:20: offsets_m[1]: 2 numbers, not 3",
        ),
        (
            "name: left-back",
            "name: left-front",
            "recipes/a.yaml:6: setups: two setups are named 'left-front'",
        ),
        ("name: left-back", "name: ../left", "recipes/a.yaml:10: setups[1].name: "),
        ("name: left-back", "name: Left", "recipes/a.yaml:10: setups[1].name: "),
        (
            "name: left-back",
            "nmae: left-back",
            "recipes/a.yaml:10: setups[1].nmae: unknown key; did you mean name?",
        ),
        ("exposure_us: 8000", "exposure_us: 0", "recipes/a.yaml:30: exposure_us: "),
        (
            "exposure_us: 8000",
            "exposure_ms: 8",
            "recipes/a.yaml:30: exposure_ms: unknown key; did you mean exposure_us?",
        ),
        ("gain_db: 0", "gain_db: -1", "recipes/a.yaml:31: gain_db: "),
        ("shot_speed_m_s: 0.10", "shot_speed_m_s: 0", "recipes/a.yaml:26: shot_speed_m_s: "),
        ("shot_speed_m_s: 0.10", "shot_speed_m_s: 1e-9", "recipes/a.yaml:26: shot_speed_m_s: "),
        (
            "sheet_size_m: [0.24, 0.20]",
            "sheet_size_m: [0.24, -0.2]",
            "recipes/a.yaml:4: sheet_size_m: -0.2 is not above zero",
        ),
        (
            "model: glassfiber/1",
            "model: glassfiber",
            "recipes/a.yaml:35: model: ",
        ),
        (
            "model: glassfiber/1",
            "model: ../x/1",
            "recipes/a.yaml:35: model: ",
        ),
        (
            "smallest_defect_mm: 3",
            "smallest_defect_mm: 3\nthreshold: .inf",
            "recipes/a.yaml:34: threshold: .inf is not",
        ),
        (
            "model_input: whole",
            "model_input: tile",
            "recipes/a.yaml:37: model_input: ",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(old, new)
    assert str(caught.value).startswith(expected)


def test_a_setup_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="a setup needs pose or joints_rad"):
        recipe("    pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]\n", "")


@pytest.mark.parametrize("count", [0, 10])
def test_a_setup_has_one_to_nine_offsets(count: int) -> None:
    place = "pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]"
    with pytest.raises(ConfigError, match="offsets_m"):
        recipe(place, place + f"\n    offsets_m: [{', '.join(['[0, 0, 0]'] * count)}]")


def test_a_recipe_without_setups_is_refused() -> None:
    start, end = TEXT.index("setups:"), TEXT.index("# Three shots")
    with pytest.raises(ConfigError, match="setups"):
        parse(TEXT[:start] + "setups: []\n" + TEXT[end:], FILE, Recipe)


def test_a_recipe_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    with pytest.raises(ConfigError, match=r"no recipe 'x' .* there are: none"):
        load_recipe(tmp_path, "x")
    (tmp_path / "recipes" / "b.yaml").write_text(TEXT)
    (tmp_path / "recipes" / "a.yaml").write_text(TEXT)
    (tmp_path / "recipes" / ".#a.yaml").symlink_to("an-editors-lock")
    assert list_recipes(tmp_path) == ["a", "b"]
    with pytest.raises(ConfigError, match=r"no recipe 'x' .* there are: a, b"):
        load_recipe(tmp_path, "x")


@pytest.mark.parametrize("name", ["../secret", "sub/a", "/etc/passwd", "a" * 300, ".", ""])
def test_a_recipes_name_never_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "recipes" / "sub").mkdir(parents=True)
    (tmp_path / "secret.yaml").write_text(TEXT)
    (tmp_path / "recipes" / "sub" / "a.yaml").write_text(TEXT)
    with pytest.raises(ConfigError):
        load_recipe(tmp_path, name)


def test_the_schema_for_editors_knows_every_key() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


@settings(max_examples=30)
@given(st.integers(0, len(TEXT) - 1), st.sampled_from("0 -:[]{}\n.#x&\"'"))
def test_one_wrong_character_never_ends_in_a_traceback(at: int, character: str) -> None:
    try:
        parse(TEXT[:at] + character + TEXT[at + 1 :], FILE, Recipe)
    except ConfigError as error:
        assert str(error).startswith("recipes/a.yaml")


def test_only_the_highest_shot_makes_a_threshold_below_zero_a_mistake() -> None:
    assert recipe("threshold: 0.03 ", "threshold: -0.03 ").threshold == -0.03
