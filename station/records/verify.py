"""Proves the records: every file, hash, link of the chain and row of the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from station.errors import DatasetError
from station.recipe import SheetRule
from station.records import history, settings
from station.records.dataset import (
    MANIFEST,
    Dataset,
    Record,
    after_of,
    describe,
    read_manifest,
    read_record,
)
from station.records.history import HISTORY
from station.records.ledger import Ledger, SheetId, shots_of
from station.records.sheet import Capture, FileEntry, Manifest, Verdict
from station.sheet_score import Map, ShotScore, sheet_score

TOGETHER = 200  # sheets whose shots are fetched at once

Progress = Callable[[str], None]


class Checked(NamedTuple):
    """What a look at one sheet's folder found; the record is None where it cannot be read."""

    folder: Path
    record: Record | None
    problems: list[str]
    files: int


class Problem(NamedTuple):
    """One thing that is not as it was recorded."""

    recipe: str
    sheet: str
    what: str


class Proof(NamedTuple):
    """What was proved, and what was not."""

    sheets: int
    captures: int
    files: int
    thinned: int
    unfinished: int
    problems: list[Problem]


def recipes_in(workspace: Path) -> list[str]:
    """Return the recipes that have data, whether or not their files are still there."""
    return sorted(path.name for path in (workspace / "data").glob("[!.]*") if path.is_dir())


def check_record(folder: Path) -> Checked:
    """Compare one sheet's folder with its manifest and history."""
    try:
        record = read_record(folder)
    except DatasetError as error:
        return Checked(folder, None, [str(error)], 0)
    manifest = record.manifest
    events, problems = history.read(folder, record.sha256)
    thinned = history.after(manifest.verdict, manifest.silent, events).thinned
    if manifest.sheet != folder.name:
        problems.append(f"{MANIFEST}: is of sheet {manifest.sheet}")
    if manifest.recipe != folder.parents[2].name:
        problems.append(f"{MANIFEST}: is of recipe {manifest.recipe}")
    for name, entry in manifest.files.items():
        problem = _wrong(folder, name, entry)
        if problem and not (name in thinned and not (folder / name).exists()):
            problems.append(problem)
    for path in sorted(folder.iterdir()):
        if path.name not in manifest.files and path.name not in {MANIFEST, HISTORY}:
            problems.append(f"{path.name}: is not in the manifest")
    problems += _unfounded(manifest, folder, thinned)
    return Checked(folder, record, problems, len(manifest.files))


def verify(
    workspace: Path, ledger: Ledger, recipes: list[str], station: str, told: Progress
) -> Proof:
    """Check every record of these recipes, their chains, and the ledger's rows."""
    proof = Proof(0, 0, 0, 0, 0, [Problem("", "", text) for text in ledger.problems()])
    for recipe in recipes:
        dataset = Dataset(workspace, recipe)
        proof = _verify_captures(dataset, proof, told)
        checked = []
        for folder in dataset.folders():
            checked.append(check_record(folder))
            told(folder.name)
        problems = [Problem(recipe, c.folder.name, what) for c in checked for what in c.problems]
        problems += [Problem(recipe, str(p), "is no sheet's folder") for p in dataset.strangers()]
        problems += [Problem(recipe, *found) for found in settings.problems(dataset.root)]
        problems += [Problem(recipe, *found) for found in _chain(checked)]
        problems += [Problem(recipe, *found) for found in _rows(dataset, ledger, checked, station)]
        proof = proof._replace(
            sheets=proof.sheets + len(checked),
            files=proof.files + sum(c.files for c in checked),
            thinned=proof.thinned + sum(bool(after_of(r).thinned) for r in _read(checked)),
            unfinished=proof.unfinished
            + len(dataset.leftovers("inspection"))
            + len(dataset.leftovers("capture")),
            problems=[*proof.problems, *problems],
        )
    return proof


def rebuild(
    workspace: Path, ledger: Ledger, recipes: list[str], station: str
) -> tuple[int, list[str]]:
    """Make the index anew from the manifests; return how many sheets, and the rows dropped."""
    rows, lost = [], []
    for recipe in recipes:
        records = []
        folders = Dataset(workspace, recipe).folders()
        for folder in folders:
            try:
                record = read_record(folder)
                row = ledger.row(record.manifest, record.sha256, folder, after_of(record))
                records.append((row, shots_of(record.manifest)))
            except DatasetError:
                continue  # `verify` names it
        rows += records
        there = {row["sheet"] for row, _ in records}
        ours = {SheetId.of(folder.name).station for folder in folders} | {station}
        lost += [row for row in ledger.rows(recipe, stations=ours) if row["sheet"] not in there]
    ledger.rebuild(rows, lost)
    return len(rows), [row["sheet"] for row in lost]


def _read(checked: list[Checked]) -> list[Record]:
    return [c.record for c in checked if c.record is not None]


def _wrong(folder: Path, name: str, entry: FileEntry) -> str | None:
    path = folder / name
    if Path(name).name != name:
        return f"{name!r}: no name of a file"
    try:
        found = describe(path)
    except OSError as error:
        return f"{name}: {(error.strerror or str(error)).lower()}"
    if found.bytes != entry.bytes:
        return f"{name}: {found.bytes} bytes, its manifest says {entry.bytes}"
    if found.sha256 != entry.sha256:
        return f"{name}: sha256 is {found.sha256}, its manifest says {entry.sha256}"
    return None


