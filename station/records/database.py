"""The ledger's database: where it is, opened, brought up to date, and known when it is damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sql
import structlog
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from station.errors import ConfigError, DatasetError
from station.records.ledger_schema import metadata
from station.records.storage import free

FILE = "ledger.db"
SCHEMA = "0002"  # the newest migration
BUSY_MS = 5000
REBUILD = "`station verify --rebuild` makes it anew from the records"
NO_ROOM_GB = 1e-3  # SQLite needs some even to read: for the index of its log
MIGRATIONS = Path(__file__).with_name("migrations")

log = structlog.get_logger()


@contextmanager
def open_database(workspace: Path, url: str | None = None) -> Iterator[tuple[Engine, str]]:
    """Open the database, made or brought up to date first; with how a message names it."""
    address = sql.URL.create("sqlite", database=str(workspace / "data" / FILE))
    if url is not None:
        address = _address(url)
    local = address.get_backend_name() == "sqlite"
    name = str(address.database) if local else address.render_as_string(hide_password=True)
    read_only = local and _read_only(Path(name))
    if read_only:
        query = {"mode": "ro", "immutable": "1", "uri": "true"}
        address = sql.URL.create("sqlite", database=f"file:{quote(name)}", query=query)
    elif local:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    with told(name):
        try:
            engine = sql.create_engine(address, pool_size=1, max_overflow=4)
        except ModuleNotFoundError as error:
            raise ConfigError("ledger: PostgreSQL needs `pip install station[postgres]`") from error
        try:
            if local and not read_only:
                sql.event.listen(engine, "connect", _set_sqlite)
                sql.event.listen(engine, "begin", _begin_sqlite)
            if not read_only:
                _migrate(engine, name, Path(name) if local else None)
            yield engine, name
        finally:
            engine.dispose()


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn the database's errors into one line that says what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        problem = str(getattr(error, "orig", None) or error).splitlines()[0]
        advice = f"if it is damaged, {REBUILD}"
        if "://" in name:
            advice = "see that the server runs, and that it knows this user and database"
        elif "locked" in problem:
            advice = "another program holds it; end that one, then go on"
        elif free(Path(name).parent).gb < NO_ROOM_GB:
            advice = "no room is left on its disk; free some by other files, then go on"
        raise DatasetError(f"{name}: {problem}; {advice}") from error


def _read_only(path: Path) -> bool:
    """Tell whether the ledger can be read, never written; one not closed cleanly cannot be."""
    if not path.is_file() or os.access(path.parent, os.W_OK):
        return False
    log_of_writes = path.with_name(f"{path.name}-wal")
    if log_of_writes.is_file() and log_of_writes.stat().st_size:
        raise DatasetError(
            f"{path}: the folder is read-only, and the ledger was not closed cleanly; copy the "
            "workspace to where it may be written"
        )
    return True


def is_damaged(workspace: Path) -> bool:
    """Tell whether data/ledger.db is no longer a database, or no longer a ledger."""
    path = workspace / "data" / FILE
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            told = connection.execute("PRAGMA integrity_check").fetchall()
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.OperationalError:
        return False  # busy, or not to be opened: whoever opens it next says why
    except sqlite3.DatabaseError:
        return True
    made = "alembic_version" in tables
    return told != [("ok",)] or (made and not tables >= set(metadata.tables))


def set_aside(workspace: Path) -> Path:
    """Move a damaged database out of the way, with what belongs to it; return where it lies."""
    path = workspace / "data" / FILE
    number = 1
    while (aside := path.with_name(f"{FILE}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _address(url: str) -> sql.URL:
    try:
        address = make_url(url)
        address.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError("ledger: no URL of a database") from error
    except ModuleNotFoundError as error:
        raise ConfigError("ledger: PostgreSQL needs `pip install station[postgres]`") from error
    if address.get_backend_name() != "postgresql":
        raise ConfigError("ledger: postgresql+psycopg://... or nothing, for data/ledger.db")
    return address


def _set_sqlite(connection: Any, _record: object) -> None:
    # Transactions begin where SQLAlchemy says; the driver's own rules leave DDL outside of them.
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _migrate(engine: Engine, name: str, file: Path | None) -> None:
    """Bring the tables up to date; a file that has some is copied first."""
    with engine.connect() as connection:
        there = sql.inspect(connection).has_table("alembic_version")
        now = None
        if there:
            now = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if now == SCHEMA:
        return
    from alembic import command  # slow to import, and hardly ever needed
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    if now is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(now)
        except CommandError as error:
            raise ConfigError(
                f"{name}: made by a newer station (schema {now}, this one knows {SCHEMA}); "
                "update the station"
            ) from error
        if file is not None:
            _back_up(engine, file.with_name(f"{file.name}.schema-{now}"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, SCHEMA)
    log.info("ledger.migrated", ledger=name, before=now, after=SCHEMA)


def _back_up(engine: Engine, target: Path) -> None:
    """Copy the database as it stands; a plain copy of the file would miss what is in its log."""
    target.unlink(missing_ok=True)
    with engine.connect() as connection:
        connection.rollback()
        raw: Any = connection.connection.driver_connection
        raw.execute("VACUUM INTO ?", (str(target),))
