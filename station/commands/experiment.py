"""`station experiment`: several trainings beside each other, as a table and a page."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from station import show
from station.commands.common import CONTINUED, check_out_folder, compare_with_training, stopping
from station.errors import INTERRUPTED
from station.preset import PRESETS, changed

if TYPE_CHECKING:
    from station.evaluate.experiment import Row


def experiment(args: argparse.Namespace) -> int:
    """Train every variant with every seed; measure and compare them."""
    from station.evaluate.experiment import Plan, run, variants
    from station.evaluate.measure import read_examples
    from station.learn.images import from_mvtec
    from station.learn.method import TrainingStopped
    from station.pages.experiment_report import write_experiment

    check_out_folder(args.out, args.dataset)
    changes = {
        "input_size": args.input_size,
        "levels": args.levels and tuple(sorted(args.levels)),
        "strewn": args.strewn,
    }
    preset = changed(PRESETS[args.preset], **{k: v for k, v in changes.items() if v is not None})
    chosen = variants(args.what, preset, from_mvtec(args.dataset))
    examples = read_examples(args.dataset, args.split)
    compare_with_training(args.dataset, [example.file for example in examples.members])
    args.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(chosen, args.dataset.resolve(), args.out, args.split, args.seeds)
    rows: list[Row] = []
    with (
        stopping("the step", CONTINUED) as stop,
        show.learning() as progress,
    ):
        try:
            for row in run(plan, progress, stop):
                rows.append(row)
                _show(row, as_json=args.json)
        except TrainingStopped:
            show.say("stopped; the same command goes on with the variants that are missing")
            return INTERRUPTED
    page = args.out / f"{args.what}.html"
    write_experiment(page, args.what, plan, rows)
    show.say(f"page: {page}")
    return 0


def _show(row: Row, *, as_json: bool) -> None:
    from station.pages.experiment_report import written

    if as_json:
        figures = {k: None if v is None else v._asdict() for k, v in row.figures.items()}
        print(json.dumps({**row._asdict(), "figures": figures}))
        return
    cells = [f"{name.replace('_', ' ')} {written(value)}" for name, value in row.figures.items()]
    print(f"{row.variant:18} {row.note or '  '.join(cells)}", flush=True)
