"""Photographs in place of sheets: their order, their pixels, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.config import load_cell
from station.errors import ConfigError
from station.geometry import Pose
from station.sim.__main__ import _station_cell
from station.sim.options import SimOptions
from station.sim.photos import Photographs, find
from station.sim.scene import Scene, open_scene

ABOVE = Pose(0.0, -0.45, 0.26, math.pi, 0.0, 0.0)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def grey(level: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    image = np.full(size[::-1], level, np.uint8)
    image[3:9, 5:20] = 255 - level
    return image


def labels(scene: Scene) -> list[str]:
    found = []
    number = 0
    while (sheet := scene.lay(number)) is not None:
        assert sheet.number == number
        found.append(sheet.label)
        number += 1
    return found


def tree(root: Path) -> Path:
    write(root / "train" / "good" / "b.png", grey(20))
    write(root / "train" / "good" / "a.PNG", grey(10))
    write(root / "train" / "good" / "notes.png.txt.png", grey(30))
    write(root / "test" / "hole" / "0.png", grey(50))
    write(root / "test" / "good" / "0.png", grey(40))
    write(root / "test" / "extra_light" / "0.png", grey(60))
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 5:20] = 255
    write(root / "ground_truth" / "hole" / "0_mask.png", mask)
    return root


def test_tree_shows_train_then_test_in_order(tmp_path: Path) -> None:
    scene = open_scene(SimOptions(sheets=tree(tmp_path)))
    assert labels(scene) == ["good", "good", "good", "good", "hole"]
    assert scene.size == (40, 30)
    assert not scene.color
    levels = []
    for number in range(5):
        scene.lay(number)
        levels.append(int(scene.picture(ABOVE, 8000.0, 0.0).image[0, 0]))
    assert levels == [10, 20, 30, 40, 50]
    mask = scene.picture(ABOVE, 8000.0, 0.0).mask
    assert (mask > 0).sum() == 6 * 15
    scene.lay(0)
    assert not scene.picture(ABOVE, 8000.0, 0.0).mask.any()


def test_the_first_test_photographs_are_a_fair_sample_of_all_labels(tmp_path: Path) -> None:
    for label, count in (("cut", 6), ("good", 3)):
        for number in range(count):
            write(tmp_path / "test" / label / f"{number}.png", grey(10 * number))
    entries = find(tmp_path)
    assert [entry.label for entry in entries[:3]].count("good") == 1
    assert [entry.label for entry in entries[:6]].count("good") == 2
    for label in ("cut", "good"):
        names = [entry.path.name for entry in entries if entry.label == label]
        assert names == sorted(names), "in order within a label"


def test_split_and_flat_folder_are_taken_too(tmp_path: Path) -> None:
    tree(tmp_path)
    split = open_scene(SimOptions(sheets=tmp_path / "test"))
    assert labels(split) == ["good", "hole"]
    assert split.picture(ABOVE, 8000.0, 0.0).mask.any()
    flat = open_scene(SimOptions(sheets=tmp_path / "test" / "hole"))
    assert labels(flat) == ["good"]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_exact_pictures_are_the_files_pixels(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    bgr = rng.integers(0, 256, (31, 43, 3), dtype=np.uint8)
    write(tmp_path / f"a.{suffix}", bgr)
    scene = open_scene(SimOptions(sheets=tmp_path))
    scene.lay(0)
    assert scene.color
    for pose in (ABOVE, Pose(1, 1, 1, 0, 0, 0)):
        image = scene.picture(pose, 100.0, 12.0).image
        assert np.array_equal(image, bgr[..., ::-1])


def test_jpeg_is_shown_as_it_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", grey(90))
    scene = open_scene(SimOptions(sheets=tmp_path))
    scene.lay(0)
    decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert np.array_equal(scene.picture(ABOVE, 8000.0, 0.0).image, decoded)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    bgra = np.random.default_rng(1).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    write(tmp_path / "a.png", bgra)
    scene = open_scene(SimOptions(sheets=tmp_path))
    scene.lay(0)
    assert np.array_equal(scene.picture(ABOVE, 1.0, 0.0).image, bgra[..., 2::-1])


def test_moved_photograph_lies_in_the_sheets_place(tmp_path: Path) -> None:
    image = np.full((100, 120), 200, np.uint8)
    image[:50, :60] = 60
    write(tmp_path / "bad" / "a.png", image)
    scene = open_scene(SimOptions(sheets=tmp_path, show_as="moved", size=(306, 256)))
    scene.lay(0)
    assert scene.size == (306, 256)
    quarters = [
        float(scene.picture(ABOVE._replace(x=x, y=y), 8000.0, 0.0).image[64:192, 76:230].mean())
        for x, y in ((-0.06, -0.40), (0.06, -0.40), (-0.06, -0.50), (0.06, -0.50))
    ]
    assert quarters[0] < 0.5 * min(quarters[1:])
    first, second = (scene.picture(ABOVE, 8000.0, 0.0).image for _ in range(2))
    assert (first != second).any()


def test_moved_colour_stays_colour(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.dstack([np.full((50, 60), v, np.uint8) for v in (30, 90, 180)]))
    scene = open_scene(SimOptions(sheets=tmp_path, show_as="moved", size=(153, 128)))
    scene.lay(0)
    red, green, blue = scene.picture(ABOVE, 8000.0, 0.0).image.mean(axis=(0, 1))
    assert red > green > blue


def test_mixed_sizes_are_refused_unless_resized(tmp_path: Path) -> None:
    write(tmp_path / "a.png", grey(10))
    odd = write(tmp_path / "b.png", grey(20, (41, 30)))
    with pytest.raises(ConfigError, match=f"{odd}: 41x30"):
        open_scene(SimOptions(sheets=tmp_path))
    scene = open_scene(SimOptions(sheets=tmp_path, size=(20, 15)))
    assert labels(scene) == ["good", "good"]
    assert scene.picture(ABOVE, 1.0, 0.0).image.shape == (15, 20)


def test_resizing_is_told_once_and_only_where_it_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, size in enumerate([(40, 30), (60, 30), (40, 50)]):
        write(tmp_path / f"{number}.png", grey(10, size))
    photographs = Photographs(tmp_path, (40, 30))
    photographs.read(0)
    assert capsys.readouterr().err == ""
    for number in (1, 2, 1):
        photographs.read(number)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("station sim: photographs are resized to 40x30 pixels; ")
    assert line.endswith("1.png has 60x30")


def test_grey_among_colour_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.zeros((8, 9, 3), np.uint8))
    odd = write(tmp_path / "b.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(ConfigError, match=f"{odd}: grey"):
        open_scene(SimOptions(sheets=tmp_path))


def test_sixteen_bits_are_refused_by_name(tmp_path: Path) -> None:
    odd = write(tmp_path / "deep.png", np.zeros((8, 9), np.uint16))
    with pytest.raises(ConfigError, match=f"{odd}: 16 bits"):
        open_scene(SimOptions(sheets=tmp_path))


def test_missing_empty_and_broken_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        open_scene(SimOptions(sheets=tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=f"{tmp_path}: no photographs"):
        open_scene(SimOptions(sheets=tmp_path))
    broken = tmp_path / "a.png"
    broken.write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match=f"{broken}: not a readable image"):
        open_scene(SimOptions(sheets=tmp_path))
    broken.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{broken}: not a readable image"):
        open_scene(SimOptions(sheets=tmp_path))


def test_unknown_way_of_showing_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", grey(10))
    with pytest.raises(ConfigError, match="'sideways'"):
        open_scene(SimOptions(sheets=tmp_path, show_as="sideways"))


def test_photographs_shown_exactly_may_come_twice(tmp_path: Path) -> None:
    cell = load_cell(Path(__file__).parents[2] / "calibration" / "sim.yaml")
    exact = SimOptions(sheets=tmp_path)
    assert cell.config.noise_expected
    assert not load_cell(_station_cell(cell, exact, tmp_path)).config.noise_expected
    for other in (SimOptions(), SimOptions(sheets=tmp_path, show_as="moved")):
        assert _station_cell(cell, other, tmp_path) == cell.path
