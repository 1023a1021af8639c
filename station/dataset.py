"""The tree on disk: pictures and one manifest per sheet, written so that a power cut loses neither.

data/<recipe>/{train,test}/<label>/<sheet>_<setup>_<shot>.png   captures, in MVTec form
data/<recipe>/incomplete/<label>/                               shots of sheets broken off
data/<recipe>/captures/<sheet>.json                             their manifests
data/<recipe>/inspections/<YYYY-MM-DD>/<sheet>/                 production, with manifest.json
data/<recipe>/.partial/{capture,inspection}/<sheet>/            the sheet being worked on
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from station.errors import DatasetError
from station.records import Capture, FileEntry, Image, Manifest

MANIFEST = "manifest.json"

Kind = Literal["capture", "inspection"]


class Dataset:
    """One recipe's captures and inspections."""

    def __init__(self, workspace: Path, recipe: str) -> None:
        self.root = workspace / "data" / recipe
        self._partial = self.root / ".partial"
        self._last_sha256: str | None = None

    def begin(self, kind: Kind, sheet: str) -> Path:
        """Make the folder in which a sheet is collected; same file system as its final place."""
        self._refuse_recorded(sheet)
        folder = self._partial / kind / sheet
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise DatasetError(f"{folder}: a sheet of that id is already being written") from error
        except OSError as error:
            raise DatasetError(f"{folder}: {error.strerror}") from error
        return folder

    def record_inspection(self, folder: Path, manifest: Manifest) -> Path:
        """Make a sheet's record durable and visible in one step; return its folder.

        Pictures are already synced; then manifest, folder, rename, parent.
        """
        day = self.root / "inspections" / f"{manifest.started_at:%Y-%m-%d}"
        target = day / manifest.sheet
        text = _dump(manifest.model_copy(update={"previous": self._last_record()}))
        write_durably(folder / MANIFEST, text)
        try:
            day.mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
            folder.rename(target)
            for changed in (day, day.parent, folder.parent):
                sync_folder(changed)
        except OSError as error:
            raise DatasetError(f"{target}: {error.strerror}") from error
        self._last_sha256 = hashlib.sha256(text).hexdigest()
        return target

    def record_capture(self, folder: Path, manifest: Manifest) -> Path:
        """Move a sheet's pictures into the tree, then write its manifest; return its path."""
        if manifest.label is None or manifest.split is None:
            raise DatasetError(f"{manifest.sheet}: a capture needs a label and a split")
        target = self._split(manifest) / manifest.label
        path = self.root / "captures" / f"{manifest.sheet}.json"
        try:
            target.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            for capture in manifest.captures:
                if (folder / capture.file).exists():
                    (folder / capture.file).replace(target / capture.file)
            sync_folder(target)
            write_durably(path, _dump(manifest))
            sync_folder(path.parent)
            shutil.rmtree(folder)
        except OSError as error:
            raise DatasetError(f"{target}: {error.strerror}") from error
        return path

    def captures(self) -> Iterator[tuple[Path, Manifest]]:
        """Yield every capture manifest in order of sheet id."""
        for path in sorted((self.root / "captures").glob("*.json")):
            yield path, read_manifest(path)

    def inspections(self) -> Iterator[tuple[Path, Manifest]]:
        """Yield every inspection's folder and manifest in order of day and sheet id."""
        for path in sorted((self.root / "inspections").glob(f"*/*/{MANIFEST}")):
            yield path.parent, read_manifest(path)

    def place(self, manifest: Manifest, capture: Capture) -> Path:
        """Return where a captured (not inspected) picture lies."""
        return self._split(manifest) / str(capture.label or manifest.label) / capture.file

    def _split(self, manifest: Manifest) -> Path:
        """Half a sheet is kept, but no training or test may take it for a whole one."""
        return self.root / (str(manifest.split) if manifest.complete else "incomplete")

    def leftovers(self, kind: Kind) -> list[Path]:
        """Return folders of sheets that a killed process left unfinished."""
        return sorted(path for path in (self._partial / kind).glob("*") if path.is_dir())

    def _last_record(self) -> str | None:
        """Return the sha256 of the newest inspection's manifest: the records are the chain."""
        if self._last_sha256 is None:
            folders = [p for p in (self.root / "inspections").glob("*/*") if p.is_dir()]
            newest = max(folders, key=lambda p: _order(p.name), default=None)
            if newest is not None and (newest / MANIFEST).exists():
                self._last_sha256 = describe(newest / MANIFEST).sha256
        return self._last_sha256

    def _refuse_recorded(self, sheet: str) -> None:
        """Ids come again if run/boot was lost; a record is never replaced."""
        recorded = [self.root / "captures" / f"{sheet}.json"]
        recorded += (self.root / "inspections").glob(f"*/{sheet}")
        for path in recorded:
            if path.exists():
                raise DatasetError(
                    f"{path}: this sheet is already recorded; "
                    "write the highest boot number used in data/ into run/boot"
                )


def _order(sheet: str) -> list[int]:
    """Order ids by boot and counter, whatever the clock said."""
    return [int(number) for number in re.findall(r"\d+", sheet)[-2:]]


def save_image(path: Path, image: Image) -> FileEntry:
    """Write a lossless PNG durably; grey stays grey, RGB keeps its colours in any viewer."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise DatasetError(f"{path}: the picture could not be encoded")
    return write_durably(path, encoded.tobytes())


def save_map(path: Path, anomaly_map: NDArray[np.float32]) -> FileEntry:
    """Write an anomaly map as half-precision .npy, 8 kB for 64x64."""
    buffer = io.BytesIO()
    np.save(buffer, anomaly_map.astype(np.float16))
    return write_durably(path, buffer.getvalue())


def read_image(path: Path) -> Image:
    """Read a picture as uint8 (H, W) grey or (H, W, 3) RGB."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DatasetError(f"{path}: not a readable picture")
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{path}: {pixels.dtype} pixels; 8-bit pictures are expected")
    if pixels.ndim == 2:
        return pixels.astype(np.uint8, copy=False)
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    raise DatasetError(f"{path}: {pixels.shape[2]} channels; grey or RGB is expected")


def read_manifest(path: Path) -> Manifest:
    """Read and check one sheet's record."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        told = f"{key}: {first['msg']}" if key else first["msg"]
        raise DatasetError(f"{path}: {told}") from error


def write_durably(path: Path, content: bytes) -> FileEntry:
    """Write beside, sync, rename: the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DatasetError(f"{path}: {error.strerror}") from error
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def describe(path: Path) -> FileEntry:
    """Return the size and hash of a file that is already there."""
    content = path.read_bytes()
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def next_boot(workspace: Path) -> int:
    """Count this start; ids built from it never repeat, whatever the clock does."""
    path = workspace / "run" / "boot"
    path.parent.mkdir(exist_ok=True)
    try:
        last = int(path.read_text(encoding="ascii")) if path.exists() else 0
    except ValueError as error:
        raise DatasetError(
            f"{path}: not a number; write the highest boot number used in data/ there"
        ) from error
    write_durably(path, str(last + 1).encode())
    sync_folder(path.parent)
    return last + 1


def now() -> datetime:
    """Return the wall clock, for records only: nothing is measured or ordered by it."""
    return datetime.now(UTC)


def _dump(manifest: Manifest) -> bytes:
    content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return (json.dumps(content, indent=1) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