def _unfounded(manifest: Manifest, folder: Path, thinned: Collection[str]) -> Iterator[str]:
    """Accept is the positive statement: look whether the record itself supports it."""
    for capture in manifest.captures:
        for name in (capture.file, capture.map_file):
            if name is not None and name not in manifest.files:
                yield f"{name}: no file entry in the manifest"
    if manifest.verdict is not Verdict.ACCEPT:
        return
    scores = [capture.score for capture in manifest.captures]
    finite = [score for score in scores if score is not None and math.isfinite(score)]
    if not manifest.complete or not finite or len(finite) < len(scores):
        yield "accepted, but not every shot is there with a finite score"
    elif manifest.threshold is None or manifest.setup_score is None:
        yield "accepted, but without a threshold"
    elif manifest.setup_score == "consensus" and _maps_are_gone(manifest, thinned):
        if manifest.score is None or not manifest.score < manifest.threshold:
            yield "accepted, but its score is not below the threshold"
    else:
        rule = SheetRule(manifest.setup_score, manifest.same_place or 0.0)
        try:
            shots = [
                ShotScore(capture.setup, capture.score, _map(folder, capture, rule))
                for capture in manifest.captures
            ]
            again = sheet_score(shots, rule)
        except (OSError, ValueError) as error:
            yield f"accepted, but its score cannot be made again: {error}"
            return
        if not again < manifest.threshold:
            yield "accepted, but its score is not below the threshold"


def _maps_are_gone(manifest: Manifest, thinned: Collection[str]) -> bool:
    return any(capture.map_file in thinned for capture in manifest.captures)


def _map(folder: Path, capture: Capture, rule: SheetRule) -> Map | None:
    """Read a shot's map where the rule compares maps."""
    if rule.setup_score != "consensus" or capture.map_file is None:
        return None
    found: Map = np.load(folder / capture.map_file, allow_pickle=False)
    return found


def _chain(checked: list[Checked]) -> Iterator[tuple[str, str]]:
    """Follow `previous` through the records: a changed or missing one breaks it."""
    last: str | None = None
    for sheet in checked:
        manifest = sheet.folder / MANIFEST
        if sheet.record is not None and sheet.record.manifest.previous != last:
            named = sheet.record.manifest.previous
            yield (
                sheet.folder.name,
                f"chain: follows a record of sha256 {named or 'none'}, "
                f"but the one before it has {last or 'none'}",
            )
        try:
            last = describe(manifest).sha256
        except OSError:  # the sheet's own problem, and told as one
            last = None


def _rows(
    dataset: Dataset, ledger: Ledger, checked: list[Checked], station: str
) -> Iterator[tuple[str, str]]:
    """Compare the ledger with the records; a sheet recorded meanwhile is no problem."""
    recipe = dataset.root.name
    stations = {SheetId.of(c.folder.name).station for c in checked} | {station}
    rows = {row["sheet"]: row for row in ledger.rows(recipe, stations=stations)}
    seen = {c.folder.name for c in checked}
    for sheet in sorted(rows.keys() - seen):
        if not (dataset.root.parent.parent / rows[sheet]["folder"]).is_dir():
            yield sheet, f"ledger: has a row, but {rows[sheet]['folder']} is gone"
    read = _read(checked)
    for start in range(0, len(read), TOGETHER):
        part = read[start : start + TOGETHER]
        shots: dict[str, list[dict[str, Any]]] = {}
        for shot in ledger.shot_rows([record.manifest.sheet for record in part]):
            shots.setdefault(shot["sheet"], []).append(shot)
        for record in part:
            sheet = record.manifest.sheet
            problems = _row_problems(record, rows.get(sheet), shots.get(sheet, []), ledger)
            if problems:  # production may go on meanwhile: look again before calling it wrong
                now = ledger.row_of(sheet)
                problems = _row_problems(record, now, ledger.shot_rows([sheet]), ledger)
            yield from ((sheet, problem) for problem in problems)


def _row_problems(
    record: Record, row: dict[str, Any] | None, shots: list[dict[str, Any]], ledger: Ledger
) -> list[str]:
    if row is None:
        return ["ledger: has no row of it"]
    try:
        wanted = ledger.row(record.manifest, record.sha256, record.folder, after_of(record))
        wanted_shots = shots_of(record.manifest)
    except DatasetError:
        return []  # told of the record itself
    problems = [
        f"ledger: {column} is {_written(row[column])}, its record says {_written(value)}"
        for column, value in wanted.items()
        if row[column] != value
    ]
    expected = {(shot["setup"], shot["shot"]): shot for shot in wanted_shots}
    if expected != {(shot["setup"], shot["shot"]): shot for shot in shots}:
        problems.append("ledger: its shots are not those of its record")
    return problems


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _verify_captures(dataset: Dataset, proof: Proof, told: Progress) -> Proof:
    problems = []
    files = count = 0
    for path in sorted((dataset.root / "captures").glob("*.json")):
        count += 1
        try:
            manifest = read_manifest(path)
        except DatasetError as error:
            problems.append(Problem(dataset.root.name, path.stem, str(error)))
            continue
        files += len(manifest.captures)
        for capture in manifest.captures:
            place = dataset.place(manifest, capture)
            entry = manifest.files.get(capture.file)
            wrong = _wrong(place.parent, capture.file, entry) if entry else "no file entry"
            if wrong:
                problems.append(Problem(dataset.root.name, path.stem, wrong))
        told(path.stem)
    return proof._replace(
        captures=proof.captures + count,
        files=proof.files + files,
        problems=[*proof.problems, *problems],
    )
