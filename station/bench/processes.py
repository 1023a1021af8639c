"""The two processes of a bench: a simulated far end with its journal, and a station that stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from station import control
from station.bench.far_ends import start
from station.errors import ConfigError, StationError

POLL_S = 0.005
REACH_S = 150.0

Event = dict[str, Any]


class FarEnd:
    """A simulated controller, camera and table; started anew once it was killed."""

    def __init__(self, folder: Path, series: str, address: str) -> None:
        self._folder = folder
        self._series = series
        self._address = address
        self._journal = folder / f"journal-{series}.jsonl"
        self._events: list[Event] = []
        self._read_bytes = 0
        self._process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}
        """What a station has to be given to meet it."""

    @property
    def pids(self) -> list[int]:
        """Its process, if there is one."""
        return [] if self._process is None else [self._process.pid]

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; return once it is ready."""
        self._close_output()
        self._process, self.environment = start(
            self._folder, self._address, "--series", self._series, "--size", "320", "268",
            "--defect-rate", "0", "--journal", str(self._journal),
        )  # fmt: skip

    def kill(self) -> None:
        """End it, whether halted or not."""
        if self._process is not None:
            _kill(self._process)
        self._close_output()

    def send(self, command: str, *, missing_ok: bool = False) -> Event:
        """Send a command to its control port; return its answer, nothing where it is gone."""
        from station.sim.faults import send

        try:
            answer: Event = json.loads(send(self._address, command))
        except ConfigError:
            if not missing_ok and self.runs:
                raise
            return {}
        return answer

    def state(self, key: str) -> Any:
        """Return one thing that it says of itself."""
        return self.send("state")[key]

    def events(self) -> list[Event]:
        """Return its whole journal so far; only what is new is read."""
        if self._journal.exists():
            with self._journal.open("rb") as journal:
                journal.seek(self._read_bytes)
                text = journal.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            self._events += [json.loads(line) for line in whole.splitlines()]
        return self._events

    def _close_output(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


class StayingStation:
    """A `station inspect` without `--sheets`; started anew once it was killed."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder = folder
        self._recipe = recipe
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        """Its process, if there is one."""
        return [] if self._process is None else [self._process.pid]

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended; one that is halted has not."""
        return self._process is not None and self._process.poll() is None

    @property
    def halted(self) -> bool:
        """Whether it is stopped by a signal."""
        if self._process is None:
            return False
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] in ("T", "t")

    def start(self, environment: dict[str, str]) -> None:
        """Start it; return once it answers."""
        command = [
            sys.executable, "-m", "station", "inspect", "--workspace", str(self._folder),
            "--recipe", self._recipe,
        ]  # fmt: skip
        with (self._folder / "station.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, env={**os.environ, **environment}, stdout=log, stderr=log
            )
        until(lambda: self.state() != "", "a station that answers")

    def kill(self) -> None:
        """End it, whether halted or not."""
        if self._process is not None:
            _kill(self._process)
            self._process = None

    def ask(self, command: str) -> Event:
        """Give it a command; StationError where it refuses."""
        answer = control.ask(self._folder, command=command, user="bench")
        if not answer["accepted"]:
            raise StationError(answer["why"])
        return answer

    def state(self) -> str:
        """Return its state; nothing where it does not answer."""
        with contextlib.suppress(ConfigError):
            return str(self.ask("status")["state"])
        return ""

    def lead(self, command: str, reached: str) -> None:
        """Give it a command and wait for the state it leads to."""
        self.ask(command)
        until(lambda: self.state() in (reached, "aborted"), reached)
        status = self.ask("status")
        if status["state"] != reached:
            raise StationError(f"{command} did not lead to {reached}: {status['reason']}")

    def robot_child(self) -> int:
        """Return the robot child's process id: the child that has loaded ur_rtde."""
        for station in self.pids:
            listed = Path(f"/proc/{station}/task/{station}/children")
            for pid in map(int, listed.read_text().split()):
                with contextlib.suppress(OSError):
                    if "rtde" in Path(f"/proc/{pid}/maps").read_text():
                        return pid
        raise StationError("the station has no robot child")


def until(condition: Callable[[], bool], what: str, deadline_s: float = REACH_S) -> None:
    """Wait for something; StationError names what did not come."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise StationError(f"no {what} within {deadline_s:g} s")
        time.sleep(POLL_S)


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
