"""A part of the tables of faults; `station bench faults` does all of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from station.bench.camera_faults import Entry, camera_fault_table
from station.bench.faults import Bench
from station.bench.robot_injection import FAULTS, STEPS

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
        ("waiting", "slider 0 %"),
        ("retreat", "slider 10 %"),
        ("approach", "wrong pose reached"),
        ("descent", "robot controller frozen"),
        ("return", "both frozen"),
    ],
    "e": [
        ("travel", "remote control off"),
        ("judging", "remote control off"),
        ("return", "safeguard stop"),
    ],
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


def test_a_camera_fault_is_cured_by_a_retake_or_leaves_no_verdict(
    models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    pid = os.getpid()
    address = f"127.{164 + pid // 250 % 60}.{pid % 250 + 1}.3"
    entries: list[Entry] = []
    faults = ["missing", "removed", "incomplete", "repeated"]
    camera_fault_table(tmp_path, faults, address, "toy/1", entries.append)
    assert [entry for entry in entries if not entry.held] == []
    assert [(entry.fault, entry.times, entry.outcome) for entry in entries] == [
        ("missing", "at start", "-"),
        ("removed", "lasting", "none"),
        ("incomplete", "once", "accept"),
        ("repeated", "once", "accept"),
        ("repeated", "lasting", "none"),
    ]
    for entry in entries:
        assert (entry.back_s is None) == (entry.times == "once"), "a person leads it back"
        assert entry.message.startswith("camera") or entry.times == "once"
