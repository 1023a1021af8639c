"""The tree on disk: nothing half written, nothing overwritten, everything readable again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from collected import frame, shot, status
from numpy.typing import NDArray
from sheets import manifest, picture

from station.collect import QUEUE_FRAMES, Collector, Taken
from station.errors import DatasetError, ModelError
from station.golden import read_golden
from station.records.boot import next_boot
from station.records.dataset import (
    Dataset,
    read_image,
    read_manifest,
    read_record,
    save_image,
    save_map,
    write_durably,
)
from station.records.sheet import Image, Manifest, Prediction, Verdict, pixels_sha256

SHEET = "s1-0001-000001"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path, "glassfiber")


def captured(dataset: Dataset, sheet: str = SHEET, first: int = 1) -> Manifest:
    """Record a captured sheet of three pictures."""
    folder = dataset.begin("capture", sheet)
    record = manifest(sheet, label="good", split="train")
    for number, capture in enumerate(record.captures, start=first):
        save_image(folder / capture.file, picture(number))
    dataset.record_capture(folder, record)
    return record


def inspected(dataset: Dataset, sheet: str = SHEET) -> Path:
    folder = dataset.begin("inspection", sheet)
    for number, capture in enumerate(manifest(sheet).captures, start=1):
        save_image(folder / capture.file, picture(number))
    record = manifest(sheet, kind="inspection", verdict=Verdict.ACCEPT, score=0.1)
    return dataset.record_inspection(folder, record)


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3), (1, 1), (3, 1000, 3)])
def test_a_picture_reads_back_pixel_for_pixel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    entry = save_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    content = (tmp_path / "a.png").read_bytes()
    assert entry == (entry.model_copy(update={"bytes": len(content)}))
    assert entry.sha256 == hashlib.sha256(content).hexdigest()


def test_a_view_of_a_larger_picture_is_saved_as_it_looks(tmp_path: Path) -> None:
    wide = picture(1, 20, 10)
    save_image(tmp_path / "a.png", wide[::2, ::-2])
    assert np.array_equal(read_image(tmp_path / "a.png"), wide[::2, ::-2])


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.zeros((4, 4), np.uint16), "8-bit"),
        (np.zeros((4, 4, 4), np.uint8), "4 channels"),
    ],
)
def test_another_form_of_picture_is_refused(
    tmp_path: Path, pixels: NDArray[np.generic], expected: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", np.asarray(pixels))[1].tobytes())
    with pytest.raises(DatasetError, match=expected):
        read_image(path)


def test_a_map_is_kept_small_and_readable(tmp_path: Path) -> None:
    anomaly_map = np.linspace(-1, 3, 64 * 64, dtype=np.float32).reshape(64, 64)
    entry = save_map(tmp_path / "a.npy", anomaly_map)
    assert entry.bytes < 8500
    assert np.allclose(np.load(tmp_path / "a.npy"), anomaly_map, atol=2e-3)


def test_a_captured_sheet_lies_in_mvtec_form_beside_its_manifest(dataset: Dataset) -> None:
    record = captured(dataset)
    good = dataset.root / "train" / "good"
    assert sorted(p.name for p in good.iterdir()) == sorted(c.file for c in record.captures)
    ((path, again),) = dataset.captures()
    assert path == dataset.root / "captures" / f"{SHEET}.json"
    assert again == record
    assert all(dataset.place(again, capture).is_file() for capture in again.captures)
    assert not dataset.leftovers("capture") + dataset.leftovers("inspection")


def test_pictures_on_disk_hash_to_what_their_manifest_says(dataset: Dataset) -> None:
    record = captured(dataset)
    for capture in record.captures:
        image = read_image(dataset.place(record, capture))
        assert pixels_sha256(image) == capture.pixels_sha256


def test_an_inspected_sheet_is_one_folder_that_appears_at_once(dataset: Dataset) -> None:
    folder = inspected(dataset)
    assert folder == dataset.root / "inspections" / "2026-01-02" / SHEET
    assert len(list(folder.glob("*.png"))) == 3
    (place,) = dataset.folders()
    record = read_record(place).manifest
    assert (place, record.verdict) == (folder, Verdict.ACCEPT)
    assert not dataset.leftovers("capture") + dataset.leftovers("inspection")


def test_inspections_never_enter_train_or_test(dataset: Dataset) -> None:
    inspected(dataset)
    assert not (dataset.root / "train").exists()
    assert not (dataset.root / "test").exists()


def test_every_inspection_names_the_one_before(dataset: Dataset) -> None:
    previous = None
    for number in range(1, 4):
        folder = inspected(dataset, f"s1-0001-{number:06d}")
        record = read_manifest(folder / "manifest.json")
        assert record.previous == previous
        previous = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_the_chain_goes_on_in_the_next_process(dataset: Dataset, tmp_path: Path) -> None:
    inspected(dataset, "s1-0001-000001")
    second = inspected(dataset, "s1-0001-000002")
    third = inspected(Dataset(tmp_path, dataset.root.name), "s1-0002-000001")
    expected = hashlib.sha256((second / "manifest.json").read_bytes()).hexdigest()
    assert read_manifest(third / "manifest.json").previous == expected


@pytest.mark.bad_input("090-duplicate-sheet")
def test_a_recorded_inspection_is_never_replaced(dataset: Dataset) -> None:
    folder = inspected(dataset)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(DatasetError, match="already"):
        inspected(dataset)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_recorded_capture_is_never_replaced(dataset: Dataset) -> None:
    """Should the boot counter be lost, ids come again."""
    record = captured(dataset)
    with pytest.raises(DatasetError, match="already"):
        captured(dataset, first=101)
    image = read_image(dataset.place(record, record.captures[0]))
    assert np.array_equal(image, picture(1))


def test_a_sheet_under_way_is_never_begun_twice(dataset: Dataset) -> None:
    dataset.begin("capture", SHEET)
    with pytest.raises(DatasetError, match="already being written"):
        dataset.begin("capture", SHEET)


def test_a_capture_without_a_label_is_refused_before_anything_moves(dataset: Dataset) -> None:
    folder = dataset.begin("capture", SHEET)
    save_image(folder / "a.png", picture(1))
    with pytest.raises(DatasetError, match="label"):
        dataset.record_capture(folder, manifest())
    assert (folder / "a.png").exists()


def test_what_a_killed_process_left_is_found(dataset: Dataset) -> None:
    folder = dataset.begin("capture", SHEET)
    save_image(folder / "a.png", picture(1))
    assert dataset.leftovers("capture") == [folder]
    assert dataset.leftovers("inspection") == []
    assert not list(dataset.captures())
    assert not dataset.folders()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ('{"schema": 1}', "kind"),
        ("\xff", "JSON"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(DatasetError, match=expected) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: No such file"):
        read_manifest(tmp_path / "none.json")


def test_a_manifest_is_plain_json_without_empty_keys(dataset: Dataset) -> None:
    captured(dataset)
    path = dataset.root / "captures" / f"{SHEET}.json"
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["schema"] == 1
    assert None not in content.values()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_durably(path, b"one")
    reader = os.open(path, os.O_RDONLY)
    write_durably(path, b"two")
    assert os.read(reader, 10) == b"one", "a reader never sees a file change under it"
    os.close(reader)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_writing_where_nothing_can_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path / ("n" * 300)):
        with pytest.raises(DatasetError):
            write_durably(path, b"x")


def test_boots_are_counted_whatever_the_clock_says(tmp_path: Path) -> None:
    assert [next_boot(tmp_path) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"-5", b"9999999999", b"999999999"])
def test_a_damaged_boot_counter_is_not_begun_anew(tmp_path: Path, content: bytes) -> None:
    next_boot(tmp_path)
    (tmp_path / "run" / "boot").write_bytes(content)
    with pytest.raises(DatasetError, match="run/boot: not a number from 0 to 999999999; remove it"):
        next_boot(tmp_path)
    assert (tmp_path / "run" / "boot").read_bytes() == content


def test_a_folder_in_the_boot_counters_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run" / "boot").mkdir(parents=True)
    with pytest.raises(DatasetError, match="run/boot: not a number"):
        next_boot(tmp_path)


def test_a_lost_boot_counter_goes_on_after_every_id_there_is(tmp_path: Path) -> None:
    for place in (
        "a/inspections/2026-01-02/s1-0007-000001",
        "b/.partial/inspection/s1-0009-000002",
        "b/.partial/inspection/notes-99",
    ):
        (tmp_path / "data" / place).mkdir(parents=True)
    assert next_boot(tmp_path) == 10
    (tmp_path / "run" / "boot").unlink()
    captures = tmp_path / "data" / "c" / "captures"
    captures.mkdir(parents=True)
    (captures / "s2-0041-000001.json").write_text("{}")
    assert next_boot(tmp_path) == 42


def test_a_stray_folder_among_unfinished_sheets_is_no_sheet(dataset: Dataset) -> None:
    folder = dataset.begin("inspection", SHEET)
    (folder.parent / "copy of it").mkdir()
    assert dataset.leftovers("inspection") == [folder]


def test_a_folder_within_an_unfinished_sheet_is_named(dataset: Dataset) -> None:
    folder = dataset.begin("inspection", SHEET)
    (folder / "mine").mkdir()
    with pytest.raises(DatasetError, match=r"mine: a folder among .* move it elsewhere"):
        dataset.adopt(folder)


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_capture_that_was_broken_off_while_moved_is_finished(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    left = iter(range(moved))
    replace = Path.replace

    def cut_off(self: Path, target: Path) -> Path:
        if self.suffix == ".png" and next(left, None) is None:
            raise KeyboardInterrupt
        return replace(self, target)

    record = manifest(SHEET, label="good", split="train")
    folder = dataset.begin("capture", SHEET)
    for number, capture in enumerate(record.captures, start=1):
        save_image(folder / capture.file, picture(number))
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", cut_off)
        dataset.record_capture(folder, record)
    if moved < 3:
        with pytest.raises(DatasetError, match=r"next `station capture` goes on with that"):
            dataset.check_captures_finished()
        assert [one.sheet for one in dataset.finish_captures()] == [SHEET]
    dataset.check_captures_finished()
    assert [again for _, again in dataset.captures()] == [record]
    assert all(dataset.place(record, capture).is_file() for capture in record.captures)
    assert dataset.leftovers("capture") == []


def test_a_picture_is_read_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    folder.mkdir()
    save_image(folder / "a.png", picture(1))
    assert np.array_equal(read_image(folder / "a.png"), picture(1))
    assert np.array_equal(read_golden(folder / "a.png"), picture(1))


class Scorer:
    """Scores by the first pixel; fails where that is zero; waits where told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def predict(self, image: Image) -> Prediction:
        self.go.wait(5)
        if image[0, 0] == 0:
            raise ModelError("model: broken")
        score = float("nan") if image[0, 0] == 255 else float(image[0, 0])
        return Prediction(score, np.zeros((4, 4), np.float32))


