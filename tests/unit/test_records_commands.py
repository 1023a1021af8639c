"""The commands on records: verify, why, records, keep, retention."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from recorded import RECIPE, record, sheet_id, told

from station import control
from station import workspace as template
from station.cli import main
from station.errors import DatasetError
from station.records.dataset import Dataset
from station.records.ledger import open_ledger
from station.states import Machine


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two accepts and a reject, recorded and told; the commands run in their workspace."""
    folder = tmp_path / "ws"
    template.init(folder)
    monkeypatch.delenv("STATION_CELL", raising=False)
    monkeypatch.chdir(folder)
    with open_ledger(folder) as ledger:
        dataset = Dataset(folder, RECIPE, ledger)
        told(dataset, 1)
        told(dataset, 2, "reject", reasons=("=1+1", "score 0.900 is not below threshold 0.5"))
        told(dataset, 3)
    return folder


def run(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(command))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def folder_of(workspace: Path, number: int) -> Path:
    (found,) = workspace.glob(f"data/*/inspections/*/{sheet_id(number)}")
    return found


def test_verify_ends_with_zero_or_names_each_problem_and_ends_with_five(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "verify")
    assert (code, out.strip().endswith("all as recorded")) == (0, True)
    picture = next(folder_of(workspace, 2).glob("*.png"))
    picture.write_bytes(b"x")
    code, out, _ = run(capsys, "verify", "--json")
    problem, summary = rows(out)
    assert code == 5
    assert (problem["recipe"], problem["sheet"]) == (RECIPE, sheet_id(2))
    assert problem["problem"].startswith(f"{picture.name}: 1 bytes")
    assert (summary["sheets"], summary["problems"]) == (3, 1)


