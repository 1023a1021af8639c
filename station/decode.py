"""Pictures out of a file's bytes.

OpenCV's own reader takes no name that is not text in the process's locale, and may crash on one.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def decode(content: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.generic] | None:
    """Return the pixels in OpenCV's order of colours; None where the bytes are no picture."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # nothing at all, or more pixels than OpenCV takes
        return None


def decode_file(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.generic] | None:
    """Return a file's pixels; None where it is missing, cannot be read, or is no picture."""
    try:
        return decode(path.read_bytes(), flags)
    except OSError:
        return None
