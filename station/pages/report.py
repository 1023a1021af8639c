"""A run as one HTML page that needs nothing beside itself: verdicts, figures, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.decode import decode_file
from station.errors import DatasetError
from station.heatmap import MAP_RANGE, colour_stops, map_over
from station.intervals import clopper_pearson
from station.pages.page import (
    data_uri,
    environment,
    plain_number,
    smaller,
    write_page,
)
from station.pages.run_figures import STAGES, axis_bends, histogram, strip, timing
from station.pages.sheet_row import (
    ESCAPE,
    FALSE_REJECT,
    NOT_JUDGED,
    RIGHT,
    Label,
    Row,
    correctness_of,
    finite,
)
from station.records.sheet import Capture, Manifest, Verdict

TEMPLATE = "report.html.j2"

HIGHEST_ACCEPTED = 6
CARD_LIMIT = 150  # at about 90 kB each, a page that still opens at once


class Rate(NamedTuple):
    """A count among a total and the exact interval its true share lies in, 95 % sure."""

    hits: int
    total: int

    @property
    def text(self) -> str:
        """The count and its share."""
        if self.total == 0:
            return "no such sheets"
        return f"{self.hits} of {self.total} ({self.hits / self.total:.1%})"

    @property
    def interval(self) -> str:
        """The interval in words."""
        if self.total == 0:
            return "nothing can be said"
        low, high = clopper_pearson(self.hits, self.total)
        return f"{low:.1%} to {high:.1%}"


class Card(NamedTuple):
    """A sheet's worst shot, plain and with its map over it, as data URIs."""

    row: Row
    shot: str
    picture: str
    overlay: str
    problem: str


def write_report(
    manifests: list[Manifest],
    folders: dict[str, Path],
    out: Path,
    truth: dict[str, Label] | None,
    title: str,
    problems: Sequence[str] = (),
) -> None:
    """Write the page; `folders` holds each sheet's pictures and maps, `truth` what is known.

    `problems` are those of the run's records.
    """
    if not manifests:
        raise DatasetError("no inspections to report")
    ordered = sorted(manifests, key=lambda m: (m.started_at, m.sheet))
    rows = [_row(number, m, (truth or {}).get(m.sheet)) for number, m in enumerate(ordered, 1)]
    groups = _groups(rows)
    shown = [(what, [_card(row, folders) for row in members]) for what, members in groups]
    page = environment().get_template(TEMPLATE).render(
        title=title,
        rows=rows,
        header=_header(ordered),
        software=_distinct(f"{k} {v}" for m in ordered for k, v in sorted(m.software.items())),
        hashes=_hashes(ordered),
        dry_run=any(m.dry_run for m in ordered),
        counts={v: sum(row.verdict is v for row in rows) for v in Verdict},
        truth=_truth(rows) if truth is not None else None,
        problems=problems,
        strip=strip(rows),
        bends=axis_bends(rows),
        histogram=histogram(rows),
        timing=timing(rows),
        stages=_percentiles(rows),
        groups=shown,
        pictured={card.row.number for _, cards in shown for card in cards},
        left_out=sum(row.verdict is Verdict.REJECT for row in rows)
        - sum(c.row.verdict is Verdict.REJECT for _, cards in shown for c in cards),
        colours=colour_stops(),
        map_range=MAP_RANGE,
    )  # fmt: skip
    write_page(out, page)


def _row(number: int, manifest: Manifest, label: Label | None) -> Row:
    verdict = manifest.verdict or Verdict.NONE
    return Row(number, manifest, verdict, label, correctness_of(verdict, label))


def _header(manifests: list[Manifest]) -> list[tuple[str, str]]:
    """Name what the run was made with; more than one of a thing is said, not hidden."""
    start = min(m.started_at for m in manifests)
    end = max(m.finished_at for m in manifests)
    return [
        ("Run", _distinct(m.run for m in manifests)),
        ("Recipe", _distinct(m.recipe for m in manifests)),
        ("Model", _distinct(m.model or "none" for m in manifests)),
        ("Threshold", _distinct(_threshold(m) for m in manifests)),
        ("Began", f"{start:%Y-%m-%d %H:%M:%S %Z}"),
        ("Ended", f"{end:%Y-%m-%d %H:%M:%S %Z}"),
    ]


def _threshold(manifest: Manifest) -> str:
    return "none" if manifest.threshold is None else f"{manifest.threshold:g}"


