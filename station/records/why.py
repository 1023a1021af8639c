"""`station why SHEET`: what a sheet was judged by, from the files on disk alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from station.errors import ConfigError, DatasetError
from station.records import history, settings
from station.records.dataset import Dataset, after_of, describe, read_record
from station.records.ledger import SheetId
from station.records.sheet import Manifest
from station.records.verify import check_record, recipes_in
from station.revisions import revisions


class Answer(NamedTuple):
    """Why a sheet was accepted or rejected, and what of it no longer holds."""

    facts: dict[str, Any]
    shots: list[dict[str, Any]]
    problems: list[str]


def why(workspace: Path, sheet: str) -> Answer:
    """Read a sheet's record and hold it against its files, its recipe and its model."""
    folder = find(workspace, sheet)
    record = read_record(folder)
    manifest = record.manifest
    after = after_of(record)
    events, _ = history.read(folder, record.sha256)
    facts: dict[str, Any] = {
        "sheet": manifest.sheet,
        "verdict": manifest.verdict,
        "outcome": after.outcome,
        "signalled_at": after.signalled_at and after.signalled_at.isoformat(),
        "because": _because(manifest),
        "score": manifest.score,
        "threshold": manifest.threshold,
        "setup_score": manifest.setup_score,
        "same_place": manifest.same_place,
        "recipe": manifest.recipe,
        "recipe_sha256": manifest.recipe_sha256,
        "recipe_revision": _revision(workspace, manifest),
        "recipe_text": _kept(workspace, manifest.recipe, manifest.recipe_sha256),
        "model": manifest.model,
        "model_sha256": manifest.model_sha256,
        "model_today": _model_today(workspace, manifest),
        "runtime": manifest.runtime,
        "precision": manifest.precision,
        "cell_sha256": manifest.cell_sha256,
        "cell_text": _kept(workspace, manifest.recipe, manifest.cell_sha256),
        "started_at": manifest.started_at.isoformat(),
        "finished_at": manifest.finished_at.isoformat(),
        "kind": manifest.kind,
        "dry_run": manifest.dry_run,
        "folder": folder.relative_to(workspace).as_posix(),
        "manifest_sha256": record.sha256,
        "previous": manifest.previous,
        "software": manifest.software,
        "history": [e.model_dump(mode="json", exclude_none=True) for e in events],
    }
    return Answer(facts, _shots(manifest, after.thinned), check_record(folder).problems)


def find(workspace: Path, sheet: str) -> Path:
    """Return the folder of a recorded inspection."""
    SheetId.of(sheet)  # a name that is no id must not become part of a pattern
    found = [
        path
        for recipe in recipes_in(workspace)
        for path in Dataset(workspace, recipe).root.glob(f"inspections/*/{sheet}")
    ]
    if not found:
        for recipe in recipes_in(workspace):
            left = Dataset(workspace, recipe).leftovers("inspection")
            if place := next((path for path in left if path.name == sheet), None):
                raise DatasetError(
                    f"{place}: unfinished; the next inspection of recipe {recipe} records it"
                )
        raise DatasetError(f"{workspace / 'data'}: no inspected sheet {sheet}")
    return found[0]


def _because(manifest: Manifest) -> str:
    if manifest.reasons:
        return "; ".join(manifest.reasons)
    if manifest.score is None or manifest.threshold is None:
        return "nothing was judged"
    return (
        f"all {len(manifest.captures)} shots are recorded and scored, and the sheet's score "
        f"{manifest.score:.4f} is below the threshold {manifest.threshold:g}"
    )


def _shots(manifest: Manifest, thinned: frozenset[str]) -> list[dict[str, Any]]:
    return [
        {
            "setup": capture.setup,
            "shot": capture.shot,
            "score": capture.score,
            "problem": capture.problem,
            "picture": capture.file,
            "thinned": capture.file in thinned,
            "file_sha256": manifest.files[capture.file].sha256
            if capture.file in manifest.files
            else None,
            "pixels_sha256": capture.pixels_sha256,
            "pose": list(capture.pose),
            "pose_asked": list(capture.pose_asked),
            "off_mm": round(1e3 * capture.pose.distance_m(capture.pose_asked), 3),
            "exposure_us": capture.exposure_us,
            "gain_db": capture.gain_db,
            "frame": capture.frame,
            "taken_at": capture.taken_at.isoformat(),
            "retaken": list(capture.retaken),
        }
        for capture in manifest.captures
    ]


def _revision(workspace: Path, manifest: Manifest) -> str:
    """Name the revision of the recipe in force, by the hash of its text."""
    try:
        kept = revisions(workspace, manifest.recipe)
    except (ConfigError, DatasetError) as error:
        return f"unknown: {error}"
    for revision in reversed(kept):
        if revision.after_sha256 == manifest.recipe_sha256:
            change = revision.change
            return (
                f"{revision.number}: {change.key} {change.before} -> {change.after}, "
                f"by {revision.who}: {revision.why}"
            )
        if revision.before_sha256 == manifest.recipe_sha256:
            return f"before {revision.number}"
    path = workspace / "recipes" / f"{manifest.recipe}.yaml"
    text = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(text).hexdigest() == manifest.recipe_sha256:
        return "as the recipe is today"
    if _kept(workspace, manifest.recipe, manifest.recipe_sha256) is None:
        return "unknown: a text that was not kept"
    return "none: edited by hand"


def _kept(workspace: Path, recipe: str, sha256: str) -> str | None:
    """Return where the text of that hash is kept."""
    path = settings.place(Dataset(workspace, recipe).root, sha256)
    return path.relative_to(workspace).as_posix() if path.is_file() else None


def _model_today(workspace: Path, manifest: Manifest) -> str | None:
    """Tell whether the model is still the file that judged."""
    if manifest.model is None:
        return None
    weights = workspace / "models" / manifest.model / "weights.pt"
    if not weights.is_file():
        return "not here any more"
    sha256 = describe(weights).sha256
    return "the same" if sha256 == manifest.model_sha256 else f"another: {sha256}"
