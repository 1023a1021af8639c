"""Commands around the simulated cell: the far ends and their faults."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from station.commands.common import workspace_of
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
