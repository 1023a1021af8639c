"""The tree on disk: pictures and one manifest per sheet, written so that a power cut loses neither.

data/<recipe>/{train,test}/<label>/<sheet>_<setup>_<shot>.png   captures, in MVTec form
data/<recipe>/incomplete/<label>/                               shots of sheets broken off
data/<recipe>/captures/<sheet>.json                             their manifests
data/<recipe>/inspections/<YYYY-MM-DD>/<sheet>/                 production: manifest.json, and
                                                                history.jsonl for what came after
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
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from station.decode import decode_file
from station.errors import DatasetError
from station.records import history
from station.records.history import After
from station.records.sheet import SHEET_PATTERN, Capture, FileEntry, Image, Manifest
from station.sheet_score import recorded

MANIFEST = "manifest.json"

Kind = Literal["capture", "inspection"]

log = structlog.get_logger()


class Record(NamedTuple):
    """A recorded inspection as it lies on disk."""

    folder: Path
    manifest: Manifest
    sha256: str  # of the manifest


class Index(Protocol):
    """Where recorded sheets are found again; the ledger is one."""

    def record(self, manifest: Manifest, sha256: str, folder: Path, after: After) -> None:
        """Take in a recorded sheet; returns once that is durable."""

    def note(self, sheet: str, after: After) -> None:
        """Take in what became of a sheet since."""


class Dataset:
    """One recipe's captures and inspections; with an index, no record is complete without it."""

    def __init__(self, workspace: Path, recipe: str, index: Index | None = None) -> None:
        self.root = workspace / "data" / recipe
        self._index = index
        self._partial = self.root / ".partial"
        self._last_sha256: str | None = None  # None: not known, to be looked up
        self._durable_day: Path | None = None

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

        Pictures are already synced; then manifest, folder, rename, parent, and the index last.
        Raises where the index refuses: the record stays, and nobody may be told of it.
        """
        target = self.inspection_place(manifest)
        day = target.parent
        manifest = manifest.model_copy(update={"previous": self._last_record()})
        self._last_sha256 = None  # whatever interrupts from here on, the next one looks again
        text = _dump(manifest)
        write_durably(folder / MANIFEST, text)
        try:
            day.mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
            folder.rename(target)
            for changed in (day, folder.parent):
                sync_folder(changed)
            if day != self._durable_day:  # each sync waits for the disk: this one, once a day
                sync_folder(day.parent)
                self._durable_day = day
        except OSError as error:
            raise DatasetError(f"{target}: {error.strerror}") from error
        self._last_sha256 = hashlib.sha256(text).hexdigest()
        if self._index is not None:
            after = history.after(manifest.verdict, manifest.silent, [])
            self._index.record(manifest, self._last_sha256, target, after)
        return target

    def look_again(self) -> None:
        """Look which record is the newest: another process may have recorded since."""
        self._last_sha256 = None
        self._last_record()

    def inspection_place(self, manifest: Manifest) -> Path:
        """Return the folder in which an inspection's record lies, or will."""
        return self.root / "inspections" / f"{manifest.started_at:%Y-%m-%d}" / manifest.sheet

    def note(self, folder: Path, event: history.What, **values: object) -> After:
        """Append an event to a recorded sheet's history, then tell the index."""
        record = read_record(folder)
        history.append(folder, record.sha256, event, **values)
        return self.reindex(record)

    def take_back(self, sheet: str) -> None:
        """Note that the line read no verdict of a recorded sheet, of whatever recipe.

        What cannot be noted is logged: the arm goes on all the same.
        """
        why = "the line was lowered before busy fell, after an interruption: it read none"
        for folder in self.root.parent.glob(f"*/inspections/*/{sheet}") if sheet else ():
            try:
                if after_of(read_record(folder)).outcome != "none":
                    recipe = Dataset(self.root.parents[1], folder.parents[2].name, self._index)
                    recipe.note(folder, "signalled", outcome="none", why=why)
            except DatasetError as error:
                log.error("sheet.told_unrecorded", sheet=sheet, told="none", reason=str(error))
                return
            log.warning("sheet.taken_back", sheet=sheet, reason=why)

    def reindex(self, record: Record) -> After:
        """Tell the index what a sheet's history says."""
        after = after_of(record)
        if self._index is not None:
            self._index.note(record.manifest.sheet, after)
        return after

    def record_capture(self, folder: Path, manifest: Manifest) -> Path:
        """Move a sheet's pictures into the tree, then its manifest; return the manifest's path.

        The manifest is written before anything is moved: what is interrupted can be finished.
        """
        if manifest.label is None or manifest.split is None:
            raise DatasetError(f"{manifest.sheet}: a capture needs a label and a split")
        target = self._split(manifest) / manifest.label
        path = self.root / "captures" / f"{manifest.sheet}.json"
        try:
            target.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(folder / MANIFEST, _dump(manifest))
            sync_folder(folder)
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

    def folders(self) -> list[Path]:
        """Return every recorded sheet's folder in order of boot and number."""
        found = (self.root / "inspections").glob("*/*")
        return sorted(filter(_is_record, found), key=lambda path: order(path.name))

    def strangers(self) -> list[Path]:
        """Return what lies among the records and is none."""
        found = (self.root / "inspections").glob("*/*")
        return sorted(path for path in found if not _is_record(path))

    def place(self, manifest: Manifest, capture: Capture) -> Path:
        """Return where a captured (not inspected) picture lies."""
        return self._split(manifest) / str(capture.label or manifest.label) / capture.file

    def _split(self, manifest: Manifest) -> Path:
        """Half a sheet is kept, but no training or test may take it for a whole one."""
        return self.root / (str(manifest.split) if manifest.complete else "incomplete")

    def leftovers(self, kind: Kind) -> list[Path]:
        """Return folders of sheets that a killed process left unfinished."""
        return sorted(filter(_is_record, (self._partial / kind).glob("*")))

    def finish_captures(self) -> Iterator[Manifest]:
        """Go on with what a killed process was moving into the tree; yields each such sheet."""
        for folder in self.leftovers("capture"):
            if (folder / MANIFEST).is_file():
                manifest = read_manifest(folder / MANIFEST)
                self.record_capture(folder, manifest)
                yield manifest

    def check_captures_finished(self) -> None:
        """Raise where half of a sheet's pictures may be in the tree and half outside."""
        for folder in self.leftovers("capture"):
            if (folder / MANIFEST).is_file():
                raise DatasetError(
                    f"{folder}: its pictures were being moved into the tree when the process "
                    "ended; the next `station capture` goes on with that"
                )

    def span(self, folder: Path) -> tuple[datetime, datetime]:
        """Return when a leftover folder was first and last written to, as its files tell."""
        times = [path.stat().st_mtime for path in folder.iterdir()] or [folder.stat().st_mtime]
        return datetime.fromtimestamp(min(times), UTC), datetime.fromtimestamp(max(times), UTC)

    def adopt(self, folder: Path) -> dict[str, FileEntry]:
        """Clear a leftover folder of half-written files and describe the whole ones."""
        for draft in folder.glob(".*.tmp"):
            draft.unlink()
        found = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
        for path in found:
            if not path.is_file():
                raise DatasetError(
                    f"{path}: a folder among an unfinished sheet's files; move it elsewhere"
                )
        try:
            return {path.name: describe(path) for path in found}
        except OSError as error:
            raise DatasetError(f"{error.filename}: {error.strerror}") from error

    def _last_record(self) -> str | None:
        """Return the sha256 of the newest inspection's manifest: the records are the chain."""
        if self._last_sha256 is None:
            newest = max(self.folders(), key=lambda path: order(path.name), default=None)
            if newest is not None and (newest / MANIFEST).exists():
                try:
                    self._last_sha256 = describe(newest / MANIFEST).sha256
                except OSError as error:
                    raise DatasetError(
                        f"{newest / MANIFEST}: {error.strerror}; the next record has to name its "
                        "hash: restore it from the backup, or move its folder out of data/"
                    ) from error
        return self._last_sha256

    def _refuse_recorded(self, sheet: str) -> None:
        """Ids come again if run/boot was lost; a record is never replaced."""
        recorded = [self.root / "captures" / f"{sheet}.json"]
        recorded += (self.root / "inspections").glob(f"*/{sheet}")
        for path in recorded:
            if path.exists():
                raise DatasetError(
                    f"{path}: this sheet is already recorded; "
                    "remove run/boot, then the count goes on after the highest in data/"
                )


