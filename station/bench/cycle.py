"""`station bench cycle`: what scoring and saving cost the production loop, sheets in turn."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from station import cycle
from station.cell import open_cell
from station.collect import Collector
from station.config import load_cell
from station.errors import ConfigError
from station.model import open_model
from station.recipe import LoadedRecipe
from station.records.dataset import Dataset
from station.records.sheet import Manifest, Verdict

ADDRESS = "127.0.0.60"


class CycleBench(NamedTuple):
    """Figures of one run; times in milliseconds."""

    ratio: float
    full_cycle_ms: float
    bare_cycle_ms: float
    rendering_ms_taken_out: float
    camera_to_verdict_ms: dict[str, float]
    stages_ms: dict[str, float]
    sheets: int
    size: str


def bench_cycle(
    workspace: Path,
    recipe: LoadedRecipe,
    model: str,
    threshold: float,
    sheets: int,
    size: tuple[int, int],
) -> CycleBench:
    """Run `sheets` sheets at speed 1, every other one without scoring and saving.

    Time the arm stood waiting for the simulator to render is taken out of both.
    """
    full_ms: list[float] = []
    bare_ms: list[float] = []
    held_ms: list[float] = []
    to_line_ms: list[float] = []
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="station-bench-") as folder:
        journal = Path(folder) / "journal.jsonl"
        with (
            _far_ends(workspace, size, recipe.name, journal) as cell_file,
            open_model(workspace, model) as judge,
        ):
            cell_config = load_cell(cell_file)
            judging = cycle.Judging(
                judge,
                model,
                judge.card.sha256,
                threshold,
                recipe.recipe.sheet_rule,
                judge.card.runtime,
                judge.card.precision,
            )
            job = cycle.Job("bench-1", recipe, cell_config, {}, Event())
            dataset = Dataset(Path(folder), recipe.name)
            with open_cell(cell_config.config, Path(folder)) as cell:
                collector = Collector(judge)
                run = cycle.begin_run(cell, job, dataset, collector)
                # The first pair only warms caches.
                for number in range(2 + sheets):
                    cell.gate.wait_for_sheet(job.stop)
                    started = time.monotonic()
                    if number % 2 == 0:
                        done = cycle.inspect_sheet(f"bench-{number}", run, judging)
                        if done.error is not None:
                            raise done.error
                        cycle.leave_sheet(run)
                    else:
                        _bare_sheet(run)
                    ended = time.monotonic()
                    if number < 2:
                        continue
                    held = _held_ms(journal, started, ended)
                    held_ms.append(held)
                    (bare_ms if number % 2 else full_ms).append(1e3 * (ended - started) - held)
                    if number % 2 == 0:
                        to_line_ms.append(done.frame_to_line_ms or math.inf)
                        for name, value in _stages(done.manifest):
                            stages.setdefault(name, []).append(value)
                collector.close()
    full, bare = statistics.median(full_ms), statistics.median(bare_ms)
    return CycleBench(
        ratio=round(full / bare, 4),
        full_cycle_ms=round(full, 1),
        bare_cycle_ms=round(bare, 1),
        rendering_ms_taken_out=round(statistics.median(held_ms), 1),
        camera_to_verdict_ms={
            "p50": round(float(np.percentile(to_line_ms, 50)), 1),
            "p95": round(float(np.percentile(to_line_ms, 95)), 1),
        },
        stages_ms={name: round(statistics.median(values), 1) for name, values in stages.items()},
        sheets=sheets,
        size=f"{size[0]}x{size[1]}",
    )


def _bare_sheet(run: cycle.Run) -> None:
    """The same motion, triggers and lines, with scoring and saving off."""
    spent = cycle.Spent()
    cycle.begin_sheet(run)
    for previous, shot in pairwise([run.shots[0], *run.shots]):
        cycle.take_shot(shot, previous, run, spent)
    run.cell.gate.sort(Verdict.REJECT)
    cycle.leave_sheet(run)


def _stages(manifest: Manifest) -> Iterable[tuple[str, float]]:
    return manifest.timing.model_dump().items() if manifest.timing else ()


def _held_ms(journal: Path, started: float, ended: float) -> float:
    """Milliseconds within a span of time.monotonic() that the arm waited for pictures."""
    total = 0.0
    for line in journal.read_text(encoding="utf-8").splitlines():
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "picture" and started <= event["t"] <= ended:
            total += event["held_ms"]
    return total


@contextmanager
def _far_ends(workspace: Path, size: tuple[int, int], recipe: str, journal: Path) -> Iterator[Path]:
    """Start the simulator and take over the environment it asks for."""
    command = [
        sys.executable, "-m", "station", "sim", "--workspace", str(workspace),
        "--address", ADDRESS,
        "--speed", "1", "--seed", "77", "--size", f"{size[0]}x{size[1]}", "--recipe", recipe,
        "--journal", str(journal),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        try:
            wanted = _exports(process)
            before = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)
            yield Path(wanted["STATION_CELL"])
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        finally:
            process.terminate()


def _exports(process: subprocess.Popen[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in process.stdout or ():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            found[name] = value.strip("'\"")
        if "STATION_CELL" in found and "PYLON_CAMEMU" in found and "PYLON_CAMEMU_PFS_PATH" in found:
            return found
    raise ConfigError("the simulator did not start; see its message above")
