"""Commands on the records: prove them, explain one, export them, keep one, thin the old ones."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from station import show
from station.cell import station_lock
from station.commands.common import cell_file_of, check_out, recipe_of, said, workspace_of
from station.control import answers
from station.errors import CommandRefused, ConfigError, DatasetError
from station.recipe import Retention
from station.records import table
from station.records.database import is_damaged, set_aside
from station.records.dataset import Dataset, after_of, read_record, write_durably
from station.records.ledger import Ledger, open_ledger, user
from station.records.retention import Plan, check, plan
from station.records.retention import thin as thin_sheet
from station.records.verify import rebuild, recipes_in
from station.records.verify import verify as verify_records
from station.records.why import find
from station.records.why import why as explain


def verify(args: argparse.Namespace) -> int:
    """Prove the records."""
    workspace = workspace_of(args)
    cell = cell_file_of(args.cell, workspace)
    recipes = recipes_in(workspace) if args.recipe is None else [args.recipe]
    if args.recipe is not None and args.recipe not in recipes_in(workspace):
        raise ConfigError(f"{workspace / 'data'}: no data of a recipe {args.recipe!r}")
    station = cell.config.station
    if args.rebuild and answers(workspace):
        raise CommandRefused("--rebuild: a `station inspect` runs in this workspace; end it first")
    with station_lock(workspace) if args.rebuild else nullcontext():
        if args.rebuild and cell.config.ledger is None:
            _set_aside_if_damaged(workspace)
        with open_ledger(workspace, cell.config.ledger) as ledger:
            if args.rebuild:
                count, dropped = rebuild(workspace, ledger, recipes, station)
                show.say(f"{ledger.name}: made anew from {count} records")
                for sheet in dropped:
                    show.say(f"{sheet}: its row is dropped, no record of it is here")
            with show.progress(_sheets(workspace, recipes), "sheets") as advance:
                proof = verify_records(workspace, ledger, recipes, station, advance)
    for problem in proof.problems:
        if args.json:
            print(
                json.dumps(
                    {"recipe": problem.recipe, "sheet": problem.sheet, "problem": problem.what}
                )
            )
        else:
            parts = [part for part in problem if part]
            # Whatever a file is called, a problem stays one line.
            print(": ".join(part if part.isprintable() else repr(part) for part in parts))
    told = {**proof._asdict(), "problems": len(proof.problems)}
    if args.json:
        print(json.dumps(told))
    else:
        print(
            f"{proof.sheets} inspected sheets, {proof.captures} captured, {proof.files} files, "
            f"{proof.thinned} thinned, {proof.unfinished} unfinished: "
            + (f"problems: {len(proof.problems)}" if proof.problems else "all as recorded")
        )
    return DatasetError.exit_code if proof.problems else 0


def why(args: argparse.Namespace) -> int:
    """Say why a sheet was accepted or rejected."""
    answer = explain(workspace_of(args), args.sheet)
    if args.json:
        print(json.dumps({**answer.facts, "shots": answer.shots, "problems": answer.problems}))
    else:
        show.why(answer.facts, answer.shots, answer.problems)
    return DatasetError.exit_code if answer.problems else 0


def records(args: argparse.Namespace) -> int:
    """List inspected sheets."""
    with _ledger_of(args) as ledger:
        rows = _rows(ledger, args.kind, _found(args, ledger))
    names = [column.name for column in table.columns(args.kind)]
    show.records(rows, names, as_json=args.json)
    return 0


def export(args: argparse.Namespace) -> int:
    """Write inspected sheets as CSV or Parquet."""
    out: Path = args.csv or args.parquet
    check_out(out, workspace_of(args))
    with _ledger_of(args) as ledger:
        found = _found(args, ledger)
        rows = _rows(ledger, args.kind, found)
        write = table.to_csv if args.csv else table.to_parquet
        entry = write_durably(out, write(rows, table.columns(args.kind)))
        # What has no row in the file is not exported: retention may thin what is.
        written = {row["sheet"] for row in rows}
        whole = [row for row in found if row["sheet"] in written]
        marked = _mark(workspace_of(args), ledger, whole, out.name) if args.mark else 0
    told = {"file": str(out), "rows": len(rows), "sha256": entry.sha256, "marked": marked}
    show.values(told, as_json=args.json)
    return 0


def _rows(ledger: Ledger, kind: table.Kind, found: list[table.Row]) -> list[table.Row]:
    """Return what is wanted of these sheets."""
    if kind == "sheets":
        return found
    sheets = [row["sheet"] for row in found]
    shots = table.of_shots(found, ledger.shot_rows(sheets))
    return shots if kind == "shots" else table.of_shadow(shots, ledger.shadow_rows(sheets))


def _found(args: argparse.Namespace, ledger: Ledger) -> list[table.Row]:
    """Return the sheets that were asked for; a name that none has is taken for a slip."""
    found = ledger.rows(args.recipe, args.run)
    if not found and (args.recipe or args.run):
        what = " and ".join(
            f"{kind} {name!r}" for kind in ("recipe", "run") if (name := getattr(args, kind))
        )
        raise ConfigError(f"{ledger.name}: no inspected sheet of {what}")
    return found


def _ledger_of(args: argparse.Namespace) -> AbstractContextManager[Ledger]:
    workspace = workspace_of(args)
    return open_ledger(workspace, cell_file_of(args.cell, workspace).config.ledger)


def keep(args: argparse.Namespace) -> int:
    """Keep a sheet whole whatever the policy says, or release it."""
    workspace = workspace_of(args)
    why = said("--why", args.why)
    who = user() if args.who is None else said("--who", args.who)
    folder = find(workspace, args.sheet)
    event: Any = "released" if args.release else "kept"
    with open_ledger(workspace, cell_file_of(args.cell, workspace).config.ledger) as ledger:
        dataset = Dataset(workspace, folder.parents[2].name, ledger)
        dataset.note(folder, event, who=who, why=why)
        ledger.audit(f"sheet.{event}", args.sheet, why, who)
    print(f"{args.sheet}: {event}")
    return 0


def retention(args: argparse.Namespace) -> int:
    """Thin old accepted sheets by the recipe's policy."""
    workspace = workspace_of(args)
    recipe = recipe_of(args, workspace)
    policy = recipe.recipe.retention
    if policy is None:
        raise ConfigError(f"recipes/{recipe.name}.yaml: retention: none, so nothing may be deleted")
    with open_ledger(workspace, cell_file_of(args.cell, workspace).config.ledger) as ledger:
        dataset = Dataset(workspace, recipe.name, ledger)
        planned = plan(dataset, policy, datetime.now(UTC))
        planned = planned._replace(candidates=planned.candidates[: args.sheets])
        freed = sum(candidate.bytes for candidate in planned.candidates)
        told: dict[str, Any] = {
            "recipe": recipe.name,
            "with_pictures": planned.whole,
            "to_thin": len(planned.candidates),
            "bytes": freed,
            **{f"stays: {reason}": count for reason, count in planned.staying.items()},
        }
        if args.apply:
            check(planned)
            told |= _apply(dataset, ledger, planned, policy)
    show.values(told, as_json=args.json)
    if not args.apply and not args.json:
        show.say("nothing was deleted; --apply does it")
    return DatasetError.exit_code if told.get("damaged") else 0


