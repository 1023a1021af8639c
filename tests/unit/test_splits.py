"""Splits: the same files always fall on the same sides, and no picture is on both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_model_card import IMAGE, card

from station.commands.common import check_out_folder, compare_with_training
from station.errors import ConfigError, DatasetError, ModelError
from station.evaluate.examples import Example, read_test
from station.evaluate.measure import read_examples
from station.evaluate.splits import check_disjoint, check_unseen, digest, file_sha256, halves
from station.learn.export import write_model
from station.records.sheet import Image


def cloth(seed: int, side: int = 192) -> Image:
    """A weave with slow light, seen nearly alike in every picture, and a texture of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    own = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), 1.5) * 40
    weave = 25 * np.sin(x * 0.8) * np.sin(y * 0.8)
    light = 40 * np.cos(x / side * 3)
    return np.asarray(np.clip(120 + weave + light + own, 0, 255), np.uint8)


def save(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def tree(root: Path, **classes: int) -> list[Example]:
    for label, count in classes.items():
        for number in range(count):
            path = root / "test" / label / f"{number}x.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{label} {number}".encode())
    return read_test(root)


def test_half_of_every_class_is_for_choosing_and_the_odd_one_for_reporting(tmp_path: Path) -> None:
    sides = halves(tree(tmp_path, good=7, nut=4, fold=1))
    assert Counter(e.label for e in sides["select"]) == {"good": 3, "nut": 2}
    assert Counter(e.label for e in sides["report"]) == {"good": 4, "nut": 2, "fold": 1}


def test_the_halves_depend_on_the_files_alone(tmp_path: Path) -> None:
    examples = tree(tmp_path / "a", good=9, nut=8)
    again = tree(tmp_path / "b", good=9, nut=8)
    first = {e.file.name + e.label for e in halves(examples)["select"]}
    assert {e.file.name + e.label for e in halves(examples[::-1])["select"]} == first
    assert {e.file.name + e.label for e in halves(again)["select"]} == first


def test_a_sheet_is_never_cut_even_where_some_of_its_pictures_are_good(tmp_path: Path) -> None:
    for sheet in range(12):
        for shot in (1, 2, 3):
            label = "nut" if sheet % 2 and shot > 1 else "good"
            path = tmp_path / "test" / label / f"s-1-{sheet}_left_{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{sheet} {shot}".encode())
    sides = halves(read_test(tmp_path))
    select, report = ({e.unit for e in side} for side in sides.values())
    assert not select & report
    assert (len(select), len(report)) == (6, 6)
    assert len({unit for unit in select if int(unit[-2:].strip("-")) % 2}) == 3


def test_equal_files_stay_together_and_may_not_have_two_labels(tmp_path: Path) -> None:
    examples = tree(tmp_path, good=5)
    for example in examples[:4]:
        example.file.write_bytes(b"the same")
    sides = halves(examples)
    assert sorted(len(side) for side in sides.values()) == [1, 4]
    (tmp_path / "test" / "nut").mkdir()
    (tmp_path / "test" / "nut" / "9.png").write_bytes(b"the same")
    with pytest.raises(DatasetError, match=r"9\.png: the same file as .* another label"):
        halves(read_test(tmp_path))


def test_look_alikes_of_one_weave_and_light_are_no_copies(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{n}.png", cloth(n)) for n in range(12)]
    check_disjoint(files[:6], files[6:], ("train", "test"))
    check_disjoint([], files, ("train", "test"))


def moved(image: Image, pixels: int) -> Image:
    return np.roll(image, (pixels, pixels), axis=(0, 1))


def recompressed(image: Image) -> Image:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)


