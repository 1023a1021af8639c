"""`station retention`: deletes pictures of old accepted sheets, and nothing else.

The manifest, the maps and the history of a thinned sheet stay. Its history names what was deleted
with the hashes the manifest gives, so that `station verify` still proves the sheet.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from station.errors import DatasetError
from station.recipe import Retention
from station.records.dataset import Dataset, Record, after_of, read_record, sync_folder
from station.records.history import After
from station.records.sheet import Verdict
from station.records.verify import check_record


class Candidate(NamedTuple):
    """A sheet whose pictures may go."""

    record: Record
    files: list[str]
    bytes: int


class Plan(NamedTuple):
    """What a policy would do."""

    candidates: list[Candidate]
    whole: int  # sheets that still have pictures
    staying: dict[str, int]  # why the others stay


def plan(dataset: Dataset, policy: Retention, now: datetime) -> Plan:
    """Choose the sheets whose pictures may go, the oldest first."""
    candidates = []
    staying: Counter[str] = Counter()
    whole = 0
    for folder in dataset.folders():
        try:
            record = read_record(folder)
        except DatasetError:
            staying["its record is damaged"] += 1
            continue
        named = [c.file for c in record.manifest.captures if c.file in record.manifest.files]
        pictures = [name for name in named if (folder / name).exists()]
        if not pictures:
            continue
        whole += 1
        after = after_of(record)
        reason = "kept by a person" if after.kept else None
        if not after.thinned:
            reason = _why_stays(record, after, policy, now)
        if reason:
            staying[reason] += 1
            continue
        size = sum(record.manifest.files[name].bytes for name in pictures)
        candidates.append(Candidate(record, pictures, size))
    return Plan(candidates, whole, dict(staying))


def check(planned: Plan) -> None:
    """Refuse what looks like a mistake: a clock that jumped, a policy mistyped."""
    if len(planned.candidates) > planned.whole / 2:
        raise DatasetError(
            f"{len(planned.candidates)} of {planned.whole} sheets with pictures would be thinned; "
            "more than half at once is refused: look at the clock and the policy, "
            "or name a smaller number with --sheets"
        )


def thin(dataset: Dataset, candidate: Candidate, why: str) -> list[str]:
    """Delete a sheet's pictures; returns what is wrong with it, and then deletes nothing."""
    folder, manifest, _ = candidate.record
    problems = check_record(folder).problems
    if problems:
        return problems  # a damaged record is evidence
    after = after_of(candidate.record)  # anew: hours may have gone by since the plan
    if after.kept:
        return ["kept by a person"]
    if not after.thinned:
        files = {name: manifest.files[name] for name in candidate.files}
        # Said first: pictures that are gone without a word are lost, not thinned.
        dataset.note(folder, "thinned", files=files, why=why)
    try:
        for name in candidate.files:
            (folder / name).unlink()
        sync_folder(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}") from error
    return []


def is_sample(sheet: str, every: int) -> bool:
    """Tell whether this is the one in so many that stays.

    By the id as a whole: numbers begin anew with each run, and many runs have few sheets.
    """
    return crc32(sheet.encode()) % every == 0


def _why_stays(record: Record, after: After, policy: Retention, now: datetime) -> str | None:
    manifest = record.manifest
    if manifest.verdict is not Verdict.ACCEPT or after.outcome != "accept":
        return f"{manifest.verdict}, lines told {after.outcome or 'unknown'}"
    if after.kept:
        return "kept by a person"
    if now - manifest.started_at < timedelta(days=policy.thin_accepts_after_days):
        return "too young"
    if is_sample(manifest.sheet, policy.keep_every):
        return f"one in {policy.keep_every} stays"
    if policy.exported_first and not after.exported:
        return "not exported yet"
    return None
