"""The ledger: a database in which sheets are found; the manifests on disk are the truth.

SQLite in data/ledger.db, or PostgreSQL where the cell file names a URL; the same code for both. A
sheet's row is committed after its record is durable and before any line is set.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from station.errors import DatasetError
from station.records.database import REBUILD, open_database, told
from station.records.history import After
from station.records.ledger_schema import (
    POSE,
    alarms,
    audit,
    shadow_scores,
    sheets,
    shots,
)
from station.records.sheet import SHEET_PATTERN, Manifest

Row = dict[str, Any]


class SheetId(NamedTuple):
    """What a sheet's id says: `s1-0042-000007`."""

    station: str
    boot: int
    number: int

    @classmethod
    def of(cls, sheet: str) -> SheetId:
        """Read an id."""
        found = re.fullmatch(SHEET_PATTERN, sheet)
        if found is None:
            raise DatasetError(f"{sheet[:80]!r}: not a sheet's id, such as s1-0042-000007")
        return cls(found[1], int(found[2]), int(found[3]))


class Ledger:
    """An open ledger; one thread at a time."""

    def __init__(self, engine: Engine, workspace: Path, name: str) -> None:
        self._engine = engine
        self._workspace = workspace
        self.name = name
        """How a message names it: the file, or the URL without a password."""
        self._file = None if self.shared else _identity(name)

    @property
    def shared(self) -> bool:
        """Tell whether other stations may keep their sheets here as well."""
        return self._engine.dialect.name != "sqlite"

    def record(self, manifest: Manifest, sha256: str, folder: Path, after: After) -> None:
        """Commit the row of one recorded sheet; that of another record by the same id stays."""
        with self._begin() as connection:
            there = connection.execute(
                sql.select(sheets.c.recipe, sheets.c.manifest_sha256).where(
                    sheets.c.sheet == manifest.sheet
                )
            ).first()
            if there is not None and tuple(there) != (manifest.recipe, sha256):
                raise DatasetError(
                    f"{self.name}: {manifest.sheet} is already recorded, of recipe {there.recipe}; "
                    "remove run/boot, then the count goes on after the highest in data/"
                )
            _replace(connection, self.row(manifest, sha256, folder, after), shots_of(manifest))

    def note(self, sheet: str, after: After) -> None:
        """Commit what became of a sheet since.

        What was told is never forgotten here: a history that says less was damaged.
        """
        values = _after_columns(after)
        if after.outcome is None:
            values = {k: v for k, v in values.items() if k not in {"outcome", "signalled_at"}}
        with self._begin() as connection:
            connection.execute(sheets.update().where(sheets.c.sheet == sheet).values(values))

    def row(self, manifest: Manifest, sha256: str, folder: Path, after: After) -> Row:
        """Return the row that a record must have."""
        place = SheetId.of(manifest.sheet)
        return {
            "sheet": manifest.sheet,
            **place._asdict(),
            "run": manifest.run,
            "recipe": manifest.recipe,
            "started_at": manifest.started_at,
            "finished_at": manifest.finished_at,
            "verdict": str(manifest.verdict),
            "score": manifest.score,
            "threshold": manifest.threshold,
            "complete": manifest.complete,
            "dry_run": manifest.dry_run,
            "kind": manifest.kind,
            "reasons": list(manifest.reasons),
            "model": manifest.model,
            "model_sha256": manifest.model_sha256,
            "recipe_sha256": manifest.recipe_sha256,
            "cell_sha256": manifest.cell_sha256,
            "folder": folder.relative_to(self._workspace).as_posix(),
            "manifest_sha256": sha256,
            "previous": manifest.previous,
            "bytes": sum(entry.bytes for entry in manifest.files.values()),
            **_after_columns(after),
        }

    def row_of(self, sheet: str) -> Row | None:
        """Return the row of one sheet."""
        with self._begin() as connection:
            found = connection.execute(sql.select(sheets).where(sheets.c.sheet == sheet))
            row = found.mappings().first()
        return None if row is None else dict(row)

    def rows(
        self, recipe: str | None = None, run: str | None = None, stations: set[str] | None = None
    ) -> list[Row]:
        """Return the rows of sheets in order; of these stations only where others share it."""
        query = sql.select(sheets).order_by(sheets.c.recipe, sheets.c.boot, sheets.c.number)
        if recipe is not None:
            query = query.where(sheets.c.recipe == recipe)
        if run is not None:
            query = query.where(sheets.c.run == run)
        if self.shared and stations is not None:
            query = query.where(sheets.c.station.in_(stations))
        with self._begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def shot_rows(self, wanted: Sequence[str]) -> list[Row]:
        """Return the rows of these sheets' shots."""
        return self._of_sheets(shots, wanted)

    def shadow(self, rows: Sequence[Row]) -> None:
        """Commit what a shadow model said of one sheet's shots; said again, it is replaced."""
        with self._begin() as connection:
            for row in rows:
                key = [column == row[column.name] for column in shadow_scores.primary_key]
                connection.execute(shadow_scores.delete().where(*key))
            connection.execute(shadow_scores.insert(), list(rows))

    def shadow_rows(self, wanted: Sequence[str]) -> list[Row]:
        """Return what shadow models said of these sheets' shots."""
        return self._of_sheets(shadow_scores, wanted)

    def rebuild(self, records: Sequence[tuple[Row, list[Row]]], lost: Sequence[Row]) -> None:
        """Replace the index by these rows in one step; what went is told in the audit."""
        with self._begin() as connection:
            for row in lost:
                connection.execute(sheets.delete().where(sheets.c.sheet == row["sheet"]))
                _audit(connection, "ledger.row_dropped", f"{row['sheet']} {row['manifest_sha256']}")
            for row, of_shots in records:
                _replace(connection, row, of_shots)
            _audit(connection, "ledger.rebuilt", f"{len(records)} sheets, {len(lost)} rows dropped")

    def alarm(self, code: str, text: str, sheet: str | None = None) -> None:
        """Raise an alarm, unless the same one is still raised."""
        same = sql.and_(
            alarms.c.code == code, alarms.c.sheet == sheet, alarms.c.cleared_at.is_(None)
        )
        with self._begin() as connection:
            if connection.execute(sql.select(alarms.c.id).where(same)).first() is None:
                connection.execute(
                    alarms.insert().values(
                        raised_at=datetime.now(UTC),
                        code=code,
                        text=text,
                        priority="high",
                        sheet=sheet,
                    )
                )

    def audit(self, action: str, what: str, why: str | None = None, who: str | None = None) -> None:
        """Keep who did what; the person at the keyboard where nobody is named."""
        with self._begin() as connection:
            _audit(connection, action, what, why, who)

    def problems(self) -> list[str]:
        """Return what the database finds wrong with itself."""
        if self.shared:
            return []  # PostgreSQL checks its own pages
        with self._begin() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        return [f"{self.name}: {text}" for text in found if text != "ok"]

    def _of_sheets(self, table: sql.Table, wanted: Sequence[str]) -> list[Row]:
        """Return a table's rows of these sheets, in order of its key."""
        found: list[Row] = []
        with self._begin() as connection:
            for start in range(0, len(wanted), 500):  # SQLite takes a limited number of values
                query = sql.select(table).where(table.c.sheet.in_(wanted[start : start + 500]))
                query = query.order_by(*table.primary_key)
                found += [dict(row) for row in connection.execute(query).mappings()]
        return found

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        if not self.shared and _identity(self.name) != self._file:
            raise DatasetError(
                f"{self.name}: was deleted or replaced while it was open; end the station, then "
                f"{REBUILD}"
            )
        with told(self.name), self._engine.begin() as connection:
            yield connection


