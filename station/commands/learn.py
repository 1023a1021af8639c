"""Commands on captures, models and records. Those that need torch import it themselves."""

from __future__ import annotations

import argparse
import json
import re
import sys

from station import show
from station.commands.common import cell_file_of, check_out, recipe_of, stopping, workspace_of
from station.detectors import preset_of
from station.errors import INTERRUPTED, ConfigError, DatasetError
from station.model_card import load_card, newest
from station.pages.run_report import make_report
from station.preset import changed
from station.recipe import HIGHEST, MODEL_PATTERN, load_recipe
from station.records.dataset import Dataset
from station.records.label import attach
from station.records.sheet import judge
from station.sheet_score import ShotScore
from station.workspace import active_recipe

RESUMED = "the same command with --resume goes on from the last state that was kept"


def label(args: argparse.Namespace) -> int:
    """Attach labels and masks to captures."""
    workspace = workspace_of(args)
    attached = attach(Dataset(workspace, recipe_of(args, workspace).name), args.source)
    if args.json:
        print(json.dumps(attached._asdict()))
        return 0
    print(", ".join(f"{count} {name}" for name, count in attached.labels.items()))
    if attached.unmatched:
        print(f"{attached.unmatched} pictures without a label or mask in {args.source}")
    return 0


def train(args: argparse.Namespace) -> int:
    """Learn from good sheets and write a new model."""
    from station.evaluate.metrics import held_out_rejects
    from station.learn.images import from_mvtec
    from station.learn.method import TrainingStopped
    from station.learn.train import TrainOptions
    from station.learn.train import train as learn

    workspace = workspace_of(args)
    recipe = None
    folder = args.dataset
    if folder is None or args.recipe is not None:
        recipe = load_recipe(workspace, args.recipe or active_recipe(workspace))
        folder = folder or workspace / "data" / recipe.name
        Dataset(workspace, recipe.name).check_captures_finished()
    name = args.model or (recipe.name if recipe else folder.resolve().name)
    if not re.fullmatch(MODEL_PATTERN, f"{name}/1"):
        raise ConfigError(f"{folder}: {name!r} cannot be a model's name; choose one with --model")
    tiles = args.tiles or (2 if recipe and recipe.recipe.model_input == "tiles" else 1)
    changes = {
        "tiles": tiles,
        "backbone": args.backbone,
        "input_size": args.input_size,
        "levels": args.levels and tuple(sorted(args.levels)),
        "strewn": args.strewn,
        "teacher": args.teacher,
        "steps": args.steps,
    }
    chosen = {key: value for key, value in changes.items() if value is not None}
    options = TrainOptions(
        name=name,
        preset=changed(preset_of(args.detector, args.preset), **chosen),
        units=args.images,
        seed=args.seed,
        rule=recipe.recipe.sheet_rule if recipe else HIGHEST,
        resume=args.resume,
        precision=args.precision,
        penalty=args.penalty,
        device=args.device,
    )
    images = from_mvtec(folder)
    with stopping("the step", RESUMED) as stop, show.learning() as progress:
        try:
            card = learn(images, options, workspace, progress, stop)
        except TrainingStopped as stopped:
            show.say(str(stopped))
            return INTERRUPTED
    limit = recipe.recipe.threshold if recipe else None
    row: dict[str, object] = {
        "model": f"{card.name}/{card.version}",
        "images": card.data.images,
        "units": card.data.units,
        "held_out_units": len(card.held_out_scores),
        "held_out_highest_score": max(card.held_out_scores),
    }
    if limit is not None:
        count, total, low, high = held_out_rejects(card, limit)
        row |= {
            "threshold": limit,
            "held_out_rejected": count,
            "held_out_total": total,
            "rejected_low": low,
            "rejected_high": high,
        }
    show.values(row, as_json=args.json)
    if not args.json:
        file = f"recipes/{recipe.name if recipe else 'R'}.yaml"
        show.say(f"to use it: set `model: {card.name}/{card.version}` in {file}")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Check a file made elsewhere against the contract and give it a card."""
    from station.learn.images import from_mvtec, read_image
    from station.learn.imported import import_model, read_graph
    from station.learn.method import Progress

    workspace = workspace_of(args)
    folder = args.dataset
    if folder is None:
        folder = workspace / "data" / load_recipe(workspace, args.recipe).name
    images = from_mvtec(folder)
    if args.anomalib is None:
        source = read_graph(args.file)
    else:
        from station.learn.from_anomalib import read_checkpoint

        source = read_checkpoint(args.file, args.anomalib, read_image(images.files[0]).image)
    with show.learning() as progress:
        card = import_model(
            source,
            args.model,
            images,
            workspace,
            lambda done, total: progress(Progress("held-out", done, total)),
        )
    row = {
        "model": f"{card.name}/{card.version}",
        "images": card.data.images,
        "units": card.data.units,
        "highest_good_score": max(card.held_out_scores),
    }
    show.values(row, as_json=args.json)
    return 0


def distill(args: argparse.Namespace) -> int:
    """Distil a teacher for EfficientAD into the store of weights."""
    from station.learn.efficientad.distill import DistillOptions, distil, read_pictures
    from station.learn.features.weights import store
    from station.learn.images import pictures
    from station.learn.method import TrainingStopped

    options = DistillOptions(
        name=args.name or args.size,
        backbone=args.backbone,
        size=args.size,
        steps=args.steps,
        seed=args.seed,
        resume=args.resume,
        device=args.device,
    )
    with stopping("the step", RESUMED) as stop, show.learning() as progress:
        try:
            found = read_pictures(pictures(args.images))
            teacher, loss = distil(found, options, workspace_of(args), progress, stop)
        except TrainingStopped as stopped:
            show.say(str(stopped))
            return INTERRUPTED
    row = teacher.model_dump(mode="json") | {"loss": loss, "store": str(store())}
    show.values(row, as_json=args.json)
    if not args.json:
        show.say(
            f"to use it: station train --detector efficientad-{teacher.size} "
            f"--teacher {teacher.name}"
        )
    return 0


def score(args: argparse.Namespace) -> int:
    """Score picture files."""
    from station.evaluate.score import (
        check_overlays,
        overlay_place,
        pictures,
        score_files,
        write_overlay,
    )

    workspace = workspace_of(args)
    if args.overlay is not None:
        check_overlays(args.overlay, args.files)
    threshold = args.threshold
    if args.recipe is not None:
        threshold = load_recipe(workspace, args.recipe).recipe.threshold
        if threshold is None:
            raise ConfigError(f"recipes/{args.recipe}.yaml: threshold: missing")
    model = newest(workspace, args.model)
    for file, prediction in score_files(workspace, model, pictures(args.files)):
        verdict = (
            None
            if threshold is None
            else judge([ShotScore("", prediction.score)], 1, threshold, HIGHEST)[0]
        )
        row: dict[str, object] = {
            "file": str(file),
            "score": prediction.score,
            "verdict": verdict,
        }
        if args.overlay is not None:
            place = overlay_place(args.overlay, file, prediction, verdict)
            write_overlay(place, file, prediction, threshold)
            row["overlay"] = str(place)
        show.scored(row, as_json=args.json)
    return 0


def draw(args: argparse.Namespace) -> int:
    """Draw a model's network as it lies in its file."""
    from station.learn.anatomy import take_apart
    from station.pages.network_figure import write_network

    workspace = workspace_of(args)
    if args.out.suffix != ".svg":
        raise ConfigError(f"{args.out}: drawn as SVG; name it so")
    check_out(args.out, workspace)
    card = load_card(workspace, newest(workspace, args.model))
    anatomy = take_apart(workspace, card)
    write_network(args.out, anatomy, card)
    row: dict[str, object] = {
        "model": f"{card.name}/{card.version}",
        "frozen": sum(stage.parameters for stage in anatomy.stages),
        "learned": anatomy.hidden.parameters + anatomy.raw.parameters,
        "picture": str(args.out),
    }
    show.values(row, as_json=args.json)
    return 0


def report(args: argparse.Namespace) -> int:
    """Write one run as a self-contained HTML page."""
    from station.records.ledger import open_ledger

    workspace = workspace_of(args)
    check_out(args.out, workspace)
    name = recipe_of(args, workspace).name

    def recorded(run: str) -> set[str]:
        with open_ledger(workspace, cell_file_of(None, workspace).config.ledger) as ledger:
            return {row["sheet"] for row in ledger.rows(name, run)}

    summary = make_report(
        Dataset(workspace, name),
        args.run,
        args.truth,
        args.out,
        recorded,
        lambda total: show.progress(total, "sheets checked"),
    )
    if args.json:
        for row in summary.rows:
            print(json.dumps(row))
    else:
        show.table(summary.title, summary.rows)
        for line in summary.lines:
            print(line)
    print(f"report: {summary.path}", file=sys.stderr if args.json else sys.stdout)
    for problem in summary.problems:
        show.say(problem)
    return DatasetError.exit_code if summary.problems else 0
