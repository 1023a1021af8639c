"""What commands show: results on stdout; progress and advice on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import TaskID

    from station.cycle import Inspected
    from station.errors import ProductionLocked
    from station.learn.method import Progress as TrainProgress
    from station.recipe import ReferenceSheet
    from station.records.dataset import Dataset
    from station.records.sheet import Manifest
    from station.reference import Check
    from station.repeatability import Study


WIDE = 240  # columns


def near(text: str) -> str:
    """Tell paths from where the reader stands: recipes/a.yaml, not /srv/line/recipes/a.yaml."""
    try:
        return text.replace(f"{Path.cwd()}{os.sep}", "")
    except OSError:  # the folder one stood in has been removed
        return text


@contextlib.contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[str], None]]:
    """Show a progress bar with the time left; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)


@contextlib.contextmanager
def learning() -> Iterator[Callable[[TrainProgress], None]]:
    """Show what training is doing; without a terminal only which stage has begun."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def told(progress: TrainProgress) -> None:
            if progress.stage == "features" and progress.done == 0:
                say(f"features of {progress.total} images: {progress.note} on disk")
            if progress.stage == "teacher" and progress.done == 0:
                say(
                    "the store has no teacher: one is made of these images first and kept "
                    f"({progress.total} steps, about half an hour on two free cores)"
                )
            if progress.stage not in tasks:
                if bars.disable:
                    say(f"{progress.stage}: {progress.done} of {progress.total} done")
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
            bars.update(
                tasks[progress.stage],
                completed=progress.done,
                description=f"{progress.stage} {progress.note}",
            )

        yield told


def captured(manifest: Manifest, workspace: Path, dataset: Dataset, *, as_json: bool) -> None:
    """Print one captured sheet."""
    files = [
        dataset.place(manifest, capture).relative_to(workspace).as_posix()
        for capture in manifest.captures
    ]
    if as_json:
        row = {"sheet": manifest.sheet, "label": manifest.label, "split": manifest.split}
        print(json.dumps({**row, "complete": manifest.complete, "captures": files}), flush=True)
    else:
        state = "" if manifest.complete else "  incomplete"  # standard error says why
        print(
            f"{manifest.sheet}  {len(files)} pictures  {manifest.split}/{manifest.label}{state}",
            flush=True,
        )


def inspected(sheet: Inspected, workspace: Path, *, as_json: bool) -> None:
    """Print one inspected sheet."""
    manifest, folder = sheet.manifest, sheet.folder
    if as_json:
        row = {
            "sheet": manifest.sheet,
            "verdict": sheet.outcome,
            "score": manifest.score,
            "threshold": manifest.threshold,
            "reasons": [*manifest.reasons, *_unsignalled(sheet)],
            "captures": [
                (folder / c.file).relative_to(workspace).as_posix() for c in manifest.captures
            ],
        }
        print(json.dumps(row), flush=True)
        return
    score = "    -" if manifest.score is None else f"{manifest.score:5.3f}"
    verdict = str(sheet.outcome).upper()
    seconds = manifest.timing.total_ms / 1e3 if manifest.timing else 0.0
    print(
        f"{manifest.sheet}  {verdict:6}  score {score}"
        f"  threshold {manifest.threshold:g}  {seconds:.1f} s"
        + "".join(f"  {reason}" for reason in _why_none(sheet)),
        flush=True,
    )


def answer(known: ReferenceSheet, sheet: Inspected, *, as_json: bool) -> None:
    """Print what a known sheet was judged as."""
    score = sheet.manifest.score
    if as_json:
        row = {"name": known.name, "expect": known.expect, "verdict": sheet.outcome}
        print(json.dumps({**row, "score": score, "sheet": sheet.manifest.sheet}), flush=True)
        return
    right = "right" if sheet.outcome == known.expect else "WRONG"
    told = "-" if score is None else f"{score:.3f}"
    print(
        f"{right}  {known.name}: must be judged {known.expect}, was judged {sheet.outcome}"
        f"  score {told}  {sheet.manifest.sheet}",
        flush=True,
    )


def check(last: Check | None, locked: ProductionLocked | None, *, as_json: bool) -> None:
    """Print a recipe's last reference check, and whether production may go on."""
    if as_json:
        told = None if last is None else last.model_dump(mode="json")
        print(
            json.dumps(
                {"may_produce": locked is None, "why": locked and str(locked), **(told or {})}
            )
        )
        return
    for one in () if last is None else last.answers:
        print(f"{'right' if one.right else 'WRONG'}  {one.name}  {one.expect}  {one.verdict}")
    print("production may go on" if locked is None else f"locked: {locked}")


