"""The station's commands as processes in a workspace of their own, for tests end to end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from simulator import ROOT, Simulator

from station import control
from station import workspace as template
from station.errors import ConfigError
from station.records.dataset import MANIFEST, Dataset, read_record
from station.records.sheet import Manifest

STATION = [sys.executable, "-m", "station"]
SMALL = ("--size", "320", "268", "--speed", "8")
RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - name: left
    pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]
  - name: right
    pose: [0.04, -0.45, 0.26, 3.14159265, 0, 0]
offsets_m: [[0, 0, 0], [0.003, 0, 0]]
working_distance_m: 0.255
approach_height_m: 0.03
travel_speed_m_s: 0.25
shot_speed_m_s: 0.2
acceleration_m_s2: 1.2
settle_s: 0.02
exposure_us: 8000
gain_db: 0
smallest_defect_mm: 3
"""
SHOTS = 4
ACCEPT, REJECT, BUSY = 0, 1, 2


class Station:
    """A workspace, and the station's commands run in it against one simulator."""

    def __init__(self, folder: Path, sim: Simulator) -> None:
        template.init(folder)
        self.folder = folder
        self.sim = sim
        self.write("recipes/two.yaml", RECIPE)
        self.cell = folder / "calibration" / "test.yaml"
        self.cell.write_text(Path(sim.env["STATION_CELL"]).read_text())
        self._seen = len(sim.journal())

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text, encoding="utf-8")

    def edit_cell(self, old: str, new: str) -> None:
        text = self.cell.read_text()
        assert old in text
        self.cell.write_text(text.replace(old, new, 1))

    def start(self, command: str, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.sim.env, "STATION_CELL": str(self.cell)}
        return subprocess.Popen(
            [*STATION, *command.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            **options,
        )

    def run(self, command: str, **options: Any) -> Ended:
        return Ended.of(self.start(command, **options))

    def state(self) -> str:
        """Return what the running station says; nothing where none answers."""
        with contextlib.suppress(ConfigError):
            return str(control.ask(self.folder, command="status", user="anna")["state"])
        return ""

    def journal(self, *events: str) -> list[dict[str, Any]]:
        """Return what happened since this workspace was made."""
        return [e for e in self.sim.journal()[self._seen :] if e["event"] in events]

    def moves(self) -> list[dict[str, Any]]:
        return [e for e in self.journal("command") if e["name"].startswith("move")]

    def manifests(self, recipe: str = "two") -> list[Manifest]:
        return [record for _, record in Dataset(self.folder, recipe).captures()]


class Ended:
    """How a command ended and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.lines = out.splitlines()
        self.err = err

    @classmethod
    def of(cls, process: subprocess.Popen[str], timeout_s: float = 30) -> Ended:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return cls(process.returncode, out, err)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def complaint(self) -> str:
        """Return the one line that says what is wrong."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("station: ")]
        assert len(lines) == 1, self.err
        return lines[0]


class Inspection:
    """A station that inspects with a toy model: a picture's score is its mean grey."""

    def __init__(self, station: Station, models: Path) -> None:
        self.station = station
        shutil.copytree(models, station.folder / "models", dirs_exist_ok=True)

    def judge_by(self, model: str, threshold: float) -> None:
        text = f"{RECIPE}model: {model}\nthreshold: {threshold}\n"
        self.station.write("recipes/two.yaml", text)

    def records(self) -> list[tuple[Path, Manifest]]:
        folders = Dataset(self.station.folder, "two").folders()
        return [(folder, read_record(folder).manifest) for folder in folders]

    def rises(self, line: int) -> list[float]:
        """Return when an output rose, in this machine's monotonic time."""
        outputs = self.station.journal("output")
        return [e["t"] for e in outputs if e["line"] == line and e["value"]]

    def recorded_at(self) -> list[float]:
        """Return when each sheet's row of the ledger could be committed: its manifest was there."""
        shift = time.time() - time.monotonic()
        return [(folder / MANIFEST).stat().st_ctime - shift for folder, _ in self.records()]


class Running:
    """A `station inspect` that stays."""

    def __init__(self, station: Station, **environment: str) -> None:
        self.station = station
        self.process = subprocess.Popen(
            [sys.executable, "-m", "station", "inspect", "--recipe", "two"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=station.folder,
            env={
                **os.environ,
                **station.sim.env,
                "STATION_CELL": str(station.cell),
                "PYTHONPATH": str(ROOT),
                **environment,
            },
        )

    def __enter__(self) -> Self:
        wait_until(lambda: self.state() == "aborted")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        return control.ask(self.station.folder, command=command, user="anna", **more)

    def state(self) -> str:
        return self.station.state()

    def reason(self) -> str:
        return str(self.ask("status")["reason"])

    def go(self, *commands: str) -> None:
        """Send commands, each once the one before has led to its wait state."""
        leads_to = {"clear": "stopped", "reset": "idle", "start": "execute"}
        for command in commands:
            answer = self.ask(command)
            assert answer["accepted"], answer["why"]
            self.reach(leads_to[command])

    def reach(self, state: str, deadline_s: float = 60.0) -> None:
        end = time.monotonic() + deadline_s
        while (now := self.ask("status"))["state"] != state:
            assert time.monotonic() < end, f"not {state}: {now}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGINT) -> Ended:
        self.process.send_signal(number)
        return Ended.of(self.process)


def wait_until(condition: Callable[[], object], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def pictures(station: Station) -> list[Path]:
    """Return the pictures of the sheet being worked on."""
    return list(station.folder.glob("data/two/.partial/**/*.png"))
