"""Puts what the camera would see where the pylon emulator reads it, before the arm arrives."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.geometry import Pose
from station.sim.journal import Journal
from station.sim.scene import SCENE_VERSION, Picture, Scene, Sheet

SERIAL = "0815-0000"
SAME_M = 1e-6
SAME_RAD = 1e-5
EMULATOR_LIMIT_PX = 4096  # larger pictures need WidthMax and HeightMax raised first


# What may be wrong with the camera's pictures, beside nothing ("seen").
DISTURBANCES = (
    "seen", "dark", "overexposed", "blurred", "cropped", "damaged", "repeated",
)  # fmt: skip
BLUR_SIGMA_PX = 6.0
PREFIX = "station-feed-"
YOUNG_S = 60.0


class Feed:
    """The folders the emulator reads: pictures in one, its own settings file in the other.

    The picture folder holds `a.bmp` and a link `b.bmp` to it: with two names the emulator reads
    the file again for every frame, with one it keeps the first for ever. Open it in `with`.
    """

    def __init__(self, size: tuple[int, int], color: bool) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - memory, where a picture costs no disk write
        place = shared if shared.is_dir() else Path(tempfile.gettempdir())
        _remove_abandoned(place)
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = os.open(self.root, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # until this process ends, however it does
        self._pictures = self.root / "pictures"
        self.settings = self.root / "pylon"
        self._pictures.mkdir()
        self.settings.mkdir()
        width, height = size
        self._disturbance = "seen"
        self._shown: NDArray[np.uint8] = np.zeros(
            (height, width, 3) if color else (height, width), np.uint8
        )
        self._prepared = self._before = self._repeated = self._shown
        self._write(self._shown, "next.bmp")
        self.publish()
        (self._pictures / "b.bmp").symlink_to("a.bmp")
        (self.settings / f"CamEmu_{SERIAL}.pfs").write_text(self._nodes(width, height, color))

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)

    @property
    def environment(self) -> dict[str, str]:
        """Return what the camera's process must find in its environment."""
        return {"PYLON_CAMEMU": "1", "PYLON_CAMEMU_PFS_PATH": str(self.settings)}

    def prepare(self, image: NDArray[np.uint8]) -> None:
        """Write a picture beside the folder; the emulator does not see it yet."""
        self._write(image, "next.bmp")
        self._prepared = image

    def publish(self) -> None:
        """Show the prepared picture from the next trigger on."""
        self._before, self._shown = self._shown, self._prepared
        if self._disturbance == "seen":
            (self.root / "next.bmp").replace(self._pictures / "a.bmp")
        else:
            self._show_disturbed()

    def disturb(self, disturbance: str) -> None:
        """Show this picture and all later ones with something wrong, until told "seen"."""
        if disturbance == "repeated" != self._disturbance:
            self._repeated = self._before
        self._disturbance = disturbance
        self._show_disturbed()

    def _show_disturbed(self) -> None:
        if self._disturbance == "repeated":
            self._write(self._repeated, "fault.bmp")
        elif self._disturbance == "damaged":
            (self.root / "fault.bmp").write_bytes(b"BM")
        else:
            self._write(_disturbed(self._shown, self._disturbance), "fault.bmp")
        (self.root / "fault.bmp").replace(self._pictures / "a.bmp")

    def _write(self, image: NDArray[np.uint8], name: str) -> None:
        if image.ndim == 3:
            image = np.ascontiguousarray(image[..., ::-1])  # OpenCV writes BGR
        # The emulator must never list a half-written file, so this one lies outside its folder.
        (self.root / name).write_bytes(cv2.imencode(".bmp", image)[1].tobytes())

    def _nodes(self, width: int, height: int, color: bool) -> str:
        nodes: list[tuple[str, object]] = [("PixelFormat", "RGB8Packed" if color else "Mono8")]
        if max(width, height) > EMULATOR_LIMIT_PX:
            nodes += [("WidthMax", width), ("HeightMax", height)]
        nodes += [
            ("Width", width),
            ("Height", height),
            ("TestImageSelector", "Off"),
            ("ImageFilename", self._pictures),
            ("ImageFileMode", "On"),
        ]
        head = (
            "# {05D8C294-F295-4dfb-9D01-096BD04049F4}\n"
            "# GenApi persistence file (version 3.5.0)\n"
            "# Device = Basler::BaslerCamEmu -- Basler camera emulator\n"
        )
        return head + "".join(f"{name}\t{value}\n" for name, value in nodes)


class Drawn(NamedTuple):
    """A picture ready to be published, and what it is of."""

    tool: Pose
    sheet: Sheet
    picture: Picture
    sha256: str
    render_ms: float


