"""`station compare`: detectors on the same images, as a table, a page and a recommendation."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from station import show
from station.commands.common import (
    CONTINUED,
    check_out_folder,
    compare_with_training,
    stopping,
    workspace_of,
)
from station.errors import INTERRUPTED
from station.recipe import HIGHEST, load_recipe

if TYPE_CHECKING:
    from station.evaluate.compare import Contender, Recommendation


def compare(args: argparse.Namespace) -> int:
    """Train what is missing, measure all of them alike, say which to take."""
    from station.evaluate.compare import contenders, recommend, run
    from station.evaluate.measure import read_examples
    from station.evaluate.variants import Place
    from station.learn.method import TrainingStopped
    from station.pages.compare_report import write_comparison

    folder, tiles, rule = args.dataset, 1, HIGHEST
    if folder is None:
        workspace = workspace_of(args)
        recipe = load_recipe(workspace, args.recipe)
        folder = workspace / "data" / recipe.name
        tiles = 2 if recipe.recipe.model_input == "tiles" else 1
        rule = recipe.recipe.sheet_rule
    check_out_folder(args.out, folder)
    variants = contenders(args.detectors.split(","), args.workspace, tiles)
    examples = read_examples(folder, args.split)
    compare_with_training(folder, [example.file for example in examples.members])
    args.out.mkdir(parents=True, exist_ok=True)
    found: list[Contender] = []
    with (
        stopping("the step", CONTINUED) as stop,
        show.learning() as progress,
    ):
        place = Place(folder.resolve(), args.out, progress, stop, rule)
        try:
            for contender in run(variants, args.seeds, examples, place):
                found.append(contender)
                if args.json:
                    print(json.dumps(_row(contender)), flush=True)
                else:
                    show.say(f"{contender.name}: measured")
        except TrainingStopped:
            show.say("stopped; the same command goes on with what is missing")
            return INTERRUPTED
    recommendation = recommend(found)
    page = args.out / "compare.html"
    write_comparison(page, found, recommendation, examples)
    _say(found, recommendation, as_json=args.json)
    show.say(f"page: {page}")
    return 0


def _row(contender: Contender) -> dict[str, Any]:
    """Return the fields of `station evaluate`, means over the seeds, and what it took."""
    from station.evaluate.compare import FIGURES

    first = contender.evaluations[0]
    figures = {name: contender.figure(name) for name in FIGURES}
    return {
        "detector": contender.name,
        "dataset": first.dataset,
        "split": first.split,
        "data_digest": first.data_digest,
        "models": [run.model for run in contender.runs],
        "backbone": first.backbone,
        "seeds": len(contender.runs),
        "images": first.images,
        "units": first.units,
        "good": first.good,
        "defective": first.defective,
        "masks": first.masks,
        **{name: found and found.model_dump() for name, found in figures.items()},
        "sheets": _sheets(contender),
        "image_auroc_deviation": contender.deviation,
        "latency_ms": {"p50": contender.latency_ms, "p95": contender.latency_p95_ms},
        "training_s": contender.training_s,
        "memory_mb": contender.memory_mb,
        "notes": first.notes,
        "software": first.software,
    }


def _sheets(contender: Contender) -> dict[str, Any] | None:
    """Return the image figures once more by sheet, where all files are captures."""
    from station.evaluate.compare import IMAGE_FIGURES

    sheets = contender.evaluations[0].sheets
    if sheets is None:
        return None
    figures = {name: contender.judged(name) for name in IMAGE_FIGURES}
    return {
        "good": sheets.good,
        "defective": sheets.defective,
        **{name: found and found.model_dump() for name, found in figures.items()},
    }


def _say(found: list[Contender], said: Recommendation, *, as_json: bool) -> None:
    if as_json:
        differences = [{**d._asdict(), "shown": d.shown} for d in said.differences]
        print(json.dumps({**said._asdict(), "differences": differences}))
        return
    first = found[0].evaluations[0]
    unit = first.judged_unit
    rows = []
    for contender in found:
        figures = {
            f"{unit} AUROC": contender.judged("image_auroc"),
            "pixel AUROC": contender.figure("pixel_auroc"),
            "AU-PRO": contender.figure("au_pro"),
            "false rejects": contender.judged("false_rejects_at_zero_escapes"),
        }
        rows.append(
            {
                "detector": contender.name,
                **{text: found and found.value for text, found in figures.items()},
                "p50 ms": contender.latency_ms,
                "training s": contender.training_s,
                "MB": contender.memory_mb,
            }
        )
    show.table(
        f"{first.dataset}, split {first.split}; false rejects of {unit}s at zero escapes", rows
    )
    print(said.words)
