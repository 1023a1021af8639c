"""`station report`: choose a run, compare it with what is known of its sheets, write its page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from station.errors import ConfigError, DatasetError, StationError
from station.intervals import clopper_pearson
from station.pages.report import write_report
from station.pages.sheet_row import ESCAPE, FALSE_REJECT, NOT_JUDGED, Label, correctness_of
from station.records.dataset import Dataset, read_record
from station.records.label import sheet_truth
from station.records.sheet import Manifest, Verdict
from station.records.verify import check_record


class Summary(NamedTuple):
    """What the command prints of a report."""

    title: str
    path: Path
    rows: list[dict[str, Any]]
    lines: list[str]
    problems: list[str]
    """Of the run's records: unreadable, gone, or files that are not as recorded."""


def make_report(
    dataset: Dataset,
    run: str | None,
    truth: Path | None,
    out: Path | None,
    recorded: Callable[[str], set[str]],
    progress: Callable[[int], AbstractContextManager[Callable[[str], None]]],
) -> Summary:
    """Write one run as an HTML page; without a name, the last run.

    `recorded` tells the sheets of a run that must be there; `progress` is told each one checked.
    """
    runs: dict[str, list[tuple[Path, Manifest]]] = {}
    unreadable: dict[Path, str] = {}
    for folder in dataset.folders():
        try:
            manifest = read_record(folder).manifest
        except DatasetError as error:
            unreadable[folder] = str(error)
        else:
            runs.setdefault(manifest.run, []).append((folder, manifest))
    if not runs and unreadable:
        raise DatasetError(next(iter(unreadable.values())))
    if not runs:
        raise DatasetError(f"{dataset.root}: no inspections yet")
    last = run is None
    if run is None:
        of_production = [name for name in runs if runs[name][0][1].kind == "inspection"]
        began = {name: max(m.started_at for _, m in runs[name]) for name in of_production or runs}
        run = max(began, key=lambda name: began[name])
    if run not in runs:
        raise DatasetError(f"{dataset.root}: no run {run!r}; there are {', '.join(sorted(runs))}")
    if truth is not None and not truth.is_dir():
        raise DatasetError(f"{truth}: no such folder")
    manifests = [manifest for _, manifest in runs[run]]
    known = {} if truth is None else _labels(manifests, truth)
    if truth is not None and not known and any(manifest.captures for manifest in manifests):
        raise DatasetError(f"{truth}: belongs to none of the pictures of run {run}")
    path = out or dataset.root.parent.parent / "run" / f"{run}.html"
    if out is not None and not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: not a file that could be replaced")
    there = {folder.name for folder, _ in runs[run]} | {folder.name for folder in unreadable}
    # Of what cannot be read nobody knows whether it would have been the last run.
    problems = [text for folder, text in unreadable.items() if last or _run_of(folder.name) == run]
    try:
        missing = sorted(recorded(run) - there)
    except StationError as error:
        problems.append(f"whether records are missing is not known: {error}")
    else:
        problems += [f"{sheet}: in the ledger, but its record is gone" for sheet in missing]
    with progress(len(runs[run])) as checked:
        for folder, manifest in runs[run]:
            problems += [f"{folder}: {text}" for text in check_record(folder).problems]
            checked(manifest.sheet)
    title = f"{dataset.root.name} · run {run}"
    folders = {manifest.sheet: folder for folder, manifest in runs[run]}
    write_report(manifests, folders, path, known or None, title, problems)
    rows = [_row(manifest, known) for manifest in manifests]
    return Summary(title, path, rows, _lines(manifests, known), problems)


def _run_of(sheet: str) -> str:
    return sheet.rpartition("-")[0]


def _labels(manifests: list[Manifest], truth: Path) -> dict[str, Label]:
    found = {manifest.sheet: sheet_truth(truth, manifest) for manifest in manifests}
    return {sheet: Label(label, label == "good") for sheet, label in found.items() if label}


def _row(manifest: Manifest, known: dict[str, Label]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sheet": manifest.sheet,
        "verdict": str(manifest.verdict),
        "score": manifest.score,
        "threshold": manifest.threshold,
    }
    if known:
        label = known.get(manifest.sheet)
        row |= {
            "truth": label.label if label else None,
            "correctness": correctness_of(manifest.verdict, label),
        }
    return row


def _lines(manifests: list[Manifest], known: dict[str, Label]) -> list[str]:
    counts = {v: sum(m.verdict is v for m in manifests) for v in Verdict}
    lines = [", ".join(f"{count} {verdict}" for verdict, count in counts.items())]
    labelled = [
        (known[m.sheet], correctness_of(m.verdict, known[m.sheet]))
        for m in manifests
        if m.sheet in known
    ]
    for what, wanted, good in (
        ("escapes", ESCAPE, False),
        ("false rejects", FALSE_REJECT, True),
    ):
        judged = [name for label, name in labelled if label.good is good and name != NOT_JUDGED]
        if judged:
            count = judged.count(wanted)
            low, high = clopper_pearson(count, len(judged))
            kind = "good" if good else "defective"
            lines.append(
                f"{what}: {count} of {len(judged)} {kind} sheets "
                f"(true rate {low:.1%} to {high:.1%}, 95 % sure)"
            )
    return lines
