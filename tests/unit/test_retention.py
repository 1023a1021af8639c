"""Only pictures of old accepted sheets go, and what went stays provable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from recorded import RECIPE, record, sheet_id, told
from sheets import WHEN

from station.config import DiskLimits
from station.errors import DatasetError
from station.recipe import Retention
from station.records.dataset import Dataset, after_of, read_record
from station.records.ledger import Ledger, open_ledger
from station.records.retention import Plan, check, is_sample, plan, thin
from station.records.storage import Room, free, in_gb
from station.records.verify import verify

OLD = WHEN + timedelta(days=31)
POLICY = Retention(thin_accepts_after_days=30, keep_every=1000, exported_first=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def dataset(tmp_path: Path, ledger: Ledger) -> Dataset:
    return Dataset(tmp_path, RECIPE, ledger)


def chosen(dataset: Dataset, policy: Retention = POLICY, now: datetime = OLD) -> list[str]:
    return [c.record.manifest.sheet for c in plan(dataset, policy, now).candidates]


def pictures(folder: Path) -> int:
    return len(list(folder.glob("*.png")))


def test_only_accepted_and_told_sheets_are_chosen(dataset: Dataset) -> None:
    told(dataset, 1)
    told(dataset, 2, "reject")
    record(dataset, 3, "none")
    record(dataset, 4)  # accepted, but nobody knows whether the line rose
    record(dataset, 5, dry_run=True)
    dataset.note(record(dataset, 6), "signalled", outcome="unknown")
    assert chosen(dataset) == [sheet_id(1)]


def test_a_kept_sheet_stays_until_it_is_released(dataset: Dataset) -> None:
    folder = told(dataset, 1)
    dataset.note(folder, "kept", who="a", why="a customer asked")
    assert chosen(dataset) == []
    dataset.note(folder, "released", who="a", why="answered")
    assert chosen(dataset) == [sheet_id(1)]


def test_a_sheet_that_is_kept_after_the_plan_was_made_stays(dataset: Dataset) -> None:
    folder = told(dataset, 1)
    (candidate,) = plan(dataset, POLICY, OLD).candidates
    dataset.note(folder, "kept", who="a", why="a customer asked")
    assert thin(dataset, candidate, "old") == ["kept by a person"]
    assert pictures(folder) == 3
    files = {candidate.files[0]: candidate.record.manifest.files[candidate.files[0]]}
    dataset.note(folder, "thinned", files=files, why="old")  # as of a run that was killed
    assert chosen(dataset) == []
    assert plan(dataset, POLICY, OLD).staying == {"kept by a person": 1}


def test_young_sheets_and_one_in_so_many_stay(dataset: Dataset) -> None:
    for number in range(1, 5):
        told(dataset, number)
    assert chosen(dataset, now=WHEN + timedelta(days=29)) == []
    every = POLICY.model_copy(update={"keep_every": 2})
    samples = [sheet_id(number) for number in range(1, 5) if is_sample(sheet_id(number), 2)]
    assert 0 < len(samples) < 4
    assert chosen(dataset, every) == [
        sheet_id(n) for n in range(1, 5) if sheet_id(n) not in samples
    ]


def test_short_runs_keep_their_share_too() -> None:
    sheets = [f"s1-{boot:04d}-{number:06d}" for boot in range(400) for number in range(1, 6)]
    assert 70 < sum(is_sample(sheet, 20) for sheet in sheets) < 130  # of 2000
    assert all(is_sample(sheet, 1) for sheet in sheets)


def test_a_sheet_that_was_not_exported_stays(dataset: Dataset) -> None:
    folder = told(dataset, 1)
    exported_first = POLICY.model_copy(update={"exported_first": True})
    planned = plan(dataset, exported_first, OLD)
    assert (planned.candidates, planned.staying) == ([], {"not exported yet": 1})
    dataset.note(folder, "exported", why="a.csv")
    assert chosen(dataset, exported_first) == [sheet_id(1)]


def test_a_thinned_sheet_is_still_proved_and_its_maps_are_there(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1)
    told(dataset, 2, "reject")
    (candidate,) = plan(dataset, POLICY, OLD).candidates
    assert thin(dataset, candidate, "old") == []
    assert (pictures(folder), len(list(folder.glob("*.npy")))) == (0, 3)
    after = after_of(read_record(folder))
    assert after.thinned == {c.file for c in candidate.record.manifest.captures}
    proof = verify(tmp_path, ledger, [RECIPE], "s1", lambda _: None)
    assert (proof.problems, proof.thinned) == ([], 1)
    row = ledger.row_of(sheet_id(1))
    assert row is not None
    assert row["thinned"]
    assert chosen(dataset) == []


def test_a_map_of_a_thinned_sheet_is_not_excused(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1)
    (candidate,) = plan(dataset, POLICY, OLD).candidates
    thin(dataset, candidate, "old")
    next(folder.glob("*.npy")).unlink()
    proof = verify(tmp_path, ledger, [RECIPE], "s1", lambda _: None)
    assert ["no such file" in problem.what for problem in proof.problems] == [True]


def test_thinning_that_was_cut_off_is_finished_and_proved_meanwhile(
    tmp_path: Path, ledger: Ledger, dataset: Dataset
) -> None:
    folder = told(dataset, 1)
    (candidate,) = plan(dataset, POLICY, OLD).candidates
    files = {name: candidate.record.manifest.files[name] for name in candidate.files}
    dataset.note(folder, "thinned", files=files)
    (folder / candidate.files[0]).unlink()  # and here the power went
    assert verify(tmp_path, ledger, [RECIPE], "s1", lambda _: None).problems == []
    (again,) = plan(dataset, POLICY, OLD).candidates
    assert len(again.files) == 2
    thin(dataset, again, "old")
    assert pictures(folder) == 0
    assert verify(tmp_path, ledger, [RECIPE], "s1", lambda _: None).problems == []


def test_a_damaged_sheet_is_evidence_and_stays(dataset: Dataset) -> None:
    folder = told(dataset, 1)
    (candidate,) = plan(dataset, POLICY, OLD).candidates
    (folder / candidate.files[0]).write_bytes(b"x")
    assert "bytes, its manifest says" in thin(dataset, candidate, "old")[0]
    assert pictures(folder) == 3


@pytest.mark.parametrize(
    ("candidates", "whole", "refused"), [(5, 10, False), (6, 10, True), (1, 1, True)]
)
def test_more_than_half_at_once_is_refused(
    dataset: Dataset, candidates: int, whole: int, refused: bool
) -> None:
    told(dataset, 1)
    (one,) = plan(dataset, POLICY, OLD).candidates
    planned = Plan([one] * candidates, whole, {})
    if not refused:
        check(planned)
        return
    with pytest.raises(DatasetError, match="more than half at once is refused"):
        check(planned)


def test_a_start_without_room_is_refused(tmp_path: Path) -> None:
    plenty = free(tmp_path).gb + 1000
    limits = DiskLimits(start_free_gb=plenty, warn_free_gb=plenty, suspend_free_gb=0)
    with pytest.raises(DatasetError, match=r"GB free, .* GB wanted"):
        Room(tmp_path / "data" / "none-yet", limits).check_start()
    Room(tmp_path, limits.model_copy(update={"start_free_gb": 0.0})).check_start()


def test_no_next_sheet_begins_below_the_last_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plenty = free(tmp_path).gb + 1000
    limits = DiskLimits(start_free_gb=0, warn_free_gb=plenty, suspend_free_gb=0)
    room = Room(tmp_path, limits)
    assert [room.why_not_next() for _ in range(3)] == [None] * 3
    told_of = capsys.readouterr()
    assert (told_of.out + told_of.err).count("disk.low") == 1, "warned once"
    full = limits.model_copy(update={"suspend_free_gb": plenty})
    assert "GB wanted" in str(Room(tmp_path, full).why_not_next())


def test_little_room_is_not_told_as_none() -> None:
    told_as = [in_gb(value) for value in (0.0, 0.0034, 1.96, 2.0, 17.28, 1234.5)]
    assert told_as == ["0 GB", "0.0034 GB", "1.96 GB", "2 GB", "17.3 GB", "1234.5 GB"]


def test_limits_that_fall_are_refused() -> None:
    with pytest.raises(ValueError, match="must not fall"):
        DiskLimits(start_free_gb=1, suspend_free_gb=2)


def test_the_clock_may_jump_without_a_mass_deletion(dataset: Dataset) -> None:
    for number in range(1, 4):
        told(dataset, number)
    planned = plan(dataset, POLICY, datetime.now(UTC) + timedelta(days=36500))
    with pytest.raises(DatasetError, match="look at the clock"):
        check(planned)
