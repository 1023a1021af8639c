"""The loop and its records: what is on disk when a line rises, and what is told when it is not."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_double import TCP, ArmDouble, limits
from sheets import WHEN, picture

from station import cycle
from station.cell import Cell
from station.collect import Collector, Taken
from station.config import CellConfig, Driver, Lens, Lines, LoadedCell
from station.cycle import Inspected, Judging
from station.devices import Camera, RobotStatus
from station.errors import DatasetError, DeviceError, SheetGone, StationError
from station.gate import Gate
from station.motion import MotionGuard
from station.recipe import HIGHEST, LoadedRecipe, Recipe, Setup
from station.records.dataset import Dataset, after_of, read_record
from station.records.ledger import Ledger, open_ledger
from station.records.recovery import recover
from station.records.sheet import Frame, Image, Prediction
from station.records.verify import verify
from station.records.why import why
from station.shots import Job

LINES = Lines(part_present=3, accept=0, reject=1, busy=2)
PRESENT, ACCEPT, REJECT, BUSY = 1 << 3, 1, 2, 4
RECIPE = Recipe(
    sheet_size_m=(0.2, 0.2),
    setups=(Setup(name="left", pose=[0.0, -0.45, 0.30, 3.14159265, 0.0, 0.0]),),  # type: ignore[arg-type]
    offsets_m=((0.0, 0.0, 0.0), (0.003, 0.0, 0.0)),
    working_distance_m=0.25,
    approach_height_m=0.05,
    travel_speed_m_s=0.25,
    shot_speed_m_s=0.25,
    acceleration_m_s2=1.0,
    settle_s=0.0,
    exposure_us=8000.0,
    gain_db=0.0,
    smallest_defect_mm=3.0,
)
THRESHOLD = 0.5


class CameraDouble:
    """Shows a picture no other trigger shows."""

    device = "camera 1"

    def __init__(self) -> None:
        self.number = 0

    def configure(self, exposure_us: float, gain_db: float) -> None:
        assert (exposure_us, gain_db) == (8000.0, 0.0)

    def trigger(self) -> Frame:
        self.number += 1
        return Frame(picture(self.number), self.number, 8000.0, 0.0, WHEN)

    def reconnect(self) -> None:
        raise AssertionError("nothing was lost")

    def statistics(self) -> dict[str, int]:
        return {"triggers": self.number}


class Scorer:
    """Gives every picture the same score."""

    def __init__(self, score: float) -> None:
        self.score = score

    def predict(self, image: Image) -> Prediction:
        return Prediction(self.score, np.zeros(image.shape, np.float32))


class Bench:
    """A cell in memory and a workspace on disk; a sheet comes whenever the last has gone."""

    def __init__(self, workspace: Path, ledger: Ledger) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.dataset = Dataset(workspace, "glassfiber", ledger)
        self.arm = ArmDouble()
        self.arm.inputs = PRESENT
        self.risen: list[int] = []
        self.on_rise: Callable[[int], None] = lambda _: None
        self.arm.on_output = self._follow
        config = CellConfig(
            station="s1",
            robot=Driver(driver="ur", settings={}),
            camera=Driver(driver="basler", settings={}),
            lens=Lens(focal_length_mm=16, sensor_width_mm=8),
            motion=limits(),
            tcp=list(TCP),  # type: ignore[arg-type]
            payload_kg=1.0,
            lines=LINES,
        )
        self.cell = LoadedCell(workspace / "cell.yaml", config, "station: s1\n")
        self.boots = 0

    def inspect(self, sheets: int = 1, score: float = 0.1) -> tuple[list[Inspected], Any]:
        """Start the loop; return its sheets and the error that ended it."""
        self.boots += 1
        recover(self.dataset, self.ledger, "s1")
        job = Job(
            f"s1-{self.boots:04d}",
            LoadedRecipe("glassfiber", RECIPE, "a recipe\n"),
            self.cell,
            {},
            threading.Event(),
        )
        judging = Judging(
            Scorer(score), "glassfiber/1", "3" * 64, THRESHOLD, HIGHEST, "torchscript", "fp32"
        )
        camera: Camera = CameraDouble()
        gate = Gate(self.arm, LINES, 5.0, self.workspace / "sheet")
        cell = Cell(MotionGuard(self.arm, limits(), TCP), camera, gate)
        found = []
        try:
            for inspected in cycle.inspect(cell, job, judging, self.dataset, range(1, sheets + 1)):
                found.append(inspected)  # noqa: PERF402 - what came before an error counts
        except StationError as error:
            return found, error
        return found, None

    def problems(self) -> list[str]:
        proof = verify(self.workspace, self.ledger, ["glassfiber"], "s1", lambda _: None)
        return [f"{problem.sheet}: {problem.what}" for problem in proof.problems]

    def _follow(self, outputs: int) -> None:
        if outputs & (ACCEPT | REJECT) and outputs & BUSY:
            self.risen.append(outputs & (ACCEPT | REJECT))
            self.on_rise(outputs)
        self.arm.inputs = PRESENT if outputs & BUSY else 0
        if not outputs:  # the sheet was taken away; the next one comes soon
            threading.Timer(0.05, self._lay).start()

    def _lay(self) -> None:
        self.arm.inputs = PRESENT


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path, ledger: Ledger) -> Bench:
    return Bench(tmp_path, ledger)


@pytest.mark.parametrize(
    ("score", "line", "verdict"), [(0.1, ACCEPT, "accept"), (0.9, REJECT, "reject")]
)
def test_record_and_row_are_there_before_the_line_rises(
    bench: Bench, score: float, line: int, verdict: str
) -> None:
    seen = []

    def look(_: int) -> None:
        (folder,) = bench.dataset.folders()
        with sqlite3.connect(bench.ledger.name) as other:  # sees only what is committed
            rows = other.execute("SELECT sheet, verdict, outcome FROM sheets").fetchall()
        other.close()
        seen.append((read_record(folder).manifest.verdict, rows))

    bench.on_rise = look
    (inspected,), error = bench.inspect(score=score)
    assert error is None
    assert bench.risen == [line]
    assert seen == [(verdict, [("s1-0001-000001", verdict, None)])]
    assert (inspected.outcome, inspected.told) == (verdict, verdict)
    row = bench.ledger.row_of("s1-0001-000001")
    assert row is not None
    assert row["outcome"] == verdict
    assert row["signalled_at"] is not None
    assert bench.problems() == []


def test_the_recipe_that_a_sheet_was_made_by_is_kept(bench: Bench) -> None:
    bench.inspect()
    facts = why(bench.workspace, "s1-0001-000001").facts
    assert facts["recipe_revision"] == "none: edited by hand"
    assert (bench.workspace / facts["recipe_text"]).read_text() == "a recipe\n"
    assert (bench.workspace / facts["cell_text"]).read_text() == "station: s1\n"


def break_ledger(bench: Bench) -> Callable[[], object]:
    with sqlite3.connect(bench.ledger.name) as other:
        other.execute("ALTER TABLE shots RENAME TO away")
    other.close()

    def mend() -> None:
        with sqlite3.connect(bench.ledger.name) as again:
            again.execute("ALTER TABLE away RENAME TO shots")
        again.close()

    return mend


def block_place(bench: Bench) -> Callable[[], object]:
    place = bench.dataset.root / "inspections"
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rename(place.with_name("aside"))
    place.write_bytes(b"")

    def mend() -> None:
        place.unlink()
        if place.with_name("aside").exists():
            place.with_name("aside").rename(place)

    return mend


@pytest.mark.parametrize(
    ("fault", "recorded", "outcome"),
    [(break_ledger, "accept", "none"), (block_place, "none", "none")],
)
def test_a_record_that_cannot_be_completed_accepts_nothing(
    bench: Bench, fault: Callable[[Bench], Callable[[], object]], recorded: str, outcome: str
) -> None:
    mend = fault(bench)
    (inspected,), error = bench.inspect()
    assert isinstance(error, DatasetError)
    assert bench.risen == []
    assert (inspected.outcome, inspected.told) == ("none", "none")
    mend()

    (following,), error = bench.inspect()
    assert error is None
    assert following.outcome == "accept"
    assert bench.risen == [ACCEPT]
    assert bench.problems() == []
    first = read_record(bench.dataset.folders()[0])
    assert first.manifest.sheet == "s1-0001-000001"
    assert (first.manifest.verdict, after_of(first).outcome) == (recorded, outcome)
    assert first.manifest.run == "s1-0001"


def test_a_sheet_that_goes_while_the_arm_is_on_its_way_lets_no_further_move_begin(
    bench: Bench,
) -> None:
    move = bench.arm.move

    def taken_away(*way: Any) -> RobotStatus:
        status = move(*way)
        bench.arm.inputs = 0
        return status

    bench.arm.move = taken_away  # type: ignore[method-assign, assignment]
    (inspected,), error = bench.inspect()
    assert "the sheet was taken away" in str(error)
    assert (inspected.outcome, bench.risen) == ("none", [])
    assert len(bench.arm.moves) == 1, "the one that was under way"


def test_a_map_whose_picture_could_not_be_saved_is_not_kept(bench: Bench) -> None:
    follow = bench.arm.on_output

    def put_in_the_way(outputs: int) -> None:
        follow(outputs)
        for sheet in (bench.dataset.root / ".partial" / "inspection").glob("*"):
            (sheet / f"{sheet.name}_left_2.png").mkdir(exist_ok=True)

    bench.arm.on_output = put_in_the_way
    (inspected,), error = bench.inspect()
    assert error is None or isinstance(error, DatasetError)
    assert inspected.outcome != "accept"
    maps = sorted(path.name for path in inspected.folder.glob("*_map.npy"))
    assert maps == ["s1-0001-000001_left_1_map.npy"]
    assert set(maps) <= set(inspected.manifest.files)


def test_a_sheet_that_is_given_up_waits_for_no_score_and_keeps_its_pictures(
    bench: Bench,
) -> None:
    answered = threading.Event()

    class Hanging(Scorer):
        def predict(self, image: Image) -> Prediction:
            answered.wait(20)
            return super().predict(image)

    folder = bench.dataset.begin("inspection", "s1-0001-000001")
    status = bench.arm.status()
    collector = Collector(Hanging(0.1))
    collection = collector.sheet("s1-0001-000001", folder)
    for shot in RECIPE.shots(lambda _: status.pose):
        frame = Frame(picture(shot.number), shot.number, 8000.0, 0.0, WHEN)
        collection.add(shot, Taken(status, frame))
    started = time.monotonic()
    collected = collection.abandon()
    assert time.monotonic() - started < 10, "the model still hangs"
    answered.set()
    collector.close()
    assert [capture.score for capture in collected.captures] == [None, None]
    time.sleep(0.2)  # the model's late answer
    assert sorted(path.name for path in folder.iterdir()) == sorted(collected.files)


def test_a_line_that_fails_while_it_is_set_leaves_the_outcome_unknown(bench: Bench) -> None:
    def lost(_: int) -> None:
        raise DeviceError("robot", "the connection was lost")

    bench.on_rise = lost
    (inspected,), error = bench.inspect()
    assert isinstance(error, DeviceError)
    assert (inspected.outcome, inspected.told) == ("none", "unknown")
    (folder,) = bench.dataset.folders()
    assert after_of(read_record(folder)).outcome == "unknown"
    assert bench.problems() == []


def test_a_history_that_cannot_be_written_takes_no_verdict_back(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def block(_: int) -> None:
        (folder,) = bench.dataset.folders()
        (folder / "history.jsonl").mkdir()

    bench.on_rise = block
    (inspected,), error = bench.inspect()
    assert error is None
    assert inspected.outcome == "accept"
    told = capsys.readouterr()
    assert "sheet.told_unrecorded" in told.out + told.err
    (inspected.folder / "history.jsonl").rmdir()
    bench.on_rise = lambda _: None
    bench.inspect()
    assert after_of(read_record(inspected.folder)).outcome == "unknown"
    assert bench.problems() == []


def test_a_stopped_sheet_keeps_its_reason_even_where_it_cannot_be_recorded(bench: Bench) -> None:
    mend = block_place(bench)
    bench.arm.trouble = DeviceError("robot", "protective stop")
    (inspected,), error = bench.inspect()
    assert "protective stop" in str(error)
    assert inspected.outcome == "none"
    mend()


def test_a_record_that_another_process_made_between_two_runs_is_a_link_too(bench: Bench) -> None:
    bench.inspect()
    other = Bench(bench.workspace, bench.ledger)
    other.boots = 1
    other.inspect()  # s1-0002, as `station reference` while the cell is lent
    bench.boots = 2
    bench.inspect()
    assert bench.problems() == []


def test_a_recording_that_was_interrupted_breaks_no_chain(bench: Bench) -> None:
    bench.inspect()
    known = bench.dataset._last_sha256
    mend = block_place(bench)
    bench.inspect()
    mend()
    bench.inspect()
    assert bench.problems() == []
    assert bench.dataset._last_sha256 not in {None, known}


def test_the_row_of_another_recipes_sheet_is_not_replaced(bench: Bench) -> None:
    (inspected,), _ = bench.inspect()
    bench.boots = 0  # run/boot was lost
    bench.dataset = Dataset(bench.workspace, "other", bench.ledger)
    (second,), error = bench.inspect()
    assert "s1-0001-000001 is already recorded, of recipe glassfiber" in str(error)
    assert (second.outcome, bench.risen) == ("none", [ACCEPT])
    row = bench.ledger.row_of(inspected.manifest.sheet)
    assert row is not None
    assert row["recipe"] == "glassfiber"


def test_every_sheet_of_a_run_is_one_link_of_the_chain(bench: Bench) -> None:
    found, error = bench.inspect(sheets=4)
    assert error is None
    assert [sheet.outcome for sheet in found] == ["accept"] * 4
    assert bench.risen == [ACCEPT] * 4
    assert bench.problems() == []


@pytest.mark.bad_input("089-sheet-gone-after-its-verdict")
def test_an_accept_is_taken_back_where_its_sheet_goes_before_busy_falls(bench: Bench) -> None:
    def exchange(_: int) -> None:
        bench.arm.inputs = 0
        bench.arm.inputs = PRESENT

    bench.on_rise = exchange
    (inspected,), error = bench.inspect(sheets=2)
    assert isinstance(error, SheetGone)
    assert bench.arm.outputs == BUSY, "accept fell, busy did not"
    assert (inspected.outcome, inspected.told) == ("none", "none")
    assert after_of(read_record(inspected.folder)).outcome == "none"
    row = bench.ledger.row_of(inspected.manifest.sheet)
    assert row is not None
    assert (row["verdict"], row["outcome"]) == ("accept", "none")
    assert bench.problems() == []
