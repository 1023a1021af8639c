"""capture() and inspect(): the two loops. No driver, no torch, no printing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
from structlog.contextvars import bound_contextvars

from station.cell import Cell
from station.collect import NOTHING, Collected, Collector
from station.errors import (
    Aborted,
    DatasetError,
    DeviceError,
    DeviceTimeout,
    ModelError,
    SheetGone,
    StationError,
)
from station.golden import Predictor
from station.recipe import SheetRule, Shot
from station.records.dataset import Dataset, now
from station.records.history import Outcome
from station.records.sheet import (
    Kind,
    Manifest,
    Precision,
    RuntimeName,
    Timing,
    Verdict,
    judge,
)
from station.shadow import Shadow
from station.shots import (
    Job,
    Run,
    Spent,
    begin_run,
    begin_sheet,
    leave_sheet,
    retreat,
    take_shot,
)

log = structlog.get_logger()


class Judging(NamedTuple):
    """The model of an inspection and the threshold its scores are held against."""

    predictor: Predictor
    model: str
    sha256: str
    threshold: float
    rule: SheetRule
    runtime: RuntimeName
    precision: Precision
    shadow: Shadow | None = None
    """A second model, whose scores nobody waits for."""


class Labels(NamedTuple):
    """Where captured sheets belong in the tree."""

    label: str
    split: Literal["train", "test"]


class Progress(NamedTuple):
    """One shot was taken: for progress bars."""

    sheet: str
    shot: Shot


class Inspected(NamedTuple):
    """A recorded sheet, where its record lies, and what ends the run after it, if anything does."""

    manifest: Manifest
    folder: Path
    frame_to_line_ms: float | None
    error: BaseException | None = None
    told: Outcome = "none"

    @property
    def outcome(self) -> Verdict:
        """What the sheet ends in for everyone outside: none where no line surely told more."""
        judged = Verdict(self.manifest.verdict or Verdict.NONE)
        return judged if self.manifest.silent or self.told == judged else Verdict.NONE


def inspect(
    cell: Cell, job: Job, judging: Judging, dataset: Dataset, numbers: Iterable[int]
) -> Iterator[Inspected]:
    """Inspect sheets as they arrive: shoot, score, judge, record, then signal."""
    with closing(Collector(judging.predictor)) as collector:
        adopt_leftovers(dataset, job)
        run = begin_run(cell, job, dataset, collector)
        for number in numbers:
            if not cell.gate.wait_for_sheet(job.stop):
                return
            sheet = f"{job.run}-{number:06d}"
            with bound_contextvars(sheet=sheet):
                inspected = inspect_sheet(sheet, run, judging)
                if inspected.error is None:
                    try:
                        leave_sheet(run)
                    except SheetGone as error:
                        inspected = _take_back(run, inspected, error)
                    except BaseException as error:  # noqa: BLE001 - raised once the sheet is told
                        inspected = inspected._replace(error=error)
            yield inspected
            stop_if_it_cannot_go_on(inspected)
            if judging.shadow is not None:
                judging.shadow.offer(inspected.manifest, inspected.folder)
        if judging.shadow is not None:
            judging.shadow.finish(job.stop)


def capture(
    cell: Cell, job: Job, labels: Labels, dataset: Dataset, sheets: int
) -> Iterator[Progress | Manifest]:
    """Photograph sheets for the dataset; yields each shot, for progress, and each manifest."""
    for manifest in dataset.finish_captures():
        log.warning("capture.finished", sheet=manifest.sheet, label=manifest.label)
    for folder in dataset.leftovers("capture"):
        log.warning(
            "capture.left_unfinished", folder=str(folder), advice="look, then move or delete it"
        )
    with closing(Collector(None)) as collector:
        retreat(cell, job.recipe.recipe, dataset, job.stop, dry_run=False)
        run = begin_run(cell, job, dataset, collector)
        for number in range(1, sheets + 1):
            if not cell.gate.wait_for_sheet(job.stop):
                return
            sheet = f"{job.run}-{number:06d}"
            with bound_contextvars(sheet=sheet):
                yield from _capture_sheet(sheet, run, labels)
                if job.stop.is_set():
                    return
                leave_sheet(run)


def inspect_sheet(sheet: str, run: Run, judging: Judging) -> Inspected:
    """Shoot and score every setup of one sheet; record the verdict before it is signalled.

    Whatever interrupts it comes back as `error`: the sheet has a record, and is told, in any case.
    """
    spent = Spent()
    folder = run.dataset.begin("inspection", sheet)
    collection = run.collector.sheet(sheet, folder)
    try:
        begin_sheet(sheet, run)
        # Every sheet begins above the first setup.
        for previous, shot in pairwise([run.shots[0], *run.shots]):
            collection.add(shot, take_shot(shot, previous, run, spent))
        collected = collection.finish()
        run.cell.gate.check_laid()  # and that the arm has not stopped since the last shot
    except BaseException as error:  # noqa: BLE001 - raised once the sheet is told
        return _record_unjudged(folder, sheet, run, judging, spent, collection.abandon(), error)
    verdict, score, reasons = judge(
        collected.shots, len(run.shots), judging.threshold, judging.rule
    )
    manifest = _manifest(run.job.kind, sheet, run.job, spent, collected, reasons).model_copy(
        update={"verdict": verdict, "score": score, **_judged_by(judging)}
    )
    told: Outcome = "none"
    try:
        target = run.dataset.record_inspection(folder, manifest)
        if run.job.signals:
            run.cell.gate.check_laid()  # to write the record took a moment
            told = "unknown"  # whatever fails from here on, a line may be high
            run.cell.gate.sort(verdict)
            told = verdict.value
        frame_to_line_ms = _ms(time.perf_counter() - spent.last_frame)
        if run.job.signals:
            _note_told(run, target, told)
    except BaseException as error:  # noqa: BLE001 - raised once the sheet is told
        log.error("sheet.unsignalled", verdict=verdict, told=told, reason=_reason(error))
        target = _where(run, folder, manifest)
        if target != folder:  # else there is no record yet, and the next start makes it none
            _note_told(run, target, told, _reason(error))
        return Inspected(manifest, target, None, error, told)
    log.info(
        "sheet.inspected",
        verdict=verdict,
        score=score,
        threshold=judging.threshold,
        frame_to_line_ms=frame_to_line_ms,
        duration_ms=round(1e3 * (time.perf_counter() - spent.started)),
    )
    return Inspected(manifest, target, frame_to_line_ms, None, told)


def _capture_sheet(sheet: str, run: Run, labels: Labels) -> Iterator[Progress | Manifest]:
    spent = Spent()
    folder = run.dataset.begin("capture", sheet)
    collection = run.collector.sheet(sheet, folder)
    reasons: tuple[str, ...] = ()
    failed: BaseException | None = None
    try:
        begin_sheet(sheet, run)
        for previous, shot in pairwise([run.shots[0], *run.shots]):
            if run.job.stop.is_set():
                reasons = (f"stopped before {shot.setup} shot {shot.number}",)
                break
            collection.add(shot, take_shot(shot, previous, run, spent))
            yield Progress(sheet, shot)
    except (StationError, KeyboardInterrupt, SystemExit) as error:
        failed = error
        reasons = (_reason(error),)
    except BaseException as error:
        reasons = (_reason(error),)
        raise
    finally:
        collected = collection.finish()
        manifest = _manifest("capture", sheet, run.job, spent, collected, reasons).model_copy(
            update={"label": labels.label, "split": labels.split}
        )
        run.dataset.record_capture(folder, manifest)
    log.info("sheet.captured", shots=len(collected.captures), complete=manifest.complete)
    yield manifest
    if failed is not None:
        raise failed
    if collected.problems:
        raise DatasetError(f"sheet {sheet} is incomplete: {collected.problems[0]}")


def _record_unjudged(
    folder: Path,
    sheet: str,
    run: Run,
    judging: Judging,
    spent: Spent,
    collected: Collected,
    error: BaseException,
) -> Inspected:
    """No verdict, no line: what was captured is kept, marked, and the reason goes up."""
    reason = _reason(error)
    manifest = _manifest(run.job.kind, sheet, run.job, spent, collected, (reason,)).model_copy(
        update={"verdict": Verdict.NONE, **_judged_by(judging)}
    )
    log.error(
        "sheet.unjudged", reason=reason, last_shot=_last_shot(manifest), stands=_stands(run, error)
    )
    try:
        run.dataset.record_inspection(folder, manifest)
    except StationError as second:  # what ended the sheet is what has to be told
        log.error("sheet.unrecorded", reason=_reason(second))
    return Inspected(manifest, _where(run, folder, manifest), None, error)


def _where(run: Run, folder: Path, manifest: Manifest) -> Path:
    place = run.dataset.inspection_place(manifest)
    return place if place.exists() else folder


def _note_told(run: Run, place: Path, told: Outcome, why: str | None = None) -> None:
    """Keep what the lines told; without it the next start calls it unknown."""
    try:
        run.dataset.note(place, "signalled", outcome=told, why=why)
    except StationError as error:
        log.error("sheet.told_unrecorded", told=told, reason=_reason(error))


def _take_back(run: Run, inspected: Inspected, error: SheetGone) -> Inspected:
    """The line reads the verdict when busy falls; it was lowered before, so none was told."""
    if run.job.signals:
        log.error("sheet.taken_back", told=inspected.told, reason=str(error))
        _note_told(run, inspected.folder, "none", str(error))
    return inspected._replace(error=error, told="none")


def _manifest(
    kind: Kind,
    sheet: str,
    job: Job,
    spent: Spent,
    collected: Collected,
    reasons: tuple[str, ...],
) -> Manifest:
    timing = Timing(
        total_ms=_ms(time.perf_counter() - spent.started),
        motion_ms=_ms(spent.motion_s),
        camera_ms=_ms(spent.camera_s),
        scoring_ms=_ms(collected.scoring_s),
        saving_ms=_ms(collected.saving_s),
        waited_ms=_ms(time.perf_counter() - spent.last_frame),
    )
    return Manifest(
        schema=1,
        kind=kind,
        sheet=sheet,
        run=job.run,
        started_at=spent.started_at,
        finished_at=now(),
        complete=len(collected.captures) == job.recipe.recipe.shots_per_sheet,
        recipe=job.recipe.name,
        recipe_sha256=job.recipe.sha256,
        cell_sha256=job.cell.sha256,
        dry_run=job.dry_run,
        reasons=(*reasons, *collected.problems),
        captures=collected.captures,
        files=collected.files,
        software=job.software,
        scene_version=job.cell.config.scene_version,
        timing=timing,
    )


def _judged_by(judging: Judging) -> dict[str, object]:
    return {
        "model": judging.model,
        "model_sha256": judging.sha256,
        "runtime": judging.runtime,
        "precision": judging.precision,
        "threshold": judging.threshold,
        "setup_score": judging.rule.setup_score,
        "same_place": judging.rule.same_place,
    }


def stop_if_it_cannot_go_on(inspected: Inspected) -> None:
    """Raise what ended a sheet, or keeps the next one from being judged."""
    manifest = inspected.manifest
    if inspected.error is not None:
        raise inspected.error
    if manifest.verdict is Verdict.NONE:
        raise DatasetError(f"sheet {manifest.sheet} has no verdict: {'; '.join(manifest.reasons)}")
    problems = [capture.problem for capture in manifest.captures if capture.problem]
    if problems:
        raise ModelError(f"sheet {manifest.sheet} was rejected, not scored: {problems[0]}")


def adopt_leftovers(dataset: Dataset, job: Job) -> None:
    """Record sheets that a killed process left behind, so that none is without an outcome."""
    for folder in dataset.leftovers("inspection"):
        began, ended = dataset.span(folder)
        files = dataset.adopt(folder)
        reasons = (
            "the process ended before this sheet was finished",
            f"recipe and cell are those of run {job.run}, which found it",
        )
        # Nothing was judged, so no model and no threshold are named.
        manifest = _manifest("inspection", folder.name, job, Spent(), NOTHING, reasons).model_copy(
            update={
                "verdict": Verdict.NONE,
                "run": folder.name.rpartition("-")[0],
                "started_at": began,
                "finished_at": ended,
                "files": files,
            }
        )
        target = dataset.record_inspection(folder, manifest)
        log.warning("sheet.adopted", sheet=folder.name, files=len(files), record=str(target))


def _stands(run: Run, error: BaseException) -> list[float] | None:
    """Return where the arm stands; None where the robot cannot be asked any more.

    After an interrupted request it is gone, and to ask would only keep the record waiting.
    """
    if not isinstance(error, DeviceError) or isinstance(error, DeviceTimeout):
        return None
    with suppress(StationError):
        return [round(value, 5) for value in run.cell.motion.status().pose]
    return None


def _last_shot(manifest: Manifest) -> list[float] | None:
    return [round(value, 5) for value in manifest.captures[-1].pose] if manifest.captures else None


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return "the station was told to end"
    return (
        str(error)
        if isinstance(error, StationError | Aborted)
        else f"failed ({type(error).__name__})"
    )


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)
