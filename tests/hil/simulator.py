"""A simulator of one's own: its own process on its own loopback address."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from station.sim.__main__ import die_with_parent

ROOT = Path(__file__).parents[2]
CONTROL_PORT = 29900
_numbers = itertools.count(1)


class Simulator:
    """A running `python -m station.sim`; leave the `with` block or call `close` to end it."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        number = next(_numbers)
        # parallel workers have other process ids: no two simulators share an address
        pid = os.getpid()
        self.address = f"127.{64 + pid // 250 % 100}.{pid % 250 + 1}.{number}"
        self.truth = folder / f"truth-{number}"
        self._journal = folder / f"journal-{number}.jsonl"
        options = ["--address", self.address, "--journal", str(self._journal)]
        options += ["--truth", str(self.truth)]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "station.sim",
                "--workspace",
                str(ROOT),
                *options,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self.env: dict[str, str] = {}
        """What the far ends need in the environment of the station's process."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "ready":
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            self.env[name] = shlex.split(value)[0]
        else:
            raise RuntimeError(
                f"the simulator ended with {self.process.wait()} before it was ready"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def picture(self) -> Path:
        """The picture the camera's emulator reads next."""
        return Path(self.env["PYLON_CAMEMU_PFS_PATH"]).parent / "pictures" / "a.bmp"

    def send(self, command: str) -> dict[str, Any]:
        """Send one command to the control port and return its answer."""
        with socket.create_connection((self.address, CONTROL_PORT), 5) as connection:
            connection.sendall(command.encode() + b"\n")
            with connection.makefile() as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        assert answer["ok"], answer
        return answer

    def journal(self) -> list[dict[str, Any]]:
        """Return the events so far."""
        text = self._journal.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def journal_since(self, position: int) -> tuple[list[dict[str, Any]], int]:
        """Return the events after a position in the file, and the position after them."""
        with self._journal.open("rb") as stream:
            stream.seek(position)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], position + len(whole)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one kind."""
        return [line for line in self.journal() if line["event"] == event]

    def wait_for(self, condition: Callable[[], object], deadline_s: float = 5.0) -> None:
        """Return once the condition holds; fail after the deadline."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, f"not within {deadline_s} s; {self.send('state')}"
            time.sleep(0.01)

    def clear(self) -> None:
        """Undo what a test did to the robot."""
        for command in ("accept", "whole", "offset 0 0 0", "slider 1", "remote", "reset"):
            self.send(command)
        self.wait_for(lambda: not self.send("state")["busy"])

    def close(self, number: int = signal.SIGTERM) -> int:
        """End the simulator and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
