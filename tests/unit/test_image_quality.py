"""Brightness, saturation and sharpness of a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from station.image_quality import quality
from station.records.sheet import Image


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
