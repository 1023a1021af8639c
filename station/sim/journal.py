"""What really happened, one JSON line per event, for tests and reports to compare with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TextIO


class Journal:
    """Writes events as they happen; without a file it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, event: str, **values: object) -> None:
        """Append one event, stamped with the monotonic clock this machine's processes share."""
        if self._file is not None:
            line = {"t": round(time.monotonic(), 6), "event": event, **values}
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file; later events are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None
