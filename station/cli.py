"""The entry point: finds the command, turns errors into exit codes.

A command's module is imported when it runs, so that `station report` needs neither torch nor pylon.
"""

from __future__ import annotations

import importlib
import io
import keyword
import os
import sys

from station import arguments
from station.errors import INTERRUPTED, DatasetError, StationError

# command -> the module of station/commands/ that has a function of that name
_COMMANDS = {
    "init": "workspace",
    "use": "workspace",
    "schema": "workspace",
    "check": "workspace",
    "where": "cell",
    "snap": "cell",
    "capture": "cell",
    "inspect": "cell",
    "reference": "reference",
    "repeat": "reference",
    "doctor": "workspace",
    "status": "control",
    "start": "control",
    "hold": "control",
    "unhold": "control",
    "stop": "control",
    "abort": "control",
    "clear": "control",
    "reset": "control",
    "mode": "control",
    "import": "learn",
    "label": "learn",
    "train": "learn",
    "distill": "learn",
    "score": "learn",
    "evaluate": "evaluate",
    "compare": "compare",
    "experiment": "experiment",
    "threshold": "threshold",
    "weights": "weights",
    "report": "learn",
    "draw": "learn",
    "convert": "runtime",
    "verify": "ledger",
    "why": "ledger",
    "records": "ledger",
    "export": "ledger",
    "keep": "ledger",
    "retention": "ledger",
    "sim": "simulate",
    "fault": "simulate",
    "bench": "bench",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the only place that turns errors into exit codes."""
    # One that was closed is None, and print() would then take standard output for it.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed before the start
            # A name that the terminal's encoding lacks, or that is no text, must not end a command.
            stream.reconfigure(errors="backslashreplace")
    args = arguments.parse(argv)
    # structlog is slow to import, and --help needs none of it
    from station import log, process

    log.configure(verbose=args.verbose)
    process.prepare()
    try:
        module = importlib.import_module(f"station.commands.{_COMMANDS[args.command]}")
        # `import` is a word of the language, so its function is import_.
        name = f"{args.command}_" if keyword.iskeyword(args.command) else args.command
        code: int = getattr(module, name)(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except StationError as error:
        from station.show import near

        print(f"station: {near(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("station: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; writing more would only raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a read-only folder, a closed output: the machine's fault, not a bug.
        print(f"station: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return DatasetError.exit_code
