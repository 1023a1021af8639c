"""kill -9 at random moments of `station inspect`: `python tests/hil/kill_trials.py 200`.

Acknowledged means that the simulator's journal saw the accept or reject line rise. The pictures
that the journal names before the rise say which sheet it was, so a lost record cannot hide.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simulator import ROOT, Simulator

from station import workspace as template
from station.errors import DatasetError
from station.records.dataset import Dataset, read_record
from station.records.ledger import open_ledger
from station.records.verify import check_record

RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - name: left
    pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]
offsets_m: [[0, 0, 0], [0.003, 0, 0]]
working_distance_m: 0.255
approach_height_m: 0.03
travel_speed_m_s: 0.25
shot_speed_m_s: 0.2
acceleration_m_s2: 1.2
settle_s: 0
exposure_us: 8000
gain_db: 0
smallest_defect_mm: 3
model: toy/1
"""
SHOTS = 2
LINES = {0: "accept", 1: "reject"}
BUSY = 2
STARTS = 0.1  # of the kills hit the start
SHEETS_S = 2.0  # the others: half anywhere in the first sheets
RECORD_S = 0.15  # half while a sheet is being recorded and signalled
PATIENCE_S = 300.0
TRIES = 3  # on a machine busy with other work the robot's deadlines may pass


class Acknowledged(NamedTuple):
    """A line that rose, and the pictures of the sheet it was raised for."""

    verdict: str
    pictures: list[str]


