"""Labelled test trees, and the mistakes people make when they fill them."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.errors import DatasetError
from station.evaluate.examples import read_test, sheet_of


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"-")
    return root


def test_images_get_the_label_of_their_folder_and_the_mask_of_their_name(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "test/good/a.png",
        "test/nut/a.png",
        "test/nut/b.jpg",
        "test/nut/notes.txt",
        "test/nut/.a.png",
        "test/.cache/a.png",
        "ground_truth/nut/b_mask.png",
    )
    found = {(e.label, e.file.name): e for e in read_test(tmp_path)}
    assert list(found) == [("good", "a.png"), ("nut", "a.png"), ("nut", "b.jpg")]
    assert [e.defective for e in found.values()] == [False, True, True]
    assert found["nut", "a.png"].mask is None
    assert found["nut", "b.jpg"].mask == tmp_path / "ground_truth" / "nut" / "b_mask.png"


def test_shots_of_one_sheet_are_one_unit(tmp_path: Path) -> None:
    fill(tmp_path, *(f"test/nut/s-1-{s}_left_{n}.png" for s in (1, 2) for n in (1, 2)))
    found = read_test(tmp_path)
    assert [e.unit for e in found] == ["s-1-1", "s-1-1", "s-1-2", "s-1-2"]
    assert {e.setup for e in found if e.unit == "s-1-1"} == {"s-1-1_left"}
    assert sheet_of(found[0].file) == "s-1-1"


@pytest.mark.parametrize("name", ["img_001.png", "0018_010_03_x1216.png", "a.png", "s-1_a_1.png"])
def test_other_names_show_no_sheet(name: str) -> None:
    assert sheet_of(Path(name)) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/good/a.png"], "no folder test"),
        (["test/good/notes.txt"], "no image"),
        (["test/a.png", "test/good/b.png"], r"a\.png: lies in no class"),
        (["test/Good/a.png"], "in a folder named good"),
        (["test/nut/1/a.png", "test/nut/2/a.png"], r"named like .*a\.png"),
        (["test/nut/a.png", "test/nut/a.jpg"], "named like"),
        (["test/nut/a.png", "ground_truth/nut/a.png"], "a_mask.png would"),
    ],
)
def test_a_tree_that_breaks_its_rules_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read_test(fill(tmp_path, *names))
