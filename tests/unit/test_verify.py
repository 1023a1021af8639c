"""What was recorded is proved, and whatever was done to it afterwards is named."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import RECIPE, record, sheet_id, told

from station.errors import DatasetError
from station.records import history, settings
from station.records.database import is_damaged, set_aside
from station.records.dataset import MANIFEST, Dataset, after_of, read_record
from station.records.history import HISTORY
from station.records.ledger import Ledger, open_ledger
from station.records.recovery import recover
from station.records.sheet import Verdict
from station.records.verify import Proof, rebuild, verify


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def dataset(tmp_path: Path, ledger: Ledger) -> Dataset:
    return Dataset(tmp_path, RECIPE, ledger)


def proof(ledger: Ledger, dataset: Dataset) -> Proof:
    return verify(dataset.root.parents[1], ledger, [RECIPE], "s1", lambda _: None)


def problems(ledger: Ledger, dataset: Dataset) -> list[str]:
    return [f"{p.sheet}: {p.what}" for p in proof(ledger, dataset).problems]


def test_what_the_loop_records_is_proved(ledger: Ledger, dataset: Dataset) -> None:
    told(dataset, 1)
    told(dataset, 2, "reject")
    record(dataset, 3, "none")
    found = proof(ledger, dataset)
    assert found.problems == []
    assert (found.sheets, found.files) == (3, 18)


def test_a_sheet_a_killed_process_left_is_adopted_and_proved(
    ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    folder = dataset.begin("inspection", sheet_id(2))
    (folder / ".half.png.tmp").write_bytes(b"x")
    (folder / "whole.png").write_bytes(b"y")
    files = dataset.adopt(folder)
    assert list(files) == ["whole.png"]
    manifest = read_record(dataset.folders()[0]).manifest
    left = {"sheet": sheet_id(2), "verdict": Verdict.NONE, "captures": (), "files": files}
    dataset.record_inspection(folder, manifest.model_copy(update=left))
    assert problems(ledger, dataset) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, **values: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}, indent=1) + "\n")


Tampering = Callable[[Path, Ledger], object]
PICTURE = f"{sheet_id(2)}_left_1.png"


@pytest.mark.parametrize(
    ("tamper", "sheet", "expected"),
    [
        (lambda f, _: flip(f / PICTURE), 2, f"{PICTURE}: sha256 is"),
        (lambda f, _: (f / PICTURE).write_bytes(b""), 2, "0 bytes, its manifest says"),
        (lambda f, _: (f / PICTURE).unlink(), 2, f"{PICTURE}: no such file"),
        (lambda f, _: (f / "more.png").write_bytes(b"x"), 2, "more.png: is not in the manifest"),
        (lambda f, _: edit(f / MANIFEST, score=0.2), 2, "ledger: score is 0.1"),
        (lambda f, _: edit(f / MANIFEST, score=0.2), 3, "chain: follows a record of sha256"),
        (lambda f, _: edit(f / MANIFEST, threshold=0.05), 2, "score is not below the threshold"),
        (lambda f, _: edit(f / MANIFEST, complete=False), 2, "not every shot is there"),
        (lambda f, _: (f / MANIFEST).unlink(), 2, "manifest.json: No such file"),
        (lambda f, _: (f / MANIFEST).write_bytes(b""), 2, "manifest.json: Invalid JSON"),
        (lambda f, _: f.rename(f.parents[3] / "gone"), 2, "ledger: has a row, but"),
        (lambda f, _: f.rename(f.parents[3] / "gone"), 3, "chain: follows a record of sha256"),
        (lambda f, _: f.rename(f.with_name(sheet_id(9))), 9, f"is of sheet {sheet_id(2)}"),
        (lambda f, _: edit(f / MANIFEST, recipe="other"), 2, "is of recipe other"),
        (lambda f, _: edit(f / MANIFEST, files={}), 2, "no file entry in the manifest"),
        (lambda f, _: edit(f / MANIFEST, sheet="x"), 2, "is of sheet x"),
        (lambda f, _: (f / HISTORY).write_bytes(b"{}\n"), 2, "line 1 is not an event"),
        (lambda f, _: edit(f / HISTORY, previous="0" * 64), 2, "is not an event"),
        (lambda _, ledger: execute(ledger, "DELETE FROM sheets WHERE number = 2"), 2, "no row"),
        (lambda _, ledger: execute(ledger, "DELETE FROM shots WHERE sheet LIKE '%2'"), 2, "shots"),
        (
            lambda _, ledger: execute(ledger, "UPDATE sheets SET outcome = 'none'"),
            2,
            "ledger: outcome is 'none', its record says 'accept'",
        ),
    ],
)
def test_whatever_was_done_to_a_record_is_named(
    ledger: Ledger, dataset: Dataset, tamper: Tampering, sheet: int, expected: str
) -> None:
    folders = [told(dataset, number) for number in (1, 2, 3)]
    assert problems(ledger, dataset) == []
    tamper(folders[1], ledger)
    found = problems(ledger, dataset)
    assert any(p.startswith(sheet_id(sheet)) and expected in p for p in found), found


def execute(ledger: Ledger, statement: str) -> None:
    with sqlite3.connect(ledger.name) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(statement)
    connection.close()


def test_an_event_that_follows_another_than_the_last_is_named(
    ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1)
    dataset.note(folder, "kept", who="a", why="b")
    lines = (folder / HISTORY).read_text().splitlines(keepends=True)
    (folder / HISTORY).write_text(lines[1])
    assert any("does not follow" in found for found in problems(ledger, dataset))


def test_what_lies_among_the_records_and_is_none_is_named_and_stops_nothing(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1)
    (folder.parent / "notes").mkdir()
    (folder.parent / sheet_id(7)).write_bytes(b"")
    recover(dataset, ledger, "s1")
    assert rebuild(tmp_path, ledger, [RECIPE], "s1") == (1, [])
    assert [found.split(": ")[1] for found in problems(ledger, dataset)] == [
        "is no sheet's folder"
    ] * 2


def test_half_a_line_of_history_is_cut_off_by_the_next_event(dataset: Dataset) -> None:
    folder = told(dataset, 1)
    with (folder / HISTORY).open("ab") as stream:
        stream.write(b'{"event": "ke')
    _, wrong = history.read(folder, read_record(folder).sha256)
    assert wrong == [f"{HISTORY}: ends in half a line (13 bytes), which the next event cuts"]
    dataset.note(folder, "kept", who="a", why="b")
    events, wrong = history.read(folder, read_record(folder).sha256)
    assert [event.event for event in events] == ["signalled", "kept"]
    assert wrong == []


def test_a_line_that_lacks_only_its_end_is_kept(ledger: Ledger, dataset: Dataset) -> None:
    folder = told(dataset, 1, "reject")
    path = folder / HISTORY
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert problems(ledger, dataset) == []
    dataset.note(folder, "kept", who="a", why="b")
    events, wrong = history.read(folder, read_record(folder).sha256)
    assert [event.event for event in events] == ["signalled", "kept"]
    assert wrong == []
    assert problems(ledger, dataset) == []


def test_what_was_told_is_not_forgotten_by_the_ledger_where_a_history_lost_it(
    ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1, "reject")
    path = folder / HISTORY
    path.write_bytes(path.read_bytes()[:20])
    dataset.note(folder, "kept", who="a", why="b")
    row = ledger.row_of(folder.name)
    assert row is not None
    assert row["outcome"] == "reject"
    assert any(
        "outcome is 'reject', its record says None" in text for text in problems(ledger, dataset)
    )


def test_the_index_is_restored_from_the_manifests_alone(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    told(dataset, 2, "reject")
    dataset.note(told(dataset, 3), "kept", who="a", why="b")
    before = ledger.rows(), ledger.shot_rows([sheet_id(n) for n in (1, 2, 3)])
    set_aside(tmp_path)
    with open_ledger(tmp_path) as fresh:
        assert fresh.rows() == []
        assert rebuild(tmp_path, fresh, [RECIPE], "s1") == (3, [])
        assert (fresh.rows(), fresh.shot_rows([sheet_id(n) for n in (1, 2, 3)])) == before
        assert problems(fresh, dataset) == []


def test_a_rebuild_drops_rows_without_a_record_and_says_so(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    told(dataset, 2).rename(tmp_path / "gone")
    assert rebuild(tmp_path, ledger, [RECIPE], "s1") == (1, [sheet_id(2)])
    assert problems(ledger, dataset) == []
    with sqlite3.connect(ledger.name) as connection:
        told_of = connection.execute("SELECT what FROM audit").fetchall()
    connection.close()
    assert any(sheet_id(2) in what for (what,) in told_of)


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_damaged_database_is_seen(tmp_path: Path, content: bytes | None) -> None:
    with open_ledger(tmp_path) as opened:
        told(Dataset(tmp_path, RECIPE, opened), 1)
    path = tmp_path / "data" / "ledger.db"
    assert not is_damaged(tmp_path)
    path.write_bytes(path.read_bytes()[: 3 * 4096] if content is None else content)
    assert is_damaged(tmp_path)
    aside = set_aside(tmp_path)
    assert aside.name == "ledger.db.damaged-1"
    assert not path.exists()


def test_a_start_adopts_a_record_that_has_no_row(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    folder = record(Dataset(tmp_path, RECIPE), 2)  # the process ended before the commit
    recover(dataset, ledger, "s1")
    assert problems(ledger, dataset) == []
    assert after_of(read_record(folder)).outcome == "unknown"


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("accept", "unknown"), ("reject", "unknown"), ("none", "none")]
)
def test_a_start_closes_outcomes_that_nobody_knows(
    ledger: Ledger, dataset: Dataset, verdict: str, outcome: str
) -> None:
    record(dataset, 1, verdict)
    recover(dataset, ledger, "s1")
    row = ledger.row_of(sheet_id(1))
    assert row is not None
    assert row["outcome"] == outcome
    assert problems(ledger, dataset) == []


def test_a_start_takes_an_outcome_from_the_history_where_the_row_missed_it(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    folder = record(dataset, 1)
    Dataset(tmp_path, RECIPE).note(folder, "signalled", outcome="accept")
    recover(dataset, ledger, "s1")
    row = ledger.row_of(sheet_id(1))
    assert row is not None
    assert row["outcome"] == "accept"


def test_a_start_flags_rows_without_a_record_once(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1).rename(tmp_path / "gone")
    recover(dataset, ledger, "s1")
    recover(dataset, ledger, "s1")
    with sqlite3.connect(ledger.name) as connection:
        alarms = connection.execute("SELECT code, sheet FROM alarms").fetchall()
    connection.close()
    assert alarms == [("record_missing", sheet_id(1))]


def test_a_commit_that_fails_leaves_a_record_and_an_error(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    execute(ledger, "DROP TABLE shots")
    with pytest.raises(DatasetError, match=r"ledger\.db: no such table"):
        record(dataset, 2)
    folder = dataset.inspection_place(read_record(dataset.folders()[-1]).manifest)
    assert read_record(folder).manifest.verdict == "accept"
    assert is_damaged(tmp_path)


def test_events_that_come_at_once_lose_none(tmp_path: Path) -> None:
    """`station keep` beside retention: each appends after the other's line."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom station.records import history\n"
        "for _ in range(40):\n"
        "    history.append(Path(sys.argv[1]), '0' * 64, 'kept', who=sys.argv[2], why='x')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    events, problems = history.read(tmp_path, "0" * 64)
    assert (len(events), problems) == (80, [])


