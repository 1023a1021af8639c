"""Commands that open the cell: where the arm stands, a picture, captures, the production loop."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from structlog.contextvars import bind_contextvars

from station import control, cycle, reference, show, teach
from station.cell import open_camera, open_cell, open_devices, open_robot, station_lock
from station.commands.common import (
    UNJUDGED,
    cell_of,
    check_out,
    judged_by,
    recipe_of,
    stopping,
    workspace_of,
)
from station.config import LoadedCell
from station.control import Control
from station.errors import INTERRUPTED, ConfigError, ModelError, ProductionLocked, StationError
from station.gate import Ask
from station.image_quality import quality
from station.model import open_model
from station.model_card import ModelCard, load_card
from station.production import Plant, Production
from station.recipe import LoadedRecipe, doubt_about, load_recipe
from station.records.boot import next_boot
from station.records.dataset import Dataset, now, save_image
from station.records.session import CaptureSession
from station.records.sheet import Kind
from station.records.storage import Room
from station.shadow import NICENESS, shadowing
from station.shots import Job
from station.states import Machine, Mode
from station.systemd import keep_alive
from station.workspace import software

if TYPE_CHECKING:
    from station.records.ledger import Ledger


def where(args: argparse.Namespace) -> int:
    """Print the arm's present place as a recipe entry."""
    workspace = workspace_of(args)
    with open_robot(cell_of(args, workspace).config, workspace, control=False) as robot:
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
    workspace = workspace_of(args)
    if args.out.suffix.lower() != ".png":
        raise ConfigError(f"{args.out}: pictures are kept lossless; name a .png file")
    check_out(args.out, workspace)
    with open_camera(cell_of(args, workspace).config, workspace) as camera:
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
    workspace = workspace_of(args)
    recipe = recipe_of(args, workspace)
    cell = cell_of(args, workspace)
    dataset = Dataset(workspace, recipe.name)
    Room(dataset.root, cell.config.disk).check_start()
    split: Literal["train", "test"] = args.split or ("train" if args.label == "good" else "test")
    session = CaptureSession.resume(dataset, args.label, split, args.sheets, restart=args.restart)
    if session.done:
        show.say(f"continuing: {session.done} of {session.sheets} sheets are there")
    labels = cycle.Labels(label=args.label, split=split)
    shots = recipe.recipe.shots_per_sheet
    with (
        stopping("the shot", "a sheet under way stays incomplete") as stop,
        open_cell(cell.config, workspace, ask_of(cell)) as opened,
        show.progress(session.left * shots, "shots") as advance,
    ):
        job = job_of(workspace, recipe, cell, stop)
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
    workspace = workspace_of(args)
    recipe = recipe_of(args, workspace)
    cell = cell_of(args, workspace)
    name, threshold = judged_by(recipe)
    if (doubt := doubt_about(threshold)) is not None:
        show.say(f"warning: {doubt}")
    card = load_card(workspace, name)
    check_model_input(recipe, card.input.tiles)
    if recipe.recipe.shadow_model is not None:
        load_card(workspace, recipe.recipe.shadow_model)
    room = Room(workspace / "data", cell.config.disk)
    room.check_start()
    from station.records.ledger import open_ledger
    from station.records.recovery import recover

    basis = basis_of(recipe, cell, card)
    if args.sheets is not None and not args.dry_run:
        locked = reference.why_locked(workspace, recipe, basis, now())
        if locked is not None:
            raise locked

    machine = Machine(Mode.DRY_RUN if args.dry_run else Mode.PRODUCE)

    def why_locked() -> StationError | None:
        locked = reference.why_locked(workspace, recipe, basis, now())
        if locked is None or _basis_today(args, workspace, recipe.name) == basis:
            return locked
        return ProductionLocked(
            f"recipe {recipe.name}: recipe, cell file or model has changed since this station was "
            "started; end it and start it anew"
        )

    def check_way() -> None:
        room.check_start()
        if (locked := why_locked()) is not None:
            raise locked

    machine.on_way_to_production = check_way

    def blocked() -> StationError | None:
        unlocked = machine.mode is not Mode.PRODUCE
        return room.why_not_next() or (None if unlocked else why_locked())

    doubts: set[str] = set()

    def tell(inspected: cycle.Inspected) -> None:
        for capture in inspected.manifest.captures:
            doubt = card.input.doubt(capture.width, capture.height)
            if doubt is not None and doubt not in doubts:
                doubts.add(doubt)
                show.say(f"warning: model {name} {doubt}")
        try:
            show.inspected(inspected, workspace, as_json=args.json)
        except BrokenPipeError:
            show.say("station: nobody reads standard output any more; the run ends")
            raise

    with (
        stopping("the sheet", UNJUDGED, machine.finishing) as leave,
        station_lock(workspace) as lock,
        open_ledger(workspace, cell.config.ledger) as ledger,
    ):
        machine.on_mode = lambda mode: lock.give() if mode.lends else lock.take()
        dataset = Dataset(workspace, recipe.name, ledger)
        plant = Plant(
            recipe.recipe,
            dataset,
            open_judging=lambda: open_judging(
                workspace, recipe, name, threshold, card.sha256, ledger
            ),
            open_cell=lambda: open_devices(cell.config, workspace, ask_of(cell)),
            begin_job=lambda dry: job_of(workspace, recipe, cell, machine.finishing, dry_run=dry),
            show=tell,
            blocked=blocked,
            recover=lambda: recover(dataset, ledger, cell.config.station),
        )
        production = Production(machine, plant, leave)
        with control.serve(workspace, Control(machine, production.facts)), keep_alive():
            if args.sheets is None:
                show.say("aborted, as after every start; next: station clear, reset, start")
                production.run()
            else:
                production.run_once(args.sheets)
        if not args.json:
            show.counts(production.facts())
    return INTERRUPTED if leave.is_set() else 0