def _hashes(manifests: list[Manifest]) -> list[tuple[str, str]]:
    return [
        ("recipe", _distinct(m.recipe_sha256 for m in manifests)),
        ("cell", _distinct(m.cell_sha256 for m in manifests)),
        ("model", _distinct(m.model_sha256 or "none" for m in manifests)),
    ]


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _truth(rows: list[Row]) -> dict[str, Any]:
    """Compare verdicts with what is known."""
    known = [row for row in rows if row.label is not None]
    good = [row for row in known if row.label and row.label.good]
    bad = [row for row in known if row.label and not row.label.good]
    return {
        "unknown": len(rows) - len(known),
        "confusion": [
            (name, [sum(row.verdict is v for row in members) for v in Verdict], len(members))
            for name, members in (("good", good), ("defective", bad))
        ],
        "escapes": _rate(bad, ESCAPE),
        "false_rejects": _rate(good, FALSE_REJECT),
        "escaped": [row for row in bad if row.correctness == ESCAPE],
        "defects": _defects(bad),
    }


def _rate(rows: list[Row], correctness: str) -> Rate:
    judged = [row for row in rows if row.correctness != NOT_JUDGED]
    return Rate(sum(row.correctness == correctness for row in judged), len(judged))


def _defects(bad: list[Row]) -> list[tuple[str, Rate, int, float | None, float | None]]:
    """Give of each defect: its name, those found, those not judged, lowest and median score."""
    lines = []
    for name in sorted({row.label.label for row in bad if row.label}):
        members = [row for row in bad if row.label and row.label.label == name]
        scores = finite(row.manifest.score for row in members)
        lines.append(
            (
                name,
                _rate(members, RIGHT),
                sum(row.correctness == NOT_JUDGED for row in members),
                min(scores, default=None),
                float(np.median(scores)) if scores else None,
            )
        )
    return lines


def _groups(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Choose the sheets to picture: what went wrong first."""
    by_score = sorted(rows, key=lambda row: -(row.manifest.score or 0))
    escaped = [row for row in by_score if row.correctness == ESCAPE]
    rejected = [row for row in by_score if row.verdict is Verdict.REJECT]
    accepted = [
        row for row in by_score if row.verdict is Verdict.ACCEPT and row.correctness != ESCAPE
    ]
    groups = [
        ("Escapes: defective sheets that were accepted", escaped[:CARD_LIMIT]),
        ("Rejected", rejected[:CARD_LIMIT]),
        ("Accepted, with the highest scores", accepted[:HIGHEST_ACCEPTED]),
    ]
    return [(what, members) for what, members in groups if members]


# Pictures


def _card(row: Row, folders: dict[str, Path]) -> Card:
    folder = folders.get(row.manifest.sheet)
    capture = _worst(row.manifest.captures)
    if folder is None or capture is None:
        return Card(row, "", "", "", "no picture was recorded")
    shot = f"{capture.setup}, shot {capture.shot}, score {plain_number(capture.score)}"
    # Only the name: a record must not reach outside its folder.
    picture = decode_file(folder / Path(capture.file).name, cv2.IMREAD_COLOR)
    if picture is None:
        return Card(row, shot, "", "", f"{capture.file} cannot be read")
    small = smaller(np.asarray(picture, np.uint8))
    anomaly_map = _map(folder, capture)
    if anomaly_map is None:
        return Card(row, shot, data_uri(small), "", "no anomaly map was kept")
    overlay = map_over(small, anomaly_map, row.manifest.threshold)
    return Card(row, shot, data_uri(small), data_uri(overlay), capture.problem or "")


def _worst(captures: tuple[Capture, ...]) -> Capture | None:
    def badness(capture: Capture) -> tuple[bool, float]:
        return capture.map_file is not None, max(finite([capture.score]), default=-1.0)

    return max(captures, key=badness, default=None)


def _map(folder: Path, capture: Capture) -> NDArray[np.float32] | None:
    if capture.map_file is None:
        return None
    try:
        loaded = np.load(folder / Path(capture.map_file).name, allow_pickle=False)
    except (OSError, ValueError):
        return None
    if loaded.ndim != 2 or loaded.size == 0:
        return None
    # What is not a number must be seen, not vanish.
    values = np.nan_to_num(loaded.astype(np.float32), nan=MAP_RANGE[1], posinf=1e3, neginf=-1e3)
    return np.asarray(values, np.float32)


def _percentiles(rows: list[Row]) -> list[tuple[str, float, float]]:
    timings = [row.manifest.timing for row in rows if row.manifest.timing]
    if not timings:
        return []
    fields = {field: name for field, (name, _) in STAGES.items()}
    fields |= {"waited_ms": "last frame to scored and saved", "total_ms": "whole sheet"}
    lines = []
    for field, name in fields.items():
        values = [getattr(timing, field) for timing in timings]
        half, most = np.percentile(values, [50, 95])
        lines.append((name, float(half), float(most)))
    return lines
