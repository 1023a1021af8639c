"""`station evaluate`: what a model is worth on labelled images, as figures and as a page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from station import show
from station.commands.common import (
    check_out,
    check_out_folder,
    compare_with_training,
    workspace_of,
)
from station.errors import ConfigError, ModelError
from station.model import open_model
from station.model_card import ModelCard, load_card, newest
from station.recipe import HIGHEST, load_recipe

if TYPE_CHECKING:
    from station.evaluate.evaluation import Evaluation
    from station.evaluate.measure import Examples, Judging, Scored
    from station.evaluate.metrics import Estimate
    from station.evaluate.root import Average

DEADLINE_S = 120.0  # nobody waits at a line, and other work may keep the machine busy

FIGURES = {
    "image_auroc": "image AUROC",
    "average_precision": "average precision",
    "pixel_auroc": "pixel AUROC",
    "au_pro": "AU-PRO to 30 %",
    "false_rejects_at_zero_escapes": "false rejects at zero escapes",
    "escapes": "escapes",
    "false_rejects": "false rejects",
    "f1": "F1",
}
AVERAGED = {field: FIGURES[field] for field in ("image_auroc", "pixel_auroc", "au_pro")}


def evaluate(args: argparse.Namespace) -> int:
    """Measure a model on labelled images."""
    workspace = workspace_of(args)
    if args.root is not None:
        return _evaluate_root(args, workspace)
    from station.evaluate.measure import read_examples
    from station.pages.evaluation_report import write_evaluation

    check_out(args.out, workspace)
    name = newest(workspace, args.model)
    card = load_card(workspace, name)
    judging = _judging(args, workspace, card)
    examples = read_examples(args.dataset, args.split)
    evaluation, scored = _measure(workspace, name, examples, judging)
    if args.out is not None:
        write_evaluation(args.out, evaluation, examples, scored, card)
    if args.json:
        print(evaluation.model_dump_json())
    else:
        _print(evaluation)
    if args.out is not None:
        show.say(f"page: {args.out}")
    return 0


def _measure(
    workspace: Path, name: str, examples: Examples, judging: Judging
) -> tuple[Evaluation, list[Scored]]:
    from station.evaluate.measure import evaluate as figures
    from station.evaluate.measure import score
    from station.evaluate.splits import check_unseen

    files = [example.file for example in examples.members]
    check_unseen(workspace, name, files)
    compared = compare_with_training(examples.folder, files)
    with open_model(workspace, name, DEADLINE_S) as model:
        with show.progress(len(examples.members), "images") as advance:
            scored = score(model.predict, examples, advance)
        found = figures(model.card, examples, scored, judging)
    return found.model_copy(update={"notes": (*found.notes, compared)}), scored


def _judging(args: argparse.Namespace, workspace: Path, card: ModelCard) -> Judging:
    from station.evaluate.measure import Judging, own_threshold

    if args.threshold is not None:
        return Judging(args.threshold, "given", HIGHEST)
    if args.recipe is None:
        return own_threshold(card)
    recipe = load_recipe(workspace, args.recipe).recipe
    if recipe.threshold is None:
        raise ConfigError(f"recipes/{args.recipe}.yaml: threshold: missing")
    source = f"recipe {args.recipe}, which names model {recipe.model or 'none'}"
    return Judging(recipe.threshold, source, recipe.sheet_rule)


def _evaluate_root(args: argparse.Namespace, workspace: Path) -> int:
    """Measure every category, each with its own model; finished ones are read, not repeated."""
    from station.evaluate import evaluation as evaluations
    from station.evaluate.measure import read_examples
    from station.evaluate.root import averages, categories, finished_before
    from station.pages.evaluation_report import write_evaluation, write_overview

    if args.recipe is not None:
        raise ConfigError("--recipe: with --root every category has a model and scale of its own")
    if "/" in args.model:
        raise ConfigError(f"--model {args.model}: with --root the beginning of the models' names")
    out = args.out or workspace / "run" / f"evaluation-{args.model}"
    check_out_folder(out, args.root)
    results, missing = [], []
    for place in categories(args.root):
        check_out_folder(out, place)
        try:
            name = newest(workspace, f"{args.model}-{place.name}")
        except ModelError:
            missing.append(place.name)
            continue
        card = load_card(workspace, name)
        judging = _judging(args, workspace, card)
        examples = read_examples(place, args.split)
        out.mkdir(parents=True, exist_ok=True)
        kept, page = out / f"{place.name}.json", out / f"{place.name}.html"
        result = finished_before(kept, examples, card.sha256, judging.threshold)
        if result is None or not page.is_file():
            result, scored = _measure(workspace, name, examples, judging)
            write_evaluation(page, result, examples, scored, card)
            evaluations.save(result, kept)
        results.append(result)
        _print_category(result, as_json=args.json)
    if not results:
        raise ModelError(f"no model {args.model}-<category> for any of: {', '.join(missing)}")
    means = averages(results)
    write_overview(out / "index.html", args.root.resolve().name, results, means, missing)
    if args.json:
        for average in means:
            print(json.dumps(_average(average)))
        if missing:
            print(json.dumps({"missing_models": [f"{args.model}-{name}" for name in missing]}))
    else:
        show.table(f"averages over {len(results)} categories", [_average_row(m) for m in means])
    if missing:
        names = ", ".join(f"{args.model}-{name}" for name in missing)
        show.say(f"left out, no model: {names}")
    show.say(f"pages: {out / 'index.html'}")
    return 0


def _print(evaluation: Evaluation) -> None:
    rows = [
        _figure(text, getattr(evaluation, field))
        for field, text in FIGURES.items()
        if getattr(evaluation, field) is not None
    ]
    if evaluation.sheets is not None:
        rows += [
            _figure(f"{text}, by sheet", getattr(evaluation.sheets, field))
            for field, text in FIGURES.items()
            if getattr(evaluation.sheets, field, None) is not None
        ]
    show.table(f"{evaluation.dataset}, model {evaluation.model}, split {evaluation.split}", rows)
    show.table(
        "by class; scores and areas",
        [
            {
                "class": c.label,
                "images": c.images,
                "rejected": "" if c.rejected is None else c.rejected.count,
                "lowest": c.lowest_score,
                "median": c.median_score,
                "image AUROC": c.image_auroc and c.image_auroc.value,
                "pixel AUROC": c.pixel_auroc and c.pixel_auroc.value,
                "AU-PRO": c.au_pro and c.au_pro.value,
            }
            for c in evaluation.classes
        ],
    )
    print(f"threshold {evaluation.threshold:.4g}: {evaluation.threshold_from}")
    print(
        f"latency   p50 {evaluation.latency_ms.p50:.1f} ms, p95 {evaluation.latency_ms.p95:.1f} ms"
    )
    for note in evaluation.notes:
        print(f"note      {note}")


def _figure(text: str, estimate: Estimate) -> dict[str, Any]:
    from station.evaluate.metrics import Rate

    count = f"{estimate.count} of {estimate.total}" if isinstance(estimate, Rate) else ""
    bounds = {"low": estimate.low, "high": estimate.high}
    return {"figure": text, "value": estimate.value, **bounds, "count": count}


def _print_category(evaluation: Evaluation, *, as_json: bool) -> None:
    if as_json:
        print(evaluation.model_dump_json(), flush=True)
        return
    figures = [f"{text} {_short(getattr(evaluation, field))}" for field, text in AVERAGED.items()]
    print(f"{evaluation.dataset:12} {'  '.join(figures)}", flush=True)


def _average(average: Average) -> dict[str, Any]:
    figures = {field: found and found.model_dump() for field, found in average.figures.items()}
    return {"average": average.name, "categories": average.categories, **figures}


def _average_row(average: Average) -> dict[str, Any]:
    figures = {text: _short(average.figures[field]) for field, text in AVERAGED.items()}
    return {"average": average.name, "categories": average.categories, **figures}


def _short(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
