"""Commands that speak to the running `station inspect`."""

from __future__ import annotations

import argparse
import getpass

from station import control, show
from station.commands.common import workspace_of
from station.errors import CommandRefused


def send(args: argparse.Namespace) -> int:
    """Send one command to the running loop; print the state it leads to."""
    request = {"command": args.command, "user": args.user or _user(), "reason": args.reason}
    if args.command == "mode":
        request["mode"] = args.mode
    answer = control.ask(workspace_of(args), **request, take=args.take)
    if not answer.pop("accepted"):
        raise CommandRefused(answer["why"])
    show.state(answer, as_json=args.json)
    return 0


status = start = hold = unhold = stop = abort = clear = reset = mode = send


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "unknown"
