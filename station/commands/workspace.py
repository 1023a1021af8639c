"""Commands on the workspace itself: make it, choose the recipe, check everything in it."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from station import show
from station import workspace as workspaces
from station.cell import check_installation, open_robot
from station.check import Finding, check_model, check_reach, check_recipe
from station.commands.common import cell_of, workspace_of
from station.config import CellConfig
from station.doctor import examine
from station.errors import ConfigError, StationError
from station.recipe import LoadedRecipe, Recipe, list_recipes, load_recipe


def init(args: argparse.Namespace) -> int:
    """Make a workspace."""
    made = workspaces.init(args.dir)
    print(f"{args.dir}: {len(made)} files made" if made else f"{args.dir}: already complete")
    folder = shlex.quote(str(args.dir))
    print(f"try it: cd {folder} && station sim -- station inspect --recipe glassfiber --sheets 5")
    return 0


def use(args: argparse.Namespace) -> int:
    """Set the active recipe."""
    workspaces.use(workspace_of(args), args.recipe)
    print(f"active recipe: {args.recipe}")
    return 0


def schema(args: argparse.Namespace) -> int:
    """Write JSON schemas for editors."""
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
    workspace = workspace_of(args)
    if args.model:
        return _tell(
            [(args.model, finding) for finding in check_model(workspace, args.model, None)], args
        )
    cell = cell_of(args, workspace)
    names = list_recipes(workspace) if args.recipe is None else [args.recipe]
    if not names:
        raise ConfigError(f"{workspace / 'recipes'}: no recipes")
    findings: list[tuple[str, Finding]] = []
    recipes: list[LoadedRecipe] = []
    for name in names:
        try:
            recipes.append(load_recipe(workspace, name))
        except ConfigError as error:  # of several, the others are checked all the same
            if args.recipe is not None:
                raise
            findings.append((name, Finding("error", show.near(str(error)))))
    for recipe in recipes:
        findings += [(recipe.name, finding) for finding in check_recipe(workspace, recipe, cell)]
    if args.cell is not None:
        with open_robot(cell.config, workspace, control=True) as robot:
            check_installation(cell.config, robot.info())
            for recipe in recipes:
                findings += [(recipe.name, finding) for finding in check_reach(robot, recipe)]
    if args.model is not None:
        findings += _check_models(workspace, recipes)
    return _tell(findings, args)


def _check_models(workspace: Path, recipes: list[LoadedRecipe]) -> Iterator[tuple[str, Finding]]:
    """Score the golden images of every model a recipe names, at the recipe's threshold."""
    for loaded in recipes:
        recipe = loaded.recipe
        for name, threshold in ((recipe.model, recipe.threshold), (recipe.shadow_model, None)):
            if name is not None:
                for finding in check_model(workspace, name, threshold):
                    yield loaded.name, finding


def _tell(findings: list[tuple[str, Finding]], args: argparse.Namespace) -> int:
    for name, finding in findings:
        if args.json:
            print(json.dumps({"recipe": name, "level": finding.level, "what": finding.what}))
        else:
            print(f"{finding.level:8} {name}: {finding.what}")
    return ConfigError.exit_code if any(f.level == "error" for _, f in findings) else 0


def doctor(args: argparse.Namespace) -> int:
    """Look at this computer and say what to change."""
    workspace = workspace_of(args)
    findings = list(examine(workspace, cell_of(args, workspace).config))
    for finding in findings:
        if args.json:
            print(json.dumps(finding._asdict()))
        else:
            print(f"{finding.level:5} {finding.what}" + (f"; {finding.do}" if finding.do else ""))
    return StationError.exit_code if any(f.level == "fail" for f in findings) else 0
