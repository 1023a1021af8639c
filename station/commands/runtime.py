"""Commands on how a model runs: another runtime, another precision. Torch loads when they run."""

from __future__ import annotations

import argparse

from station import show
from station.commands.common import workspace_of
from station.errors import ConfigError
from station.model_card import newest
from station.recipe import load_recipe


def convert(args: argparse.Namespace) -> int:
    """Write a model under another runtime or precision, if its golden images allow it."""
    from station.learn.certify import convert

    workspace = workspace_of(args)
    threshold = None
    if args.recipe is not None:
        threshold = load_recipe(workspace, args.recipe).recipe.threshold
        if threshold is None:
            raise ConfigError(f"recipes/{args.recipe}.yaml: threshold: missing")
    parent = newest(workspace, args.model)
    done = convert(workspace, parent, args.runtime, args.precision, threshold)
    row = {
        "model": f"{done.card.name}/{done.card.version}",
        "parent": parent,
        "runtime": done.card.runtime,
        "precision": done.card.precision,
        "golden_images": len(done.card.golden),
        "max_score_difference": done.difference,
        "threshold": threshold,
    }
    show.values(row, as_json=args.json)
    return 0
