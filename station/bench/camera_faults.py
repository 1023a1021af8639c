"""`station bench faults --faults camera`: every fault of the camera, once and lasting, as a table.

The production loop runs in this process, against a simulated robot in another one: the camera's
emulator lives where its driver does, and only there can it be unplugged. What arm and lines did is
told by the simulator's journal.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from station import workspace as template
from station.bench.camera_injection import FAULTS, Disturbed, Fault, Plan
from station.bench.far_ends import far_ends
from station.cell import Cell, open_devices
from station.config import LoadedCell, load_cell
from station.cycle import Inspected, Judging
from station.devices import Camera
from station.errors import StationError
from station.model import open_model
from station.production import Plant, Production
from station.recipe import LoadedRecipe, load_recipe
from station.records.boot import next_boot
from station.records.dataset import Dataset
from station.records.ledger import open_ledger
from station.shots import Job
from station.states import Command, Machine, State
from station.workspace import software

if TYPE_CHECKING:
    from station.devices.basler import BaslerCamera

ACCEPT = 0
SENT_S = 0.05  # a command that had left the station before the fault may still arrive
DEADLINE_S = 120.0  # for a state or a sheet, on a busy computer
WATCH_S = 0.3  # looked at after the sheet was told: does anything move?
POLL_S = 0.01
TRIES = 5
PATIENT = {
    'serial: "0815-0000"': 'serial: "0815-0000"\n    trigger_timeout_s: 0.4',
    "driver: ur\n  settings:": "driver: ur\n  settings:\n    connect_timeout_s: 100",
}  # a camera that answers at once, a robot that may be late

# Every score lies below this threshold: without a fault every sheet would be accepted.
RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - {name: left, pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]}
  - {name: right, pose: [0.04, -0.45, 0.26, 3.14159265, 0, 0]}
offsets_m: [[0, 0, 0], [0.003, 0, 0]]
working_distance_m: 0.255
approach_height_m: 0.03
travel_speed_m_s: 0.25
shot_speed_m_s: 0.2
acceleration_m_s2: 1.2
settle_s: 0
exposure_us: 8000
gain_db: 0
picture_limits: {darkest_mean: 20, saturated_share: 0.5, least_sharpness: 6}
smallest_defect_mm: 3
model: MODEL
threshold: 10
"""
RECIPE_NAME = "camera-faults"
MISSING = "missing"
NAMES = (MISSING, *FAULTS)
SIMULATOR = ("--size", "320", "268", "--speed", "10", "--defect-rate", "0")


class Entry(NamedTuple):
    """What one fault led to; times in seconds, `back_s` from a person's clear to an accept."""

    fault: str
    times: str
    held: bool
    outcome: str
    retaken: int
    moved: bool
    state: str
    state_s: float
    message: str
    back_s: float | None


