"""Sheets laid by a person for a purpose of their own: judged and recorded, but no line tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from structlog.contextvars import bound_contextvars

from station.cell import Cell
from station.collect import Collector
from station.cycle import (
    Inspected,
    Judging,
    adopt_leftovers,
    inspect_sheet,
    stop_if_it_cannot_go_on,
)
from station.records.dataset import Dataset
from station.shots import Job, begin_run, leave_sheet, retreat, return_above

Told = Callable[[int], None]


def present(
    cell: Cell, job: Job, judging: Judging, dataset: Dataset, times: int, told: Told, *, lift: bool
) -> Iterator[Inspected]:
    """Judge what lies there, `times` times; `told` is called before each.

    With `lift` the sheet has to be taken away each time and the next one laid; without it, the
    same one stays until the last time.
    """
    with closing(Collector(judging.predictor)) as collector:
        adopt_leftovers(dataset, job)
        retreat(cell, job.recipe.recipe, dataset, job.stop, dry_run=job.dry_run)
        run = begin_run(cell, job, dataset, collector)
        for number in range(1, times + 1):
            told(number)
            if (lift or number == 1) and not cell.gate.wait_for_sheet(job.stop):
                return
            sheet = f"{job.run}-{number:06d}"
            with bound_contextvars(sheet=sheet):
                inspected = inspect_sheet(sheet, run, judging)
            yield inspected
            stop_if_it_cannot_go_on(inspected)
            stopped = job.stop.is_set()
            if lift or stopped or number == times:
                leave_sheet(run)
            else:
                return_above(run)
            if stopped:
                return
