"""Commands that speak to the running `station inspect`."""

from __future__ import annotations

import argparse
import getpass
import time
from contextlib import suppress

from station import control, show
from station.commands.common import workspace_of
from station.errors import CommandRefused, ConfigError
from station.states import State

POLL_S = 0.1


def send(args: argparse.Namespace) -> int:
    """Send one command to the running loop; print the state it leads to, once that is reached.

    Exit code 1 where it led to aborted instead, with the reason.
    """
    workspace = workspace_of(args)
    request = {"command": args.command, "user": args.who or _user(), "reason": args.why}
    if args.command == "mode":
        request["mode"] = args.mode
    answer = control.ask(workspace, **request, take=args.take)
    if not answer["accepted"]:
        raise CommandRefused(answer["why"])
    with suppress(ConfigError):  # a run of so many sheets may end with it, and answers no more
        while args.command != "status" and State(answer["state"]).passing:
            time.sleep(POLL_S)
            answer = control.ask(workspace, command="status", user=request["user"])
    del answer["accepted"]
    show.state(answer, as_json=args.json)
    failed = answer["state"] == State.ABORTED and args.command not in {"status", "abort", "mode"}
    return 1 if failed else 0


status = start = hold = unhold = stop = abort = clear = reset = mode = send


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "unknown"
