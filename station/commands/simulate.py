"""Commands around the simulated cell: the far ends, their faults, and what is measured on them."""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import pairwise
from pathlib import Path

from station import show
from station.commands.common import judged_by, recipe_of, workspace_of
from station.errors import ModelError
from station.model import list_models
from station.recipe import load_recipe
from station.workspace import active_recipe


def sim(args: argparse.Namespace) -> int:
    """Run the simulated far ends, and a command against them."""
    from station.sim.__main__ import run
    from station.sim.options import SimOptions

    rest = args.rest[1:] if args.rest[:1] == ["--"] else args.rest
    workspace = workspace_of(args)
    options = {
        name: getattr(args, name) for name in SimOptions.__dataclass_fields__ if hasattr(args, name)
    }
    options.update(_recipe_light(args, workspace, rest), workspace=workspace)
    return run(SimOptions(**options), rest)


def fault(args: argparse.Namespace) -> int:
    """Inject a fault into a running simulator."""
    from station.sim.faults import send

    print(send(args.address, " ".join([args.fault, *args.values])))
    return 0


def bench(args: argparse.Namespace) -> int:
    """Measure."""
    workspace = workspace_of(args)
    if args.what == "scene":
        from station.sim.exam import exam

        show.values(exam(args.sheets or 100, args.seed).as_dict(), as_json=args.json)
        return 0
    if args.what == "faults":
        return _bench_faults(args)
    if args.what == "metrics":
        from station.learn.metrics_bench import bench_metrics

        figures = bench_metrics(args.sheets or 1000, args.size or (288, 288), args.seed)
        show.values(figures, as_json=args.json)
        return 0
    if args.what == "simplenet":
        from station.learn.bench_simplenet import bench_simplenet

        show.values(bench_simplenet(args.rounds), as_json=args.json)
        return 0
    if args.what == "efficientad":
        from station.learn.bench_efficientad import bench_efficientad

        show.values(bench_efficientad(args.rounds), as_json=args.json)
        return 0
    if args.what == "train":
        from station.learn.bench_train import bench_train

        show.values(bench_train(args.sheets or 16, 90), as_json=args.json)
        return 0
    if args.what == "durability":
        from station.bench_durability import bench_durability

        told = bench_durability(workspace, args.sheets or 100, args.size or (640, 480))
        show.values(told._asdict(), as_json=args.json)
        return 0
    if args.what == "detectors":
        return _bench_detectors(args, workspace)
    recipe = recipe_of(args, workspace)
    model, threshold = judged_by(recipe)
    if args.what == "model":
        from station.learn.score import bench_model

        show.values(bench_model(workspace, args.model or model, 50), as_json=args.json)
        return 0
    from station.bench import bench_cycle

    result = bench_cycle(
        workspace,
        recipe,
        args.model or model,
        threshold,
        args.sheets or 20,
        args.size or (2448, 2048),
    )
    show.values(result._asdict(), as_json=args.json)
    return 0


def _bench_faults(args: argparse.Namespace) -> int:
    """Print an entry per step and fault; exit code 1 where one did not hold."""
    from station.fault_table import FAULTS, STEPS, fault_table

    held = True
    with tempfile.TemporaryDirectory(prefix="station-faults-") as folder:
        entries = fault_table(
            Path(folder),
            args.series,
            args.steps or list(STEPS),
            args.faults or list(FAULTS),
            args.address,
            args.model or "glassfiber/1",
        )
        for entry in entries:
            held = held and entry.held
            show.fault(entry._asdict(), as_json=args.json)
    return 0 if held else 1


def _bench_detectors(args: argparse.Namespace, workspace: Path) -> int:
    from station.learn.bench_detectors import bench_detectors

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


def _recipe_light(
    args: argparse.Namespace, workspace: Path, command: list[str]
) -> dict[str, float]:
    """Exposure and gain of the recipe in use: the emulator cannot tell what it was set to."""
    name = args.recipe
    for word, following in pairwise([*command, ""]):
        if name is None and word == "--recipe":
            name = following
        elif name is None and word.startswith("--recipe="):
            name = word.removeprefix("--recipe=")
    if name is None and not (workspace / "run" / "recipe").is_file():
        return {}
    name = name or active_recipe(workspace)
    recipe = load_recipe(workspace, name).recipe
    return {"exposure_us": recipe.exposure_us, "gain_db": recipe.gain_db}
