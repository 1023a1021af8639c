"""Commands on a workspace and its computer: init, use, schema, check, doctor."""

from __future__ import annotations

import argparse

from station.arguments.shared import Commands, add_cell_file, add_command, add_json, folder


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    init = add_command(commands, common, "init", "make a workspace", "station init mystation")
    init.add_argument("dir", type=folder)

    use = add_command(commands, common, "use", "set the active recipe", "station use glassfiber")
    use.add_argument("recipe")

    schema = add_command(
        commands, common, "schema", "write JSON schemas for editors", "station schema .vscode"
    )
    schema.add_argument("dir", type=folder)

    check = add_command(
        commands, common, "check", "validate recipes, cell file and models without moving anything",
        "station check --recipe glassfiber",
    )  # fmt: skip
    check.add_argument("--recipe", metavar="R", help="default: every recipe")
    check.add_argument(
        "--model",
        nargs="?",
        const="",
        metavar="NAME/N",
        help="score golden images: of this model alone, or without a name of the recipes' models",
    )
    check.add_argument(
        "--cell",
        nargs="?",
        const="",
        metavar="FILE",
        help="also ask the robot whether it reaches every pose",
    )
    add_json(check)

    doctor = add_command(
        commands, common, "doctor", "examine this computer: cards, disk, clock, rights, versions",
        "station doctor",
    )  # fmt: skip
    add_cell_file(doctor)
    add_json(doctor)