def _is_record(path: Path) -> bool:
    return re.fullmatch(SHEET_PATTERN, path.name) is not None and path.is_dir()


def order(sheet: str) -> list[int]:
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
    """Write an anomaly map as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, recorded(anomaly_map))
    return write_durably(path, buffer.getvalue())


def read_image(path: Path) -> Image:
    """Read a picture as uint8 (H, W) grey or (H, W, 3) RGB."""
    pixels = decode_file(path)
    if pixels is None:
        raise DatasetError(f"{path}: not a readable picture")
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{path}: {pixels.dtype} pixels; 8-bit pictures are expected")
    image = pixels.astype(np.uint8, copy=False)
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    raise DatasetError(f"{path}: {pixels.shape[2]} channels; grey or RGB is expected")


def read_record(folder: Path) -> Record:
    """Read and check a recorded inspection, with the hash of the very bytes that were read."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    return Record(folder, _manifest(path, content), hashlib.sha256(content).hexdigest())


def after_of(record: Record) -> After:
    """Read what became of a recorded sheet; what is damaged of it counts for nothing."""
    events, _ = history.read(record.folder, record.sha256)
    return history.after(record.manifest.verdict, record.manifest.silent, events)


def read_manifest(path: Path) -> Manifest:
    """Read and check one sheet's record."""
    try:
        return _manifest(path, path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error


def _manifest(path: Path, content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
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
