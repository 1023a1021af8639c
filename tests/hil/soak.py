"""Thousands of sheets with a fault every so often: `python tests/hil/soak.py 10000`.

A station that stays inspects `recipes/soak.yaml`. Faults come at random moments; after each, a
person is played: undo it, clear, reset, start. Witness is the simulator's journal. Every sheet is a
picture of its own, grey or bright: it is known of which sheet a record is, and which to reject.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from simulator import ROOT, Simulator
from soak_evidence import THRESHOLD, Event, check, write_sheets

from station import control
from station import workspace as template
from station.collect import SAVERS
from station.errors import ConfigError
from station.records.dataset import Dataset

NOTICE_S = 8.0
LATE_S = 6.0  # no sheet for so long: look whether it has stopped
REACH_S = 60.0
TRIES = 12  # of a person's clear, reset and start: on a busy computer deadlines pass
ALONE = "stopped by itself"  # busy with other work, a computer misses the robot's watchdog
MEMORY_MB = 30.0
SETTLED = 10  # sheets after a start until memory is what it will be
FEWEST = 3  # looks at the process between two faults: the first may find it still beginning
AWAY_S = 5  # until a sheet that stays is told


class Fault(NamedTuple):
    """What happens, and how a person undoes it."""

    name: str
    do: str
    undo: tuple[str, ...] = ()
    goes_on: bool = False


FAULTS = (
    Fault("protective stop", "protective_stop"),
    Fault("safeguard stop", "safeguard_stop"),
    Fault("emergency stop", "emergency_stop"),
    Fault("connection cut", "cut"),
    Fault("cut, then refused", "refuse+cut", ("accept",)),
    Fault("half-open connection", "half_open", ("whole",)),
    Fault("frozen data", "freeze", ("unfreeze",)),
    Fault("wrong pose reached", "offset 0 0.004 0", ("offset 0 0 0",)),
    Fault("slider 0 %", "slider 0", ("slider 1",)),
    Fault("slider 10 %", "slider 0.1", ("slider 1",), goes_on=True),
    Fault("program stopped", "stop_program"),
    Fault("robot child killed", "kill rtde"),
    Fault("model child killed", "kill libtorch"),
    Fault("aborted by a person", "abort"),
    Fault("held by a person", "hold", goes_on=True),
    Fault("station killed", f"signal {int(signal.SIGKILL)}"),
    Fault("station terminated", f"signal {int(signal.SIGTERM)}"),
)


class Soak:
    """A simulated cell and the station that works in it through all of it."""

    def __init__(self, folder: Path, sim: Simulator, seed: int) -> None:
        self.workspace = folder / "ws"
        self.sim = sim
        self.random = random.Random(seed)  # noqa: S311 - it only chooses faults and moments
        self.faults: Counter[str] = Counter()
        self.by_hand: set[int] = set()
        self.starts = self.kills = 0
        self.growth_mb = 0.0
        self.counts: Counter[tuple[int, int]] = Counter()  # descriptors, threads between two faults
        self._resident: list[float] = []
        self._sheet_s = 1.0  # that the last sheet took
        self._events: list[Event] = []
        self._read_bytes = 0
        self._sheets = 0
        template.init(self.workspace)
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("toy_models.py")), str(self.workspace)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        recipe = self.workspace / "recipes" / "soak.yaml"
        kept = [x for x in recipe.read_text().splitlines() if not x.startswith(("model", "thresh"))]
        recipe.write_text("\n".join([*kept, "model: toy/1", f"threshold: {THRESHOLD}", ""]))
        self.cell = self.workspace / "calibration" / "soak.yaml"
        text = Path(sim.env["STATION_CELL"]).read_text()
        assert "sheet_timeout_s: 60" in text
        text = text.replace("    host:", "    connect_timeout_s: 100  # a busy computer\n    host:")
        limits = "disk: {start_free_gb: 0, suspend_free_gb: 0}\n"
        self.cell.write_text(text.replace("timeout_s: 60", f"timeout_s: {AWAY_S}") + limits)
        self._station: subprocess.Popen[bytes] | None = None

    def run(self, sheets: int, every: int, minutes: float) -> None:
        """Inspect that many sheets, or for so long, with a fault after about every so many."""
        end = time.monotonic() + 60 * minutes
        self._recover(())
        while self._laid() < sheets and time.monotonic() < end:
            self._inspect(min(sheets - self._laid(), 1 + int(self.random.expovariate(1 / every))))
            time.sleep(self.random.uniform(0, self._sheet_s))
            self._disturb(self.random.choice(FAULTS))
        self._ask("stop")
        self._until(lambda: self._state() == "stopped", "stopped")
        self._end(signal.SIGTERM)

    def _inspect(self, sheets: int) -> None:
        """Let sheets through; look at the process after each."""
        goal = self._laid() + sheets
        counts: list[tuple[int, int]] = []
        while (seen := self._laid()) < goal:
            since = time.monotonic()
            if not self._next(seen):
                self.faults[ALONE] += 1
                self._recover(())
                continue
            self._sheet_s = time.monotonic() - since
            pid = self._process().pid
            self._resident.append(resident_mb(pid))
            if len(self._resident) > SETTLED:
                kept = self._resident[SETTLED:]
                self.growth_mb = max(self.growth_mb, max(kept) - min(kept))
            counts.append(descriptors_and_threads(pid))
        if len(counts) >= FEWEST:
            usual = Counter(counts).most_common(1)[0][0]
            if usual not in self.counts:
                told = {"descriptors, threads": usual, "names": thread_names(self._process().pid)}
                sys.stderr.write(f"{json.dumps(told)}\n")
            self.counts[usual] += 1

    def _next(self, seen: int) -> bool:
        """Wait for the next sheet; False where the station has stopped instead."""
        for _ in range(round(REACH_S / LATE_S)):
            end = time.monotonic() + LATE_S
            while self._laid() == seen and time.monotonic() < end:
                time.sleep(0.01)
            if self._laid() > seen or self._state() in ("aborting", "aborted", ""):
                return self._laid() > seen
        raise AssertionError(f"no sheet {seen}: {self._state()}; {self._log()}")

    def _disturb(self, fault: Fault) -> None:
        self.faults[fault.name] += 1
        told = {"sheets": self._laid(), "fault": fault.name, "counts": sorted(self.counts)}
        if self._resident:
            told["mb"] = round(self._resident[-1], 1)
        sys.stderr.write(f"{json.dumps(told)}\n")
        verb, _, what = fault.do.partition(" ")
        if verb == "kill":
            self._kill_child(what)
        elif verb == "signal":
            self._end(int(what))
            self.kills += int(what) == signal.SIGKILL
        elif verb in ("abort", "hold"):
            self._ask(verb)
        else:
            for command in fault.do.split("+"):
                self.sim.send(command)
        end = time.monotonic() + (1.5 if fault.goes_on else NOTICE_S)
        while time.monotonic() < end and self._state() not in ("aborted", ""):
            time.sleep(0.02)
        self._recover(fault.undo)

    def _recover(self, undo: tuple[str, ...]) -> None:
        """Do what a person does, until the station inspects again."""
        for command in undo:
            self.sim.send(command)
        for _ in range(TRIES):
            if self._state() == "":
                self._start()
            if self._state() == "execute":
                return
            if self._state() == "held":
                self._ask("unhold")
                self._reach("execute")
            self.sim.send("reset")
            if all(self._command(*step) for step in STEPS):
                return
            if "take the sheet away" in self._reason():
                self.by_hand.add(self._laid() - 1)
                self.sim.send("next")
        raise AssertionError(f"{self._state()}: {self._reason()}; {self._log()}")

    def _command(self, command: str, reached: str) -> bool:
        if self._state() == "aborting":
            self._reach("aborted")
        answer = control.ask(self.workspace, command=command, user="soak")
        return bool(answer["accepted"]) and self._reach(reached)

    def _reach(self, state: str) -> bool:
        self._until(lambda: self._state() in (state, "aborted"), state)
        return self._state() == state

    def _start(self) -> None:
        self._resident.clear()
        self.starts += 1
        command = [sys.executable, "-m", "station", "inspect", "--recipe", "soak", "--json"]
        environment = {**os.environ, **self.sim.env, "STATION_CELL": str(self.cell)}
        with (
            (self.workspace / "rows.jsonl").open("ab") as rows,
            (self.workspace / "stderr.log").open("ab") as log,
        ):
            self._station = subprocess.Popen(
                command,
                stdout=rows,
                stderr=log,
                cwd=self.workspace,
                env={**environment, "PYTHONPATH": str(ROOT)},
            )
        self._until(lambda: self._state() != "", "a station that answers")

    def _end(self, number: int) -> None:
        process = self._process()
        process.send_signal(number)
        process.wait(REACH_S)

    def held_against(self, means: list[float], photographs: Path) -> dict[str, int]:
        """Hold what was recorded and printed against the journal; return how much of what."""
        folders = Dataset(self.workspace, "soak").folders()
        found = check(folders, self.events(), means, photographs, self.by_hand)
        rows = (self.workspace / "rows.jsonl").read_text().splitlines()
        printed = [json.loads(row)["sheet"] for row in rows]
        names = [folder.name for folder in folders]
        assert printed == [name for name in names if name in set(printed)], "printed out of order"
        assert len(names) - len(printed) <= self.kills, "a sheet was dropped without a word"
        return {"sheets": len(folders), **dict(sorted(found.items()))}

    def close(self) -> None:
        """Leave no process behind."""
        if self._station is not None and self._station.poll() is None:
            self._station.kill()
            self._station.wait()

    def _kill_child(self, library: str) -> None:
        """Kill the child that has a library loaded; none while it is being opened anew."""
        pid = self._process().pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):
                if library in Path(f"/proc/{child}/maps").read_text():
                    os.kill(int(child), signal.SIGKILL)

    def _process(self) -> subprocess.Popen[bytes]:
        assert self._station is not None
        return self._station

    def _ask(self, command: str) -> dict[str, Any]:
        return control.ask(self.workspace, command=command, user="soak")

    def _state(self) -> str:
        """Return the state; empty where no station runs."""
        if self._station is None or self._station.poll() is not None:
            return ""
        with suppress(ConfigError):
            return str(self._ask("status")["state"])
        return ""

    def _reason(self) -> str:
        with suppress(ConfigError):
            return str(self._ask("status")["reason"])
        return ""

    def _log(self) -> str:
        return (self.workspace / "stderr.log").read_text()[-3000:]

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + REACH_S
        while not condition():
            assert time.monotonic() < end, f"no {what}: {self._reason()}; {self._log()}"
            time.sleep(0.01)

    def _laid(self) -> int:
        self.events()
        return self._sheets

    def events(self) -> list[Event]:
        """Return what the journal says of sheets and lines; only what is new is read."""
        new, self._read_bytes = self.sim.journal_since(self._read_bytes)
        wanted = ("sheet", "sorted", "output")
        self._events += [event for event in new if event["event"] in wanted]
        self._sheets += sum(event["event"] == "sheet" for event in new)
        return self._events


STEPS = (("clear", "stopped"), ("reset", "idle"), ("start", "execute"))


def run(
    folder: Path,
    sheets: int,
    every: int,
    seed: int,
    pace: Sequence[object] = ("--speed", 100),
    minutes: float = float("inf"),
) -> dict[str, Any]:
    """Inspect `sheets` sheets, or what comes in time, through faults; assert what must hold."""
    started = time.monotonic()
    photographs = folder / "photographs"
    means = write_sheets(photographs, sheets + sheets // 10 + 20, seed)
    with Simulator(folder, ["--sheets", str(photographs), *map(str, pace)]) as sim:
        soak = Soak(folder, sim, seed)
        try:
            soak.run(sheets, every, minutes)
        finally:
            soak.close()
        result: dict[str, Any] = soak.held_against(means, photographs)
    verifying = subprocess.run(
        [sys.executable, "-m", "station", "verify", "--workspace", str(soak.workspace)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STATION_CELL": str(soak.cell)},
        capture_output=True,
        text=True,
        check=False,
    )
    descriptors, threads = (sorted(set(numbers)) for numbers in zip(*soak.counts, strict=True))
    result |= {
        "descriptors": descriptors,
        "threads": threads,
        "faults": dict(sorted(soak.faults.items())),
        "starts": soak.starts,
        "growth_mb": round(soak.growth_mb, 1),
        "s": round(time.monotonic() - started),
    }
    sys.stderr.write(f"{json.dumps(result)}\n")  # hours of it, whatever is asserted of it
    assert soak.faults[ALONE] <= 2 + sheets // 50, soak.faults
    assert verifying.returncode == 0, verifying.stdout + verifying.stderr
    assert soak.growth_mb < MEMORY_MB, f"{soak.growth_mb:.1f} MB more"
    # Fewer where the robot's link had just gone; what leaks becomes more.
    (held, usual), _ = soak.counts.most_common(1)[0]
    assert descriptors[-1] == held, f"descriptors: {soak.counts}"
    # A second saver starts once the first is busy, and stays for the run.
    assert threads[-1] - usual < SAVERS, f"threads: {soak.counts}"
    return result


def resident_mb(pid: int) -> float:
    """Sum a process and its children: the robot's and the model's."""
    family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors_and_threads(pid: int) -> tuple[int, int]:
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(
        list(Path(f"/proc/{pid}/task").iterdir())
    )


def thread_names(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            found.append((task / "comm").read_text().strip())
    return sorted(found)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("sheets", type=int, nargs="?", default=10_000)
    options.add_argument("--every", type=int, default=20, help="sheets between faults, on average")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--speed", type=float, default=100.0, help="factor on the arm's motion")
    options.add_argument("--exchange", type=float, default=0.3, help="seconds between sheets")
    options.add_argument("--minutes", type=float, default=float("inf"), help="end it then")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    place = Path(tempfile.mkdtemp(prefix="station-soak-"))  # stays where something did not hold
    pace = ("--speed", given.speed, "--exchange", given.exchange)
    total = run(place, given.sheets, given.every, given.seed, pace, given.minutes)
    shutil.rmtree(place)
    if given.json:
        sys.stdout.write(f"{json.dumps(total)}\n")
    else:
        faults = total.pop("faults")
        rows = {**total, **{f"fault: {name}": n for name, n in faults.items()}}
        sys.stdout.write("".join(f"{n!s:>8}  {name}\n" for name, n in rows.items()))
