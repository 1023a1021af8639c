"""Whether a picture is fit to be judged: light, focus, and whether it is a new one at all."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from station.errors import UnfitPicture
from station.recipe import PictureLimits
from station.records.sheet import Frame, Image

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
    """Measure a picture, grey or RGB; about 15 ms for five megapixels.

    Sharpness is the standard deviation of the Laplacian in percent of the mean brightness. The
    division takes exposure out; the blur before it keeps sensor noise from counting as detail.
    """
    brightest = image.max(axis=2) if image.ndim == 3 else image
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    mean = float(cv2.mean(image)[0])
    saturated = int(np.count_nonzero(brightest >= SATURATED))
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), NOISE_SIGMA_PX)
    detail = float(cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))[1][0, 0])
    return Quality(mean, saturated / brightest.size, 100 * detail / mean if mean > 0 else 0.0)


class PictureCheck:
    """Looks at one frame after the other, in the order they were taken."""

    def __init__(
        self, limits: PictureLimits | None, *, noise_expected: bool, device: str = "camera"
    ) -> None:
        self._device = device
        self._limits = limits
        self._noise_expected = noise_expected
        self._last: Frame | None = None

    def check(self, frame: Frame) -> None:
        """Raise UnfitPicture where the frame shows nothing that could be judged."""
        last, self._last = self._last, frame
        if self._limits is not None:
            _check_limits(quality(frame.image), self._limits, self._device)
        if last is None:
            return
        if frame.number <= last.number:
            raise UnfitPicture(self._device, f"picture {frame.number} came after {last.number}")
        # Where there is noise, no two pictures are equal, not even of the same place.
        if self._noise_expected and np.array_equal(frame.image, last.image):
            raise UnfitPicture(
                self._device,
                f"picture {frame.number} is picture {last.number} once more, pixel for pixel",
                "restart the camera; noise_expected in the cell file asks for this check",
            )


def _check_limits(found: Quality, limits: PictureLimits, device: str) -> None:
    if limits.darkest_mean is not None and found.mean < limits.darkest_mean:
        raise UnfitPicture(
            device,
            f"picture too dark: mean {found.mean:.1f}, darkest_mean {limits.darkest_mean:g}",
            "look at lamp, lens cap and exposure",
        )
    if limits.saturated_share is not None and found.saturated_share > limits.saturated_share:
        raise UnfitPicture(
            device,
            f"picture overexposed: saturated share {found.saturated_share:.3f}, "
            f"saturated_share {limits.saturated_share:g}",
            "look at lamp, stray light and exposure",
        )
    if limits.least_sharpness is not None and found.sharpness < limits.least_sharpness:
        raise UnfitPicture(
            device,
            f"picture out of focus: sharpness {found.sharpness:.2f}, "
            f"least_sharpness {limits.least_sharpness:g}",
            "look at focus ring, working distance and what lies on the lens",
        )
