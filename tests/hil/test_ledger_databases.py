"""The ledger does the same in SQLite and in PostgreSQL.

PostgreSQL is Debian's own server, started for the tests on a socket in a folder of theirs.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from station.errors import ConfigError, DatasetError
from station.geometry import Pose
from station.kinematics import Joints
from station.records.database import MIGRATIONS, SCHEMA
from station.records.history import After
from station.records.ledger import Ledger, open_ledger
from station.records.ledger_schema import metadata
from station.records.sheet import Capture, FileEntry, Manifest, Verdict

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PLACE = Pose(0.1, -0.45, 0.26, 3.14159265, 0.0, 0.0)


def _server_programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return newest[-1].parent if newest else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a PostgreSQL server for these tests; yields a URL without the database's name."""
    programs = _server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here (initdb not found)")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = next(
            (u.pw_name for u in pwd.getpwall() if u.pw_name in {"postgres", "nobody"}), None
        )
        if user is None:
            pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # a socket's path must be short
        place = Path(folder)
        if user is not None:
            shutil.chown(place, user)
        options: dict[str, Any] = {"check": True, "user": user, "stdout": subprocess.DEVNULL}
        data = str(place / "data")
        subprocess.run(
            [str(programs / "initdb"), "-D", data, "-U", "station", "-A", "trust", "--no-sync"],
            **options,
        )
        settings = f"-c listen_addresses='' -c unix_socket_directories={place}"
        control = [str(programs / "pg_ctl"), "-D", data, "-l", str(place / "log"), "-w"]
        subprocess.run([*control, "-o", settings, "start"], **options)
        try:
            yield f"postgresql+psycopg://station@/{{}}?host={place}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **options)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Return what a cell file would say: nothing, or the URL of an empty database."""
    if request.param == "sqlite":
        return None
    server: str = request.getfixturevalue("server")
    name = f"t{os.urandom(6).hex()}"
    engine = sql.create_engine(server.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.format(name)


@pytest.fixture
def ledger(tmp_path: Path, url: str | None) -> Iterator[Ledger]:
    with open_ledger(tmp_path, url) as opened:
        yield opened


def manifest(number: int, station: str = "s1", **values: Any) -> Manifest:
    sheet = f"{station}-0001-{number:06d}"
    capture = Capture(
        file=f"{sheet}_left_1.png", pixels_sha256="0" * 64, width=8, height=6, setup="left", shot=1,
        pose_asked=PLACE, pose=PLACE, joints_rad=Joints(0, 0, 0, 0, 0, 0), exposure_us=8000.0,
        gain_db=0.1, frame=number, taken_at=WHEN, score=0.1 + 1e-9 * number,
    )  # fmt: skip
    given: dict[str, Any] = {
        "schema": 1,
        "kind": "inspection",
        "sheet": sheet,
        "run": f"{station}-0001",
        "started_at": WHEN,
        "finished_at": WHEN,
        "complete": True,
        "recipe": "glassfiber",
        "recipe_sha256": "0" * 64,
        "cell_sha256": "1" * 64,
        "verdict": Verdict.ACCEPT,
        "score": 1 / 3,
        "threshold": 0.5,
        "reasons": ("wörter, \"quoted\"; 'too'",),
        "captures": (capture,),
        "files": {capture.file: FileEntry(sha256="2" * 64, bytes=3_000_000_000)},
        "software": {},
    }
    return Manifest(**{**given, **values})


def add(ledger: Ledger, workspace: Path, number: int, **values: Any) -> Manifest:
    record = manifest(number, **values)
    ledger.record(record, "a" * 64, workspace / "data" / record.sheet, After())
    return record


def test_a_row_reads_back_exactly_as_it_was_written(tmp_path: Path, ledger: Ledger) -> None:
    record = add(ledger, tmp_path, 1)
    wanted = ledger.row(record, "a" * 64, tmp_path / "data" / record.sheet, After())
    assert ledger.row_of(record.sheet) == wanted
    assert ledger.rows() == [wanted]
    (shot,) = ledger.shot_rows([record.sheet])
    assert (shot["score"], shot["taken_at"], shot["rx_rad"]) == (0.1 + 1e-9, WHEN, 3.14159265)


def test_a_time_of_another_zone_is_the_same_moment(tmp_path: Path, ledger: Ledger) -> None:
    there = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    record = add(ledger, tmp_path, 1, started_at=there)
    row = ledger.row_of(record.sheet)
    assert row is not None
    assert row["started_at"] == WHEN
    assert row["started_at"].tzinfo is UTC


def test_sheets_come_in_the_order_of_boot_and_number(tmp_path: Path, ledger: Ledger) -> None:
    for number in (10, 2, 1, 11):
        add(ledger, tmp_path, number)
    assert [row["number"] for row in ledger.rows("glassfiber", "s1-0001")] == [1, 2, 10, 11]
    assert ledger.rows("other") == ledger.rows(run="s1-0002") == []


def test_what_became_of_a_sheet_is_noted(tmp_path: Path, ledger: Ledger) -> None:
    record = add(ledger, tmp_path, 1)
    ledger.note(record.sheet, After("accept", WHEN, kept=True, thinned=frozenset({"a"})))
    row = ledger.row_of(record.sheet)
    assert row is not None
    assert (row["outcome"], row["signalled_at"], row["kept"]) == ("accept", WHEN, True)
    assert (row["exported"], row["thinned"]) == (False, True)


def test_the_database_itself_refuses_an_accept_that_was_not_judged(
    tmp_path: Path, ledger: Ledger
) -> None:
    record = add(ledger, tmp_path, 1, verdict=Verdict.REJECT)
    with pytest.raises(DatasetError) as caught:
        ledger.note(record.sheet, After("accept"))
    assert isinstance(caught.value.__cause__, IntegrityError)
    row = ledger.row_of(record.sheet)
    assert row is not None
    assert row["outcome"] is None


def test_a_record_written_twice_is_one_row(tmp_path: Path, ledger: Ledger) -> None:
    add(ledger, tmp_path, 1)
    add(ledger, tmp_path, 1, score=0.25)
    assert [row["score"] for row in ledger.rows()] == [0.25]
    assert len(ledger.shot_rows(["s1-0001-000001"])) == 1


def test_a_rebuild_is_all_or_nothing(tmp_path: Path, ledger: Ledger) -> None:
    add(ledger, tmp_path, 1)
    before = ledger.rows()
    good = ledger.row(manifest(2), "b" * 64, tmp_path / "data" / "x", After())
    with pytest.raises(DatasetError):
        ledger.rebuild([(good, []), ({**good, "verdict": "perhaps"}, [])], lost=before)
    assert ledger.rows() == before
    ledger.rebuild([(good, [])], lost=before)
    assert [row["number"] for row in ledger.rows()] == [2]


def test_an_alarm_is_raised_once_until_it_is_cleared(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.alarm("record_missing", "gone", "s1-0001-000001")
        ledger.alarm("disk_low", "1 GB")
    with ledger._begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM alarms").scalar() == 2


def test_opening_again_finds_what_was_there(tmp_path: Path, url: str | None) -> None:
    with open_ledger(tmp_path, url) as first:
        add(first, tmp_path, 1)
    with open_ledger(tmp_path, url) as second:
        assert len(second.rows()) == 1


def test_the_migrations_make_the_tables_the_code_uses(ledger: Ledger) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
    with ledger._begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_ledger_of_the_first_schema_keeps_its_sheets(tmp_path: Path, url: str | None) -> None:
    with open_ledger(tmp_path, url) as ledger:
        kept = ledger.row(add(ledger, tmp_path, 1), "a" * 64, tmp_path / "data" / "x", After())
        with ledger._begin() as connection:
            connection.exec_driver_sql("ALTER TABLE sheets DROP COLUMN kind")
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with open_ledger(tmp_path, url) as ledger:
        (row,) = ledger.rows()
    assert (row["sheet"], row["kind"]) == (kept["sheet"], "inspection")
    if url is None:
        assert (tmp_path / "data" / "ledger.db.schema-0001").is_file(), "copied first"


def test_a_schema_from_the_future_is_refused(tmp_path: Path, url: str | None) -> None:
    with open_ledger(tmp_path, url) as ledger, ledger._begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer station"), open_ledger(tmp_path, url):
        pass


def test_stations_that_share_a_server_see_their_own_sheets(tmp_path: Path, server: str) -> None:
    name = f"t{os.urandom(6).hex()}"
    engine = sql.create_engine(server.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    with open_ledger(tmp_path, server.format(name)) as ledger:
        add(ledger, tmp_path, 1, station="s1")
        add(ledger, tmp_path, 1, station="s2")
        assert [row["station"] for row in ledger.rows(stations={"s2"})] == ["s2"]
        assert len(ledger.rows()) == 2


def test_a_server_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://station@/none?host={tmp_path}"
    with pytest.raises(DatasetError, match="see that the server runs"), open_ledger(tmp_path, url):
        pass


@pytest.mark.parametrize(
    "url", ["mysql://a/b", "nonsense", "sqlite:///x.db", "postgresql+psycopg://a:b/c"]
)
def test_another_kind_of_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="ledger"), open_ledger(tmp_path, url):
        pass


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger, ledger._begin() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        told = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]
    assert told == ["wal", 2, 1, 5000]