@contextlib.contextmanager
def open_judging(
    workspace: Path,
    recipe: LoadedRecipe,
    name: str,
    threshold: float,
    sha256: str,
    ledger: Ledger | None = None,
) -> Iterator[cycle.Judging]:
    """Open the recipe's model for as long as it judges; its shadow, where a ledger keeps that.

    Raises where its weights are not those that were looked at before: what was found of them, by
    the reference sheets above all, does not hold for others.
    """
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(open_model(workspace, name, threshold=threshold))
        if model.card.sha256 != sha256:
            raise ModelError(
                f"models/{name}: was replaced since this station was started; end it and start it "
                "anew"
            )
        shadow = None
        second = recipe.recipe.shadow_model
        if second is not None and ledger is not None:
            other = stack.enter_context(open_model(workspace, second, niceness=NICENESS))
            shadow = stack.enter_context(shadowing(other, second, other.card.sha256, ledger.shadow))
        card, rule = model.card, recipe.recipe.sheet_rule
        yield cycle.Judging(
            model, name, card.sha256, threshold, rule, card.runtime, card.precision, shadow
        )


def job_of(
    workspace: Path,
    recipe: LoadedRecipe,
    cell: LoadedCell,
    stop: threading.Event,
    *,
    dry_run: bool = False,
    kind: Kind = "inspection",
) -> Job:
    """Begin a run: it has a number that no other has."""
    run = f"{cell.config.station}-{next_boot(workspace):04d}"
    bind_contextvars(run=run, recipe=recipe.name)
    return Job(run, recipe, cell, software(), stop, dry_run, kind)


def basis_of(recipe: LoadedRecipe, cell: LoadedCell, card: ModelCard) -> reference.Basis:
    """Return what a check of the reference sheets holds for."""
    return reference.Basis(
        recipe_sha256=recipe.sha256, cell_sha256=cell.sha256, model_sha256=card.sha256
    )


def _basis_today(args: argparse.Namespace, workspace: Path, name: str) -> reference.Basis | None:
    """Return what a check made now would hold for; None where a file can no longer be read."""
    try:
        recipe = load_recipe(workspace, name)
        return basis_of(
            recipe, cell_of(args, workspace), load_card(workspace, judged_by(recipe)[0])
        )
    except StationError:
        return None


def check_model_input(recipe: LoadedRecipe, tiles: int) -> None:
    """Refuse a model that was trained on another part of the pictures."""
    trained = "whole" if tiles == 1 else "tiles"
    if recipe.recipe.model_input != trained:
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: model_input: {recipe.recipe.model_input}, "
            f"but model {recipe.recipe.model} was trained on {trained}"
        )


def ask_of(cell: LoadedCell) -> Ask:
    """Return how a person tells that a sheet lies there, where no line does."""
    if cell.config.gate == "input":
        return None

    def ask(stop: threading.Event, check_ready: Callable[[], None]) -> None:
        if sys.stdin.isatty():  # an Enter from before this question is no answer to it
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
        show.say("lay a sheet and press Enter")
        while not stop.is_set():
            check_ready()
            ready, _, _ = select.select([sys.stdin], [], [], 0.1)
            if not ready:
                continue
            # A byte at a time: what a reader kept of the next line, `select` would not see.
            pressed = os.read(sys.stdin.fileno(), 1)
            if not pressed:
                raise ConfigError("gate: manual needs a keyboard; standard input is closed")
            if pressed == b"\n":
                return

    return ask
