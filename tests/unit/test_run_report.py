"""`station report`: which records it shows, and which it says are not there."""

from __future__ import annotations

import shutil
from pathlib import Path

from recorded import sheet_id, told

from station.pages.run_report import make_report
from station.records.dataset import MANIFEST, Dataset


def test_a_lost_record_and_a_stray_folder_are_told(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "glassfiber")
    folders = [told(dataset, number) for number in (1, 2, 3, 4)]
    all_of_them = {folder.name for folder in folders}
    whole = make_report(dataset, None, None, tmp_path / "whole.html", lambda _: all_of_them)
    assert (len(whole.rows), whole.problems) == (4, [])

    stray = folders[0].parent / "zz"
    stray.mkdir()
    (stray / MANIFEST).write_text("{")
    shutil.rmtree(folders[3])
    (folders[2] / MANIFEST).write_text("{")
    out = tmp_path / "part.html"
    part = make_report(dataset, None, None, out, lambda _: all_of_them)
    assert [row["sheet"] for row in part.rows] == [sheet_id(1), sheet_id(2)]
    unreadable, gone = part.problems
    assert str(folders[2] / MANIFEST) in unreadable
    assert gone == f"{sheet_id(4)}: in the ledger, but its record is gone"
    assert "2 of this run's records or files damaged or missing" in out.read_text(encoding="utf-8")