def study(found: Study, *, as_json: bool) -> None:
    """Print how well one sheet repeats."""
    if as_json:
        rows = [component._asdict() for component in found.components]
        print(json.dumps({**found._asdict(), "components": rows}))
        return
    told = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
    margin, gauge = found.margin_in_deviations, found.gauge_share
    print(f"verdicts         {told} of {found.times}")
    print(f"agreement        {found.agreement:.0%}, true one at least {found.agreement_low:.0%}")
    print(f"sheet's score    {found.mean:.4f}, from {found.lowest:.4f} to {found.highest:.4f}")
    print(f"its deviation    {found.deviation:.5f}")
    print(f"to the threshold {'-' if margin is None else f'{margin:.1f} deviations'}")
    print(f"gauge R&R        {'-' if gauge is None else f'{gauge:.1%} of the variance of a shot'}")
    print("variance of  gauge R&R term     df   variance  deviation  share")
    for one in found.components:
        numbers = (
            f"{'-':>10} {'-':>10}     -"
            if one.variance is None or one.deviation is None
            else f"{one.variance:10.3g} {one.deviation:10.3g} {one.share or 0.0:6.1%}"
        )
        print(f"{one.source:11}  {one.gauge_term:15} {one.degrees_of_freedom:5} {numbers}")


def counts(facts: dict[str, Any]) -> None:
    """Tell the person at the keyboard what became of a run's sheets."""
    if sum(facts["sheets"].values()):
        told = ", ".join(f"{count} {verdict}" for verdict, count in facts["sheets"].items())
        say(f"{told}; run {facts['run']}")


def state(status: dict[str, Any], *, as_json: bool) -> None:
    """Print what the running station tells of itself."""
    if as_json:
        print(json.dumps(status))
        return
    told = {**status, "since": f"{status['since_s']:.0f} s", "next": ", ".join(status["commands"])}
    told["sheets"] = ", ".join(f"{n} {verdict}" for verdict, n in status["sheets"].items())
    told["camera"] = ", ".join(f"{n} {what}" for what, n in (status["camera"] or {}).items())
    for name in (
        "state", "reason", "since", "mode", "owner", "next", "recipe", "run", "sheets", "devices",
        "camera",
    ):  # fmt: skip
        print(f"{name:16} {told[name] if told[name] not in (None, '') else '-'}")


def fault(entry: dict[str, Any], *, as_json: bool) -> None:
    """Print what one fault at one step of the cycle led to."""
    if as_json:
        print(json.dumps(entry), flush=True)
        return
    rest = "     -" if entry["at_rest_s"] is None else f"{entry['at_rest_s']:5.2f}s"
    within = "     -" if entry["state_s"] is None else f"{entry['state_s']:5.2f}s"
    print(
        f"{'held' if entry['held'] else 'FAIL'}  {entry['series']:3}  {entry['step']:9}"
        f"{entry['fault']:24} rest {rest}  {'MOVED' if entry['moved_again'] else 'still'}"
        f"  {'ACCEPT' if entry['accept_raised'] else 'no accept'}  record {entry['recorded']:10}"
        f"  {entry['state']:8} {within}{' LATE' if entry['late'] else '     '}  {entry['message']}",
        flush=True,
    )


def camera_fault(entry: dict[str, Any], *, as_json: bool) -> None:
    """Print what one fault of the camera led to."""
    if as_json:
        print(json.dumps(entry), flush=True)
        return
    back = "      -" if entry["back_s"] is None else f"{entry['back_s']:6.2f}s"
    print(
        f"{'held' if entry['held'] else 'FAIL'}  camera  {entry['fault']:13}{entry['times']:9}"
        f"sheet {entry['outcome']:7} retaken {entry['retaken']}"
        f"  {'MOVED' if entry['moved'] else 'still'}  {entry['state']:8} {entry['state_s']:5.2f}s"
        f"  back {back}  {entry['message']}",
        flush=True,
    )