def test_the_queue_blocks_rather_than_drops(tmp_path: Path) -> None:
    scorer = Scorer()
    scorer.go.clear()
    collector = Collector(scorer)
    sheet = collector.sheet("s", tmp_path)
    count = 2 * QUEUE_FRAMES

    def fill() -> None:
        for number in range(1, count + 1):
            sheet.add(shot(number), Taken(status(), frame(number)))

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive(), "the loop waits while too many frames are held"
    scorer.go.set()
    thread.join(5)
    collected = sheet.finish()
    collector.close()
    assert [capture.shot for capture in collected.captures] == list(range(1, count + 1))
    assert [s.score for s in collected.shots] == [float(number) for number in range(1, count + 1)]


@pytest.mark.parametrize("first_pixel", [0, 255])
def test_a_shot_that_could_not_be_scored_is_kept_without_a_score(
    tmp_path: Path, first_pixel: int
) -> None:
    collector = Collector(Scorer())
    sheet = collector.sheet("s", tmp_path)
    for number, value in ((1, 7), (2, first_pixel)):
        sheet.add(shot(number), Taken(status(), frame(value)))
    collected = sheet.finish()
    collector.close()
    assert [s.score for s in collected.shots] == [7.0, None]
    assert collected.captures[1].problem
    assert (tmp_path / "s_left_2.png").exists()


def test_a_shot_that_could_not_be_saved_is_left_out(tmp_path: Path) -> None:
    collector = Collector(Scorer())
    (tmp_path / "s_left_2.png").mkdir()
    sheet = collector.sheet("s", tmp_path)
    for number in (1, 2):
        sheet.add(shot(number), Taken(status(), frame(number)))
    collected = sheet.finish()
    collector.close()
    assert [capture.shot for capture in collected.captures] == [1]
    assert any("s_left_2.png" in problem for problem in collected.problems)
