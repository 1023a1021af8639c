"""`station bench faults`: every fault of the robot at every step of the cycle, as a table.

A whole station runs against a simulated controller: one `station inspect` that is cleared, reset
and started for each entry. What arm and lines did is told by the simulator's journal, what the
station made of it by its control socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from station import workspace as template
from station.bench.processes import POLL_S, Event, FarEnd, StayingStation, until
from station.bench.robot_injection import FAULTS, STEPS, Fault, Step
from station.errors import ConfigError, StationError
from station.records.dataset import Dataset, after_of, read_record

ACCEPT, REJECT, BUSY = 0, 1, 2
READY_S = 400.0  # for everything to be started and ready, on a busy computer
NOTICE_S = 12.0  # for the station to notice a fault
WATCH_S = 1.0  # looked at after the state was reached: does anything move again?
TRIES = 3  # to reach a step
SENT_S = 0.05  # a command that had left the station before the fault may still arrive

# Every score lies below this threshold: without a fault every sheet would be accepted.
RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - {name: left, pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]}
  - {name: right, pose: [0.04, -0.45, 0.26, 3.14159265, 0, 0]}
offsets_m: [[0, 0, 0], [0.01, 0, 0]]
working_distance_m: 0.255
approach_height_m: 0.05
travel_speed_m_s: 0.2
shot_speed_m_s: 0.1
acceleration_m_s2: 0.8
settle_s: 0.3
exposure_us: 8000
gain_db: 0
smallest_defect_mm: 3
model: MODEL
threshold: 10
"""
RECIPE_NAME = "faults"
ASIDE, LOW = "0.02 -0.42 0.36", "0.02 -0.42 0.27"

log = structlog.get_logger()


class TooBusy(StationError):
    """The station had to abort before anything was done to it: its watchdogs found it too slow."""


class Entry(NamedTuple):
    """What one fault at one step led to; times in seconds after the fault."""

    series: str
    step: str
    fault: str
    held: bool
    late: bool
    at_rest_s: float | None
    moved_again: bool
    accept_raised: bool
    recorded: str
    """What the sheets' records say was told; "-" where there was no sheet."""
    state: str
    state_s: float | None
    message: str


def fault_table(
    folder: Path, series: str, steps: list[str], faults: list[str], address: str, model: str
) -> Iterator[Entry]:
    """Yield an entry per step and fault; the workspace in `folder` has the model."""
    for given, there in ((steps, STEPS), (faults, FAULTS)):
        if wrong := [name for name in given if name not in there]:
            raise ConfigError(f"no {wrong[0]!r}; there are: {', '.join(there)}")
    known = [name for name in faults if FAULTS[name].only in (None, series)]
    with Bench(folder, series, address, model) as bench:
        for step in steps:
            for fault in known:
                yield bench.entry(STEPS[step], FAULTS[fault])


