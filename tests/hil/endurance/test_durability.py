"""Nothing that was told is lost: kill -9, power cuts, a ledger that refuses, a full disk.

A handful of trials here; at full length they are `python tests/hil/kill_trials.py 200` and
`python tests/hil/power_cut.py 24`.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import kill_trials
import power_cut
import pytest
from simulator import Simulator
from station_process import ACCEPT, REJECT, SMALL, Ended, Inspection, Station, pictures, wait_until

from station.records.dataset import after_of, read_record

FULL_MB = 3
PATIENCE_S = 200.0  # several starts of torch on a busy machine
pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "1", "--defect", "nut")


def run(station: Station, command: str) -> Ended:
    return Ended.of(station.start(command), PATIENCE_S)


def test_no_sheet_that_was_told_is_lost_to_kill_9(
    simulator: Callable[..., Simulator], tmp_path: Path
) -> None:
    sim = simulator("--size", "320", "268", "--speed", "30", "--defect-rate", "0")
    found = kill_trials.run(tmp_path, sim, trials=2, seed=3)
    assert found["killed"] == 2


@pytest.fixture
def cuts(tmp_path: Path) -> Path:
    reason = power_cut.why_not()
    if reason is not None:
        pytest.skip(f"no power can be cut here: {reason}")
    return tmp_path


def test_no_acknowledged_sheet_is_lost_to_a_power_cut(cuts: Path) -> None:
    found = power_cut.run(cuts, trials=2, seed=11)
    assert found["acknowledged"] >= 2 * power_cut.FEWEST
    assert (found["lost"], found["rows_lost"], found["problems"]) == (0, 0, 0)


def test_a_writer_without_fsync_is_caught_by_the_same_trials(cuts: Path) -> None:
    assert power_cut.run(cuts, trials=1, seed=11, broken=True)["lost"] > 0


@pytest.fixture
def inspection(station: Station, models: Path) -> Inspection:
    found = Inspection(station, models)
    found.judge_by("toy/1", 0.9)
    return found


def test_a_sheet_whose_row_cannot_be_committed_is_not_accepted(inspection: Inspection) -> None:
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station), PATIENCE_S)
    other = sqlite3.connect(station.folder / "data" / "ledger.db")
    other.execute("BEGIN IMMEDIATE")  # longer than the station waits for it
    ended = Ended.of(process, PATIENCE_S)
    other.rollback()
    other.close()
    assert ended.code == 5, ended.err
    assert "ledger.db: database is locked" in ended.complaint()
    (row,) = ended.rows()
    assert row["verdict"] == "none"
    assert "judged accept, but the line did not rise" in row["reasons"][-1]
    assert inspection.rises(ACCEPT) == inspection.rises(REJECT) == []
    ((folder, manifest),) = inspection.records()
    assert manifest.verdict == "accept"
    assert after_of(read_record(folder)).outcome == "none"


@pytest.fixture
def small_disk(station: Station) -> Iterator[Path]:
    data = station.folder / "data"
    told = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={FULL_MB}m", "tmpfs", data],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {told.stderr.strip()}")
    yield data
    subprocess.run(["umount", data], check=True)  # noqa: S607


@pytest.mark.parametrize("disk", ["{start_free_gb: 1, suspend_free_gb: 0}", ""])
def test_a_start_without_room_moves_nothing(
    inspection: Inspection, small_disk: Path, disk: str
) -> None:
    station = inspection.station
    station.edit_cell("gate: input", f"disk: {disk}\ngate: input" if disk else "gate: input")
    ended = run(station, "inspect --recipe two --sheets 1")
    assert ended.code == 5, ended.err
    assert "GB free" in ended.complaint()
    assert station.moves() == []
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_accepts_nothing_it_could_not_record(
    inspection: Inspection, small_disk: Path
) -> None:
    station = inspection.station
    station.edit_cell("gate: input", "disk: {start_free_gb: 0, suspend_free_gb: 0}\ngate: input")
    ended = run(station, "inspect --recipe two --sheets 99 --json")
    assert ended.code == 5, ended.err
    assert "No space left on device" in ended.err or "disk is full" in ended.err
    accepted = [row for row in ended.rows() if row["verdict"] == "accept"]
    assert len(inspection.rises(ACCEPT)) == len(accepted) > 0
    assert inspection.rises(REJECT) == []
    recorded = {m.sheet for _, m in inspection.records() if m.verdict == "accept" and m.complete}
    assert {row["sheet"] for row in accepted} <= recorded
    assert small_disk.is_mount()


def test_a_ledger_on_a_disk_without_any_room_says_so(
    inspection: Inspection, small_disk: Path
) -> None:
    station = inspection.station
    assert run(station, "records").code == 0
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1 << 12))
    ended = run(station, "records")
    assert ended.code == 5, ended.err
    assert "no room is left on its disk" in ended.complaint()
    (small_disk / "filler").unlink()
    assert run(station, "records").code == 0
