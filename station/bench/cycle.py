"""`station bench cycle`: what scoring and saving cost the production loop, sheets in turn."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from station import cycle, shots
from station.bench.far_ends import far_ends
from station.cell import open_cell
from station.collect import Collector
from station.config import load_cell
from station.model import open_model
from station.recipe import LoadedRecipe
from station.records.dataset import Dataset
from station.records.ledger import open_ledger
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
    # Where a station's records lie: another disk takes another time to make them durable.
    data = workspace / "data"
    data.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=data) as folder:
        journal = Path(folder) / "journal.jsonl"
        with (
            far_ends(workspace, ADDRESS, *_options(recipe, size, journal)) as cell_file,
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
            job = shots.Job("bench-0001", recipe, cell_config, {}, Event())
            with (
                open_ledger(Path(folder)) as ledger,
                open_cell(cell_config.config, Path(folder)) as cell,
            ):
                dataset = Dataset(Path(folder), recipe.name, ledger)
                collector = Collector(judge)
                run = shots.begin_run(cell, job, dataset, collector)
                # The first pair only warms caches.
                for number in range(2 + sheets):
                    cell.gate.wait_for_sheet(job.stop)
                    started = time.monotonic()
                    if number % 2 == 0:
                        done = cycle.inspect_sheet(f"bench-0001-{number:06d}", run, judging)
                        if done.error is not None:
                            raise done.error
                        shots.leave_sheet(run)
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


def _options(recipe: LoadedRecipe, size: tuple[int, int], journal: Path) -> list[str]:
    return [
        "--seed", "77", "--size", *map(str, size), "--journal", str(journal),
        "--exposure-us", str(recipe.recipe.exposure_us), "--gain-db", str(recipe.recipe.gain_db),
    ]  # fmt: skip


def _bare_sheet(run: shots.Run) -> None:
    """The same motion, triggers and lines, with scoring and saving off."""
    spent = shots.Spent()
    shots.begin_sheet("bare", run)
    for previous, shot in pairwise([run.shots[0], *run.shots]):
        shots.take_shot(shot, previous, run, spent)
    run.cell.gate.sort(Verdict.REJECT)
    shots.leave_sheet(run)


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
