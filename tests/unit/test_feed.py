"""What the simulated camera sees when something is wrong with its pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from station.sim.feed import DISTURBANCES, PREFIX, Feed


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed((40, 30), color=False) as feed:
        yield feed


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 200, (30, 40), np.uint8)


def seen(feed: Feed) -> NDArray[np.uint8] | None:
    found = cv2.imread(str(feed.root / "pictures" / "a.bmp"), cv2.IMREAD_UNCHANGED)
    return None if found is None else found.astype(np.uint8)


def show(feed: Feed, seed: int) -> None:
    feed.prepare(picture(seed))
    feed.publish()


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_a_disturbance_acts_at_once_on_all_that_follow_and_ends(
    feed: Feed, disturbance: str
) -> None:
    show(feed, 1)
    show(feed, 2)
    feed.disturb(disturbance)
    at_once = seen(feed)
    show(feed, 3)
    later = seen(feed)
    for image, plain in ((at_once, picture(2)), (later, picture(3))):
        if disturbance == "damaged":
            assert image is None
            continue
        assert image is not None
        match disturbance:
            case "seen":
                assert np.array_equal(image, plain)
            case "dark":
                assert image.max() < 8
            case "overexposed":
                assert image.min() == 255
            case "blurred":
                assert image.std() < plain.std() / 5
            case "cropped":
                assert image.shape == (15, 40)
            case "repeated":
                assert np.array_equal(image, picture(1)), "the one before, and it stays"
    feed.disturb("seen")
    assert np.array_equal(np.asarray(seen(feed)), picture(3))
    show(feed, 4)
    assert np.array_equal(np.asarray(seen(feed)), picture(4))


def test_nothing_but_whole_pictures_lies_where_the_emulator_looks(feed: Feed) -> None:
    show(feed, 1)
    feed.disturb("dark")
    names = sorted(path.name for path in (feed.root / "pictures").iterdir())
    assert names == ["a.bmp", "b.bmp"]
    assert (feed.root / "pictures" / "b.bmp").readlink() == Path("a.bmp")


def test_what_a_killed_simulator_left_in_memory_is_taken_away(feed: Feed) -> None:
    """Its lock went with it; a folder that is locked, or has just been made, stays."""
    abandoned, young = (Path(tempfile.mkdtemp(prefix=PREFIX, dir=feed.root.parent)) for _ in "ab")
    for folder in (abandoned, feed.root):
        os.utime(folder, (0, 0))
    with Feed((40, 30), color=False):
        assert not abandoned.exists()
        assert feed.root.is_dir()
        assert young.is_dir()
    young.rmdir()
