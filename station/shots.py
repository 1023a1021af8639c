"""Shots: what arm, camera and lines do for one sheet. No driver, no records, no printing."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import structlog

from station.cell import Cell
from station.collect import Collector, Taken
from station.config import LoadedCell
from station.errors import DeviceError, DeviceLost
from station.geometry import Pose
from station.image_quality import PictureCheck
from station.motion import RETREAT_M_S
from station.recipe import Leg, LoadedRecipe, Recipe, Shot, travel
from station.records import settings
from station.records.dataset import Dataset, now
from station.records.sheet import Frame, Kind

DRY_RUN_SPEED_M_S = 0.05
RETAKES = 2  # of one shot, while the arm stands still above it
NEAR_M = 1e-3  # closer than this the arm already stands above the first setup

log = structlog.get_logger()


class Job(NamedTuple):
    """What one run is about, the same for each of its sheets."""

    run: str
    recipe: LoadedRecipe
    cell: LoadedCell
    software: dict[str, str]
    stop: threading.Event
    dry_run: bool = False
    kind: Kind = "inspection"

    @property
    def signals(self) -> bool:
        """Tell whether the lines are told what became of a sheet: in production alone."""
        return self.kind == "inspection" and not self.dry_run


class Spent:
    """Seconds of the loop's own thread by stage."""

    def __init__(self) -> None:
        self.started_at = now()
        self.started = time.perf_counter()
        self.motion_s = 0.0
        self.camera_s = 0.0
        self.last_frame = self.started


class Run(NamedTuple):
    """Everything one run works with: the opened cell, the job, where records go, what to shoot."""

    cell: Cell
    job: Job
    dataset: Dataset
    collector: Collector
    shots: list[Shot]
    check: PictureCheck


def begin_run(cell: Cell, job: Job, dataset: Dataset, collector: Collector) -> Run:
    """Keep what the run goes by, check the whole way, set lines and camera; nothing moves yet."""
    recipe = job.recipe.recipe
    dataset.look_again()
    for text in (job.recipe.text, job.cell.text):
        settings.keep(dataset.root, text)
    shots = recipe.shots(cell.motion.forward)
    cell.motion.check_route(recipe.route(shots))
    cell.gate.reset(job.stop)
    cell.camera.configure(recipe.exposure_us, recipe.gain_db)
    check = PictureCheck(
        recipe.picture_limits,
        noise_expected=job.cell.config.noise_expected,
        device=cell.camera.device,
    )
    return Run(cell, job, dataset, collector, shots, check)


def begin_sheet(sheet: str, run: Run) -> None:
    """Say that the sheet is being worked on, and only then bring the arm above the first setup."""
    if not run.job.dry_run:
        run.cell.gate.begin(sheet)
    first = run.shots[0].approach
    if run.cell.motion.status().pose.distance_m(first) > NEAR_M:
        _travel(first, run)


def take_shot(shot: Shot, previous: Shot, run: Run, spent: Spent) -> Taken:
    """Go to the shot's pose, stand still, expose; return where the tool stood and what it saw."""
    recipe = run.job.recipe.recipe
    started = time.perf_counter()
    if previous.setup != shot.setup:
        for pose in travel(previous, shot):
            _travel(pose, run)
    run.cell.gate.check_laid()
    status = run.cell.motion.go(
        shot.pose,
        _speed(recipe.shot_speed_m_s, run.job),
        recipe.acceleration_m_s2,
        recipe.settle_s,
    )
    arrived = time.perf_counter()
    spent.motion_s += arrived - started
    frame, retaken = _expose(run)
    spent.last_frame = time.perf_counter()
    spent.camera_s += spent.last_frame - arrived
    run.cell.gate.check_laid()
    log.debug("shot.taken", setup=shot.setup, shot=shot.number, frame=frame.number)
    return Taken(status, frame, retaken)


def leave_sheet(run: Run) -> None:
    """Return above the first setup, and only then let the sheet go: the arm rests near hands."""
    return_above(run)
    if not run.job.dry_run:
        run.cell.gate.release()


def return_above(run: Run) -> None:
    """Travel from the last shot to above the first setup, where every sheet begins."""
    for pose in travel(run.shots[-1], run.shots[0]):
        _travel(pose, run)


def retreat(
    cell: Cell, recipe: Recipe, dataset: Dataset, stop: threading.Event, *, dry_run: bool
) -> None:
    """Bring the arm slowly up from where it really stands; let an earlier run's sheet go.

    Above the first setup, where every sheet ends, it stays. A verdict that the line has not read
    is taken back: an interrupted sheet goes as none.
    """
    shots = recipe.shots(cell.motion.forward)
    height_m = max(shot.approach.z for shot in shots)
    pose = cell.motion.status().pose
    low = pose.distance_m(shots[0].approach) > NEAR_M and cell.motion.stands_below(height_m)
    if low:
        up = Leg("up", pose._replace(z=height_m), RETREAT_M_S)
        cell.motion.check_route([up, *recipe.route(shots)])  # whole, before anything moves
    if (unread := cell.gate.take_back()) is not None:
        dataset.take_back(unread)
    if low:
        if not dry_run:
            cell.gate.begin()  # the arm moves only while busy is high
        cell.motion.retreat(height_m)
    cell.gate.reset(stop)


def _expose(run: Run) -> tuple[Frame, tuple[str, ...]]:
    """Take a picture that is fit to be judged; return it with what was wrong with those before.

    The arm stands still, so another try shows the same place; after the last one it is a fault.
    """
    problems: list[str] = []
    while True:
        try:
            frame = run.cell.camera.trigger()
            run.check.check(frame)
        except DeviceLost:
            raise
        except DeviceError as error:
            problems.append(error.problem)
            if len(problems) > RETAKES:
                error.problem += f"; {len(problems)} tries"
                raise
            log.warning("shot.retried", problem=str(error), tries=len(problems))
        else:
            return frame, tuple(problems)


def _travel(pose: Pose, run: Run) -> None:
    run.cell.gate.check_laid()  # hands may be where a sheet was taken away
    recipe = run.job.recipe.recipe
    run.cell.motion.go(pose, _speed(recipe.travel_speed_m_s, run.job), recipe.acceleration_m_s2)


def _speed(speed_m_s: float, job: Job) -> float:
    return min(speed_m_s, DRY_RUN_SPEED_M_S) if job.dry_run else speed_m_s