class Camera:
    """Draws on a thread of its own and publishes when asked; every method returns at once."""

    def __init__(self, scene: Scene, feed: Feed, journal: Journal, truth: Path | None) -> None:
        self._scene = scene
        self._feed = feed
        self._journal = journal
        self._truth = truth
        if truth is not None:
            truth.mkdir(parents=True, exist_ok=True)
        # one thread: the scene and the one file beside the folder serve one picture at a time
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw")
        self._exposure_us = 8000.0
        self._gain_db = 0.0
        self._laying: Future[Sheet | None] | None = None
        self._drawing: Future[Drawn] | None = None
        self._shown: Drawn | None = None
        self._waiting_since: float | None = None
        self.sheet: Sheet | None = None

    def expose(self, exposure_us: float, gain_db: float) -> None:
        """Set how later pictures are exposed: the emulator's own nodes do not reach a file."""
        self._exposure_us = exposure_us
        self._gain_db = gain_db

    def lay(self, number: int) -> None:
        """Begin to put a sheet on the table; `laid` tells when it lies there."""
        self._laying = self._thread.submit(self._scene.lay, number)

    def laid(self) -> bool:
        """Tell whether the last sheet asked for lies there, or that there are no more."""
        if self._laying is None:
            return True
        if not self._laying.done():
            return False
        sheet = self._laying.result()
        self._laying = None
        self._drawing = None
        self._shown = None
        if sheet is not None:
            self._journal.write("sheet", sheet=sheet.number, label=sheet.label)
        self.sheet = sheet
        return True

    def look(self, tool: Pose) -> None:
        """Begin to draw what the camera will see there, if that is not under way."""
        if self.sheet is None or self._laying is not None:
            return
        if self._drawing is not None:
            if not self._drawing.done() or _same(self._drawing.result().tool, tool):
                return
        elif self._shown is not None and _same(self._shown.tool, tool):
            return
        self._drawing = self._thread.submit(self._draw, tool, self.sheet)

    def shows(self, tool: Pose) -> bool:
        """Publish the picture for this pose once drawn; tell whether the feed now shows it."""
        if self._laying is not None:
            return False
        if self.sheet is None:
            return True  # an empty table: the last picture stays
        if self._drawing is not None and self._drawing.done():
            drawn = self._drawing.result()
            if _same(drawn.tool, tool):
                self._drawing = None
                self._publish(drawn)
                self._waiting_since = None
        if self._drawing is None and self._shown is not None and _same(self._shown.tool, tool):
            return True
        self.look(tool)
        if self._waiting_since is None:
            self._waiting_since = time.perf_counter()
        return False

    def close(self) -> None:
        """Wait for the drawing under way and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _publish(self, drawn: Drawn) -> None:
        self._feed.publish()
        self._shown = drawn
        waited_s = 0.0 if self._waiting_since is None else time.perf_counter() - self._waiting_since
        self._journal.write(
            "picture",
            pose=list(drawn.tool),
            sheet=drawn.sheet.number,
            label=drawn.sheet.label,
            sha256=drawn.sha256,
            render_ms=drawn.render_ms,
            held_ms=round(1e3 * waited_s, 1),
            shape=list(drawn.picture.image.shape),
        )

    def _draw(self, tool: Pose, sheet: Sheet) -> Drawn:
        started = time.perf_counter()
        picture = self._scene.picture(tool, self._exposure_us, self._gain_db)
        digest = hashlib.sha256(np.ascontiguousarray(picture.image).data).hexdigest()
        self._feed.prepare(picture.image)
        if self._truth is not None:
            in_view = bool(picture.mask.any()) or not self._scene.masked
            facts = {
                "label": sheet.label,
                "picture_label": sheet.label if in_view else "good",
                "sheet": sheet.number,
                "scene_version": SCENE_VERSION,
            }
            _record(self._truth, digest, facts, picture.mask)
        return Drawn(tool, sheet, picture, digest, round(1e3 * (time.perf_counter() - started), 1))


def _disturbed(image: NDArray[np.uint8], disturbance: str) -> NDArray[np.uint8]:
    if disturbance == "dark":
        return image // 32
    if disturbance == "overexposed":
        return np.full_like(image, 255)
    if disturbance == "blurred":
        return np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA_PX), np.uint8)
    if disturbance == "cropped":
        return image[: image.shape[0] // 2]
    return image


def _same(a: Pose, b: Pose) -> bool:
    return a.distance_m(b) < SAME_M and a.angle_rad(b) < SAME_RAD


def _record(folder: Path, digest: str, facts: dict[str, object], mask: NDArray[np.uint8]) -> None:
    """Write what is true of one picture; whole files only, the picture's label last."""
    if mask.any():
        unfinished = folder / f".{digest}.png"
        unfinished.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
        unfinished.replace(folder / f"{digest}.png")
    unfinished = folder / f".{digest}.json"
    unfinished.write_text(json.dumps(facts), encoding="utf-8")
    unfinished.replace(folder / f"{digest}.json")


def _remove_abandoned(place: Path) -> None:
    """Take away what simulators that were killed left in memory."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, or just gone
            if time.time() - folder.stat().st_mtime < YOUNG_S:
                continue  # one that begins is not locked yet
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)
