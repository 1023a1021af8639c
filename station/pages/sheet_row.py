"""A sheet of a run, as the page and its figures show it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from station.records.sheet import Manifest, Verdict

RIGHT, ESCAPE, FALSE_REJECT, NOT_JUDGED = "right", "escape", "false reject", "not judged"


class Label(NamedTuple):
    """What a sheet truly is."""

    label: str
    good: bool


def correctness_of(verdict: Verdict | None, label: Label | None) -> str:
    """Name what a verdict means beside the truth; nothing where that is not known."""
    if label is None:
        return ""
    if verdict is None or verdict is Verdict.NONE:
        return NOT_JUDGED
    if label.good:
        return RIGHT if verdict is Verdict.ACCEPT else FALSE_REJECT
    return RIGHT if verdict is Verdict.REJECT else ESCAPE


class Row(NamedTuple):
    """One sheet of the table."""

    number: int
    manifest: Manifest
    verdict: Verdict
    label: Label | None
    correctness: str


def score_of(row: Row) -> float:
    """Return a sheet's score, NaN where it has none."""
    return float("nan") if row.manifest.score is None else row.manifest.score


def finite(scores: Iterable[float | None]) -> list[float]:
    """Return the scores that are numbers."""
    return [score for score in scores if score is not None and math.isfinite(score)]
