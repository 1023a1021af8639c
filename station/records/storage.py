"""Room on the disk: asked before a start, and again before every sheet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import structlog

from station.config import DiskLimits
from station.errors import DatasetError

FEWEST_FILES = 1000  # file systems with a fixed number of files may fill up before their bytes do
GB = 10**9

log = structlog.get_logger()


class Free(NamedTuple):
    """What a file system still takes; files is None where it has no such limit."""

    gb: float
    files: int | None


def in_gb(value: float) -> str:
    """Write an amount of room so that little is not told as none."""
    return f"{value:.1f} GB" if value >= 10 else f"{value:.3g} GB"


def free(folder: Path) -> Free:
    """Ask the file system of a folder, or of the nearest one above that exists."""
    while not folder.exists():
        folder = folder.parent
    told = os.statvfs(folder)
    # What is reserved for root is not ours, even for root: it keeps the system alive.
    return Free(
        told.f_bavail * told.f_frsize / GB,
        min(told.f_ffree, told.f_favail) if told.f_files else None,
    )


class Room:
    """The room a run has left; warns once."""

    def __init__(self, folder: Path, limits: DiskLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._warned = False

    def check_start(self) -> None:
        """Refuse to start a run that could not keep its records."""
        problem = self._lacking(self._limits.start_free_gb)
        if problem:
            raise DatasetError(f"{problem}; free space before the start, see `station retention`")

    def why_not_next(self) -> DatasetError | None:
        """Say why no further sheet may begin, or None; ask while no sheet is under way."""
        problem = self._lacking(self._limits.suspend_free_gb)
        if problem:
            return DatasetError(f"{problem}; free space, see `station retention`")
        low = self._lacking(self._limits.warn_free_gb)
        if low and not self._warned:
            log.warning("disk.low", problem=low, advice="free space soon: `station retention`")
        self._warned = low is not None
        return None

    def _lacking(self, wanted_gb: float) -> str | None:
        now = free(self._folder)
        if now.gb < wanted_gb:
            return f"{self._folder}: {in_gb(now.gb)} free, {in_gb(wanted_gb)} wanted"
        if now.files is not None and now.files < FEWEST_FILES:
            return f"{self._folder}: room for {now.files} more files only"
        return None
