"""`station report`: which records it shows, and which it says are not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from recorded import sheet_id, told

from station import show
from station.errors import DatasetError
from station.pages.run_report import make_report
from station.records.dataset import MANIFEST, Dataset, read_record


def shown(total: int) -> AbstractContextManager[Callable[[str], None]]:
    return show.progress(total, "sheets")


def test_lost_and_unreadable_records_are_told_a_stray_folder_is_not(
    tmp_path: Path,
) -> None:
    dataset = Dataset(tmp_path, "glassfiber")
    folders = [told(dataset, number) for number in (1, 2, 3, 4)]
    all_of_them = {folder.name for folder in folders}
    whole = make_report(dataset, None, None, tmp_path / "whole.html", lambda _: all_of_them, shown)
    assert (len(whole.rows), whole.problems) == (4, [])

    stray = folders[0].parent / "zz"
    stray.mkdir()
    (stray / MANIFEST).write_text("{")
    shutil.rmtree(folders[3])
    (folders[2] / MANIFEST).write_text("{")
    out = tmp_path / "part.html"
    part = make_report(dataset, None, None, out, lambda _: all_of_them, shown)
    assert [row["sheet"] for row in part.rows] == [sheet_id(1), sheet_id(2)]
    unreadable, gone = part.problems
    assert str(folders[2] / MANIFEST) in unreadable
    assert gone == f"{sheet_id(4)}: in the ledger, but its record is gone"
    assert "2 of this run's records or files damaged or missing" in out.read_text(encoding="utf-8")


def test_a_ledger_that_does_not_answer_is_told_and_the_page_is_made(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "glassfiber")
    told(dataset, 1)

    def recorded(run: str) -> set[str]:
        raise DatasetError(f"no ledger for {run}")

    report = make_report(dataset, None, None, tmp_path / "page.html", recorded, shown)
    assert len(report.rows) == 1
    assert report.problems == ["whether records are missing is not known: no ledger for s1-0001"]


def test_a_truth_of_other_pictures_is_refused(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "glassfiber")
    told(dataset, 1)
    (tmp_path / "truth").mkdir()
    out = tmp_path / "page.html"
    with pytest.raises(DatasetError, match="truth: belongs to none of the pictures of run s1-0001"):
        make_report(dataset, None, tmp_path / "truth", out, lambda _: set(), shown)
    assert not out.exists()


def test_the_last_run_is_told_of_where_none_of_it_can_be_read(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "glassfiber")
    folder = told(dataset, 1)
    later = folder.with_name("s1-0002-000001")
    later.mkdir()
    (later / MANIFEST).write_text("{")
    out = tmp_path / "page.html"
    (problem,) = make_report(dataset, None, None, out, lambda _: set(), shown).problems
    assert str(later) in problem
    assert make_report(dataset, "s1-0001", None, out, lambda _: set(), shown).problems == []


def test_beside_the_truth_each_sheet_is_right_or_wrong(tmp_path: Path) -> None:
    dataset, truth = Dataset(tmp_path, "glassfiber"), tmp_path / "truth"
    truth.mkdir()
    cases = [
        ("accept", "good", "right"),
        ("accept", "nut", "escape"),
        ("reject", "good", "false reject"),
        ("reject", "nut", "right"),
        ("none", "nut", "not judged"),
        ("accept", None, None),
    ]
    for number, (verdict, label, _) in enumerate(cases, start=1):
        capture = read_record(told(dataset, number, verdict)).manifest.captures[0]
        if label:
            (truth / f"{capture.pixels_sha256}.json").write_text(json.dumps({"label": label}))
    found = make_report(dataset, None, truth, tmp_path / "page.html", lambda _: set(), shown)
    assert [row["correctness"] or None for row in found.rows] == [case[2] for case in cases]
    assert [line.split(" (")[0] for line in found.lines[1:]] == [
        "escapes: 1 of 2 defective sheets",
        "false rejects: 1 of 2 good sheets",
    ]
