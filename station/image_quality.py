"""Three numbers that tell a person at the camera whether light and focus are right."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from station.records.sheet import Image

SATURATED = 255
NOISE_SIGMA_PX = 1.0


class Quality(NamedTuple):
    """Brightness 0 to 255, share of pixels at full scale 0 to 1, and sharpness.

    Sharpness compares pictures of the same scene: it rises towards the best focus, and neither
    exposure nor gain changes it much. Its value means nothing by itself.
    """

    mean: float
    saturated_share: float
    sharpness: float


def quality(image: Image) -> Quality:
    """Measure a picture, grey or RGB.

    Sharpness is the standard deviation of the Laplacian in percent of the mean brightness. The
    division takes exposure out; the blur before it keeps sensor noise from counting as detail.
    """
    brightest = image.max(axis=2) if image.ndim == 3 else image
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    mean = float(image.mean())
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), NOISE_SIGMA_PX)
    detail = float(cv2.Laplacian(smooth, cv2.CV_32F).std())
    return Quality(
        mean, float((brightest >= SATURATED).mean()), 100 * detail / mean if mean > 0 else 0.0
    )
