"""The commands: each prints, and returns an exit code; nothing else in the station does.

Imports stand inside the commands, so that `station report` needs neither torch nor pylon.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from station import arguments, show
from station.errors import ConfigError, DatasetError, StationError

if TYPE_CHECKING:
    from station.config import LoadedCell
    from station.cycle import Job
    from station.recipe import LoadedRecipe
    from station.records import Manifest

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command; the only place that turns errors into exit codes."""
    args = arguments.parse(argv)
    from station import log

    log.configure(verbose=args.verbose)
    try:
        code = _COMMANDS[args.command](args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except StationError as error:
        print(f"station: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("station: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; writing more would only raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a read-only folder, a closed output: the machine's fault, not a bug.
        print(f"station: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return DatasetError.exit_code


# --- the workspace -----------------------------------------------------------------------


def init(args: argparse.Namespace) -> int:
    """Make a workspace."""
    from station import workspace

    made = workspace.init(args.dir)
    print(f"{args.dir}: {len(made)} files made" if made else f"{args.dir}: already complete")
    print(f"try it: cd {args.dir} && station sim -- station inspect --recipe glassfiber --sheets 5")
    return 0


def use(args: argparse.Namespace) -> int:
    """Set the active recipe."""
    from station import workspace

    workspace.use(_workspace(args), args.recipe)
    print(f"active recipe: {args.recipe}")
    return 0


def schema(args: argparse.Namespace) -> int:
    """Write JSON schemas for editors."""
    from station.config import CellConfig
    from station.recipe import Recipe

    if args.dir.exists() and not args.dir.is_dir():
        raise ConfigError(f"{args.dir}: is a file")
    for name, model in (("recipe", Recipe), ("cell", CellConfig)):
        path = args.dir / f"{name}.schema.json"
        args.dir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(model.model_json_schema(), indent=2) + "\n", encoding="utf-8")
        print(path)
    return 0


def check(args: argparse.Namespace) -> int:
    """Validate everything without moving."""
    from station.cell import check_installation, open_robot
    from station.check import Finding, check_reach, check_recipe
    from station.recipe import list_recipes, load_recipe

    workspace = _workspace(args)
    cell = _cell(args, workspace)
    names = [args.recipe] if args.recipe else list_recipes(workspace)
    if not names:
        raise ConfigError(f"{workspace / 'recipes'}: no recipes")
    recipes = [load_recipe(workspace, name) for name in names]
    findings: list[tuple[str, Finding]] = [
        (recipe.name, finding)
        for recipe in recipes
        for finding in check_recipe(workspace, recipe, cell)
    ]
    if args.cell is not None:
        with open_robot(cell.config, workspace, control=True) as robot:
            check_installation(cell.config, robot.info())
            for recipe in recipes:
                findings += [(recipe.name, finding) for finding in check_reach(robot, recipe)]
    for name, finding in findings:
        if args.json:
            print(json.dumps({"recipe": name, "level": finding.level, "what": finding.what}))
        else:
            print(f"{finding.level:8} {name}: {finding.what}")
    return ConfigError.exit_code if any(f.level == "error" for _, f in findings) else 0


# --- the cell ----------------------------------------------------------------------------


def where(args: argparse.Namespace) -> int:
    """Print the arm's present place as a recipe entry."""
    from station import teach
    from station.cell import open_robot

    workspace = _workspace(args)
    with open_robot(_cell(args, workspace).config, workspace, control=False) as robot:
        status = robot.status()
    if args.append:
        name = teach.append(workspace, args.append, status, args.name)
        print(f"recipes/{args.append}.yaml: added setup {name}")
    elif args.json:
        print(json.dumps(teach.entry(status, args.name or "setup-1")))
    else:
        print(teach.entry_text(teach.entry(status, args.name or "setup-1")), end="")
    return 0


def snap(args: argparse.Namespace) -> int:
    """Take one picture where the arm stands."""
    from station.cell import open_camera
    from station.dataset import save_image
    from station.image_quality import quality

    workspace = _workspace(args)
    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"{args.out}: pictures are kept lossless; name a .png file")
    if not args.out.parent.is_dir():
        raise ConfigError(f"{args.out.parent}: no such folder")
    with open_camera(_cell(args, workspace).config, workspace) as camera:
        camera.configure(args.exposure_us, args.gain_db)
        frame = camera.trigger()
    save_image(args.out, frame.image)
    told = quality(frame.image)
    height, width = frame.image.shape[:2]
    show.values(
        {"file": str(args.out), "width": width, "height": height, **told._asdict()},
        as_json=args.json,
    )
    return 0


def capture(args: argparse.Namespace) -> int:
    """Photograph sheets into the dataset tree."""
    from station import cycle
    from station.cell import open_cell
    from station.dataset import Dataset
    from station.session import CaptureSession

    workspace = _workspace(args)
    recipe = _recipe(args, workspace)
    cell = _cell(args, workspace)
    dataset = Dataset(workspace, recipe.name)
    split: Literal["train", "test"] = args.split or ("train" if args.label == "good" else "test")
    session = CaptureSession.resume(dataset, args.label, split, args.sheets, restart=args.restart)
    if session.done:
        show.say(f"continuing: {session.done} of {session.sheets} sheets are there")
    labels = cycle.Labels(label=args.label, split=split)
    shots = recipe.recipe.shots_per_sheet
    with (
        _stopping("the shot") as stop,
        open_cell(cell.config, workspace, _ask(cell)) as opened,
        show.progress(session.left * shots, "shots") as advance,
    ):
        job = _job(workspace, recipe, cell, stop)
        for event in cycle.capture(opened, job, labels, dataset, session.left):
            if isinstance(event, cycle.Progress):
                advance(f"{event.sheet} {event.shot.setup} {event.shot.number}")
                continue
            session = session.advance(complete=event.complete)
            show.captured(event, workspace, dataset, as_json=args.json)
    if stop.is_set():
        show.say(
            f"stopped with {session.done} of {session.sheets} sheets; the same command continues"
        )
        return INTERRUPTED
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Accept or reject sheets as they arrive."""
    from station import cycle
    from station.cell import open_cell
    from station.dataset import Dataset
    from station.model import open_model

    workspace = _workspace(args)
    recipe = _recipe(args, workspace)
    cell = _cell(args, workspace)
    model_name, threshold = _judged_by(recipe)
    done: list[Manifest] = []
    with (
        _stopping("the sheet") as stop,
        open_model(workspace, model_name) as model,
        open_cell(cell.config, workspace, _ask(cell)) as opened,
    ):
        _check_model_input(recipe, model.card.input.tiles)
        judging = cycle.Judging(
            model, model_name, model.card.sha256, threshold, recipe.recipe.setup_score
        )
        job = _job(workspace, recipe, cell, stop, dry_run=args.dry_run)
        dataset = Dataset(workspace, recipe.name)
        for inspected in cycle.inspect(opened, job, judging, dataset, args.sheets):
            done.append(inspected.manifest)
            show.inspected(inspected, workspace, as_json=args.json)
    if not args.json and done:
        counts = {
            verdict: sum(m.verdict == verdict for m in done)
            for verdict in ("accept", "reject", "none")
        }
        show.say(
            ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
            + f"; run {job.run}"
        )
    return INTERRUPTED if stop.is_set() else 0


# --- data and models ---------------------------------------------------------------------


def label(args: argparse.Namespace) -> int:
    """Attach labels and masks to captures."""
    from station.dataset import Dataset
    from station.label import attach

    workspace = _workspace(args)
    counts = attach(Dataset(workspace, _recipe(args, workspace).name), args.source)
    if args.json:
        print(json.dumps(counts))
    else:
        print(
            ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            or "nothing matched"
        )
    return 0


def train(args: argparse.Namespace) -> int:
    """Learn from good sheets and write a new model."""
    from station.learn.images import from_mvtec
    from station.learn.metrics import held_out_rejects
    from station.learn.train import TrainOptions
    from station.learn.train import train as learn
    from station.recipe import load_recipe
    from station.workspace import active_recipe

    workspace = _workspace(args)
    recipe = None
    folder = args.dataset
    if folder is None or args.recipe is not None:
        recipe = load_recipe(workspace, args.recipe or active_recipe(workspace))
        folder = folder or workspace / "data" / recipe.name
    tiles = args.tiles or (2 if recipe and recipe.recipe.model_input == "tiles" else 1)
    options = TrainOptions(
        name=args.model or (recipe.name if recipe else folder.resolve().name),
        input_size=args.input_size,
        tiles=tiles,
        units=args.images,
        seed=args.seed,
        setup_score=recipe.recipe.setup_score if recipe else "highest",
    )
    with show.learning() as progress:
        card = learn(from_mvtec(folder), options, workspace, progress)
    limit = recipe.recipe.threshold if recipe else None
    row: dict[str, object] = {
        "model": f"{card.name}/{card.version}",
        "images": card.data.images,
        "units": card.data.units,
        "held_out_units": len(card.held_out_scores),
        "held_out_highest_score": max(card.held_out_scores),
        "threshold": limit,
    }
    if limit is not None:
        count, total, low, high = held_out_rejects(card, limit)
        row |= {
            "held_out_rejected": count,
            "held_out_total": total,
            "rejected_low": low,
            "rejected_high": high,
        }
    show.values(row, as_json=args.json)
    if not args.json:
        name = recipe.name if recipe else "R"
        show.say(f"to use it: set `model: {card.name}/{card.version}` in recipes/{name}.yaml")
    return 0


def score(args: argparse.Namespace) -> int:
    """Score picture files."""
    from station.learn.score import score_files
    from station.recipe import load_recipe
    from station.records import judge

    workspace = _workspace(args)
    threshold = args.threshold
    if args.recipe is not None:
        threshold = load_recipe(workspace, args.recipe).recipe.threshold
        if threshold is None:
            raise ConfigError(f"recipes/{args.recipe}.yaml: threshold: missing")
    for file, prediction in score_files(workspace, args.model, args.files):
        verdict = (
            None
            if threshold is None
            else judge([prediction.score], [""], 1, threshold, "highest")[0]
        )
        row = {"file": str(file), "score": prediction.score, "verdict": verdict}
        show.scored(row, as_json=args.json)
    return 0


def report(args: argparse.Namespace) -> int:
    """Write one run as a self-contained HTML page."""
    from station.dataset import Dataset
    from station.run_report import make_report

    workspace = _workspace(args)
    dataset = Dataset(workspace, _recipe(args, workspace).name)
    summary = make_report(dataset, args.run, args.truth, args.out)
    if args.json:
        for row in summary.rows:
            print(json.dumps(row))
    else:
        show.table(summary.title, summary.rows)
        for line in summary.lines:
            print(line)
    print(f"report: {summary.path}", file=sys.stderr if args.json else sys.stdout)
    return 0


def sim(args: argparse.Namespace) -> int:
    """Run the simulated far ends, and a command against them."""
    from station.sim.__main__ import run
    from station.sim.options import SimOptions

    rest = args.rest[1:] if args.rest[:1] == ["--"] else args.rest
    workspace = _workspace(args)
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
    workspace = _workspace(args)
    if args.what == "scene":
        from station.sim.exam import exam

        show.values(exam(args.sheets or 100, args.seed).as_dict(), as_json=args.json)
        return 0
    recipe = _recipe(args, workspace)
    model, threshold = _judged_by(recipe)
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


# --- what commands share -----------------------------------------------------------------


def _workspace(args: argparse.Namespace) -> Path:
    from station.config import open_workspace

    return open_workspace(args.workspace)


def _cell(args: argparse.Namespace, workspace: Path) -> LoadedCell:
    from station.cell import check_drivers
    from station.config import load_cell

    named = args.cell or os.environ.get("STATION_CELL")
    cell = load_cell(Path(named) if named else workspace / "calibration" / "cell.yaml")
    check_drivers(cell)
    return cell


def _recipe(args: argparse.Namespace, workspace: Path) -> LoadedRecipe:
    from station.recipe import load_recipe
    from station.workspace import active_recipe

    return load_recipe(workspace, args.recipe or active_recipe(workspace))


def _job(
    workspace: Path,
    recipe: LoadedRecipe,
    cell: LoadedCell,
    stop: threading.Event,
    *,
    dry_run: bool = False,
) -> Job:
    from structlog.contextvars import bind_contextvars

    from station.cycle import Job
    from station.dataset import next_boot
    from station.workspace import software

    run = f"{cell.config.station}-{next_boot(workspace):04d}"
    bind_contextvars(run=run, recipe=recipe.name)
    return Job(run, recipe, cell, software(), stop, dry_run)


def _judged_by(recipe: LoadedRecipe) -> tuple[str, float]:
    if recipe.recipe.model is None or recipe.recipe.threshold is None:
        missing = "model" if recipe.recipe.model is None else "threshold"
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: {missing}: needed to inspect; `station train` tells one"
        )
    return recipe.recipe.model, recipe.recipe.threshold


def _check_model_input(recipe: LoadedRecipe, tiles: int) -> None:
    trained = "whole" if tiles == 1 else "tiles"
    if recipe.recipe.model_input != trained:
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: model_input: {recipe.recipe.model_input}, "
            f"but model {recipe.recipe.model} was trained on {trained}"
        )


def _recipe_light(
    args: argparse.Namespace, workspace: Path, command: list[str]
) -> dict[str, float]:
    """Exposure and gain of the recipe in use: the emulator cannot tell what it was set to."""
    from station.recipe import load_recipe
    from station.workspace import active_recipe

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


def _ask(cell: LoadedCell) -> Callable[[threading.Event], None] | None:
    if cell.config.gate == "input":
        return None

    def ask(stop: threading.Event) -> None:
        show.say("lay a sheet and press Enter")
        while not stop.is_set():
            ready, _, _ = select.select([sys.stdin], [], [], 0.2)
            if ready and not sys.stdin.readline():
                raise ConfigError("gate: manual needs a keyboard; standard input is closed")
            if ready:
                return

    return ask


@contextlib.contextmanager
def _stopping(what: str) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after `what`; the second stops now."""
    stop = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        show.say(f"finishing {what}, then stopping; Ctrl-C again stops now")

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        show.say("station: terminated; a sheet under way has no verdict")
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, terminate)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    command.__name__: command
    for command in (
        init,
        use,
        schema,
        check,
        where,
        snap,
        capture,
        inspect,
        label,
        train,
        score,
        report,
        sim,
        fault,
        bench,
    )
}