class Trials:
    """A simulated cell in which inspections are killed."""

    def __init__(self, folder: Path, sim: Simulator, seed: int) -> None:
        self.workspace = folder / "ws"
        self.sim = sim
        self.random = random.Random(seed)  # noqa: S311 - it only chooses moments
        self.found: Counter[str] = Counter()
        template.init(self.workspace)
        script = Path(__file__).with_name("toy_models.py")
        subprocess.run(
            [sys.executable, str(script), str(self.workspace)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.cell = self.workspace / "calibration" / "kill.yaml"
        limits = "disk: {start_free_gb: 0, suspend_free_gb: 0}\n"
        self.cell.write_text(Path(sim.env["STATION_CELL"]).read_text() + limits)

    def station(self, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.sim.env, "STATION_CELL": str(self.cell)}
        with (self.workspace / "stderr.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "station", *command],
                stdout=stdout,
                stderr=log,
                cwd=self.workspace,
                env={**environment, "PYTHONPATH": str(ROOT)},
            )

    def trial(self, number: int) -> None:
        """Start an inspection, kill it, and look what it told and what it left.

        It may end before: on a machine busy with other work the robot's watchdog stops the arm.
        """
        threshold = 0.9 if number % 2 else 0.05  # accepts and rejects in turn
        recipe = self.workspace / "recipes" / "kill.yaml"
        recipe.write_text(f"{RECIPE}threshold: {threshold}\n")
        seen = len(self.sim.journal())
        process = self.station("inspect", "--recipe", "kill", "--sheets", "9999")
        try:
            self._wait_to_kill(process, seen)
        finally:
            process.send_signal(signal.SIGKILL)
            killed = process.wait() == -signal.SIGKILL
        self.found["killed" if killed else "ended_before"] += 1
        self.sim.wait_for(lambda: not self.sim.send("state")["moving"], 5.0)
        time.sleep(0.1)  # a line that was asked for may still rise
        self._look(self.sim.journal()[seen:])

    def finish(self) -> dict[str, Any]:
        """Start once more, let a sheet through, and prove everything there is."""
        inspect = ("inspect", "--recipe", "kill", "--sheets", "1")
        ended = (self.station(*inspect).wait(PATIENCE_S) for _ in range(TRIES))
        assert 0 in ended, (self.workspace / "stderr.log").read_text()[-2000:]
        with self.station("verify", stdout=subprocess.PIPE) as verifying:
            told, _ = verifying.communicate(timeout=PATIENCE_S)
        assert verifying.returncode == 0, told.decode()
        records = [read_record(f) for f in Dataset(self.workspace, "kill").folders()]
        verdicts = Counter(f"verdict_{record.manifest.verdict}" for record in records)
        return {**dict(self.found), **verdicts, "sheets": len(records)}

    def _wait_to_kill(self, process: subprocess.Popen[bytes], seen: int) -> None:
        if self.random.random() < STARTS:
            time.sleep(self.random.uniform(0, 8))
            return
        anywhere = self.random.random() < 0.5
        shots = 1 if anywhere else SHOTS * self.random.randint(1, 3)
        self._wait(process, lambda: self._pictures(seen) >= shots)
        time.sleep(self.random.uniform(0, SHEETS_S if anywhere else RECORD_S))

    def _wait(self, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition() and process.poll() is None:
            log = self.workspace / "stderr.log"
            assert time.monotonic() < end, f"no sheet: {log.read_text()[-2000:]}"
            time.sleep(0.005)

    def _pictures(self, seen: int) -> int:
        return sum(event["event"] == "picture" for event in self.sim.journal()[seen:])

    def _look(self, events: list[dict[str, Any]]) -> None:
        dataset = Dataset(self.workspace, "kill")
        records = {}
        for folder in dataset.folders():
            problems = check_record(folder).problems
            assert not problems, f"{folder.name}: {problems}"
            manifest = read_record(folder).manifest
            records[tuple(c.pixels_sha256 for c in manifest.captures)] = manifest
        for told in acknowledged(events):
            self.found[f"acknowledged_{told.verdict}"] += 1
            record = records.get(tuple(told.pictures[-SHOTS:]))
            if record is None:
                self.found["lost"] += 1
            elif record.verdict != told.verdict or not record.complete:
                self.found["told_other_than_recorded"] += 1
        self._count_states(dataset)

    def _count_states(self, dataset: Dataset) -> None:
        """Say in which state the kill left the newest sheet: evidence that all were hit."""
        if dataset.leftovers("inspection"):
            self.found["left_unfinished"] += 1
            return
        folders = dataset.folders()
        if not folders:
            return
        with suppress(DatasetError), open_ledger(self.workspace) as ledger:
            row = ledger.row_of(folders[-1].name)
            if row is None:
                self.found["left_without_row"] += 1
            elif row["outcome"] is None:
                self.found["left_without_outcome"] += 1
            else:
                self.found["left_between_sheets"] += 1


def acknowledged(events: list[dict[str, Any]]) -> list[Acknowledged]:
    """Return every rise of a verdict line with the pictures shown since busy rose."""
    found = []
    pictures: list[str] = []
    for event in events:
        if event["event"] == "picture":
            pictures.append(event["sha256"])
        elif event["event"] == "output" and event["value"]:
            if event["line"] == BUSY:
                pictures = []
            elif event["line"] in LINES:
                found.append(Acknowledged(LINES[event["line"]], list(pictures)))
    return found


def run(
    folder: Path, sim: Simulator, trials: int, seed: int, limit_s: float = math.inf
) -> dict[str, Any]:
    """Kill `trials` inspections, fewer where the time is over; nothing told may be lost."""
    cell = Trials(folder, sim, seed)
    started = time.monotonic()
    while cell.found["killed"] < trials and time.monotonic() - started < limit_s:
        cell.trial(cell.found["killed"])
        assert cell.found["ended_before"] <= 2 + trials // 4, "inspections end by themselves"
        told = {**dict(cell.found), "s": round(time.monotonic() - started)}
        sys.stderr.write(f"{json.dumps(told)}\n")
    result = {"lost": 0, "told_other_than_recorded": 0, **cell.finish()}
    assert result["lost"] == result["told_other_than_recorded"] == 0, result
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("trials", type=int, nargs="?", default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--minutes", type=float, default=math.inf)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="station-kill-") as place:
        arguments = ["--size", "320", "268", "--speed", "30", "--defect-rate", "0"]
        with Simulator(Path(place), arguments) as simulator:
            result = run(Path(place), simulator, given.trials, given.seed, 60 * given.minutes)
            sys.stdout.write(f"{json.dumps(result)}\n")
