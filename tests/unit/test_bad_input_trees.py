"""Bad inputs 39 to 51: trees of pictures to learn from and to measure on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_input import Case, Desk, check, each
from PIL import Image as Pillow

from station.errors import DatasetError
from station.evaluate.examples import read_test
from station.learn.images import Reader, from_mvtec

TREE = "data/cloth"
GOOD = f"{TREE}/train/good"
NOBODY = 65534
TRAIN = f"train --dataset {{}}/{TREE} --model cloth --detector gaussian"
EVALUATE = f"evaluate --dataset {{}}/{TREE} --model glassfiber/1"


def noise(seed: int, shape: tuple[int, ...] = (16, 24), kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(kind)


def picture(file: str, pixels: np.ndarray) -> Callable[[Desk], object]:
    return lambda desk: cv2.imwrite(str(desk.path(file)), pixels)


def mode(name: str) -> Callable[[Desk], object]:
    """Replace a picture by one whose file has another form of pixels."""

    def spoil(desk: Desk) -> None:
        grey = Pillow.fromarray(noise(9))
        if name == "half-transparent":
            grey.putalpha(128)
            grey.save(desk.path(f"{GOOD}/1.png"))
        else:
            grey.convert(name).save(desk.path(f"{GOOD}/9.tif"))

    return spoil


def content(file: str, data: bytes) -> Callable[[Desk], object]:
    return lambda desk: desk.write(file, data)


def renamed(name: bytes) -> Callable[[Desk], object]:
    """Give a picture a name that a file system takes and a list of names cannot."""

    return move(f"{GOOD}/0.png", f"{GOOD}/{os.fsdecode(name)}")


def link(file: str, target: str) -> Callable[[Desk], object]:
    return lambda desk: desk.path(file).symlink_to(target)


def move(file: str, target: str) -> Callable[[Desk], object]:
    return lambda desk: desk.path(file).rename(desk.path(target))


def copy(file: str, target: str) -> Callable[[Desk], object]:
    return lambda desk: shutil.copy(desk.path(file), desk.path(target))


def empty(folder: str) -> Callable[[Desk], object]:
    def spoil(desk: Desk) -> None:
        for path in desk.path(folder).iterdir():
            path.unlink()

    return spoil


NO_PICTURE = "not a readable image"
CASES = [
    Case(39, "no-good", move(GOOD, f"{TREE}/train/fine"), "no folder train/good", 5, TRAIN),
    Case(39, "good-is-empty", empty(GOOD), "train/good: no image in it", 5, TRAIN),
    Case(40, "empty-class", empty(f"{TREE}/test/nut"), "test/nut: no image in it", 5, EVALUATE),
    Case(40, "no-classes", move(f"{TREE}/test", f"{TREE}/t"), "no folder test in it", 5, EVALUATE),
    Case(41, "train", move(GOOD, f"{TREE}/train/Good"), "no folder train/good", 5, TRAIN),
    Case(41, "test", move(f"{TREE}/test/good", f"{TREE}/test/Good"), "named good", 5, EVALUATE),
    Case(43, "text", content(f"{GOOD}/x.png", b"hello"), f"x.png: {NO_PICTURE}", 5, TRAIN),
    Case(44, "empty-file", content(f"{GOOD}/x.png", b""), "x.png: empty file", 5, TRAIN),
    Case(45, "same-twice", copy(f"{GOOD}/0.png", f"{GOOD}/x.png"), "the same picture", 5, TRAIN),
    Case(46, "link-to-itself", link(f"{GOOD}/x.png", "x.png"), "x.png: neither a file", 5, TRAIN),
    Case(46, "link-to-its-folder", link(f"{GOOD}/x", "."), "x: a link to a folder", 5, TRAIN),
    Case(46, "link-to-nothing", link(f"{GOOD}/x.png", "y"), "x.png: neither a file", 5, TRAIN),
    Case(49, "newline", renamed(b"a\nb.png"), r"a\nb.png': the name is not plain", 5, TRAIN),
    Case(49, "no-utf-8", renamed(b"\xff.png"), r"\udcff.png': the name is not plain", 5, TRAIN),
    Case(50, "sizes", picture(f"{GOOD}/x.png", noise(9, (8, 8))), "x.png has 8x8", 5, TRAIN),
    Case(
        50, "bits", picture(f"{GOOD}/x.png", noise(9, kind=np.uint16)), "x.png: 16 bits", 5, TRAIN
    ),
    Case(51, "half-transparent", mode("half-transparent"), "1.png: partly transparent", 5, TRAIN),
    Case(51, "colour-among-grey", mode("RGB"), "9.tif is colour", 5, TRAIN),
    Case(51, "cmyk", mode("CMYK"), "9.tif is colour", 5, TRAIN),
    Case(51, "float", mode("F"), "9.tif: 32 bits per channel; 8 are needed", 5, TRAIN),
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "ws")
    for folder in ("train/good", "test/good", "test/nut"):
        for number in range(2):
            seed = hash_of(folder) + number
            picture(f"{TREE}/{folder}/{number}.png", noise(seed))(desk)
    return desk


def hash_of(folder: str) -> int:
    return sum(folder.encode())


@each(CASES)
def test_bad_input(case: Case, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    asked = case._replace(command=case.command.format(desk.folder))
    check(asked, desk, capsys)


@pytest.mark.parametrize(
    "file",
    ["Thumbs.db", "._0.png", ".DS_Store", ".hidden/0.png", "notes.txt"],
    ids=lambda file: f"043-{file}",
)
def test_what_systems_lay_beside_pictures_is_no_picture(desk: Desk, file: str) -> None:
    desk.write(f"{GOOD}/{file}", b"no picture")
    desk.write(f"{TREE}/test/nut/{file}", b"no picture")
    assert [path.name for path in from_mvtec(desk.path(TREE)).files] == ["0.png", "1.png"]
    assert len(read_test(desk.path(TREE))) == 4


@pytest.mark.parametrize(
    "name", ["a b.png", "\N{GRINNING FACE}.png"], ids=["049-space", "049-emoji"]
)
def test_an_unusual_name_is_no_mistake(desk: Desk, name: str) -> None:
    desk.path(f"{GOOD}/0.png").rename(desk.path(f"{GOOD}/{name}"))
    images = from_mvtec(desk.path(TREE))
    assert name in Reader(images).sums(images.folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("what", ["0.png", "."], ids=["047-file", "047-folder"])
def test_what_may_not_be_read_is_named(desk: Desk, what: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        Path(place).chmod(0o755)
        tree = shutil.copytree(desk.path(TREE), Path(place, "cloth"))
        closed = tree / "train" / "good" / what
        closed.chmod(0o000)
        with as_nobody(), pytest.raises(DatasetError, match=r"good.*: permission denied"):
            Reader(from_mvtec(tree))
        closed.chmod(0o755)


@pytest.mark.parametrize("count", [100_000], ids=["048-100000-files"])
def test_a_hundred_thousand_files_are_listed_in_seconds(tmp_path: Path, count: int) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for number in range(count):
        os.close(os.open(f"{good}/{number}_a.png", os.O_CREAT))
    started = time.monotonic()
    images = from_mvtec(tmp_path)
    assert len(images.units) == count
    with pytest.raises(DatasetError, match=r"0_a\.png: empty file"):
        Reader(images)
    assert time.monotonic() - started < 30
    shutil.rmtree(tmp_path / "train")
