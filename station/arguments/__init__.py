"""The command line: every command, its options and an example."""

from __future__ import annotations

import argparse
from pathlib import Path

from station.arguments import bench, cell, control, learn, records, simulate, workspace
from station.arguments.shared import common_options


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake ends with usage and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="station",
        description="Inspect sheets with a UR5, a Basler camera and a learned detector.",
        epilog="example: station sim -- station inspect --recipe glassfiber --sheets 5",
        parents=[common_options()],
    )
    parser.set_defaults(workspace=Path(), verbose=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common = common_options()
    for group in (workspace, cell, control, learn, records, simulate, bench):
        group.add(commands, common)
    return parser.parse_args(argv)
