"""Commands that open the cell: where, snap, capture, inspect, reference, repeat."""

from __future__ import annotations

import argparse
from pathlib import Path

from station.arguments.shared import (
    Commands,
    add_cell_file,
    add_command,
    add_json,
    add_recipe,
    count,
    name_of,
    not_negative,
    positive,
    repetitions,
    setup_name,
)


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    where = add_command(
        commands, common, "where", "print the arm's present place as a recipe entry; moves nothing",
        "station where --append glassfiber --name left-front",
    )  # fmt: skip
    where.add_argument("--append", metavar="R", help="add it to recipe R as a setup")
    where.add_argument("--name", type=setup_name, help="name of the setup")
    add_cell_file(where)
    add_json(where)

    snap = add_command(
        commands,
        common,
        "snap",
        "take one picture where the arm stands; moves nothing",
        "station snap --out one.png",
    )
    snap.add_argument("--out", type=Path, required=True, metavar="F")
    snap.add_argument("--exposure-us", type=positive, default=8000.0)
    snap.add_argument("--gain-db", type=not_negative, default=0.0)
    add_cell_file(snap)
    add_json(snap)

    capture = add_command(
        commands, common, "capture", "photograph sheets into data/<recipe>/",
        "station capture --recipe glassfiber --label good --sheets 30",
    )  # fmt: skip
    add_recipe(capture)
    capture.add_argument(
        "--label", type=name_of, default="good", help="good (default) or the defect's name"
    )
    capture.add_argument(
        "--split", choices=("train", "test"), help="default: train for good, test for defects"
    )
    capture.add_argument("--sheets", type=count, default=1, metavar="N")
    capture.add_argument(
        "--restart", action="store_true", help="do not continue an interrupted session"
    )
    add_cell_file(capture)
    add_json(capture)

    inspect = add_command(
        commands, common, "inspect", "the production loop: accept or reject each sheet",
        "station inspect --recipe glassfiber --sheets 20",
    )  # fmt: skip
    add_recipe(inspect)
    inspect.add_argument(
        "--sheets",
        type=count,
        metavar="N",
        help="clear, reset, start and end after N sheets (default: stay and wait for commands)",
    )
    inspect.add_argument("--dry-run", action="store_true", help="slow, and no line is set")
    add_cell_file(inspect)
    add_json(inspect)

    reference = add_command(
        commands, common, "reference", "judge the recipe's known sheets before production",
        "station reference --recipe glassfiber",
    )  # fmt: skip
    add_recipe(reference)
    action = reference.add_mutually_exclusive_group()
    action.add_argument(
        "--show", action="store_true", help="print the last check and whether production may go on"
    )
    action.add_argument(
        "--release", action="store_true", help="an engineer's decision after a wrong answer"
    )
    reference.add_argument("--why", metavar="TEXT", help="of a release: what was found and done")
    reference.add_argument("--who", metavar="NAME", help="default: the user at the keyboard")
    add_cell_file(reference)
    add_json(reference)

    repeat = add_command(
        commands, common, "repeat", "judge one sheet many times: how well verdict and score repeat",
        "station repeat --times 10",
    )  # fmt: skip
    add_recipe(repeat)
    repeat.add_argument("--times", type=repetitions, default=10, metavar="N", help="default: 10")
    repeat.add_argument(
        "--lift", action="store_true", help="take the sheet away and lay it again each time"
    )
    add_cell_file(repeat)
    add_json(repeat)
