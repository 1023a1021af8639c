"""Teach a recipe by hand: the arm's present place as a recipe entry."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML

from station.devices import RobotStatus
from station.errors import ConfigError
from station.recipe import Recipe, load_recipe
from station.records.dataset import write_durably
from station.strict import parse


def entry(status: RobotStatus, name: str) -> dict[str, object]:
    """Return the present place as a setup: the pose, and the joints it was reached with."""
    return {
        "name": name,
        "pose": [round(value, 5) for value in status.pose],
        "joints_rad": [round(value, 5) for value in status.joints],
    }


def entry_text(setup: dict[str, object]) -> str:
    """Return a setup as it stands in a recipe."""
    lines = (
        f"name: {setup['name']}",
        f"pose: {setup['pose']}",
        f"joints_rad: {setup['joints_rad']}",
    )
    return "  - " + "\n    ".join(lines) + "\n"


def append(workspace: Path, recipe: str, status: RobotStatus, name: str | None) -> str:
    """Add the present place to a recipe, keeping its comments; return the new setup's name."""
    loaded = load_recipe(workspace, recipe)
    taken = {setup.name for setup in loaded.recipe.setups}
    number = len(taken) + 1
    while f"setup-{number}" in taken:
        number += 1
    name = name or f"setup-{number}"
    if name in taken:
        raise ConfigError(f"recipes/{recipe}.yaml: there is already a setup {name!r}")
    path = workspace / "recipes" / f"{recipe}.yaml"
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 120
    editor.indent(mapping=2, sequence=4, offset=2)
    document = editor.load(path)
    setup = entry(status, name)
    document["setups"].append(setup)
    for key in ("pose", "joints_rad"):
        numbers = editor.seq(setup[key])
        numbers.fa.set_flow_style()
        document["setups"][-1][key] = numbers
    stream = io.StringIO()
    editor.dump(document, stream)
    parse(stream.getvalue(), path, Recipe)  # never write what could not be read back
    write_durably(path, stream.getvalue().encode())
    return name
