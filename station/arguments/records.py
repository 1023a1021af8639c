"""Commands on the records of inspected sheets."""

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
)


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    verify = add_command(
        commands, common, "verify", "prove every record: files, hashes, chain, ledger",
        "station verify",
    )  # fmt: skip
    verify.add_argument("--recipe", metavar="R", help="default: every recipe with data")
    verify.add_argument(
        "--rebuild", action="store_true", help="make the ledger's index anew from the records first"
    )
    add_cell_file(verify)
    add_json(verify)

    why = add_command(
        commands, common, "why", "say from disk why a sheet was accepted or rejected",
        "station why s1-0042-000007",
    )  # fmt: skip
    why.add_argument("sheet", metavar="SHEET")
    add_json(why)

    records = add_command(
        commands, common, "records", "list inspected sheets",
        "station records --recipe glassfiber",
    )  # fmt: skip
    _add_rows(records)

    export = add_command(
        commands, common, "export", "write inspected sheets as CSV or Parquet",
        "station export --recipe glassfiber --csv sheets.csv",
    )  # fmt: skip
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--csv", type=Path, metavar="F")
    form.add_argument("--parquet", type=Path, metavar="F")
    export.add_argument(
        "--mark", action="store_true", help="note in the sheets that they are exported"
    )
    _add_rows(export)

    keep = add_command(
        commands, common, "keep", "keep a sheet whole, whatever `station retention` would do",
        "station keep s1-0042-000007 --why 'customer asked'",
    )  # fmt: skip
    keep.add_argument("sheet", metavar="SHEET")
    keep.add_argument("--why", required=True, metavar="TEXT")
    keep.add_argument("--who", metavar="NAME", help="default: the user at the keyboard")
    keep.add_argument("--release", action="store_true", help="no longer keep it")
    add_cell_file(keep)

    retention = add_command(
        commands, common, "retention", "thin old accepted sheets by the recipe's policy",
        "station retention --recipe glassfiber --apply",
    )  # fmt: skip
    add_recipe(retention)
    retention.add_argument("--apply", action="store_true", help="without it nothing is deleted")
    retention.add_argument("--sheets", type=count, metavar="N", help="the oldest N at most")
    add_cell_file(retention)
    add_json(retention)


def _add_rows(command: argparse.ArgumentParser) -> None:
    """Which rows are wanted of the ledger."""
    command.add_argument("--recipe", metavar="R", help="default: every recipe")
    command.add_argument("--run", metavar="RUN", help="default: every run")
    rows = command.add_mutually_exclusive_group()
    rows.add_argument(
        "--shots",
        dest="kind",
        action="store_const",
        const="shots",
        default="sheets",
        help="one row per shot, not per sheet",
    )
    rows.add_argument(
        "--shadow",
        dest="kind",
        action="store_const",
        const="shadow",
        help="one row per shot that a shadow model has scored, beside the score judged by",
    )
    add_cell_file(command)
    add_json(command)
