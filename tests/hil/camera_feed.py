"""Pictures for the pylon camera emulator, by its own environment variables only."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HEADER = (
    "# {05D8C294-F295-4dfb-9D01-096BD04049F4}\n"
    "# GenApi persistence file (version 3.5.0)\n"
    "# Device = Basler::BaslerCamEmu -- Basler Cam Emu interface\n"
)


def write_pfs(path: Path, **nodes: str | int | float) -> Path:
    """Write a settings file in pylon's own format."""
    path.write_text(HEADER + "".join(f"{name}\t{value}\n" for name, value in nodes.items()))
    return path


class CameraFeed:
    """The one picture an emulated camera sees.

    The folder needs two names before grabbing starts: pylon caches a lone file for ever, but
    reads each of two anew at every trigger.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "feed"
        self.folder.mkdir()
        self.nodes = root / "nodes"
        self.nodes.mkdir()
        self._new = root / "next.bmp"  # outside, or grabbing might list it
        self.show(np.zeros((8, 8), np.uint8))
        (self.folder / "b.bmp").symlink_to("a.bmp")

    def attach(self, serial: str, **nodes: str | int | float) -> None:
        """Make the emulated camera of this serial number look into the folder."""
        write_pfs(
            self.nodes / f"CamEmu_{serial}.pfs",
            TestImageSelector="Off",
            ImageFilename=str(self.folder),
            ImageFileMode="On",
            **nodes,
        )

    def show(self, image: NDArray[np.uint8]) -> None:
        """Put a grey or RGB picture before the camera; not while it is reading one."""
        bgr = image if image.ndim == 2 else np.ascontiguousarray(image[:, :, ::-1])
        self._new.write_bytes(cv2.imencode(".bmp", bgr)[1].tobytes())
        self._new.replace(self.folder / "a.bmp")

    def remove(self) -> None:
        """Leave nothing to read; the camera then delivers failed pictures."""
        (self.folder / "a.bmp").unlink()
