"""Labels and masks find their captures, and a mistake leaves the tree as it was."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sheets import manifest, picture

from station.errors import DatasetError
from station.records import label
from station.records.dataset import Dataset, read_image, read_manifest, save_image
from station.records.label import attach, find_truth, sheet_truth
from station.records.sheet import Capture, Image, Manifest

SHEET = "s1-0001-000001"
MASK = np.zeros((6, 8), np.uint8)
MASK[2:4, 3:5] = 255


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "ws", "glassfiber")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    (tmp_path / "truth").mkdir()
    return tmp_path / "truth"


def captured(
    dataset: Dataset,
    sheet: str = SHEET,
    *,
    label: str = "good",
    split: str = "train",
    complete: bool = True,
) -> Manifest:
    folder = dataset.begin("capture", sheet)
    record = manifest(sheet, label=label, split=split, complete=complete)
    for number, capture in enumerate(record.captures, start=1):
        save_image(folder / capture.file, picture(number))
    dataset.record_capture(folder, record)
    return record


def say(truth: Path, capture: Capture, label: str, own: str | None = None) -> None:
    content = {"label": label} | ({"picture_label": own} if own else {})
    (truth / f"{capture.pixels_sha256}.json").write_text(json.dumps(content))


def paint(path: Path, mask: Image = MASK) -> None:
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())


def tree(dataset: Dataset) -> list[str]:
    """Every picture and mask, as paths below the dataset's root."""
    return sorted(p.relative_to(dataset.root).as_posix() for p in dataset.root.rglob("*.png"))


def assert_consistent(dataset: Dataset) -> None:
    for _, record in dataset.captures():
        for capture in record.captures:
            assert dataset.place(record, capture).is_file(), f"{capture.file} is astray"


def test_a_known_defect_moves_its_sheet_to_test_with_its_mask(
    dataset: Dataset, truth: Path
) -> None:
    first, second, third = captured(dataset).captures
    say(truth, first, "nut")
    paint(truth / f"{first.pixels_sha256}.png")
    say(truth, second, "nut", "good")
    say(truth, third, "nut", "good")
    assert attach(dataset, truth) == ({"good": 2, "nut": 1}, 0)
    assert tree(dataset) == [
        f"ground_truth/nut/{SHEET}_left_1_mask.png",
        f"test/good/{second.file}",
        f"test/good/{third.file}",
        f"test/nut/{first.file}",
    ]
    ((_, record),) = dataset.captures()
    assert (record.label, record.split) == ("nut", "test")
    assert_consistent(dataset)


