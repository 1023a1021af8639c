"""A part of the table of robot faults; `station bench faults` does all of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import test_station

from station.bench.faults import FAULTS, STEPS, Bench

models = test_station.models
ENTRIES = {
    "cb3": [
        ("retreat", "protective stop"),
        ("waiting", "emergency stop"),
        ("travel", "half-open connection"),
        ("standing", "wrong pose reached"),
        ("judging", "program stopped"),
        ("descent", "robot child killed"),
        ("removal", "slider 10 %"),
        ("travel", "both killed"),
    ],
    "e": [("travel", "remote control off"), ("return", "safeguard stop")],
}


@pytest.mark.parametrize("series", ENTRIES)
def test_after_a_fault_nothing_moves_nothing_is_accepted_and_a_person_is_told(
    series: str, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    pid = os.getpid()
    address = f"127.{164 + pid // 250 % 60}.{pid % 250 + 1}.{1 if series == 'e' else 2}"
    with Bench(tmp_path, series, address, "toy/1") as bench:
        entries = [bench.entry(STEPS[step], FAULTS[fault]) for step, fault in ENTRIES[series]]
    assert [entry for entry in entries if not entry.held] == []
    for entry in entries:
        if entry.state == "aborted" and "killed" not in entry.message:
            assert entry.message.startswith(("robot", "motion")), entry
            assert ";" in entry.message, "the next human action is told"