def _apply(dataset: Dataset, ledger: Ledger, planned: Plan, policy: Retention) -> dict[str, Any]:
    damaged = []
    why = policy.model_dump_json()
    for candidate in planned.candidates:
        problems = thin_sheet(dataset, candidate, why)
        if problems:
            damaged.append(f"{candidate.record.manifest.sheet}: {problems[0]}")
    thinned = len(planned.candidates) - len(damaged)
    ledger.audit("retention.applied", f"{dataset.root.name}: {thinned} sheets thinned", why)
    return {"thinned": thinned, "damaged": damaged}


def _mark(workspace: Path, ledger: Ledger, rows: list[dict[str, Any]], name: str) -> int:
    marked = 0
    damaged = []
    for row in rows:
        folder = workspace / row["folder"]
        try:
            if not folder.is_dir() or after_of(read_record(folder)).exported:
                continue
            Dataset(workspace, row["recipe"], ledger).note(folder, "exported", why=name)
        except DatasetError as error:
            damaged.append(error)
            continue
        marked += 1
    if damaged:
        raise DatasetError(f"{damaged[0]}; {marked} others are marked, {len(damaged)} are not")
    return marked


def _sheets(workspace: Path, recipes: list[str]) -> int:
    data = workspace / "data"
    return sum(
        1
        for recipe in recipes
        for pattern in ("inspections/*/*", "captures/*.json")
        for _ in (data / recipe).glob(pattern)
    )


def _set_aside_if_damaged(workspace: Path) -> None:
    if is_damaged(workspace):
        aside = set_aside(workspace)
        show.say(f"{aside}: the damaged ledger; its reviews, users and audit are not carried over")
