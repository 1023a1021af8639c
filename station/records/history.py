"""What became of a sheet after its record was closed: history.jsonl beside manifest.json.

One event a line, only ever appended. Each line names the sha256 of the one before it, the first
line that of the manifest, so that none can be changed or taken out unnoticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
from pydantic import Field, ValidationError

from station.errors import DatasetError
from station.records.sheet import FileEntry, Verdict
from station.strict import Strict

HISTORY = "history.jsonl"

log = structlog.get_logger()

What = Literal["signalled", "kept", "released", "exported", "thinned"]
# What the lines told: a verdict, or unknown where the process ended before it could say.
Outcome = Literal["accept", "reject", "none", "unknown"]


class Event(Strict):
    """One thing that happened to a recorded sheet."""

    event: What
    at: datetime
    previous: str = Field(description="sha256 of the line before, or of the manifest")
    outcome: Outcome | None = None  # signalled
    who: str | None = None  # kept, released
    why: str | None = None
    files: dict[str, FileEntry] = Field(
        default_factory=dict, description="thinned: what was deleted, as the manifest proves it"
    )


class After(NamedTuple):
    """What a sheet's events come to."""

    outcome: Outcome | None = None
    signalled_at: datetime | None = None
    kept: bool = False
    exported: bool = False
    thinned: frozenset[str] = frozenset()


def append(folder: Path, manifest_sha256: str, event: What, **values: object) -> Event:
    """Add one event, durably; a line that a power cut left half written is cut off first.

    A history that is damaged otherwise takes no more.
    """
    path = folder / HISTORY
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX)  # `keep` and `retention` may run beside the station
        lines, half = _lines(path)
        _, problem = _followed(lines, manifest_sha256)
        if problem is not None:  # nobody would ever read what is written behind it
            raise DatasetError(f"{path}: {problem}; restore it from the backup")
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else manifest_sha256
        entry = Event.model_validate(
            {"event": event, "at": datetime.now(UTC), "previous": previous, **values}
        )
        if half:
            log.warning("history.half_line_cut", file=str(path), cut=half.decode(errors="replace"))
            stream.truncate(stream.seek(0, os.SEEK_END) - len(half))
        elif lines and not path.read_bytes().endswith(b"\n"):
            stream.write(b"\n")
        stream.write(_dump(entry) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    finally:
        with suppress(OSError):  # what could not be written is told already
            stream.close()
    return entry


def read(folder: Path, manifest_sha256: str) -> tuple[list[Event], list[str]]:
    """Return a sheet's events, and what is wrong with them."""
    try:
        lines, half = _lines(folder / HISTORY)
    except OSError as error:
        return [], [f"{HISTORY}: {error.strerror}"]
    events, problem = _followed(lines, manifest_sha256)
    if problem is not None:
        return events, [f"{HISTORY}: {problem}"]
    if half:
        found = f"{HISTORY}: ends in half a line ({len(half)} bytes), which the next event cuts"
        return events, [found]
    return events, []


def after(manifest_verdict: Verdict | None, silent: bool, events: Sequence[Event]) -> After:
    """Sum up a sheet's events; where nothing was to be told, nothing needs an event."""
    # The last one counts: a verdict is taken back where its sheet goes before busy falls.
    told = next((e for e in reversed(events) if e.event == "signalled"), None)
    holds = [e.event for e in events if e.event in {"kept", "released"}]
    return After(
        outcome=told.outcome
        if told
        else "none"
        if silent or manifest_verdict is Verdict.NONE
        else None,
        signalled_at=told.at if told else None,
        kept=holds[-1:] == ["kept"],
        exported=any(e.event == "exported" for e in events),
        thinned=frozenset(name for e in events if e.event == "thinned" for name in e.files),
    )


def _followed(lines: Sequence[bytes], manifest_sha256: str) -> tuple[list[Event], str | None]:
    """Follow the chain from the manifest on; return the events up to where it breaks, and how."""
    events: list[Event] = []
    previous = manifest_sha256
    for number, line in enumerate(lines, start=1):
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            return events, f"line {number} is not an event"
        if event.previous != previous:
            return events, f"line {number} does not follow the one before it"
        events.append(event)
        previous = hashlib.sha256(line).hexdigest()
    return events, None


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return the lines, and what follows them: the beginning of one.

    A line that lacks nothing but its end is whole: it says what it was written to say.
    """
    *lines, rest = (path.read_bytes() if path.exists() else b"").split(b"\n")
    try:
        Event.model_validate_json(rest)
    except ValidationError:
        return lines, rest
    return [*lines, rest], b""


def _dump(event: Event) -> bytes:
    return event.model_dump_json(exclude_none=True, exclude_defaults=True).encode()
