"""The simulator beside a bench: another process, and the environment that its camera asks for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from station.errors import ConfigError

Exports = dict[str, str]


def start(workspace: Path, address: str, *options: str) -> tuple[subprocess.Popen[str], Exports]:
    """Start it; return it once it is ready, and the environment a station is to be given."""
    command = [
        sys.executable, "-m", "station.sim", "--workspace", str(workspace), "--address", address,
        *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    found: Exports = {}
    for line in process.stdout or ():
        if line.strip() == "ready":
            return process, found
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = shlex.split(value)[0]
    process.wait()
    raise ConfigError("the simulator did not start; see its message above")


@contextmanager
def far_ends(workspace: Path, address: str, *options: str) -> Iterator[Path]:
    """Start it, take over its environment for the block; yield the cell file to use."""
    process, wanted = start(workspace, address, *options)
    with process:
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield Path(wanted["STATION_CELL"])
        finally:
            process.terminate()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
