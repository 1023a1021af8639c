"""A production whose devices are doubles, and the line around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from arm_double import HOME, TCP, ArmDouble, limits

from station.cell import Cell
from station.config import LoadedCell, load_cell
from station.cycle import Inspected, Judging
from station.errors import RobotStopped, StationError
from station.gate import Gate
from station.motion import MotionGuard
from station.production import Plant, Production
from station.recipe import HIGHEST, LoadedRecipe, load_recipe
from station.records.dataset import Dataset
from station.records.sheet import Frame, Image, Manifest, Prediction
from station.shots import Job
from station.states import Command, Machine, State

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
        self.recovered = 0
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
            self.recover,
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

    def recover(self) -> None:
        self.recovered += 1

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