def test_verify_rebuild_replaces_a_lost_or_damaged_ledger(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "data" / "ledger.db"
    path.unlink()
    code, out, _ = run(capsys, "verify")
    assert (code, out.count("has no row of it")) == (5, 3)
    code, out, err = run(capsys, "verify", "--rebuild")
    assert code == 0, out
    assert "made anew from 3 records" in err
    path.write_bytes(b"not a database" * 500)
    code, _, err = run(capsys, "records")
    assert code == 5
    assert "station verify --rebuild" in err
    code, out, err = run(capsys, "verify", "--rebuild")
    assert code == 0, out
    assert "ledger.db.damaged-1: the damaged ledger" in err


def test_a_database_of_a_newer_station_is_left_alone(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    with sqlite3.connect(workspace / "data" / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for command in (["records"], ["verify", "--rebuild"]):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert "made by a newer station" in err


def test_why_answers_from_disk_with_the_ledger_gone(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "data" / "ledger.db").unlink()
    code, out, _ = run(capsys, "why", sheet_id(1), "--json")
    (answer,) = rows(out)
    assert code == 0
    assert (answer["verdict"], answer["outcome"]) == ("accept", "accept")
    assert "below the threshold 0.5" in answer["because"]
    assert answer["model_sha256"] == "3" * 64
    assert answer["model_today"].startswith("another: ")
    assert [(s["setup"], s["shot"], s["score"]) for s in answer["shots"]] == [
        ("left", number, 0.1) for number in (1, 2, 3)
    ]
    assert all(len(s["file_sha256"]) == 64 and len(s["pose"]) == 6 for s in answer["shots"])
    code, out, _ = run(capsys, "why", sheet_id(2))
    assert code == 0
    assert "REJECT  the lines told: reject" in out
    assert "score 0.900 is not below threshold 0.5" in out
    assert out.strip().endswith("all files are as recorded")


def test_why_says_what_no_longer_holds(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(folder_of(workspace, 1).glob("*.npy")).unlink()
    code, out, _ = run(capsys, "why", sheet_id(1))
    assert code == 5
    assert "no such file" in out


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("sheet", ["s1-0001-000009", "../../etc", "*", "s1-0001-*"])
def test_why_of_no_sheet_is_one_clear_line(capsys: pytest.CaptureFixture[str], sheet: str) -> None:
    code, out, err = run(capsys, "why", sheet)
    assert (code, out, len(err.splitlines())) == (5, "", 1)


def test_records_are_exported_as_csv_that_no_spreadsheet_runs(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = run(capsys, "export", "--csv", "out.csv")
    assert code == 0
    found = list(csv.DictReader(io.StringIO((workspace / "out.csv").read_text())))
    assert [(row["sheet"], row["verdict"], row["outcome"]) for row in found] == [
        (sheet_id(1), "accept", "accept"),
        (sheet_id(2), "reject", "reject"),
        (sheet_id(3), "accept", "accept"),
    ]
    assert found[0]["started_at"] == "2026-01-02T03:04:05+00:00"
    assert found[1]["reasons"].startswith("'=1+1; score 0.900")


def test_records_are_exported_as_parquet_with_types(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = run(capsys, "export", "--parquet", "out.parquet", "--shots")
    assert code == 0
    table = pyarrow.parquet.read_table(workspace / "out.parquet")
    assert table.num_rows == 9
    types = {field.name: str(field.type) for field in table.schema}
    assert types["taken_at"] == "timestamp[us, tz=UTC]"
    assert (types["score"], types["problem"], types["shot"]) == ("double", "string", "int64")
    assert table.column("run").to_pylist() == ["s1-0001"] * 9


@pytest.mark.usefixtures("workspace")
def test_records_are_listed_by_recipe_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "records", "--json", "--recipe", RECIPE, "--run", "s1-0001")
    assert [row["sheet"] for row in rows(out)] == [sheet_id(n) for n in (1, 2, 3)]
    for what, name in (("run", "s1-0009"), ("recipe", "nosuch")):
        for command in (["records", "--json"], ["export", "--csv", "out.csv"]):
            code, out, err = run(capsys, *command, f"--{what}", name)
            assert (code, out) == (2, "")
            assert f"no inspected sheet of {what} '{name}'" in err
    code, _, err = run(capsys, "export", "--csv", "none/out.csv")
    assert (code, "no such folder" in err) == (2, True)
    code, _, err = run(capsys, "export", "--csv", "-")
    assert (code, "the name of a file is needed" in err) == (2, True)
    code, _, err = run(capsys, "export", "--parquet", ".")
    assert (code, "not a file that could be replaced" in err) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ["export", "--csv", "data/ledger.db"],
        ["export", "--csv", "data/new.csv"],
        ["report", "--out", "recipes/soak.yaml"],
        ["snap", "--out", "models/a.png"],
        ["draw", "--model", "glassfiber", "--out", "calibration/../calibration/a.svg"],
    ],
)
def test_no_output_replaces_what_is_the_stations_own(
    workspace: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    code, _, err = run(capsys, *command)
    assert (code, "which is the station's own; choose another" in err) == (2, True), err
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


def test_a_ledger_is_not_made_anew_under_a_station_that_stays(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In mode manual it holds no lock."""
    (workspace / "run").mkdir(exist_ok=True)
    with control.serve(workspace, control.Control(Machine(), dict)):
        code, _, err = run(capsys, "verify", "--rebuild")
    assert (code, "a `station inspect` runs in this workspace; end it first" in err) == (6, True)


@pytest.mark.parametrize("option", ["--who", "--why"])
@pytest.mark.parametrize("text", ["", " ", "two\nlines", "a\x1b[31m"])
def test_what_a_person_said_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], option: str, text: str
) -> None:
    given = {"--who": "anna", "--why": "a look", option: text}
    words = [word for pair in given.items() for word in pair]
    code, _, err = run(capsys, "keep", sheet_id(1), *words)
    assert (code, f"{option}: one line of text is needed" in err) == (2, True)
    assert "kept" not in (folder_of(workspace, 1) / "history.jsonl").read_text()


def test_a_ledger_that_is_deleted_while_open_takes_no_record(workspace: Path) -> None:
    with open_ledger(workspace) as ledger:
        (workspace / "data" / "ledger.db").unlink()
        with pytest.raises(DatasetError, match=r"ledger\.db: was deleted or replaced while it was"):
            told(Dataset(workspace, RECIPE, ledger), 4)


def test_keep_export_and_retention_play_together(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_ledger(workspace) as ledger:
        record(Dataset(workspace, RECIPE, ledger), 4, "none")
    code, _, err = run(capsys, "retention", "--recipe", RECIPE, "--apply")
    assert (code, "so nothing may be deleted" in err) == (2, True)
    path = workspace / "recipes" / f"{RECIPE}.yaml"
    path.write_text(path.read_text() + "retention: {thin_accepts_after_days: 0.001}\n")
    assert run(capsys, "keep", sheet_id(1), "--why", "shown to visitors")[0] == 0

    _, out, _ = run(capsys, "retention", "--recipe", RECIPE, "--json")
    (told_of,) = rows(out)
    assert told_of["to_thin"] == 0
    assert told_of["stays: not exported yet"] == told_of["stays: kept by a person"] == 1

    _, out, _ = run(capsys, "export", "--csv", "none.csv", "--shadow", "--mark", "--json")
    assert (rows(out)[0]["rows"], rows(out)[0]["marked"]) == (0, 0), "no shadow, no row, no mark"
    _, out, _ = run(capsys, "export", "--csv", "out.csv", "--mark", "--json")
    assert rows(out)[0]["marked"] == 4
    _, out, _ = run(capsys, "retention", "--recipe", RECIPE, "--json")
    assert rows(out)[0]["to_thin"] == 1
    assert len(list(workspace.rglob("inspections/**/*.png"))) == 12, "nothing is deleted yet"

    code, out, _ = run(capsys, "retention", "--recipe", RECIPE, "--apply", "--json")
    assert (code, rows(out)[0]["thinned"]) == (0, 1)
    assert list(folder_of(workspace, 3).glob("*.png")) == []
    assert len(list(workspace.rglob("inspections/**/*.png"))) == 9
    code, out, _ = run(capsys, "verify")
    assert (code, "1 thinned" in out) == (0, True), out
    _, out, _ = run(capsys, "why", sheet_id(3))
    assert out.count("  thinned") == 4  # three pictures, and the event


def test_a_ledger_that_may_only_be_read_is_read(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before = (workspace / "data" / "ledger.db").stat().st_mtime_ns
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anything but a disk
    assert main(["records", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert (workspace / "data" / "ledger.db").stat().st_mtime_ns == before
    (workspace / "data" / "ledger.db-wal").write_bytes(b"not yet in the ledger")
    assert main(["records", "--json"]) == 5
    assert "read-only, and the ledger was not closed cleanly" in capsys.readouterr().err
