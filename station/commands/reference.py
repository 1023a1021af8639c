"""Commands that judge known sheets: the reference check, and how well one sheet repeats."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from station import reference as state
from station import show
from station.cell import open_cell
from station.commands.cell import ask_of, basis_of, check_model_input, job_of, open_judging
from station.commands.common import (
    UNJUDGED,
    cell_of,
    judged_by,
    recipe_of,
    said,
    stopping,
    workspace_of,
)
from station.config import LoadedCell
from station.cycle import Inspected
from station.errors import INTERRUPTED, ConfigError, ProductionLocked
from station.model_card import load_card
from station.present import Told, present
from station.recipe import LoadedRecipe
from station.records.dataset import Dataset, now
from station.records.ledger import Ledger, open_ledger, user
from station.records.recovery import recover
from station.records.sheet import Kind
from station.records.storage import Room
from station.reference import Answer, Basis, Check, Release
from station.repeatability import FEWEST, study


class Bench(NamedTuple):
    """A recipe, its model and this cell, before anything is opened."""

    workspace: Path
    recipe: LoadedRecipe
    cell: LoadedCell
    model: str
    threshold: float
    basis: Basis

    @classmethod
    def of(cls, args: argparse.Namespace) -> Bench:
        """Read and check what the command names."""
        workspace = workspace_of(args)
        recipe, cell = recipe_of(args, workspace), cell_of(args, workspace)
        name, threshold = judged_by(recipe)
        card = load_card(workspace, name)
        check_model_input(recipe, card.input.tiles)
        return cls(workspace, recipe, cell, name, threshold, basis_of(recipe, cell, card))

    @contextlib.contextmanager
    def presented(
        self, kind: Kind, times: int, told: Told, *, lift: bool
    ) -> Iterator[tuple[Iterator[Inspected], Ledger]]:
        """Open everything; yield what is judged, sheet by sheet, and the ledger."""
        Room(self.workspace / "data", self.cell.config.disk).check_start()
        with (
            stopping("the sheet", UNJUDGED) as stop,
            open_cell(self.cell.config, self.workspace, ask_of(self.cell)) as cell,
            open_ledger(self.workspace, self.cell.config.ledger) as ledger,
            open_judging(
                self.workspace, self.recipe, self.model, self.threshold, self.basis.model_sha256
            ) as judging,
        ):
            dataset = Dataset(self.workspace, self.recipe.name, ledger)
            recover(dataset, ledger, self.cell.config.station)
            job = job_of(self.workspace, self.recipe, self.cell, stop, kind=kind)
            yield present(cell, job, judging, dataset, times, told, lift=lift), ledger


def reference(args: argparse.Namespace) -> int:
    """Judge the recipe's known sheets; a wrong answer locks production."""
    if args.release:
        return _release(args)
    bench = Bench.of(args)
    if args.show:
        return _show(bench, as_json=args.json)
    known = bench.recipe.recipe.reference
    if known is None:
        raise ConfigError(
            f"recipes/{bench.recipe.name}.yaml: reference: needed to name the known sheets"
        )
    name = bench.recipe.name
    state.check_release(name, state.read(bench.workspace, name))
    check = Check(at=now(), basis=bench.basis, wanted=len(known.sheets))

    def ask(number: int) -> None:
        sheet = known.sheets[number - 1]
        show.say(f"lay reference sheet {sheet.name} (to {sheet.expect})")

    with bench.presented("reference", len(known.sheets), ask, lift=True) as (sheets, ledger):
        # From here on the check before counts no longer: what is found now must not be left out.
        state.write(bench.workspace, name, check)
        # The judged ones first: after the last of them the arm has to leave it, and errors come up.
        for inspected, sheet in zip(sheets, known.sheets, strict=False):
            manifest = inspected.manifest
            if inspected.error is None and not any(c.problem for c in manifest.captures):
                check = check.answered(
                    Answer(
                        name=sheet.name,
                        expect=sheet.expect,
                        verdict=inspected.outcome,
                        score=manifest.score,
                        sheet=manifest.sheet,
                    )
                )
                state.write(bench.workspace, name, check)
            show.answer(sheet, inspected, as_json=args.json)
        if check.passed or check.wrong:
            ledger.audit(
                "reference.passed" if check.passed else "reference.failed",
                f"recipe {name}: " + ", ".join(f"{a.name} {a.verdict}" for a in check.answers),
            )
    state.check_release(name, check)
    return 0 if check.passed else INTERRUPTED


def repeat(args: argparse.Namespace) -> int:
    """Judge one sheet again and again; say how well verdict and score repeat."""
    bench = Bench.of(args)

    def ask(number: int) -> None:
        if number == 1:
            show.say("lay the sheet")
        elif args.lift:
            show.say(f"take the sheet away and lay it again ({number} of {args.times})")

    manifests = []
    with bench.presented("repeat", args.times, ask, lift=args.lift) as (sheets, _):
        for inspected in sheets:
            manifests.append(inspected.manifest)
            show.say(f"{inspected.manifest.sheet}  {inspected.outcome}  {inspected.manifest.score}")
    stopped = len(manifests) < args.times
    if stopped:
        show.say(f"stopped after {len(manifests)} of {args.times}")
        manifests = [manifest for manifest in manifests if manifest.score is not None]
    if not stopped or len(manifests) >= FEWEST:
        show.study(study(manifests, bench.threshold), as_json=args.json)
    return INTERRUPTED if stopped else 0


def _show(bench: Bench, *, as_json: bool) -> int:
    check = None
    with contextlib.suppress(ProductionLocked):  # told as the reason why it is locked
        check = state.read(bench.workspace, bench.recipe.name)
    locked = state.why_locked(bench.workspace, bench.recipe, bench.basis, now())
    show.check(check, locked, as_json=as_json)
    return 0 if locked is None else locked.exit_code


def _release(args: argparse.Namespace) -> int:
    workspace = workspace_of(args)
    recipe, cell = recipe_of(args, workspace), cell_of(args, workspace)
    if not args.why:
        raise ConfigError("--release: needs --why TEXT, what was found and done")
    why = said("--why", args.why)
    who = user() if args.who is None else said("--who", args.who)
    with open_ledger(workspace, cell.config.ledger) as ledger:
        state.release(workspace, recipe.name, Release(at=now(), who=who, why=why))
        ledger.audit("reference.released", f"recipe {recipe.name}", why, who)
    show.say(f"released; judge the sheets again: `station reference --recipe {recipe.name}`")
    return 0
