"""A workspace: made once, never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.config import open_workspace
from station.errors import ConfigError
from station.recipe import list_recipes
from station.workspace import active_recipe, init, software, templates, use


def test_a_new_workspace_can_be_opened_and_used(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    workspace = open_workspace(tmp_path / "ws")
    assert "glassfiber" in list_recipes(workspace)
    assert workspace / "calibration" / "cell.yaml" in made
    assert (workspace / "data").is_dir()
    use(workspace, "glassfiber")
    assert active_recipe(workspace) == "glassfiber"


def test_every_template_is_copied_as_it_is(tmp_path: Path) -> None:
    for path in init(tmp_path):
        assert path.read_bytes() == (templates() / path.relative_to(tmp_path)).read_bytes()


def test_what_is_already_there_is_left_alone(tmp_path: Path) -> None:
    init(tmp_path)
    cell = tmp_path / "calibration" / "cell.yaml"
    cell.write_text("mine")
    (tmp_path / "recipes" / "glassfiber.yaml").unlink()
    assert init(tmp_path) == [tmp_path / "recipes" / "glassfiber.yaml"]
    assert cell.read_text() == "mine"
    assert init(tmp_path) == []


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_workspace_cannot_be_made_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file"):
        init(tmp_path / name)


def test_without_an_active_recipe_those_there_are_listed(tmp_path: Path) -> None:
    init(tmp_path)
    with pytest.raises(ConfigError, match=r"no active recipe; .* there are: glassfiber"):
        active_recipe(tmp_path)


def test_a_recipe_that_is_not_there_or_wrong_cannot_become_active(tmp_path: Path) -> None:
    init(tmp_path)
    use(tmp_path, "glassfiber")
    (tmp_path / "recipes" / "wrong.yaml").write_text("x: 1")
    for name in ("none", "wrong", "../calibration/cell"):
        with pytest.raises(ConfigError):
            use(tmp_path, name)
    assert active_recipe(tmp_path) == "glassfiber"


def test_every_record_names_the_software_it_came_from() -> None:
    versions = software()
    assert versions["station"] != "not installed"
    assert {"numpy", "pypylon", "torch", "ur-rtde"} <= set(versions)
