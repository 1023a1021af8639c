"""`station bench durability`: what it costs a sheet that its record survives a power cut.

Sheets are recorded in turn with and without fsync, in one run, by the code of the loop: three shots
at once, so that nothing is hidden behind the arm's travel.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import event
from sqlalchemy.pool import Pool

from station.collect import Collector, Taken
from station.devices import RobotStatus
from station.geometry import Pose
from station.kinematics import Joints
from station.recipe import Shot
from station.records.dataset import Dataset, now
from station.records.ledger import open_ledger
from station.records.sheet import Frame, Image, Manifest, Verdict

SHOTS = 3
WARM = 4
WANTED_MS = 5.0
PLACE = Pose(0.0, -0.45, 0.26, 3.14159265, 0.0, 0.0)


class DurabilityBench(NamedTuple):
    """Medians of one run, in milliseconds, from the last shot to where the line would rise."""

    cost_ms: float
    wanted_ms: float
    durable_ms: float
    careless_ms: float
    durable_p95_ms: float
    one_fsync_ms: float
    sheets: int
    size: str


def bench_durability(workspace: Path, sheets: int, size: tuple[int, int]) -> DurabilityBench:
    """Record `sheets` sheets each way, on the file system of the workspace's data."""
    (workspace / "data").mkdir(exist_ok=True)
    durable: list[float] = []
    careless: list[float] = []
    fsyncs: list[float] = []
    with (
        tempfile.TemporaryDirectory(dir=workspace / "data", prefix=".bench-") as folder,
        closing(Collector(None)) as collector,
        open_ledger(Path(folder)) as ledger,
    ):
        dataset = Dataset(Path(folder), "bench", ledger)
        images = _images(size)
        for number in range(1, 2 * (WARM + sheets) + 1):
            if number % 2:
                taken = _sheet(dataset, collector, images, number)
            else:
                with _without_fsync():
                    taken = _sheet(dataset, collector, images, number)
            if number > 2 * WARM:
                (durable if number % 2 else careless).append(taken)
                fsyncs.append(_one_fsync(Path(folder) / "one"))
    middle, middle_careless = statistics.median(durable), statistics.median(careless)
    return DurabilityBench(
        cost_ms=round(middle - middle_careless, 2),
        wanted_ms=WANTED_MS,
        durable_ms=round(middle, 2),
        careless_ms=round(middle_careless, 2),
        durable_p95_ms=round(float(np.percentile(durable, 95)), 2),
        one_fsync_ms=round(statistics.median(fsyncs), 2),
        sheets=sheets,
        size=f"{size[0]}x{size[1]}",
    )


def _sheet(dataset: Dataset, collector: Collector, images: list[Image], number: int) -> float:
    """Record one sheet; return milliseconds from the first frame to the committed row."""
    sheet = f"bench-0001-{number:06d}"
    folder = dataset.begin("inspection", sheet)
    collection = collector.sheet(sheet, folder)
    started = time.perf_counter()
    for shot, image in enumerate(images, start=1):
        frame = Frame(image, shot, 8000.0, 0.0, now())
        collection.add(Shot("bench", shot, PLACE, PLACE, 8000.0, 0.0), Taken(_status(), frame))
    collected = collection.finish()
    manifest = Manifest.model_validate(
        {
            "schema": 1,
            "kind": "inspection",
            "sheet": sheet,
            "run": "bench-0001",
            "started_at": now(),
            "finished_at": now(),
            "complete": True,
            "recipe": "bench",
            "recipe_sha256": "0" * 64,
            "cell_sha256": "0" * 64,
            "verdict": Verdict.REJECT,
            "captures": collected.captures,
            "files": collected.files,
            "software": {},
        }
    )
    dataset.record_inspection(folder, manifest)
    return 1e3 * (time.perf_counter() - started)


@contextmanager
def _without_fsync() -> Iterator[None]:
    """Take every fsync of this process away, SQLite's own included."""
    real = os.fsync
    os.fsync = lambda _: None  # type: ignore[assignment]
    event.listen(Pool, "checkout", _careless)
    try:
        yield
    finally:
        event.remove(Pool, "checkout", _careless)
        event.listen(Pool, "checkout", _careful, once=True)
        os.fsync = real


def _careless(connection: Any, *_: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _careful(connection: Any, *_: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _one_fsync(path: Path) -> float:
    with path.open("wb") as stream:
        stream.write(bytes(4096))
        stream.flush()
        started = time.perf_counter()
        os.fsync(stream.fileno())
        return 1e3 * (time.perf_counter() - started)


def _images(size: tuple[int, int]) -> list[Image]:
    """Make pictures that compress like a camera's: a weave with noise on it."""
    chance = np.random.default_rng(0)
    y, x = np.mgrid[: size[1], : size[0]]
    weave = 120 + 40 * np.sin(x / 3) * np.sin(y / 3)
    return [
        (weave + chance.normal(0, 3, weave.shape)).clip(0, 255).astype(np.uint8)
        for _ in range(SHOTS)
    ]


def _status() -> RobotStatus:
    joints = Joints(0, 0, 0, 0, 0, 0)
    return RobotStatus(PLACE, joints, "running", "normal", True, True, 1.0, 0, 0, 0.0)
