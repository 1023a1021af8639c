"""`station bench faults`: every fault of the robot at every step of the cycle, as a table.

A whole station runs against a simulated controller: one `station inspect` that is cleared, reset
and started for each entry. What arm and lines did is told by the simulator's journal, what the
station made of it by its control socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from station import control
from station import workspace as template
from station.bench.robot_injection import FAULTS, STEPS, Fault, Step
from station.errors import ConfigError, StationError
from station.records.dataset import Dataset, after_of, read_record

ACCEPT, REJECT, BUSY = 0, 1, 2
POLL_S = 0.005
REACH_S = 150.0  # for a step to come
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

Event = dict[str, Any]

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
        self._address = address
        self._journal = folder / f"journal-{series}.jsonl"
        self._events: list[Event] = []
        self._read_bytes = 0
        self._far_end: subprocess.Popen[str] | None = None
        self._station: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._unready = ""
        template.init(folder)
        cell = folder / "calibration" / "sim.yaml"
        patient = "robot:\n  driver: ur\n  settings:\n    connect_timeout_s: 100"  # a busy computer
        cell.write_text(cell.read_text().replace("robot:\n  driver: ur\n  settings:", patient))
        (folder / "recipes" / f"{RECIPE_NAME}.yaml").write_text(RECIPE.replace("MODEL", model))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._station, self._far_end):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        self._close_output()

    def entry(self, step: Step, fault: Fault) -> Entry:
        """Bring the station to the step, do the fault, watch, and undo it as a person would."""
        for _ in range(TRIES - 1):
            try:
                return self._entry(step, fault)
            except TooBusy as error:
                log.warning("step.missed", step=step.name, reason=str(error))
                for command in fault.undo:  # what is there before the first move
                    self._send(command)
        return self._entry(step, fault)

    def _entry(self, step: Step, fault: Fault) -> Entry:
        self._until(lambda: self._is_ready(step), f"station ready for {step.name}", READY_S)
        child = self._child()
        # A move that has begun goes where it was sent: for the first one the fault is there before.
        early = fault.at_rest and step.event == "move" and step.number == 1
        if early:
            happened = time.monotonic()
            self._do(fault.do, child)
        begun = time.monotonic()
        self._reach(step)
        run = None if step.command == "reset" else self._ask("status")["run"]
        if not early:
            happened = time.monotonic()
            self._do(fault.do, child)
        if step.name == "waiting" and not fault.do.endswith("far end"):
            time.sleep(0.3)
            self._send("input 0 1", missing_ok=True)  # the sheet comes; does anything go on?
        state, state_s, message = self._notice(fault, happened)
        time.sleep(WATCH_S)
        self._undo(fault, child)
        if state_s is None and not fault.goes_on:
            state, state_s, message = self._notice(fault, happened)
        time.sleep(0.3)  # a controller that thaws must not go on either
        entry = self._judge(step, fault, happened, (state, state_s, message))
        recorded = self._recorded(run)
        accepts = sum(_rises(e, ACCEPT) and e["t"] > begun for e in self._read())
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
        moving = [e for e in self._read() if e["event"] == "moving"]
        if fault.at_rest:  # it is there from the end of the first move that begins after it
            begun = next((e["t"] for e in moving if e["t"] > happened and e["value"]), happened)
            happened = next((e["t"] for e in moving if e["t"] > begun and not e["value"]), begun)
        before = [e for e in moving if e["t"] <= happened]
        was_moving = bool(before) and before[-1]["value"]
        ends = [e["t"] - happened for e in moving if e["t"] > happened and not e["value"]]
        later = [e for e in self._read() if e["t"] > happened + SENT_S]
        moved_again = any(_is_move(e) or (e["event"] == "moving" and e["value"]) for e in later)
        accepted = any(_rises(e, ACCEPT) and e["t"] > happened for e in self._read())
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

    def _is_ready(self, step: Step) -> bool:
        """Make it ready; a busy computer may need another try."""
        try:
            self._make_ready(step)
        except StationError as error:
            self._unready = str(error)
            return False
        return self._state() == ("stopped" if step.command == "reset" else "idle")

    def _make_ready(self, step: Step) -> None:
        """Bring everything to Idle (for the retreat: Stopped), the arm beside its first place."""
        self._start_far_end()
        self._start_station()
        status = self._ask("status")
        if status["state"] not in ("aborted", "aborting"):
            self._ask("abort")
        self._until(lambda: self._state() == "aborted", "aborted")
        self._send("reset")
        self._until(lambda: not self._sim("moving"), "an arm at rest")
        self._send(f"jog {LOW if step.command == 'reset' else ASIDE}")
        self._command("clear", "stopped")
        if step.command == "start":
            self._command("reset", "idle")
            self._until(lambda: self._sim("table") == "PRESENT", "a sheet on the table")
            if step.name == "waiting":
                self._send("input 0 0")

    def _reach(self, step: Step) -> None:
        since = time.monotonic()
        self._ask(step.command)
        if step.name == "waiting":
            self._until(lambda: self._state() == "execute", "execute")
            time.sleep(0.3)
            return
        self._until(
            lambda: self._seen(step.event, since) >= step.number or self._state() == "aborted",
            step.name,
        )
        if self._seen(step.event, since) < step.number:
            raise TooBusy(f"aborted before {step.name}: {self._ask('status')['reason']}")
        if step.event == "move":  # the command is there an instant before its motion
            self._until(self._has_begun, f"motion in {step.name}")

    def _has_begun(self) -> bool:
        """Tell whether the arm has moved since the last move was commanded."""
        events = self._read()
        commanded = max(e["t"] for e in events if _is_move(e))
        return any(e["event"] == "moving" and e["value"] and e["t"] > commanded for e in events)

    def _seen(self, event: str, since: float) -> int:
        """Count what has happened since."""
        if event == "picture saved":
            partial = self._folder / "data" / RECIPE_NAME / ".partial"
            return len(list(partial.glob("inspection/*/[!.]*.png")))
        events = [e for e in self._read() if e["t"] > since]
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
            if self._station is not None and self._station.poll() is not None:
                return self._after_a_start()
            if not _running(self._station):  # stopped by a signal: it cannot answer
                if time.monotonic() > happened + 2.0:
                    return "frozen", None, "the station itself is frozen"
                time.sleep(0.05)
                continue
            try:
                status = self._ask("status")
            except ConfigError:  # it is ending just now: the next look at the process tells
                time.sleep(0.02)
                continue
            if left is None and status["state"] in ("aborting", "aborted"):
                left = round(time.monotonic() - happened, 3)
            if status["state"] == "aborted":
                return "aborted", left, status["reason"]
            time.sleep(0.02)
        status = self._ask("status")
        return status["state"], None, status["reason"]

    def _after_a_start(self) -> tuple[str, float | None, str]:
        """A station that was killed is started again, as by systemd, and stays Aborted."""
        self._station = None
        self._start_station()
        status = self._ask("status")
        return status["state"], 0.0, f"killed; {status['reason']}"

    def _do(self, what: str, child: int) -> None:
        verb, _, whom = what.partition(" ")
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(verb)
        if number is None:
            for command in what.split("+"):
                self._send(command)
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
            self._send(command)

    def _pids(self, whom: str, child: int) -> list[int]:
        station = [] if self._station is None else [self._station.pid]
        far_end = [] if self._far_end is None else [self._far_end.pid]
        return {
            "far end": far_end,
            "child": [child],
            "station": station,
            "both": [child, *station],
        }[whom]

    def _child(self) -> int:
        """Return the robot child's process id: the child that holds a connection to port 30004."""
        assert self._station is not None  # noqa: S101 - for the type checker
        listed = Path(f"/proc/{self._station.pid}/task/{self._station.pid}/children")
        for pid in map(int, listed.read_text().split()):
            with contextlib.suppress(OSError):
                if "rtde" in Path(f"/proc/{pid}/maps").read_text():
                    return pid
        raise StationError("the station has no robot child")

    # The far end.

    def _start_far_end(self) -> None:
        if self._far_end is not None and self._far_end.poll() is None:
            return
        self._stop_station()  # its camera is fed by the far end that is gone
        self._close_output()
        command = [
            sys.executable, "-m", "station.sim", "--workspace", str(self._folder),
            "--address", self._address, "--series", self._series, "--size", "320", "268",
            "--defect-rate", "0", "--journal", str(self._journal),
        ]  # fmt: skip
        self._far_end = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
        for line in self._far_end.stdout or ():
            if line.strip() == "ready":
                return
            name, _, value = line.removeprefix("export ").strip().partition("=")
            self._environment[name] = shlex.split(value)[0]
        raise ConfigError("the simulator did not start; see its message above")

    def _close_output(self) -> None:
        if self._far_end is not None and self._far_end.stdout is not None:
            self._far_end.stdout.close()

    def _send(self, command: str, *, missing_ok: bool = False) -> Event:
        from station.sim.faults import send

        try:
            answer: Event = json.loads(send(self._address, command))
        except ConfigError:
            if not missing_ok and self._far_end is not None and self._far_end.poll() is None:
                raise
            return {}
        return answer

    def _sim(self, key: str) -> Any:
        return self._send("state")[key]

    def _read(self) -> list[Event]:
        """Return all events so far; only what is new is read."""
        if self._journal.exists():
            with self._journal.open("rb") as journal:
                journal.seek(self._read_bytes)
                text = journal.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            self._events += [json.loads(line) for line in whole.splitlines()]
        return self._events

    # The station.

    def _start_station(self) -> None:
        if self._station is not None and self._station.poll() is None:
            return
        command = [
            sys.executable, "-m", "station", "inspect", "--workspace", str(self._folder),
            "--recipe", RECIPE_NAME,
        ]  # fmt: skip
        with (self._folder / "station.log").open("ab") as log:
            self._station = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
            )
        self._until(lambda: self._state() != "", "a station that answers")

    def _stop_station(self) -> None:
        if self._station is not None:
            self._station.kill()
            self._station.wait()
            self._station = None

    def _command(self, command: str, reached: str) -> None:
        self._ask(command)
        self._until(lambda: self._state() in (reached, "aborted"), reached)
        status = self._ask("status")
        if status["state"] != reached:
            raise StationError(f"{command} did not lead to {reached}: {status['reason']}")

    def _ask(self, command: str) -> Event:
        answer = control.ask(self._folder, command=command, user="bench")
        if not answer["accepted"]:
            raise StationError(answer["why"])
        return answer

    def _state(self) -> str:
        with contextlib.suppress(ConfigError):
            return str(self._ask("status")["state"])
        return ""

    def _until(self, condition: Callable[[], bool], what: str, deadline_s: float = REACH_S) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                raise StationError(f"no {what} within {deadline_s:g} s; {self._unready}")
            time.sleep(POLL_S)


def _fits(recorded: list[str], accepts: int) -> bool:
    """Tell whether records say what the accept line did; a killed station may not have known."""
    sure = recorded.count("accept")
    return sure <= accepts <= sure + recorded.count("unknown")


def _rises(event: Event, line: int) -> bool:
    return bool(event["event"] == "output" and event["line"] == line and event["value"])


def _is_move(event: Event) -> bool:
    return bool(event["event"] == "command" and event["name"].startswith("move"))


def _running(process: subprocess.Popen[bytes] | None) -> bool:
    """Tell whether a process is not stopped by a signal."""
    if process is None:
        return False
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state not in ("T", "t")
