"""A capture session counts sheets across interruptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.errors import DatasetError
from station.records.dataset import Dataset
from station.records.session import CaptureSession


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path, "glassfiber")
    (dataset.root / "captures").mkdir(parents=True)
    return dataset


def resume(
    dataset: Dataset, label: str = "good", sheets: int = 3, **options: bool
) -> CaptureSession:
    return CaptureSession.resume(
        dataset, label, "train", sheets, restart=options.get("restart", False)
    )


def test_a_session_begins_with_nothing_done(dataset: Dataset) -> None:
    session = resume(dataset)
    assert (session.done, session.left) == (0, 3)


def test_the_same_command_continues_where_it_stopped(dataset: Dataset) -> None:
    resume(dataset).advance(complete=True).advance(complete=True)
    session = resume(dataset)
    assert (session.done, session.left) == (2, 1)


def test_an_incomplete_sheet_does_not_count(dataset: Dataset) -> None:
    session = resume(dataset).advance(complete=True).advance(complete=False)
    assert session.left == 2
    assert resume(dataset).left == 2


def test_a_finished_session_leaves_nothing_to_continue(dataset: Dataset) -> None:
    session = resume(dataset)
    for _ in range(3):
        session = session.advance(complete=True)
    assert session.left == 0
    assert not session.path.exists()
    assert resume(dataset).left == 3


@pytest.mark.parametrize(("label", "sheets"), [("nut", 3), ("good", 4)])
def test_another_command_begins_anew(dataset: Dataset, label: str, sheets: int) -> None:
    resume(dataset).advance(complete=True)
    assert resume(dataset, label, sheets).done == 0


def test_restart_begins_anew(dataset: Dataset) -> None:
    resume(dataset).advance(complete=True)
    assert resume(dataset, restart=True).done == 0


@pytest.mark.parametrize("content", [b"", b"{}", b'{"label": 1}', b"\xff"])
def test_a_damaged_session_is_named_with_the_way_out(dataset: Dataset, content: bytes) -> None:
    path = dataset.root / "captures" / ".session"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"\.session: damaged; .*--restart"):
        resume(dataset)
    assert resume(dataset, restart=True).done == 0


def test_the_session_is_no_sheet(dataset: Dataset) -> None:
    resume(dataset).advance(complete=True)
    assert not list(dataset.captures())
