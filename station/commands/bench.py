"""`station bench`: what is measured, and what a user should expect of it."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from station import show
from station.commands.common import judged_by, recipe_of, workspace_of
from station.errors import ConfigError, ModelError
from station.model_card import list_models

if TYPE_CHECKING:
    from station.bench.camera_faults import Entry as CameraEntry


def bench(args: argparse.Namespace) -> int:
    """Measure one thing; each imports what it needs."""
    return {
        "cycle": _cycle,
        "detectors": _detectors,
        "durability": _durability,
        "efficientad": _efficientad,
        "faults": _faults,
        "metrics": _metrics,
        "model": _model,
        "scene": _scene,
        "simplenet": _simplenet,
        "train": _train,
    }[args.what](args)


def _cycle(args: argparse.Namespace) -> int:
    from station.bench.cycle import bench_cycle

    workspace = workspace_of(args)
    recipe = recipe_of(args, workspace)
    model, threshold = judged_by(recipe)
    result = bench_cycle(workspace, recipe, args.model or model, threshold, args.sheets, args.size)
    show.values(result._asdict(), as_json=args.json)
    return 0


def _detectors(args: argparse.Namespace) -> int:
    from station.bench.detectors import bench_detectors

    workspace = workspace_of(args)
    newest = {name.partition("/")[0]: name for name in list_models(workspace)}
    names = [args.model] if args.model else list(newest.values())
    if not names:
        raise ModelError(f"{workspace / 'models'}: no model to measure; `station train` makes one")
    rows = []
    for row in bench_detectors(workspace, names, args.size, args.rounds):
        if args.json:
            print(json.dumps(row), flush=True)
        rows.append(row)
    if not args.json:
        columns = ("model", "runtime", "precision", "threads", "shots", "p50_ms", "p95_ms",
                   "p99_ms", "pictures_per_s", "note")  # fmt: skip
        show.table("camera buffer to verdict", [{c: row.get(c) for c in columns} for row in rows])
    return 0


def _durability(args: argparse.Namespace) -> int:
    from station.bench.durability import bench_durability

    told = bench_durability(workspace_of(args), args.sheets, args.size)
    show.values(told._asdict(), as_json=args.json)
    return 0


def _efficientad(args: argparse.Namespace) -> int:
    from station.bench.efficientad import bench_efficientad

    show.values(bench_efficientad(args.rounds), as_json=args.json)
    return 0


def _faults(args: argparse.Namespace) -> int:
    """Print an entry per fault, of the robot per step too; exit code 1 where one did not hold."""
    from station.bench.camera_faults import NAMES, camera_fault_table
    from station.bench.faults import fault_table
    from station.bench.robot_injection import FAULTS, STEPS

    groups = {"robot": list(FAULTS), "camera": list(NAMES)}
    wanted = [name for word in args.faults or groups for name in groups.get(word, [word])]
    if wrong := [name for name in wanted if name not in FAULTS and name not in NAMES]:
        known = ", ".join([*groups, *FAULTS, *NAMES])
        raise ConfigError(f"--faults: no {wrong[0]!r}; there are: {known}")
    robot, camera = ([name for name in wanted if name in of] for of in (FAULTS, NAMES))
    held = True

    def told(entry: CameraEntry) -> None:
        nonlocal held
        held = held and entry.held
        show.camera_fault(entry._asdict(), as_json=args.json)

    if robot:
        with tempfile.TemporaryDirectory(prefix="station-faults-") as folder:
            steps = args.steps or list(STEPS)
            for entry in fault_table(
                Path(folder), args.series, steps, robot, args.address, args.model
            ):
                held = held and entry.held
                show.fault(entry._asdict(), as_json=args.json)
    if camera:
        with tempfile.TemporaryDirectory(prefix="station-faults-") as folder:
            camera_fault_table(Path(folder), camera, args.address, args.model, told)
    return 0 if held else 1


def _metrics(args: argparse.Namespace) -> int:
    from station.bench.metrics import bench_metrics

    show.values(bench_metrics(args.maps, args.size, args.seed), as_json=args.json)
    return 0


def _model(args: argparse.Namespace) -> int:
    from station.evaluate.score import bench_model

    workspace = workspace_of(args)
    model, _ = judged_by(recipe_of(args, workspace))
    show.values(bench_model(workspace, args.model or model, 50), as_json=args.json)
    return 0


def _scene(args: argparse.Namespace) -> int:
    from station.sim.exam import exam

    show.values(exam(args.sheets, args.seed).as_dict(), as_json=args.json)
    return 0


def _simplenet(args: argparse.Namespace) -> int:
    from station.bench.simplenet import Setting, bench_simplenet

    show.values(bench_simplenet(args.rounds, Setting(authors=args.authors)), as_json=args.json)
    return 0


def _train(args: argparse.Namespace) -> int:
    from station.bench.training import bench_train

    show.values(bench_train(args.images, 90), as_json=args.json)
    return 0
