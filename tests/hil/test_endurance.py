"""What must hold over hundreds of shots: every frame its picture, and nothing that grows."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Simulator
from test_station import RECIPE, STATION, Inspection, Station, models  # noqa: F401 - a fixture

from station.cell import Cell, open_cell
from station.config import load_cell
from station.errors import DeviceError, IncompleteFrame
from station.geometry import Pose
from station.records.sheet import pixels_sha256

SHOTS = 300
DAMAGED_AT = {60, 61, 150}
REMOVED_AT = 200
SHEETS = 50
WARM = 10
ONE_SETUP = (
    RECIPE.replace("  - name: right\n    pose: [0.04, -0.45, 0.26, 3.14159265, 0, 0]\n", "")
    + "model: toy/1\nthreshold: 0.9\n"
)


@pytest.fixture
def opened(
    simulator: Callable[..., Simulator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Simulator, Cell]]:
    sim = simulator("--speed", "30", "--size", "320", "268")
    for name, value in sim.env.items():
        monkeypatch.setenv(name, value)
    config = load_cell(Path(sim.env["STATION_CELL"])).config
    with open_cell(config, tmp_path) as cell:
        cell.camera.configure(8000.0, 0.0)
        yield sim, cell


@pytest.mark.timeout(300)
def test_every_frame_is_the_picture_the_journal_names(opened: tuple[Simulator, Cell]) -> None:
    sim, cell = opened
    device: Any = cell.camera
    places = itertools.cycle([(-0.03, -0.48), (0.02, -0.43), (0.04, -0.46), (-0.01, -0.44)])
    taken: list[str] = []
    named: list[str] = []
    for number, (x, y) in zip(range(SHOTS), places, strict=False):
        # No two targets are the same, so a frame of an earlier shot could not pass for this one.
        cell.motion.go(Pose(x + 1e-5 * number, y, 0.26, 3.14159265, 0, 0), 0.5, 1.2)
        if number in DAMAGED_AT:
            device._camera.ForceFailedBufferCount.Value = 1
            device._camera.ForceFailedBuffer.Execute()
            with pytest.raises(IncompleteFrame):
                cell.camera.trigger()
        if number == REMOVED_AT:
            device._camera.FirePnPCallback.Execute()
            with pytest.raises(DeviceError):
                cell.camera.trigger()
            cell.camera.reconnect()
        taken.append(pixels_sha256(cell.camera.trigger().image))
        named.append(sim.events("picture")[-1]["sha256"])
    assert taken == named
    assert len(set(taken)) == SHOTS


@pytest.mark.timeout(400)
def test_memorydescriptors_and_threads_stay_flat_over_fifty_sheets(
    simulator: Callable[..., Simulator],
    tmp_path: Path,
    models: Path,  # noqa: F811
) -> None:
    sim = simulator("--speed", "30", "--size", "640", "536", "--defect-rate", "0")
    station = Station(tmp_path / "work", sim)
    Inspection(station, models)
    station.write("recipes/one.yaml", ONE_SETUP)
    resident: list[float] = []
    counts: list[tuple[int, int]] = []
    with subprocess.Popen(
        [*STATION, "inspect", "--recipe", "one", "--sheets", str(SHEETS), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=station.folder,
        env={**os.environ, **sim.env, "STATION_CELL": str(station.cell)},
    ) as process:
        for _ in process.stdout or ():
            resident.append(resident_mb(process.pid))
            counts.append(descriptors_and_threads(process.pid))
    assert process.returncode == 0
    assert len(resident) == SHEETS
    warm = resident[WARM:-1]  # the last line may find the process already leaving
    assert max(warm) - min(warm) < 20, resident
    assert len(set(counts[WARM:-1])) == 1, counts


def resident_mb(pid: int) -> float:
    """Sum a process and its children: the robot's and the model's."""
    family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors_and_threads(pid: int) -> tuple[int, int]:
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(
        list(Path(f"/proc/{pid}/task").iterdir())
    )
