"""run/boot: how often the station was started, from which ids are built."""

from __future__ import annotations

import re
from pathlib import Path

from station.errors import DatasetError
from station.records.dataset import order, sync_folder, write_durably
from station.records.sheet import SHEET_PATTERN

LAST_BOOT = 999_999_999  # ids have room for nine digits


def next_boot(workspace: Path) -> int:
    """Count this start; ids built from it never repeat, whatever the clock does."""
    path = workspace / "run" / "boot"
    path.parent.mkdir(exist_ok=True)
    last = -1
    try:
        last = int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        last = _highest_boot(workspace)
    except (OSError, ValueError):
        pass  # told below
    if not 0 <= last < LAST_BOOT:
        raise DatasetError(
            f"{path}: not a number from 0 to {LAST_BOOT}; remove it, then the count goes on after "
            "the highest in data/"
        )
    write_durably(path, str(last + 1).encode())
    sync_folder(path.parent)
    return last + 1


def _highest_boot(workspace: Path) -> int:
    data = workspace / "data"
    found = (
        path.name.removesuffix(".json")
        for pattern in ("*/inspections/*/*", "*/captures/*.json", "*/.partial/*/*")
        for path in data.glob(pattern)
    )
    return max((order(name)[0] for name in found if re.fullmatch(SHEET_PATTERN, name)), default=0)
