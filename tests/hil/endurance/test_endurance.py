"""What must hold over hundreds of shots: every frame its picture, and nothing that grows.

At full length the second is `python tests/hil/soak.py 10000`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soak
from simulator import Simulator

from station.cell import Cell, open_cell
from station.config import load_cell
from station.errors import DeviceError, IncompleteFrame
from station.geometry import Pose
from station.records.sheet import pixels_sha256

SHOTS = 300
DAMAGED_AT = {60, 61, 150}
REMOVED_AT = 200


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


@pytest.mark.timeout(1500)
def test_three_hundred_sheets_through_faults_have_one_outcome_each_and_nothing_grows(
    tmp_path: Path,
) -> None:
    found = soak.run(tmp_path, sheets=300, every=25, seed=4)
    assert found["sheets"] >= 300
    assert sum(found["faults"].values()) >= 8
    assert found["told_accept"] > 0
    assert found["told_reject"] > 0