@contextmanager
def open_ledger(workspace: Path, url: str | None = None) -> Iterator[Ledger]:
    """Open the ledger, made or brought up to date first."""
    with open_database(workspace, url) as (engine, name):
        yield Ledger(engine, workspace, name)


def _identity(name: str) -> tuple[int, int] | None:
    """Return which file lies there: SQLite goes on with one that was deleted, and tells nobody."""
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _replace(connection: Connection, row: Row, of_shots: list[Row]) -> None:
    connection.execute(sheets.delete().where(sheets.c.sheet == row["sheet"]))
    connection.execute(sheets.insert().values(row))
    if of_shots:
        connection.execute(shots.insert(), of_shots)


def _after_columns(after: After) -> Row:
    return {
        "outcome": after.outcome,
        "signalled_at": after.signalled_at,
        "kept": after.kept,
        "exported": after.exported,
        "thinned": bool(after.thinned),
    }


def shots_of(manifest: Manifest) -> list[Row]:
    """Return the rows that a record's shots must have."""
    for capture in manifest.captures:
        if capture.file not in manifest.files:
            raise DatasetError(f"{manifest.sheet}: {capture.file} has no file entry")
    return [
        {
            "sheet": manifest.sheet,
            "setup": capture.setup,
            "shot": capture.shot,
            "file": capture.file,
            "file_sha256": manifest.files[capture.file].sha256,
            "pixels_sha256": capture.pixels_sha256,
            "score": capture.score,
            "problem": capture.problem,
            "exposure_us": capture.exposure_us,
            "gain_db": capture.gain_db,
            "frame": capture.frame,
            "taken_at": capture.taken_at,
            **dict(zip(POSE, capture.pose, strict=True)),
        }
        for capture in manifest.captures
    ]


def _audit(
    connection: Connection,
    action: str,
    what: str,
    why: str | None = None,
    who: str | None = None,
) -> None:
    connection.execute(
        audit.insert().values(
            at=datetime.now(UTC),
            who=who or user(),
            action=action,
            what=what,
            why=why,
            accepted=True,
        )
    )


def user() -> str:
    """Return the name of the person at the keyboard, as the system knows it."""
    try:
        return getpass.getuser()[:60]
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "unknown"
