"""Scoring files: what is listed, what an overlay is named and where it may not lie."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled_tree import SIZE, brightness, picture, write

from station.errors import ConfigError, DatasetError
from station.evaluate.score import check_overlays, overlay_place, pictures, write_overlay
from station.records.sheet import Prediction, Verdict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(2):
        write(tmp_path / "in" / "part" / f"{i}.png", picture(i, 8))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def test_a_folder_stands_for_the_pictures_in_it(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.jpg"
    assert pictures([alone, folder]) == [
        alone,
        folder / "part" / "0.png",
        folder / "part" / "1.png",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no image in it"):
        pictures([tmp_path / "empty"])


def test_an_overlay_shows_the_picture_and_its_map(folder: Path, tmp_path: Path) -> None:
    file = folder / "part" / "0.png"
    image = picture(0, 8)
    prediction = brightness(image)
    place = overlay_place(tmp_path / "out", file, prediction, Verdict.REJECT)
    assert place.name == f"part_0_{prediction.score:.3f}_reject.png"
    write_overlay(place, file, prediction, 0.5)
    drawn = cv2.imread(str(place))
    assert drawn is not None
    assert drawn.shape == (SIZE, 2 * SIZE, 3)
    assert np.array_equal(drawn[:, :SIZE, 0], image)
    assert not np.array_equal(drawn[:, SIZE:, 0], image)
    assert [p.name for p in place.parent.iterdir()] == [place.name]


def test_the_same_value_has_the_same_colour_in_every_overlay(folder: Path, tmp_path: Path) -> None:
    file = folder / "part" / "0.png"
    colours = []
    for number, elsewhere in enumerate((0.0, 5.0)):
        anomaly_map = np.full((4, 4), elsewhere, np.float32)
        anomaly_map[:, 2:] = 1.0
        place = tmp_path / f"{number}.png"
        write_overlay(place, file, Prediction(1.0, anomaly_map), None)
        drawn = cv2.imread(str(place))
        assert drawn is not None
        colours.append(drawn[:, -4:])
    assert np.array_equal(colours[0], colours[1])


def test_overlays_never_mix_with_the_pictures(folder: Path, tmp_path: Path) -> None:
    check_overlays(tmp_path / "out", [folder])
    for refused in (folder, folder / "overlays"):
        with pytest.raises(ConfigError, match="overlays would mix with the pictures"):
            check_overlays(refused, [folder])
    with pytest.raises(ConfigError, match="overlays would mix"):
        check_overlays(folder / "part", [folder / "part" / "0.png"])
    with pytest.raises(ConfigError, match="not a folder"):
        check_overlays(folder / "notes.txt", [folder])