@pytest.mark.parametrize(
    ("how", "copy"),
    [
        ("pixel by pixel", cloth(3)),
        ("nearly", recompressed(cloth(3))),
        ("nearly", np.clip(cloth(3) * 1.1 + 8, 0, 255).astype(np.uint8)),
        ("nearly", moved(cloth(3), 1)),
        ("nearly", cv2.cvtColor(cloth(3), cv2.COLOR_GRAY2BGR) // 2),
    ],
    ids=["other file", "jpeg", "brighter", "moved", "darker colour"],
)
def test_a_copy_is_refused_and_both_files_are_named(tmp_path: Path, how: str, copy: Image) -> None:
    train = [save(tmp_path / "train" / f"{n}.png", cloth(n)) for n in range(6)]
    test = [save(tmp_path / "test" / f"{n}.png", cloth(n)) for n in range(10, 13)]
    test.append(save(tmp_path / "test" / "copy.bmp", copy))
    with pytest.raises(DatasetError, match=rf"copy\.bmp \(test\) is {how}.*3\.png \(train\)"):
        check_disjoint(train, test, ("train", "test"))


def test_a_sheet_with_shots_in_both_splits_is_refused(tmp_path: Path) -> None:
    train = save(tmp_path / "train" / "s-1-1_left_1.png", cloth(1))
    test = save(tmp_path / "test" / "s-1-1_left_2.png", cloth(2))
    with pytest.raises(DatasetError, match=r"left_2\.png .*left_1\.png .* the same sheet"):
        check_disjoint([train], [test], ("train", "test"))


def test_the_same_file_under_another_name_is_refused(tmp_path: Path) -> None:
    train = save(tmp_path / "a.png", cloth(1))
    again = tmp_path / "b.png"
    again.write_bytes(train.read_bytes())
    with pytest.raises(DatasetError, match="the same file as"):
        check_disjoint([train], [again], ("train", "test"))


def test_flat_pictures_are_compared_by_their_pixels_alone(tmp_path: Path) -> None:
    grey = [save(tmp_path / f"{n}.png", np.full((64, 64), n, np.uint8)) for n in (90, 91)]
    check_disjoint(grey[:1], grey[1:], ("train", "test"))


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    good = save(tmp_path / "a.png", cloth(1))
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"b\.png: not a readable image"):
        check_disjoint([good], [tmp_path / "b.png"], ("train", "test"))
    with pytest.raises(DatasetError, match="no such file"):
        file_sha256(tmp_path / "c.png")


def test_a_file_that_a_model_was_trained_on_is_refused(tmp_path: Path) -> None:
    examples = tree(tmp_path, good=3)
    files = [example.file for example in examples]
    for known in (file_sha256(files[1]), "0" * 64):
        data = card().data.model_copy(update={"digest": digest([known])})
        made = card().model_copy(update={"data": data})
        write_model(tmp_path, made, b"", [IMAGE], f"{known}  a.png\n")
    check_unseen(tmp_path, "cloth/2", files)
    with pytest.raises(DatasetError, match=r"1x\.png: cloth/1 was trained on it"):
        check_unseen(tmp_path, "cloth/1", files)
    # A list that is not the one the model was written with would let everything pass.
    listed = tmp_path / "models" / "cloth" / "1" / "images.sha256"
    for damaged in (b"", b"\xff\xfe no list\n"):
        listed.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"images\.sha256: not the images that the card's"):
            check_unseen(tmp_path, "cloth/1", files)
    listed.unlink()
    with pytest.raises(ModelError, match=r"images\.sha256: no such file"):
        check_unseen(tmp_path, "cloth/1", files)


def test_one_file_under_two_labels_is_refused(tmp_path: Path) -> None:
    examples = tree(tmp_path, good=3, hole=1)
    defective = next(example.file for example in examples if example.defective)
    (tmp_path / "test" / "good" / "twin.png").write_bytes(defective.read_bytes())
    with pytest.raises(DatasetError, match=r"the same file as .*under another label"):
        read_examples(tmp_path, "all")


def test_a_digest_names_a_set_of_files_in_any_order() -> None:
    assert digest(["b", "a"]) == digest(["a", "b"]) != digest(["a", "c"])


def test_a_training_image_saved_anew_is_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    seen, unseen = (cv2.GaussianBlur(one, (0, 0), 2) for one in noise)
    good, test = tmp_path / "train" / "good", tmp_path / "test" / "good"
    test.mkdir(parents=True)
    cv2.imwrite(str(test / "b.png"), unseen)
    assert "no train/good" in compare_with_training(tmp_path, [test / "b.png"])
    good.mkdir(parents=True)
    cv2.imwrite(str(good / "a.png"), seen)
    assert "nor resembles one of the 1 images" in compare_with_training(tmp_path, [test / "b.png"])
    cv2.imwrite(str(test / "anew.jpg"), seen)
    with pytest.raises(DatasetError, match=r"anew\.jpg \(test\) is .*a\.png \(train\)"):
        compare_with_training(tmp_path, sorted(test.iterdir()))


@pytest.mark.parametrize("place", ["test/page", "train/good", "ground_truth"])
def test_nothing_is_written_among_the_pictures(place: str, tmp_path: Path) -> None:
    check_out_folder(tmp_path / "comparison", tmp_path)
    with pytest.raises(ConfigError, match="among the pictures"):
        check_out_folder(tmp_path / place, tmp_path)
