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


@contextmanager
def far_ends(workspace: Path, address: str, *options: str) -> Iterator[Path]:
    """Start it, take over its environment for the block; yield the cell file to use."""
    command = [
        sys.executable, "-m", "station.sim", "--workspace", str(workspace), "--address", address,
        *options,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        try:
            wanted = _exports(process)
            before = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)
            try:
                yield Path(wanted["STATION_CELL"])
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
        finally:
            process.terminate()


def _exports(process: subprocess.Popen[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in process.stdout or ():
        if line.strip() == "ready":
            return found
        name, _, value = line.removeprefix("export ").strip().partition("=")
        found[name] = shlex.split(value)[0]
    raise ConfigError("the simulator did not start; see its message above")
