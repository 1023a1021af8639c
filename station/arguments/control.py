"""Commands to the running `station inspect`."""

from __future__ import annotations

import argparse

from station.arguments.shared import Commands, add_command, add_json

_COMMANDS = {
    "status": "print the state of the running `station inspect`",
    "clear": "after a fault was cleared at the pendant: open the devices again",
    "reset": "bring the arm slowly up from where it stands, and become ready",
    "start": "begin to inspect",
    "hold": "finish the sheet, then wait",
    "unhold": "go on after a hold",
    "stop": "finish the sheet, then stop",
    "abort": "stop the arm now; the sheet has no verdict",
    "mode": "produce or dry-run; manual and maintenance lend the cell to other commands",
}


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    for name, text in _COMMANDS.items():
        example = f"station {name} --json" if name == "status" else f"station {name}"
        if name == "mode":
            example = "station mode manual"
        command = add_command(commands, common, name, text, example)
        if name == "mode":
            command.add_argument("mode", choices=("produce", "dry-run", "manual", "maintenance"))
        command.add_argument("--who", metavar="NAME", help="default: the user at the keyboard")
        command.add_argument("--why", default="", metavar="TEXT", help="kept in the log")
        command.add_argument(
            "--take", action="store_true", help="take control over from whoever has it"
        )
        add_json(command)