@pytest.mark.parametrize("file", [HISTORY, MANIFEST])
def test_a_file_that_cannot_be_read_is_one_problem_and_stops_nothing(
    ledger: Ledger, dataset: Dataset, file: str
) -> None:
    for number in (1, 2, 3):
        told(dataset, number)
    folder = dataset.folders()[1]
    (folder / file).unlink()
    (folder / file).mkdir()
    found = problems(ledger, dataset)
    assert any(file in text and "irectory" in text for text in found), found
    assert all(sheet_id(1) not in text for text in found)
    recover(dataset, ledger, "s1")
    told(dataset, 4)
    assert proof(ledger, dataset).sheets == 4
    rebuild(dataset.root.parents[1], ledger, [RECIPE], "s1")


def test_a_newest_manifest_that_cannot_be_read_is_told_before_a_sheet_is_begun(
    dataset: Dataset,
) -> None:
    """The next record names its hash."""
    told(dataset, 1)
    (folder,) = dataset.folders()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    with pytest.raises(DatasetError, match=r"manifest\.json: Is a directory; .* out of data/"):
        dataset.look_again()


def test_nothing_is_written_behind_a_damaged_line_of_a_history(
    ledger: Ledger, dataset: Dataset
) -> None:
    told(dataset, 1)
    (folder,) = dataset.folders()
    damaged = b'{"event": "signalled", "at": garbage\n'
    (folder / HISTORY).write_bytes(damaged)
    rebuild(dataset.root.parents[1], ledger, [RECIPE], "s1")
    for _ in range(2):
        recover(dataset, ledger, "s1")
    assert (folder / HISTORY).read_bytes() == damaged
    with pytest.raises(DatasetError, match=r"line 1 is not an event; restore it from the backup"):
        dataset.note(folder, "kept", who="anna", why="x")


def test_a_kept_recipe_text_that_was_changed_is_named(ledger: Ledger, dataset: Dataset) -> None:
    told(dataset, 1)
    settings.keep(dataset.root, "a: 1\n")
    settings.keep(dataset.root, "a: 1\n")
    assert proof(ledger, dataset).problems == []
    (path,) = (dataset.root / "settings").iterdir()
    path.write_text("a: 2\n")
    (problem,) = problems(ledger, dataset)
    assert problem.startswith(f"settings/{path.name}: sha256 is ")
    settings.keep(dataset.root, "a: 1\n")
    assert proof(ledger, dataset).problems == [], "written anew where it is damaged"
