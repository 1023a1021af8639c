"""The page of a run: what it says, what it shows, what it survives."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sheets import WHEN, capture, manifest, picture

from station.errors import DatasetError
from station.heatmap import map_over
from station.pages.report import write_report
from station.pages.sheet_row import Label
from station.records.sheet import Manifest, Timing, Verdict

THRESHOLD = 0.6
GOOD, NUT = Label("good", good=True), Label("nut", good=False)


def inspection(number: int, score: float | None, folder: Path, **values: Any) -> Manifest:
    """One sheet of one shot, with its picture and map on disk."""
    sheet = str(values.pop("sheet", f"s1-0001-{number:06d}"))
    taken = capture(number, sheet, file=f"{number}.png", map_file=f"{number}_map.npy", score=score)
    cv2.imwrite(str(folder / taken.file), picture(number, 640, 480))
    anomaly_map = np.zeros((12, 16), np.float16)
    anomaly_map[5:8, 5:8] = score or 0
    np.save(folder / f"{number}_map.npy", anomaly_map)
    verdict = Verdict.NONE
    if score is not None:
        verdict = Verdict.ACCEPT if score < THRESHOLD else Verdict.REJECT
    given: dict[str, Any] = {
        "kind": "inspection",
        "captures": (taken,),
        "score": score,
        "threshold": THRESHOLD,
        "verdict": verdict,
        "model": "glassfiber/3",
        "started_at": WHEN + timedelta(seconds=number),
        "timing": Timing(
            total_ms=5000, motion_ms=4000, camera_ms=90, scoring_ms=400, saving_ms=200, waited_ms=9
        ),
    }
    return manifest(sheet, **{**given, **values})


def page(
    manifests: list[Manifest], folder: Path, truth: dict[str, Label] | None = None, title: str = "t"
) -> str:
    out = folder / "run" / "page.html"
    write_report(manifests, {m.sheet: folder for m in manifests}, out, truth, title)
    return out.read_text(encoding="utf-8")


def words(html: str) -> str:
    """The page as it is read, without tags, pictures and figures."""
    for kind in ("svg", "style", "script"):
        html = re.sub(rf"<{kind}.*?</{kind}>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_counts_are_of_sheets_and_none_is_its_own(tmp_path: Path) -> None:
    scores = [0.1, 0.2, 0.3, 0.9, 1.4, None]
    read = words(page([inspection(n, s, tmp_path) for n, s in enumerate(scores)], tmp_path))
    for text in ("accept 3 50 % of 6", "reject 2 33 % of 6", "none 1 17 % of 6"):
        assert text in read
    assert "Escapes" not in read


def test_truth_gives_escapes_first_and_exact_intervals(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.7, 3: 0.2, 4: 1.5, 5: None}
    sheets = [inspection(n, s, tmp_path) for n, s in scores.items()]
    truth = dict(zip([m.sheet for m in sheets], [GOOD, GOOD, NUT, NUT, NUT], strict=True))
    html = page(sheets, tmp_path, truth)
    read = words(html)
    assert "1 escape: defective, yet accepted" in read
    # A sheet without a verdict is neither found nor let through.
    assert read.count("1 of 2 (50.0%)") == 3  # escapes, false rejects, nuts found
    assert "1.3% to 98.7%" in read
    assert "good 1 1 0 2" in read
    assert "defective 1 1 1 3" in read
    assert read.index("Escapes: defective sheets that were accepted") < read.index("Rejected (2)")
    assert "not judged" in read


def test_without_defects_nothing_is_claimed(tmp_path: Path) -> None:
    sheets = [inspection(1, 0.1, tmp_path)]
    read = words(page(sheets, tmp_path, {sheets[0].sheet: GOOD}))
    assert "no such sheets" in read
    assert "No escapes" not in read


def test_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    html = page([inspection(n, 0.2 * n, tmp_path) for n in range(1, 9)], tmp_path)
    assert not re.search(r"""(src|href)=["'](?!data:image/jpeg|#)""", html)
    assert "@import" not in html
    assert "url(http" not in html
    assert html.count("data:image/jpeg") == 2 * 8  # six rejected, two accepted
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["page.html"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = '<script>alert("x")</script> $\\frac{'
    sheet = inspection(1, 2.0, tmp_path, sheet=name, reasons=(name,), software={name: name})
    html = page([sheet], tmp_path, {name: Label(name, good=False)}, title=name)
    assert "<script>alert" not in html
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert" in html


def test_pictures_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "secret.png"), picture(1))
    inner = tmp_path / "inner"
    inner.mkdir()
    sheet = inspection(1, 2.0, inner)
    escaped = sheet.captures[0].model_copy(update={"file": "../secret.png"})
    html = page([sheet.model_copy(update={"captures": (escaped,)})], inner)
    assert "data:image" not in html
    assert "../secret.png cannot be read" in words(html)


def test_missing_pictures_and_maps_are_said(tmp_path: Path) -> None:
    sheets = [inspection(n, 2.0, tmp_path) for n in (1, 2, 3)]
    (tmp_path / "1.png").unlink()
    (tmp_path / "2_map.npy").write_bytes(b"not a map")
    sheets[2] = sheets[2].model_copy(update={"captures": ()})
    read = words(page(sheets, tmp_path))
    for text in ("1.png cannot be read", "no anomaly map was kept", "no picture was recorded"):
        assert text in read


def test_defect_is_coloured_and_outlined_where_it_is() -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    anomaly_map = np.zeros((12, 16), np.float32)
    anomaly_map[5:8, 5:8] = 2
    overlay = map_over(grey, anomaly_map, THRESHOLD).astype(int)
    assert np.array_equal(overlay[:30], np.full((30, 160, 3), 128))
    blue, green, red = overlay[65, 65]
    assert red > 200 and green > 200 and blue < 200
    cyan = (overlay[:, :, 0] > 200) & (overlay[:, :, 1] > 200) & (overlay[:, :, 2] < 80)
    assert cyan.any()
    # The same number has the same colour whatever else is in its picture.
    anomaly_map[0, 0] = 50
    assert np.array_equal(map_over(grey, anomaly_map, None)[65, 65], [blue, green, red])


@pytest.mark.parametrize("score", [float("inf"), 0.0, -3.0, 5000.0])
def test_strange_scores_still_make_a_page(tmp_path: Path, score: float) -> None:
    odd = inspection(1, 0.5, tmp_path).model_copy(update={"score": score, "timing": None})
    assert "<svg" in page([odd, inspection(2, 0.4, tmp_path)], tmp_path)
    assert "<svg" in page([odd], tmp_path)


def test_run_without_sheets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no inspections"):
        page([], tmp_path)