class Bench:
    """A station in this process, led from a thread beside its loop."""

    def __init__(self, workspace: Path, cell: LoadedCell, recipe: LoadedRecipe) -> None:
        self._workspace = workspace
        self._cell = cell
        self._recipe = recipe
        self._machine = Machine()
        self._leave = threading.Event()
        self._plan = Plan()
        self._camera: Disturbed | None = None
        self._told: list[Inspected] = []
        self._hit: Inspected | None = None  # the first sheet told after the fault happened

    def run(self, lead: Callable[[Bench], None]) -> None:
        """Produce in this thread, which must be the main one, while `lead` leads from another."""
        failed: list[BaseException] = []

        def leading() -> None:
            try:
                lead(self)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                failed.append(error)
            finally:
                self._leave.set()
                self._machine.finishing.set()

        with open_ledger(self._workspace) as ledger:
            dataset = Dataset(self._workspace, self._recipe.name, ledger)
            plant = Plant(
                self._recipe.recipe, dataset, self._open_judging, self._open_cell,
                self._begin_job, self._show,
            )  # fmt: skip
            thread = threading.Thread(target=leading, name="lead")
            thread.start()
            Production(self._machine, plant, self._leave).run()
            thread.join()
        if failed:
            raise failed[0]

    def entry(self, fault: Fault, times: str, journal: Path) -> Entry:
        """Have it happen, watch, and lead the station back as a person would."""
        self._hit = None
        self._plan.set(fault, times)
        self._until(self._has_happened, f"sheet for {fault.name!r}")
        happened = self._plan.happened or 0.0
        lasting = times == "lasting"
        if lasting:
            self._until(lambda: self._machine.state is State.ABORTED, "aborted")
        sheet = self._hit_sheet()
        state_s = time.monotonic() - happened
        state, message = self._machine.state, self._machine.reason
        retaken = sum(len(capture.retaken) for capture in sheet.manifest.captures)
        back_s, moved, accepted = None, False, False
        if lasting:
            time.sleep(WATCH_S)
            moved, accepted = _went_on(journal, happened)
            if self._camera is not None:
                self._plan.end(self._camera)
            back_s = self._lead_back()
            held = sheet.outcome == "none" and state is State.ABORTED and not (moved or accepted)
        else:
            held = sheet.outcome == "accept" and retaken > 0 and state is State.EXECUTE
        return Entry(
            fault.name, times, held, sheet.outcome, retaken, moved, state, round(state_s, 2),
            message, back_s,
        )  # fmt: skip

    def _hit_sheet(self) -> Inspected:
        self._until(lambda: self._hit is not None, "an outcome")
        assert self._hit is not None  # noqa: S101 - for the type checker
        return self._hit

    def _has_happened(self) -> bool:
        """Produce until it has, also where the robot stops first, as on a busy computer."""
        executing = self._machine.state is State.EXECUTE  # asked first: a fault ends it
        if self._plan.happened is None and not executing:
            self._produce()
        return self._plan.happened is not None

    def missing(self) -> Entry:
        """Clear a station whose camera is not there; plug it in, and lead the station on."""
        self._abort()
        plugged = os.environ["PYLON_CAMEMU"]
        os.environ["PYLON_CAMEMU"] = "0"
        asked = time.monotonic()
        self._machine.command(Command.CLEAR)
        self._reach(State.STOPPED)
        state, message, state_s = (
            self._machine.state,
            self._machine.reason,
            time.monotonic() - asked,
        )
        os.environ["PYLON_CAMEMU"] = plugged
        back_s = self._lead_back()
        held = state is State.ABORTED and "not found" in message
        return Entry(
            MISSING, "at start", held, "-", 0, False, state, round(state_s, 2), message, back_s
        )

    def _lead_back(self) -> float:
        count, asked = len(self._told), time.monotonic()
        self._produce()
        self._until(lambda: len(self._told) > count, "a sheet after the fault")
        if self._told[count].outcome != "accept":
            raise StationError(f"the next sheet has the outcome {self._told[count].outcome}")
        return round(time.monotonic() - asked, 2)

    def _produce(self) -> None:
        """Lead the station to Execute; the robot's link may take a few tries on a busy computer."""
        for left in reversed(range(TRIES)):
            try:
                self._lead_to_execute()
            except StationError as error:
                if not left or not str(error).startswith("robot"):
                    raise
            else:
                return

    def _lead_to_execute(self) -> None:
        if self._machine.state is State.EXECUTE:
            return
        self._abort()
        for command, state in (
            (Command.CLEAR, State.STOPPED),
            (Command.RESET, State.IDLE),
            (Command.START, State.EXECUTE),
        ):
            self._machine.command(command)
            self._reach(state)
            if self._machine.state is State.ABORTED:
                raise StationError(f"{self._machine.reason} (at {command})")

    def _reach(self, state: State) -> None:
        self._until(lambda: self._machine.state in (state, State.ABORTED), str(state))

    def _abort(self) -> None:
        if self._machine.state not in (State.ABORTING, State.ABORTED):
            self._machine.command(Command.ABORT, "the bench")
        self._until(lambda: self._machine.state is State.ABORTED, "aborted")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > end:
                raise StationError(
                    f"no {what} within {DEADLINE_S:g} s; {self._machine.state}: "
                    f"{self._machine.reason}"
                )
            time.sleep(POLL_S)

    # What production asks for.

    @contextmanager
    def _open_judging(self) -> Iterator[Judging]:
        recipe = self._recipe.recipe
        name, threshold = str(recipe.model), float(recipe.threshold or 0)
        with open_model(self._workspace, name, threshold=threshold) as model:
            card = model.card
            yield Judging(
                model, name, card.sha256, threshold, recipe.sheet_rule, card.runtime,
                card.precision,
            )  # fmt: skip

    @contextmanager
    def _open_cell(self) -> Iterator[Cell]:
        from station.sim.faults import send

        address = str(self._cell.config.robot.settings["host"])
        with open_devices(self._cell.config, self._workspace, None) as cell:
            self._camera = Disturbed(
                cast("BaslerCamera", cell.camera), self._plan, lambda text: send(address, text)
            )
            self._plan.next_sheet()
            yield cell._replace(camera=cast(Camera, self._camera))

    def _begin_job(self, dry_run: bool) -> Job:
        run = f"{self._cell.config.station}-{next_boot(self._workspace):04d}"
        return Job(run, self._recipe, self._cell, software(), self._machine.finishing, dry_run)

    def _show(self, inspected: Inspected) -> None:
        self._plan.next_sheet()
        self._told.append(inspected)
        # Noted here: by the time the leading thread looks, the sheet may long be told.
        if self._hit is None and self._plan.happened is not None:
            self._hit = inspected


def camera_fault_table(
    folder: Path, faults: list[str], address: str, model: str, tell: Callable[[Entry], None]
) -> None:
    """Tell an entry per fault, once and lasting; the workspace in `folder` has the model.

    Must be called in the main thread; `tell` is called in another.
    """
    template.init(folder)
    (folder / "recipes" / f"{RECIPE_NAME}.yaml").write_text(RECIPE.replace("MODEL", model))
    journal = folder / "journal.jsonl"
    with ExitStack() as stack:
        path = stack.enter_context(far_ends(folder, address, *SIMULATOR, "--journal", str(journal)))
        text = path.read_text()
        for old, new in PATIENT.items():
            text = text.replace(old, new, 1)
        cell_file = folder / "calibration" / "bench.yaml"
        cell_file.write_text(text)
        bench = Bench(folder, load_cell(cell_file), load_recipe(folder, RECIPE_NAME))

        def lead(bench: Bench) -> None:
            for name in faults:
                if name == MISSING:
                    tell(bench.missing())
                    continue
                for times in FAULTS[name].times:
                    entry = bench.entry(FAULTS[name], times, journal)
                    if not entry.held and entry.message.startswith("robot"):
                        # On a busy computer the robot's watchdog may be faster than the fault.
                        entry = bench.entry(FAULTS[name], times, journal)
                    tell(entry)

        bench.run(lead)


def _went_on(journal: Path, happened: float) -> tuple[bool, bool]:
    """Tell whether the arm was moved, and whether accept rose, after the fault."""
    moved = accepted = False
    for line in journal.read_text(encoding="utf-8").splitlines():
        event: dict[str, Any] = json.loads(line)
        if event["t"] <= happened:
            continue
        if event["event"] == "command" and event["name"].startswith("move"):
            moved = moved or event["t"] > happened + SENT_S
        if event["event"] == "output" and event["line"] == ACCEPT:
            accepted = accepted or bool(event["value"])
    return moved, accepted
