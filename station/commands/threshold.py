"""The command that chooses a recipe's threshold and says what it is worth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from station import show
from station.commands.common import compare_with_training, recipe_of, workspace_of
from station.errors import ConfigError
from station.model_card import load_card
from station.recipe import LoadedRecipe, SheetRule
from station.revisions import Author, Basis, Revision, check, set_threshold

if TYPE_CHECKING:
    from station.evaluate.contract import Contract
    from station.evaluate.threshold import Policy


class _Scores(NamedTuple):
    """What a threshold is chosen on."""

    basis: Basis
    good: list[float]
    defective: list[float]
    notes: list[str]


def threshold(args: argparse.Namespace) -> int:
    """Choose a threshold by policy; with --write make it a revision of the recipe."""
    from station.evaluate.contract import draw_up
    from station.evaluate.threshold import parse_policy

    workspace = workspace_of(args)
    recipe = recipe_of(args, workspace)
    policy = parse_policy(" ".join(args.policy))
    author = Author(args.who or "", args.why or "")
    if args.write:
        check(author)
    if recipe.recipe.model is None:
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: model: missing; a threshold is on a model's scale"
        )
    if args.from_card:
        scores = _from_card(workspace, recipe, policy)
    else:
        folder = args.dataset or workspace / "data" / recipe.name
        scores = _from_test(workspace, recipe, folder, args.split, policy)
    basis = scores.basis
    contract = draw_up(
        policy, (scores.good, scores.defective), basis.unit, args.claim, recipe.recipe.threshold
    )
    revision = None
    if args.write:
        chosen = contract.chosen.threshold
        if chosen <= 0:
            raise ConfigError(
                f"threshold {chosen:.6g}: a recipe's is above 0, which the typical good unit "
                "scores; nothing is written"
            )
        revision = set_threshold(workspace, recipe.name, chosen, author, basis)
    if args.json:
        row = {"recipe": recipe.name, **contract.as_dict(), "basis": basis.model_dump(mode="json")}
        print(json.dumps({**row, "notes": scores.notes, "revision": revision and revision.number}))
        return 0
    _print(contract, scores)
    if args.write:
        print(f"recipes/{recipe.name}.yaml: {_written(revision)}")
    return 0


def _from_test(
    workspace: Path, recipe: LoadedRecipe, folder: Path, split: str, policy: Policy
) -> _Scores:
    """Score the labelled images of a tree, once it is sure that training did not see them."""
    from station.evaluate.examples import read_test
    from station.evaluate.splits import SELECT, check_unseen, halves
    from station.evaluate.units import score_units

    model = str(recipe.recipe.model)
    examples = read_test(folder)
    if split == SELECT:
        whole, examples = examples, halves(examples)[SELECT]
        lost = {e.defective for e in whole} - {e.defective for e in examples}
        if lost and policy.name != "good-only":
            missing = "defective" if True in lost else "good"
            raise ConfigError(
                f"{folder / 'test'}: too few {missing} ones to halve; --split all takes them"
            )
    check_unseen(workspace, model, [example.file for example in examples])
    notes = [compare_with_training(folder, [example.file for example in examples])]
    with show.progress(len(examples), "images") as told:
        scored = score_units(workspace, model, recipe.recipe, examples, told)
    if split != SELECT:
        notes.append("chosen on the whole test tree: nothing is left to check it on")
    if scored.kind == "image" and scored.groups < len(scored.units):
        notes.append(
            f"the {len(scored.units)} images come from {scored.groups} parts by their names, and "
            "each counts as one: the intervals are narrower than the parts support"
        )
    if scored.defective:
        unit = min((u for u in scored.units if u.defective), key=lambda u: u.score)
        notes.append(
            f"the lowest score of a defective {scored.kind}: {unit.score:.6g}, {unit.name}"
        )
    basis = Basis(
        model=model,
        model_sha256=scored.model_sha256,
        policy=str(policy),
        data=str(folder),
        split=split,
        digest=scored.digest,
        files=scored.files,
        unit=scored.kind,
        good=len(scored.good),
        defective=len(scored.defective),
    )
    return _Scores(basis, scored.good, scored.defective, notes)


def _from_card(workspace: Path, recipe: LoadedRecipe, policy: Policy) -> _Scores:
    """Take the scores that the good units held out of training got."""
    model = str(recipe.recipe.model)
    card = load_card(workspace, model)
    if card.imported is not None:
        raise ConfigError(
            f"model {model}: imported with good pictures that it may have learned from, so none "
            "was held out; choose on a test tree, without --from-card"
        )
    rule, made = recipe.recipe.sheet_rule, card.held_out_rule
    if made is not None and made.rule != rule:
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: setup_score: {_rule(rule)}, but the scores in the card "
            f"of {model} were made with {_rule(made.rule)}: train with --recipe "
            f"{recipe.name}, or choose on a test tree, without --from-card"
        )
    basis = Basis(
        model=model,
        model_sha256=card.sha256,
        policy=str(policy),
        data=f"models/{model}/card.yaml",
        split="calibrate",
        digest=card.data.digest,
        files=card.data.images,
        unit="unit",
        good=len(card.held_out_scores),
        defective=0,
    )
    notes = [
        "held-out good units of training; files and digest are those of the whole training set",
    ]
    if made is None:
        notes.append(f"the card does not tell whether their scores were made with {_rule(rule)}")
    if card.parent is not None and card.precision != "fp32":
        notes.append(f"their scores are those of {card.parent}, before {card.precision}")
    return _Scores(basis, list(card.held_out_scores), [], notes)


def _rule(rule: SheetRule) -> str:
    if rule.setup_score != "consensus":
        return rule.setup_score
    return f"consensus within {rule.same_place:.3g} of a picture"


def _written(revision: Revision | None) -> str:
    if revision is None:
        return "this threshold stands there already; nothing is written"
    change = revision.change
    return f"threshold {change.before} is now {change.after}, revision {revision.number}"


def _print(contract: Contract, scores: _Scores) -> None:
    from station.evaluate.contract import counted, meaning, worth

    basis, unit = scores.basis, contract.unit
    print(f"model        {basis.model}")
    print(
        f"chosen on    {basis.data}, {basis.split}: {counted(basis.good, f'good {unit}')}, "
        f"{basis.defective} defective; {counted(basis.files, 'file')}, digest {basis.digest[:12]}"
    )
    print(f"policy       {basis.policy}: {meaning(contract.policy, unit)}")
    print(f"threshold    {contract.chosen.threshold}")
    readings = {
        basis.policy: contract.chosen,
        "zero-escape": contract.zero_escape,
        "in the recipe now": contract.present,
    }
    rows: list[dict[str, object]] = [
        {
            "": name,
            "threshold": str(reading.threshold),
            "escapes": worth(reading.escapes),
            "false rejects": worth(reading.false_rejects),
        }
        for name, reading in readings.items()
        if reading is not None
    ]
    show.table("with intervals, 95 % sure", rows)
    for text in contract.statements:
        print(text)
    for text in scores.notes:
        print(f"note: {text}")
    for text in contract.warnings:
        print(f"warning: {text}")