class Bench:
    """A simulated controller and a station that stays; both are started anew once killed."""

    def __init__(self, folder: Path, series: str, address: str, model: str) -> None:
        self._folder = folder
        self._series = series
        self._far_end = FarEnd(folder, series, address)
        self._station = StayingStation(folder, RECIPE_NAME)
        template.init(folder)
        cell = folder / "calibration" / "sim.yaml"
        patient = "robot:\n  driver: ur\n  settings:\n    connect_timeout_s: 100"  # a busy computer
        cell.write_text(cell.read_text().replace("robot:\n  driver: ur\n  settings:", patient))
        (folder / "recipes" / f"{RECIPE_NAME}.yaml").write_text(RECIPE.replace("MODEL", model))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._station.kill()
        self._far_end.kill()

    def entry(self, step: Step, fault: Fault) -> Entry:
        """Bring the station to the step, do the fault, watch, and undo it as a person would."""
        for _ in range(TRIES - 1):
            try:
                return self._entry(step, fault)
            except TooBusy as error:
                log.warning("step.missed", step=step.name, reason=str(error))
                for command in fault.undo:  # what is there before the first move
                    self._far_end.send(command)
        return self._entry(step, fault)

    def _entry(self, step: Step, fault: Fault) -> Entry:
        self._make_ready(step)
        child = self._station.robot_child()
        # A move that has begun goes where it was sent: for the first one the fault is there before.
        early = fault.at_rest and step.event == "move" and step.number == 1
        if early:
            happened = time.monotonic()
            self._do(fault.do, child)
        begun = time.monotonic()
        self._reach(step)
        run = None if step.command == "reset" else self._station.ask("status")["run"]
        if not early:
            happened = time.monotonic()
            self._do(fault.do, child)
        if step.name == "waiting" and not fault.do.endswith("far end"):
            time.sleep(0.3)
            # The sheet comes: does anything go on?
            self._far_end.send("input 0 1", missing_ok=True)
        state, state_s, message = self._notice(fault, happened)
        time.sleep(WATCH_S)
        self._undo(fault, child)
        if state_s is None and not fault.goes_on:
            state, state_s, message = self._notice(fault, happened)
        time.sleep(0.3)  # a controller that thaws must not go on either
        entry = self._judge(step, fault, happened, (state, state_s, message))
        recorded = self._recorded(run)
        accepts = sum(_rises(e, ACCEPT) and e["t"] > begun for e in self._far_end.events())
        right = fault.goes_on or _fits(recorded, accepts)
        told = ", ".join(recorded) or "-"
        return entry._replace(recorded=told, held=entry.held and right)

    def _recorded(self, run: str | None) -> list[str]:
        """Return what the records say was told of each sheet of this run."""
        dataset = Dataset(self._folder, RECIPE_NAME)
        told: list[tuple[str, str]] = [
            (path.name, after_of(read_record(path)).outcome or "unknown")
            for path in dataset.folders()
        ]
        told += [(path.name, "unfinished") for path in dataset.leftovers("inspection")]
        return [outcome for sheet, outcome in told if sheet.rpartition("-")[0] == run]

    def _judge(
        self, step: Step, fault: Fault, happened: float, told: tuple[str, float | None, str]
    ) -> Entry:
        state, state_s, message = told
        moving = [e for e in self._far_end.events() if e["event"] == "moving"]
        if fault.at_rest:  # it is there from the end of the first move that begins after it
            begun = next((e["t"] for e in moving if e["t"] > happened and e["value"]), happened)
            happened = next((e["t"] for e in moving if e["t"] > begun and not e["value"]), begun)
        before = [e for e in moving if e["t"] <= happened]
        was_moving = bool(before) and before[-1]["value"]
        ends = [e["t"] - happened for e in moving if e["t"] > happened and not e["value"]]
        later = [e for e in self._far_end.events() if e["t"] > happened + SENT_S]
        moved_again = any(_is_move(e) or (e["event"] == "moving" and e["value"]) for e in later)
        accepted = any(_rises(e, ACCEPT) and e["t"] > happened for e in self._far_end.events())
        at_rest_s = round(ends[-1], 3) if ends else (None if was_moving else 0.0)
        if fault.goes_on:
            held = state == ("resetting" if step.command == "reset" else "execute")
        else:
            # The arm of a simulated controller that was killed has died with it.
            rests = at_rest_s is not None or fault.do == "kill far end"
            held = state == "aborted" and rests and not moved_again and not accepted
        late = (state_s or 0.0) > fault.noticed_s or (at_rest_s or 0.0) > fault.rests_s
        return Entry(
            self._series, step.name, fault.name, held, late and not fault.goes_on, at_rest_s,
            moved_again, accepted, "-", state, state_s, message,
        )  # fmt: skip

    def _make_ready(self, step: Step) -> None:
        """Make it ready; a busy computer may need another try."""
        wanted = "stopped" if step.command == "reset" else "idle"
        end = time.monotonic() + READY_S
        while True:
            try:
                self._try_to_make_ready(step)
                if self._station.state() == wanted:
                    return
                problem = f"it is {self._station.state()}"
            except StationError as error:
                problem = str(error)
            if time.monotonic() > end:
                raise StationError(f"no station ready for {step.name}: {problem}")
            time.sleep(POLL_S)

    def _try_to_make_ready(self, step: Step) -> None:
        """Bring everything to Idle (for the retreat: Stopped), the arm beside its first place."""
        if not self._far_end.runs:
            self._station.kill()  # its camera is fed by the far end that is gone
            self._far_end.start()
        if not self._station.runs:
            self._station.start(self._far_end.environment)
        status = self._station.ask("status")
        if status["state"] not in ("aborted", "aborting"):
            self._station.ask("abort")
        until(lambda: self._station.state() == "aborted", "aborted")
        self._far_end.send("reset")
        until(lambda: not self._far_end.state("moving"), "an arm at rest")
        self._far_end.send(f"jog {LOW if step.command == 'reset' else ASIDE}")
        self._station.lead("clear", "stopped")
        if step.command == "start":
            self._station.lead("reset", "idle")
            until(lambda: self._far_end.state("table") == "PRESENT", "a sheet on the table")
            if step.name == "waiting":
                self._far_end.send("input 0 0")

    def _reach(self, step: Step) -> None:
        since = time.monotonic()
        self._station.ask(step.command)
        if step.name == "waiting":
            until(lambda: self._station.state() == "execute", "execute")
            time.sleep(0.3)
            return

        def reached() -> bool:
            return self._seen(step.event, since) >= step.number

        until(lambda: reached() or self._station.state() == "aborted", step.name)
        if not reached():
            raise TooBusy(f"aborted before {step.name}: {self._station.ask('status')['reason']}")
        if step.event == "move":  # the command is there an instant before its motion
            until(self._has_begun, f"motion in {step.name}")

    def _has_begun(self) -> bool:
        """Tell whether the arm has moved since the last move was commanded."""
        events = self._far_end.events()
        commanded = max(e["t"] for e in events if _is_move(e))
        return any(e["event"] == "moving" and e["value"] and e["t"] > commanded for e in events)

    def _seen(self, event: str, since: float) -> int:
        """Count what has happened since."""
        if event == "picture saved":
            partial = self._folder / "data" / RECIPE_NAME / ".partial"
            return len(list(partial.glob("inspection/*/[!.]*.png")))
        events = [e for e in self._far_end.events() if e["t"] > since]
        if event == "move":
            return sum(map(_is_move, events))
        if event == "rest":
            return sum(e["event"] == "rest" for e in events)
        falls = [e for e in events if e["event"] == "output" and e["line"] == BUSY]
        return sum(not e["value"] for e in falls)

    def _notice(self, fault: Fault, happened: float) -> tuple[str, float | None, str]:
        """Wait until the station is Aborted; return its state, when it left, and why."""
        left: float | None = None
        end = time.monotonic() + (3.0 if fault.goes_on else NOTICE_S)
        while time.monotonic() < end:
            if not self._station.runs:
                return self._after_a_start()
            if self._station.halted:  # it cannot answer
                if time.monotonic() > happened + 2.0:
                    return "frozen", None, "the station itself is frozen"
                time.sleep(0.05)
                continue
            try:
                status = self._station.ask("status")
            except ConfigError:  # it is ending just now: the next look at the process tells
                time.sleep(0.02)
                continue
            if left is None and status["state"] in ("aborting", "aborted"):
                left = round(time.monotonic() - happened, 3)
            if status["state"] == "aborted":
                return "aborted", left, status["reason"]
            time.sleep(0.02)
        status = self._station.ask("status")
        return status["state"], None, status["reason"]

    def _after_a_start(self) -> tuple[str, float | None, str]:
        """A station that was killed is started again, as by systemd, and stays Aborted."""
        self._station.start(self._far_end.environment)
        status = self._station.ask("status")
        return status["state"], 0.0, f"killed; {status['reason']}"

    def _do(self, what: str, child: int) -> None:
        verb, _, whom = what.partition(" ")
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(verb)
        if number is None:
            for command in what.split("+"):
                self._far_end.send(command)
            return
        for pid in self._pids(whom, child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _undo(self, fault: Fault, child: int) -> None:
        verb, _, whom = fault.do.partition(" ")
        if verb == "stop":
            for pid in self._pids(whom, child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for command in fault.undo:
            self._far_end.send(command)

    def _pids(self, whom: str, child: int) -> list[int]:
        return {
            "far end": self._far_end.pids,
            "child": [child],
            "station": self._station.pids,
            "both": [child, *self._station.pids],
        }[whom]


def _fits(recorded: list[str], accepts: int) -> bool:
    """Tell whether records say what the accept line did; a killed station may not have known."""
    sure = recorded.count("accept")
    return sure <= accepts <= sure + recorded.count("unknown")


def _rises(event: Event, line: int) -> bool:
    return bool(event["event"] == "output" and event["line"] == line and event["value"])


def _is_move(event: Event) -> bool:
    return bool(event["event"] == "command" and event["name"].startswith("move"))