def test_labels_that_were_broken_off_are_attached_by_the_same_command(
    dataset: Dataset, truth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for capture in captured(dataset).captures:
        say(truth, capture, "nut")
    wanted = ({"nut": 3}, 0)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(label, "write_durably", cut_off)
        attach(dataset, truth)
    assert attach(dataset, truth) == wanted
    assert_consistent(dataset)


def test_a_mask_is_two_valued_and_as_large_as_its_picture(dataset: Dataset, truth: Path) -> None:
    first = captured(dataset).captures[0]
    say(truth, first, "nut")
    paint(truth / f"{first.pixels_sha256}.png", np.where(MASK > 0, 200, 90).astype(np.uint8))
    attach(dataset, truth)
    mask = read_image(dataset.root / f"ground_truth/nut/{SHEET}_left_1_mask.png")
    assert np.array_equal(mask, MASK)


def test_a_good_sheet_stays_in_train_without_masks(dataset: Dataset, truth: Path) -> None:
    record = captured(dataset)
    for capture in record.captures:
        say(truth, capture, "good")
        paint(truth / f"{capture.pixels_sha256}.png", np.zeros((6, 8), np.uint8))
    before = tree(dataset)
    assert attach(dataset, truth) == ({"good": 3}, 0)
    assert tree(dataset) == before


def test_attaching_twice_changes_nothing_more(dataset: Dataset, truth: Path) -> None:
    first = captured(dataset).captures[0]
    say(truth, first, "nut")
    paint(truth / f"{first.pixels_sha256}.png")
    attach(dataset, truth)
    before = tree(dataset)
    assert attach(dataset, truth) == ({"nut": 1}, 2)
    assert tree(dataset) == before
    assert_consistent(dataset)


def test_a_folder_that_belongs_to_no_picture_is_refused(dataset: Dataset, truth: Path) -> None:
    captured(dataset)
    paint(truth / "some_other_picture_mask.png")
    before = tree(dataset)
    with pytest.raises(DatasetError, match="truth: belongs to none of the 3 pictures"):
        attach(dataset, truth)
    assert tree(dataset) == before


def test_a_sheet_that_was_broken_off_is_left_alone(dataset: Dataset, truth: Path) -> None:
    known = captured(dataset).captures[0]
    half = captured(dataset, "s1-0001-000002", complete=False).captures[0]
    for capture in (known, half):
        paint(truth / f"{Path(capture.file).stem}_mask.png")
    assert attach(dataset, truth) == ({"defect": 1}, 2)
    assert f"incomplete/good/{half.file}" in tree(dataset)
    assert_consistent(dataset)


def test_a_mask_painted_by_hand_is_found_by_the_pictures_name(
    dataset: Dataset, truth: Path
) -> None:
    first = captured(dataset).captures[0]
    paint(truth / f"{Path(first.file).stem}_mask.png")
    attach(dataset, truth)
    assert f"ground_truth/defect/{SHEET}_left_1_mask.png" in tree(dataset)
    assert_consistent(dataset)


def test_a_mask_painted_by_hand_leaves_a_known_label_alone(dataset: Dataset, truth: Path) -> None:
    """A mask says that there is a defect, not which: the person who captured it said that."""
    first = captured(dataset, label="nut", split="test").captures[0]
    paint(truth / f"{Path(first.file).stem}_mask.png")
    attach(dataset, truth)
    ((_, record),) = dataset.captures()
    assert record.label == "nut"
    assert f"ground_truth/nut/{SHEET}_left_1_mask.png" in tree(dataset)


def test_a_mask_of_another_size_is_refused_and_nothing_is_moved(
    dataset: Dataset, truth: Path
) -> None:
    record = captured(dataset)
    before = tree(dataset)
    for capture in record.captures:
        say(truth, capture, "nut")
        paint(truth / f"{capture.pixels_sha256}.png")
    paint(truth / f"{record.captures[1].pixels_sha256}.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"8x5 pixels, but .*_2\.png has 8x6"):
        attach(dataset, truth)
    assert_consistent(dataset)
    assert tree(dataset) == before


def test_a_new_label_takes_its_mask_along(dataset: Dataset, truth: Path) -> None:
    first = captured(dataset).captures[0]
    say(truth, first, "nut")
    paint(truth / f"{first.pixels_sha256}.png")
    attach(dataset, truth)
    say(truth, first, "fold")
    attach(dataset, truth)
    masks = [name for name in tree(dataset) if name.startswith("ground_truth")]
    assert masks == [f"ground_truth/fold/{SHEET}_left_1_mask.png"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "5", '{"label": "../x"}', '{"label": "A b"}', '{"label": ""}', "\xff"],
)
def test_a_damaged_label_is_named_and_nothing_is_moved(
    dataset: Dataset, truth: Path, content: str
) -> None:
    record = captured(dataset)
    path = truth / f"{record.captures[2].pixels_sha256}.json"
    path.write_text(content, encoding="latin-1")
    before = tree(dataset)
    with pytest.raises(DatasetError) as caught:
        attach(dataset, truth)
    assert str(caught.value).startswith(str(path))
    assert tree(dataset) == before


def test_a_folder_that_is_not_there_is_named(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        attach(dataset, tmp_path / "none")


def test_a_picture_that_was_deleted_is_named(dataset: Dataset, truth: Path) -> None:
    record = captured(dataset)
    say(truth, record.captures[0], "nut")
    dataset.place(record, record.captures[0]).unlink()
    with pytest.raises(DatasetError, match="missing, though its manifest names it"):
        attach(dataset, truth)


def test_a_defect_in_one_picture_outweighs_good_in_the_others(
    dataset: Dataset, truth: Path
) -> None:
    record = captured(dataset)
    assert sheet_truth(truth, record) is None
    say(truth, record.captures[0], "good")
    assert sheet_truth(truth, record) == "good"
    say(truth, record.captures[2], "nut")
    assert sheet_truth(truth, record) == "nut"
    assert find_truth(truth, record.captures[1]) is None


def test_the_manifest_stays_readable_and_keeps_what_it_said(dataset: Dataset, truth: Path) -> None:
    record = captured(dataset)
    say(truth, record.captures[0], "nut")
    attach(dataset, truth)
    again = read_manifest(dataset.root / "captures" / f"{SHEET}.json")
    assert [c.pixels_sha256 for c in again.captures] == [c.pixels_sha256 for c in record.captures]
    assert again.files == record.files
