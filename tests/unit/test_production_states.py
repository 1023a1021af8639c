"""The loop through its states, on an arm in memory: who may lead it where, and what is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from arm_double import HOME, TCP, ArmDouble, limits

from station.cell import Cell
from station.config import LoadedCell, load_cell
from station.cycle import Inspected, Judging
from station.devices import RobotStatus
from station.errors import DatasetError, DeviceError, ModelError, RobotStopped, StationError
from station.gate import Gate
from station.geometry import Pose
from station.motion import RETREAT_M_S, MotionGuard
from station.production import Plant, Production
from station.recipe import HIGHEST, LoadedRecipe, load_recipe
from station.records.dataset import Dataset, read_record
from station.records.sheet import Frame, Image, Manifest, Prediction
from station.shots import Job, retreat
from station.states import Command, Machine, Mode, State

ROOT = Path(__file__).parents[2]
RECIPE = """
sheet_size_m: [0.24, 0.20]
setups:
  - {name: left, pose: [-0.04, -0.45, 0.26, 3.14159265, 0, 0]}
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
"""
APPROACH_M = 0.29
LOW = HOME._replace(x=0.03, z=0.27)
ACCEPT, REJECT, BUSY, PRESENT = 1, 2, 4, 1
DEADLINE_S = 10.0
CHANGE_S = 0.1


class Line:
    """The line around the arm: a sheet goes when busy falls, the next comes when lines are low."""

    def __init__(self, arm: ArmDouble) -> None:
        self.arm = arm
        self.feeding = True
        self.accepted = 0
        self._before = 0
        arm.inputs = PRESENT
        arm.on_output = self._see

    def _see(self, outputs: int) -> None:
        if outputs & ACCEPT and not self._before & ACCEPT:
            self.accepted += 1
        if self._before & BUSY and not outputs & BUSY:
            self.arm.inputs = 0
        if not outputs and self.feeding:
            # A moment later: the station has to see that the sheet has gone.
            feeder = threading.Timer(CHANGE_S, self._feed)
            feeder.daemon = True
            feeder.start()
        self._before = outputs

    def _feed(self) -> None:
        self.arm.inputs = PRESENT


class CameraDouble:
    """Delivers at once; `trouble` is raised instead."""

    device = "camera 1"

    def __init__(self) -> None:
        self.frames = 0
        self.trouble: StationError | None = None
        self.on_trigger: Callable[[], None] = lambda: None

    def configure(self, exposure_us: float, gain_db: float) -> None:
        assert exposure_us > 0
        assert gain_db >= 0

    def trigger(self) -> Frame:
        self.on_trigger()
        if self.trouble is not None:
            raise self.trouble
        self.frames += 1
        image = np.full((8, 8), self.frames % 255, np.uint8)
        return Frame(image, self.frames, 8000.0, 0.0, datetime.now(UTC))

    def reconnect(self) -> None: ...

    def statistics(self) -> dict[str, int]:
        return {}


class Calm:
    def predict(self, image: Image) -> Prediction:
        return Prediction(0.1, np.zeros(image.shape[:2], np.float32))


class Bench:
    """A production whose devices are doubles; `run` leads it from a thread beside it."""

    def __init__(self, folder: Path, timeout_s: float = 5.0) -> None:
        self.folder = folder
        (folder / "recipes").mkdir()
        (folder / "recipes" / "two.yaml").write_text(RECIPE)
        self.recipe: LoadedRecipe = load_recipe(folder, "two")
        self.cell: LoadedCell = load_cell(ROOT / "calibration" / "sim.yaml")
        self.arm = ArmDouble()
        self.line = Line(self.arm)
        self.camera = CameraDouble()
        self.machine = Machine()
        self.leave = threading.Event()
        self.opened = 0
        self.models = 0
        self.runs = 0
        self.told: list[Manifest] = []
        self.blocked: StationError | None = None
        self.timeout_s = timeout_s
        self.dataset = Dataset(folder, "two")
        plant = Plant(
            self.recipe.recipe,
            self.dataset,
            self.open_judging,
            self.open_cell,
            self.begin_job,
            self.show,
            lambda: self.blocked,
        )
        self.production = Production(self.machine, plant, self.leave)

    @contextmanager
    def open_judging(self) -> Iterator[Judging]:
        self.models += 1
        yield Judging(Calm(), "toy/1", "0" * 64, 0.5, HIGHEST, "torchscript", "fp32")

    @contextmanager
    def open_cell(self) -> Iterator[Cell]:
        if self.arm.safety != "normal":
            raise RobotStopped("robot", f"is in {self.arm.safety}", "clear it")
        self.opened += 1
        motion = MotionGuard(self.arm, limits(), TCP)
        gate = Gate(self.arm, self.cell.config.lines, self.timeout_s, self.folder / "sheet")
        yield Cell(motion, self.camera, gate)

    def begin_job(self, dry_run: bool) -> Job:
        self.runs += 1
        run = f"s-{self.runs:04d}"
        return Job(run, self.recipe, self.cell, {}, self.machine.finishing, dry_run)

    def show(self, inspected: Inspected) -> None:
        self.told.append(inspected.manifest)

    def run(self, lead: Callable[[], None]) -> None:
        """Stay, while `lead` sends commands; what it raises fails the test."""
        failed: list[BaseException] = []

        def leading() -> None:
            try:
                lead()
            except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
                failed.append(error)
            finally:
                self.leave.set()
                self.machine.finishing.set()

        thread = threading.Thread(target=leading)
        thread.start()
        self.production.run()
        thread.join()
        if failed:
            raise failed[0]

    def go(self, *commands: Command) -> None:
        leads_to = {
            Command.CLEAR: State.STOPPED,
            Command.RESET: State.IDLE,
            Command.START: State.EXECUTE,
        }
        for command in commands:
            self.machine.command(command)
            self.reach(leads_to[command])

    def reach(self, state: State) -> None:
        self.until(lambda: self.machine.state is state)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, (self.machine.state, self.machine.reason)
            time.sleep(0.002)

    def produce(self) -> None:
        self.go(Command.CLEAR, Command.RESET, Command.START)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_opened_before_it_is_told_to(bench: Bench) -> None:
    def lead() -> None:
        time.sleep(0.2)
        assert (bench.machine.state, bench.opened) == (State.ABORTED, 0)
        bench.go(Command.CLEAR)
        assert (bench.opened, bench.arm.moves) == (1, [])

    bench.run(lead)


def test_one_run_of_so_many_sheets_ends_complete(bench: Bench) -> None:
    bench.production.run_once(3)
    assert bench.machine.state is State.COMPLETE
    assert [m.sheet for m in bench.told] == ["s-0001-000001", "s-0001-000002", "s-0001-000003"]
    assert bench.line.accepted == 3


def test_a_fault_of_one_run_is_raised_as_it_was(bench: Bench) -> None:
    bench.camera.trouble = DeviceError("camera", "was removed")
    with pytest.raises(DeviceError, match="was removed"):
        bench.production.run_once(3)
    assert [m.verdict for m in bench.told] == ["none"]
    assert bench.machine.state is State.ABORTED


def test_a_hold_finishes_the_sheet_and_splits_no_run(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: len(bench.told) >= 2)
        bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        count, moves = len(bench.told), len(bench.arm.moves)
        time.sleep(0.3)
        assert (len(bench.told), len(bench.arm.moves)) == (count, moves)
        assert bench.line.accepted == count
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) > count)
        bench.machine.command(Command.STOP)
        bench.reach(State.STOPPED)

    bench.run(lead)
    assert [m.sheet[-6:] for m in bench.told] == [f"{n + 1:06d}" for n in range(len(bench.told))]
    assert bench.opened == 1


@pytest.mark.parametrize("mode", [Mode.PRODUCE, Mode.DRY_RUN])
def test_a_hold_before_the_run_was_begun_does_not_go_on_with_the_run_before(
    bench: Bench, mode: Mode
) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.machine.command(Command.STOP)
        bench.reach(State.STOPPED)
        bench.machine.set_mode(mode)
        bench.go(Command.RESET)
        before = len(bench.told)
        with bench.machine._changed:  # nobody acts between the two
            bench.machine.command(Command.START)
            bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) > before)
        first = bench.told[before]
        assert first.sheet == "s-0002-000001"
        assert first.dry_run is (mode is Mode.DRY_RUN)

    bench.run(lead)


def test_a_hold_before_the_first_run_was_begun_does_not_end_it(bench: Bench) -> None:
    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        with bench.machine._changed:
            bench.machine.command(Command.START)
            bench.machine.command(Command.HOLD)
        bench.reach(State.HELD)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: len(bench.told) >= 2)

    bench.run(lead)
    assert bench.runs == 1


def test_after_a_stop_of_the_robot_a_person_leads_it_back(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)

        def trip() -> None:
            bench.arm.safety = "protective stop"

        bench.camera.on_trigger = trip
        bench.reach(State.ABORTED)
        bench.camera.on_trigger = lambda: None
        assert "protective stop" in bench.machine.reason
        accepted, moves = bench.line.accepted, len(bench.arm.moves)
        bench.machine.command(Command.CLEAR)
        bench.reach(State.ABORTED)
        assert "is in protective stop" in bench.machine.reason
        assert (bench.line.accepted, len(bench.arm.moves)) == (accepted, moves)

        bench.arm.safety = "normal"
        bench.arm.pose, bench.arm.joints = LOW, ArmDouble(LOW).joints
        bench.go(Command.CLEAR, Command.RESET)
        (retreat,) = bench.arm.moves[moves:]
        assert retreat[0][:3] == pytest.approx((0.03, -0.45, APPROACH_M))
        assert retreat[1] == RETREAT_M_S
        bench.go(Command.START)
        bench.until(lambda: bench.line.accepted > accepted)

    bench.run(lead)
    assert bench.models == 1, "the model was sound and stayed open"
    assert "none" in [m.verdict for m in bench.told]


def test_a_stop_is_noticed_while_the_station_waits(bench: Bench) -> None:
    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        bench.arm.safety = "safeguard stop"
        bench.reach(State.ABORTED)
        assert "safeguard stop at x " in bench.machine.reason

    bench.run(lead)


def test_a_retreat_moves_only_while_busy_is_high(bench: Bench) -> None:
    bench.arm.pose, bench.arm.joints = LOW, ArmDouble(LOW).joints
    outputs: list[int] = []
    move = bench.arm.move

    def watched(pose: Pose, speed: float, acceleration: float, deadline: float) -> RobotStatus:
        outputs.append(bench.arm.outputs)
        return move(pose, speed, acceleration, deadline)

    setattr(bench.arm, "move", watched)  # noqa: B010 - this arm alone is watched

    def lead() -> None:
        bench.go(Command.CLEAR, Command.RESET)
        assert outputs == [BUSY]
        assert bench.arm.outputs == 0

    bench.run(lead)


def test_an_arm_that_rests_above_the_first_setup_costs_no_sheet(bench: Bench) -> None:
    """Though another setup is higher: a fresh sheet is not taken for one that was begun."""
    recipe = bench.recipe.recipe
    higher = recipe.setups[0].model_copy(
        update={"name": "right", "pose": recipe.setups[0].place(lambda _: LOW).raised(0.05)}
    )
    both = recipe.model_copy(update={"setups": (*recipe.setups, higher)})
    first = both.shots(lambda _: LOW)[0].approach
    bench.arm.pose, bench.arm.joints = first, ArmDouble(first).joints
    with bench.open_cell() as cell:
        retreat(cell, both, threading.Event(), dry_run=False)
    assert (bench.arm.moves, bench.arm.lines) == ([], [])


def test_an_abort_interrupts_whatever_is_under_way(bench: Bench) -> None:
    hanging = threading.Event()

    def hang() -> None:
        hanging.set()
        time.sleep(DEADLINE_S)

    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.camera.on_trigger = hang
        assert hanging.wait(DEADLINE_S)
        asked = time.monotonic()
        bench.machine.command(Command.ABORT, "abort by anna")
        bench.reach(State.ABORTED)
        assert time.monotonic() - asked < 2.0

    bench.run(lead)
    assert (bench.told[-1].verdict, bench.told[-1].reasons) == ("none", ("abort by anna",))


def test_no_sheet_suspends_and_the_next_one_resumes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, timeout_s=0.1)

    def lead() -> None:
        bench.line.feeding = False
        bench.produce()
        bench.reach(State.SUSPENDED)
        assert "no sheet appeared" in bench.machine.reason
        count = len(bench.told)
        bench.line.feeding = True
        bench.arm.inputs = PRESENT
        bench.until(lambda: len(bench.told) > count)

    bench.run(lead)
    assert [m.sheet[-6:] for m in bench.told][:2] == ["000001", "000002"]


def test_an_outside_cause_suspends_after_the_sheet(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.blocked = DatasetError("the disk is nearly full")
        bench.reach(State.SUSPENDED)
        assert bench.machine.reason == "the disk is nearly full"
        count = len(bench.told)
        time.sleep(0.3)
        assert len(bench.told) == count
        bench.blocked = None
        bench.until(lambda: len(bench.told) > count)

    bench.run(lead)


def test_records_that_cannot_be_written_hold_the_station(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.dataset.record_inspection

    def full(folder: Path, manifest: Manifest) -> Path:
        raise DatasetError(f"{folder}: No space left on device ({manifest.sheet})")

    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        monkeypatch.setattr(bench.dataset, "record_inspection", full)
        bench.reach(State.HELD)
        assert "No space left" in bench.machine.reason
        accepted = bench.line.accepted
        monkeypatch.setattr(bench.dataset, "record_inspection", record)
        bench.machine.command(Command.UNHOLD)
        bench.until(lambda: bench.line.accepted > accepted)

    bench.run(lead)
    records = {f.name: read_record(f).manifest.verdict for f in bench.dataset.folders()}
    assert sorted(str(verdict) for verdict in records.values()) == ["accept"] * (
        len(records) - 1
    ) + ["none"], "the sheet whose record failed has one now: none"


def test_a_model_that_failed_is_opened_anew(bench: Bench) -> None:
    def lead() -> None:
        bench.produce()
        bench.until(lambda: bench.told)
        bench.camera.trouble = ModelError("the model hung")
        bench.reach(State.ABORTED)
        bench.camera.trouble = None
        bench.go(Command.CLEAR)
        assert (bench.opened, bench.models) == (2, 2)

    bench.run(lead)


def test_a_dry_run_sets_no_line(bench: Bench) -> None:
    def lead() -> None:
        bench.machine.set_mode(Mode.DRY_RUN)
        bench.produce()
        bench.until(lambda: len(bench.told) >= 2)

    bench.run(lead)
    assert bench.arm.lines == []
    assert all(manifest.dry_run for manifest in bench.told)