def _why_none(sheet: Inspected) -> list[str]:
    """Say why a sheet is none, in a line for a person."""
    return (
        [*sheet.manifest.reasons[:1]] if sheet.manifest.verdict == "none" else _unsignalled(sheet)
    )


def _unsignalled(sheet: Inspected) -> list[str]:
    """Say where the lines told less than was judged, so that nobody counts on it."""
    if sheet.outcome == sheet.manifest.verdict:
        return []
    line = "may have risen" if sheet.told == "unknown" else "did not rise, or was taken back"
    return [f"judged {sheet.manifest.verdict}, but the line {line}: {sheet.error}"]


def scored(row: dict[str, Any], *, as_json: bool) -> None:
    """Print one scored file."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    verdict = "" if row["verdict"] is None else str(row["verdict"]).upper()
    print(f"{row['score']:7.3f}  {verdict:6}  {row['file']}", flush=True)


def why(facts: dict[str, Any], shots: list[dict[str, Any]], problems: list[str]) -> None:
    """Print why a sheet was judged as it was."""
    verdict, outcome = str(facts["verdict"]).upper(), facts["outcome"]
    told = {None: "not known", "unknown": "not known"}.get(outcome, outcome)
    print(f"{facts['sheet']}  {verdict}  the lines told: {told}")
    print(f"because {facts['because']}")
    skipped = {"sheet", "verdict", "outcome", "because", "software", "history"}
    for key, value in facts.items():
        if key not in skipped and value is not None:
            print(f"  {key:16} {value}")
    print("  " + ", ".join(f"{name} {version}" for name, version in facts["software"].items()))
    for shot in shots:
        score = "-" if shot["score"] is None else f"{shot['score']:.4f}"
        pose = " ".join(f"{value:.4f}" for value in shot["pose"])
        print(
            f"{shot['setup']} {shot['shot']}  score {score}  pose {pose}  off {shot['off_mm']} mm"
            f"\n  {shot['picture']}  sha256 {shot['file_sha256']}"
            + ("  thinned" if shot["thinned"] else "")
            + "".join(f"\n  taken again: {problem}" for problem in shot["retaken"])
        )
    for event in facts["history"]:
        rest = " ".join(str(event[k]) for k in ("outcome", "who", "why") if k in event)
        print(f"{event['at']}  {event['event']} {rest}")
    print("\n".join(problems) if problems else "all files are as recorded")


def records(rows: list[dict[str, Any]], names: list[str], *, as_json: bool) -> None:
    """Print rows of the ledger."""
    if as_json:
        for row in rows:
            print(json.dumps({name: row[name] for name in names}, default=str), flush=True)
        return
    wanted = ("sheet", "setup", "shot", "recipe", "kind", "started_at", "verdict", "outcome",
              "score", "shadow_score", "shadow_model")  # fmt: skip
    table("", [{n: _short(row[n]) for n in wanted if n in names} for row in rows])


def _short(value: Any) -> Any:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value


def values(row: dict[str, Any], *, as_json: bool) -> None:
    """Print one row as key and value lines."""
    if as_json:
        print(json.dumps(row))
        return
    for key, value in row.items():
        print(f"{key:16} {value:.4g}" if isinstance(value, float) else f"{key:16} {value}")


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of the same keys."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title)
    for name in rows[0] if rows else ():
        drawn.add_column(name, justify="right" if isinstance(rows[0][name], float) else "left")
    for row in rows:
        drawn.add_row(
            *(
                f"{v:.3f}" if isinstance(v, float) else "" if v is None else str(v)
                for v in row.values()
            )
        )
    # Without a terminal there is no width to keep to, and a cut-off id is none.
    Console(width=None if sys.stdout.isatty() else WIDE).print(drawn)


def say(text: str) -> None:
    """Tell the person at the keyboard; never part of a result."""
    # Where nobody can read it the work goes on. RuntimeError: said in a signal handler amid a word.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        print(text, file=sys.stderr, flush=True)
