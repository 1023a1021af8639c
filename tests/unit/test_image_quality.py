"""Brightness, saturation and sharpness of a picture."""

from __future__ import annotations

from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from station.errors import UnfitPicture
from station.image_quality import PictureCheck, quality
from station.recipe import PictureLimits
from station.records.sheet import Frame, Image


def weave(seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(0, 1, (200, 300))
    pattern = 100 + 40 * np.sin(np.arange(300) / 3) * np.sin(np.arange(200) / 3)[:, None]
    return np.clip(pattern + noise, 0, 255).astype(np.uint8)


def test_sharpness_falls_with_every_step_of_blur() -> None:
    blurred = [cv2.GaussianBlur(weave(), (0, 0), sigma) for sigma in (1, 2, 3, 5)]
    steps = [quality(image.astype(np.uint8)).sharpness for image in blurred]
    assert steps == sorted(steps, reverse=True)
    assert quality(weave()).sharpness > steps[0] > 2 * steps[-1]


def test_exposure_hardly_changes_sharpness() -> None:
    darker = (weave() * 0.6).astype(np.uint8)
    assert quality(darker).sharpness == pytest.approx(quality(weave()).sharpness, rel=0.05)


def test_colour_saturates_where_one_channel_does() -> None:
    image = np.full((10, 10, 3), 50, np.uint8)
    image[:5, :, 2] = 255
    assert quality(image).saturated_share == 0.5


def test_black_picture_is_no_error() -> None:
    assert quality(np.zeros((10, 10), np.uint8)) == (0, 0, 0)


LIMITS = PictureLimits(darkest_mean=20, saturated_share=0.1, least_sharpness=2)


def frame(image: Image, number: int = 1) -> Frame:
    return Frame(image, number, 8000.0, 0.0, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (weave() // 16, "too dark: mean 5.*, darkest_mean 20; look at lamp"),
        (np.full((20, 20), 255, np.uint8), r"overexposed: saturated share 1\.000"),
        (cv2.GaussianBlur(weave(), (0, 0), 6), r"out of focus: sharpness \d.*look at focus ring"),
    ],
)
def test_a_picture_outside_the_limits_is_unfit(image: Image, told: str) -> None:
    check = PictureCheck(LIMITS, noise_expected=False)
    check.check(frame(weave()))
    with pytest.raises(UnfitPicture, match=told):
        check.check(frame(image.astype(np.uint8), 2))
    PictureCheck(None, noise_expected=True).check(frame(image.astype(np.uint8)))


def test_each_limit_stands_alone() -> None:
    PictureCheck(PictureLimits(darkest_mean=1), noise_expected=False).check(
        frame(np.full((20, 20), 255, np.uint8))
    )


def test_equal_pixels_are_a_fault_only_where_noise_is_expected() -> None:
    noisy, still = (PictureCheck(None, noise_expected=noise) for noise in (True, False))
    for check in (noisy, still):
        check.check(frame(weave(1), 1))
        check.check(frame(weave(2), 2))
    still.check(frame(weave(2), 3))
    with pytest.raises(UnfitPicture, match="picture 3 is picture 2 once more, pixel for pixel"):
        noisy.check(frame(weave(2), 3))
    noisy.check(frame(weave(3), 4))


def test_a_number_that_does_not_rise_is_an_old_picture() -> None:
    check = PictureCheck(None, noise_expected=False)
    check.check(frame(weave(1), 7))
    with pytest.raises(UnfitPicture, match="picture 7 came after 7"):
        check.check(frame(weave(2), 7))
