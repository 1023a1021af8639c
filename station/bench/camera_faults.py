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
from station.bench.far_ends import far_ends
from station.cell import Cell, open_devices
from station.config import LoadedCell, load_cell
from station.cycle import Inspected, Job, Judging
from station.devices import Camera
from station.errors import StationError
from station.model import open_model
from station.production import Plant, Production
from station.recipe import LoadedRecipe, load_recipe
from station.records.dataset import Dataset, next_boot
from station.records.ledger import open_ledger
from station.records.sheet import Frame
from station.states import Command, Machine, State
from station.workspace import software

if TYPE_CHECKING:
    from station.devices.basler import BaslerCamera

ACCEPT = 0
SHOT = 2  # of the sheet, at which a fault comes
SENT_S = 0.05  # a command that had left the station before the fault may still arrive
DEADLINE_S = 120.0  # for a state or a sheet, on a busy computer
WATCH_S = 0.3  # looked at after the sheet was told: does anything move?
READY_S = 10.0
POLL_S = 0.01

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
threshold: 1000
"""
RECIPE_NAME = "camera-faults"
SIMULATOR = ("--size", "320", "268", "--speed", "10", "--defect-rate", "0")

Hand = Callable[["Disturbed"], object]


class Fault(NamedTuple):
    """What goes wrong with the camera, how it is undone, and whether it comes once or stays."""

    name: str
    do: Hand
    undo: Hand
    times: tuple[str, ...] = ("once", "lasting")


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


class Disturbed:
    """The camera's own driver; what goes wrong is done to its emulator just before a trigger."""

    def __init__(self, camera: BaslerCamera, plan: Plan, send: Callable[[str], object]) -> None:
        self._camera = camera
        self._plan = plan
        self.send = send
        """Tell the simulator something, as `station fault` does."""

    @property
    def nodes(self) -> Any:
        """The emulator's nodes."""
        return self._camera.nodes

    def configure(self, exposure_us: float, gain_db: float) -> None:
        """As the driver does."""
        self._camera.configure(exposure_us, gain_db)

    def trigger(self) -> Frame:
        """As the driver does, after what the plan has for this trigger."""
        self._plan.next_trigger(self)
        return self._camera.trigger()

    def reconnect(self) -> None:
        """As the driver does."""
        self._camera.reconnect()

    def statistics(self) -> dict[str, int]:
        """As the driver does."""
        return self._camera.statistics()


class Plan:
    """Which fault comes at which trigger; set by one thread, followed by the one that triggers."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._once = False
        self._triggers = 0
        self.happened: float | None = None

    def set(self, fault: Fault, times: str) -> None:
        """Have the fault come at a coming sheet's second shot."""
        self.happened, self._once, self._fault = None, times == "once", fault

    def end(self, camera: Disturbed) -> None:
        """Undo a lasting fault."""
        if self._fault is not None:
            self._fault.undo(camera)
            self._fault = None

    def next_sheet(self) -> None:
        """Count triggers anew."""
        self._triggers = 0

    def next_trigger(self, camera: Disturbed) -> None:
        """Do or undo what there is to do before this trigger."""
        self._triggers += 1
        if self._fault is None:
            return
        if self.happened is None:
            if self._triggers == SHOT:
                self._fault.do(camera)
                self.happened = time.monotonic()
        elif self._once:
            self.end(camera)
        else:
            self._fault.do(camera)


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
        self._plan.set(fault, times)
        self._until(self._has_happened, f"sheet for {fault.name!r}")
        happened = self._plan.happened or 0.0
        count = len(self._told)
        lasting = times == "lasting"
        if lasting:
            self._until(lambda: self._machine.state is State.ABORTED, "aborted")
        self._until(lambda: len(self._told) > count, "an outcome")
        state_s = time.monotonic() - happened
        sheet, state, message = self._told[count], self._machine.state, self._machine.reason
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
                raise StationError(f"{command} did not lead to {state}: {self._machine.reason}")

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
        text = path.read_text().replace(
            'serial: "0815-0000"', 'serial: "0815-0000"\n    trigger_timeout_s: 0.4'
        )
        cell_file = folder / "calibration" / "bench.yaml"
        cell_file.write_text(f"{text}\nnoise_expected: true\n")
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


def _picture(disturbance: str) -> tuple[Hand, Hand]:
    """Have the simulator show another picture than the one that would be seen."""
    return (
        lambda camera: camera.send(f"picture {disturbance}"),
        lambda camera: camera.send("picture seen"),
    )


def _lose_packets(camera: Disturbed) -> None:
    camera.nodes.ForceFailedBufferCount.Value = 1
    camera.nodes.ForceFailedBuffer.Execute()


def _never_ready(camera: Disturbed) -> None:
    # Running freely, the emulator takes no triggers; its first picture comes after the timeout.
    camera.nodes.AcquisitionFrameRate.Value = 1.0
    camera.nodes.TriggerMode.Value = "Off"


def _ready_again(camera: Disturbed) -> None:
    if camera.nodes.IsOpen():  # else it is opened, and set up, anew
        camera.nodes.TriggerMode.Value = "On"


def _trigger_unasked(camera: Disturbed) -> None:
    camera.nodes.ExecuteSoftwareTrigger()
    end = time.monotonic() + READY_S
    while camera.nodes.NumReadyBuffers.Value == 0 and time.monotonic() < end:
        time.sleep(POLL_S)


def _break_stream(camera: Disturbed) -> None:
    camera.nodes.StreamGrabber.ImposedError.Value = "the stream broke"


def _mend_stream(camera: Disturbed) -> None:
    camera.nodes.StreamGrabber.ImposedError.Value = ""


def _unplug(camera: Disturbed) -> None:
    camera.nodes.FirePnPCallback.Execute()


def _nothing(_: Disturbed) -> None:
    """A forced failure is used up, and a removed camera is opened anew by clear."""


MISSING = "missing"
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("removed", _unplug, _nothing, ("lasting",)),
        # A retake starts grabbing anew, which always ends these three in the emulator.
        Fault("incomplete", _lose_packets, _nothing, ("once",)),
        Fault("stream error", _break_stream, _mend_stream, ("once",)),
        Fault("unasked", _trigger_unasked, _nothing, ("once",)),
        Fault("no answer", _never_ready, _ready_again),
        Fault("damaged", *_picture("damaged")),
        Fault("wrong size", *_picture("cropped")),
        Fault("dark", *_picture("dark")),
        Fault("overexposed", *_picture("overexposed")),
        Fault("out of focus", *_picture("blurred")),
        Fault("repeated", *_picture("repeated")),
    )
}
NAMES = (MISSING, *FAULTS)


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
