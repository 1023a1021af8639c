"""Anomaly maps as colours over a picture, the same colours for the same values everywhere."""

from __future__ import annotations

from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from station.records.sheet import Image

# Every overlay has this range, so that two pictures can be compared: 0 is a typical good sheet,
# 1 a typical defect.
MAP_RANGE = (0.0, 2.0)
OVERLAY_OPACITY = 0.75
COLOURS = "inferno"
CONTOUR_BGR = (255, 255, 0)


def map_over(picture: Image, anomaly_map: NDArray[np.float32], threshold: float | None) -> Image:
    """Lay the map over the grey picture; where it is higher it covers more."""
    height, width = picture.shape[:2]
    values = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = MAP_RANGE
    share = np.clip((values - low) / (high - low), 0, 1)
    colour = mpl.colormaps[COLOURS](share)[:, :, 2::-1] * 255  # (H, W, 3) BGR
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    opacity = _opacity(share)[:, :, None]
    mixed = np.asarray(grey * (1 - opacity) + colour * opacity, np.uint8)
    if threshold is not None:
        above = (values >= threshold).astype(np.uint8)
        outlines, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, outlines, -1, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.drawContours(mixed, outlines, -1, CONTOUR_BGR, 2, cv2.LINE_AA)
    return mixed


def _opacity(share: Any) -> Any:
    """Return how much colour covers the picture: nothing at 0, all it may from half the range."""
    return OVERLAY_OPACITY * np.clip(2 * share, 0, 1)


def colour_stops() -> str:
    """Return the overlay's colours over mid grey, as CSS gradient stops."""
    stops = []
    for share in np.linspace(0, 1, 17):
        opacity = float(_opacity(share))
        channels = np.array(mpl.colormaps[COLOURS](float(share))[:3]) * 255
        red, green, blue = (128 * (1 - opacity) + channels * opacity).astype(int)
        stops.append(f"rgb({red},{green},{blue}) {share:.1%}")
    return ", ".join(stops)
