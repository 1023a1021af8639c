"""`station inspect` end to end: judged, recorded, then told, whatever happens between."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest
from simulator import Simulator
from station_process import (
    ACCEPT,
    RECIPE,
    REJECT,
    SHOTS,
    SMALL,
    Ended,
    Inspection,
    pictures,
    wait_until,
)

from station.records.dataset import read_image


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "1", "--defect", "nut")


@pytest.mark.parametrize(
    ("threshold", "verdict", "line"), [(0.9, "accept", ACCEPT), (0.05, "reject", REJECT)]
)
def test_a_verdict_is_recorded_before_its_line_rises(
    inspection: Inspection, threshold: float, verdict: str, line: int
) -> None:
    inspection.judge_by("toy/1", threshold)
    ended = inspection.station.run("inspect --recipe two --sheets 2 --json")
    assert ended.code == 0, ended.err
    rows = ended.rows()
    assert [(row["verdict"], row["threshold"]) for row in rows] == [(verdict, threshold)] * 2
    for row, (folder, manifest) in zip(rows, inspection.records(), strict=True):
        assert (manifest.sheet, manifest.verdict) == (row["sheet"], verdict)
        assert len(row["captures"]) == SHOTS
        scores = []
        for file, capture in zip(row["captures"], manifest.captures, strict=True):
            pixels = read_image(inspection.station.folder / file)
            assert capture.score == pytest.approx(pixels.mean() / 255, abs=1e-4)
            scores.append(capture.score or 0.0)
            assert capture.map_file is not None
            assert (folder / capture.map_file).is_file()
        assert row["score"] == max(scores)
    assert len(inspection.rises(line)) == 2
    assert inspection.rises(ACCEPT + REJECT - line) == []
    for recorded, risen in zip(inspection.recorded_at(), inspection.rises(line), strict=True):
        assert recorded < risen, "recorded first, then signalled"
    sorted_as = [(e["accept"], e["reject"]) for e in inspection.station.journal("sorted")]
    # A sheet that the test before left unfinished goes first, with neither.
    assert sorted_as[-2:] == [(line == ACCEPT, line == REJECT)] * 2
    assert inspection.station.sim.send("state")["outputs"] & 7 == 0


def test_a_shadow_model_is_scored_and_changes_nothing(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    station.write(
        "recipes/two.yaml", f"{RECIPE}model: toy/1\nthreshold: 0.9\nshadow_model: toy/1\n"
    )
    ended = station.run("inspect --recipe two --sheets 2 --json")
    assert ended.code == 0, ended.err
    assert [row["verdict"] for row in ended.rows()] == ["accept"] * 2
    rows = station.run("records --recipe two --shadow --json").rows()
    assert rows
    assert all(row["shadow_score"] == row["score"] for row in rows), "the same pixels"


@pytest.mark.bad_input("061-nan-at-run")
def test_a_model_that_fails_rejects_the_sheet_and_ends_the_run(inspection: Inspection) -> None:
    inspection.judge_by("broken/1", 0.9)
    ended = inspection.station.run("inspect --recipe two --sheets 3 --json")
    assert ended.code == 4, ended.err
    assert "not a finite number" in ended.complaint()
    assert [row["verdict"] for row in ended.rows()] == ["reject"]
    ((_, manifest),) = inspection.records()
    assert [capture.score for capture in manifest.captures] == [None] * SHOTS
    assert (len(inspection.rises(ACCEPT)), len(inspection.rises(REJECT))) == (0, 1)


def test_a_stop_in_a_sheet_leaves_it_without_a_verdict(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    station.sim.send("protective_stop")
    ended = Ended.of(process)
    assert ended.code == 3, ended.err
    assert "protective stop" in ended.complaint()
    ((folder, manifest),) = inspection.records()
    assert (manifest.verdict, manifest.score, manifest.complete) == ("none", None, False)
    assert 1 <= len(manifest.captures) < SHOTS
    assert all((folder / capture.file).is_file() for capture in manifest.captures)
    assert inspection.rises(ACCEPT) == inspection.rises(REJECT) == []
    tripped = station.journal("fault")[-1]["t"]
    assert [event for event in station.moves() if event["t"] > tripped + 0.1] == []


@pytest.mark.parametrize(
    ("signals", "code", "reason"),
    [
        ([signal.SIGTERM], 143, "the station was told to end"),
        ([signal.SIGINT, signal.SIGINT], 130, "stopped by Ctrl-C"),
    ],
)
@pytest.mark.parametrize("form", ["--json", ""])
def test_a_sheet_that_is_broken_off_is_told_and_recorded_as_none(
    inspection: Inspection, signals: list[signal.Signals], code: int, reason: str, form: str
) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start(f"inspect --recipe two --sheets 2 {form}")
    wait_until(lambda: pictures(station))
    station.sim.send("slider 0.2")  # leaves time for both signals, which must not merge into one
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    ended = Ended.of(process)
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    ((_, manifest),) = inspection.records()
    assert (manifest.verdict, manifest.score, manifest.complete) == ("none", None, False)
    assert manifest.reasons == (reason,)
    (line,) = ended.lines
    if form:
        row = json.loads(line)
        assert (row["sheet"], row["verdict"], row["score"]) == (manifest.sheet, "none", None)
        assert row["reasons"] == [reason]
        assert len(row["captures"]) == len(manifest.captures)
    else:
        assert line.split()[:2] == [manifest.sheet, "NONE"]
    assert inspection.rises(ACCEPT) == inspection.rises(REJECT) == []
    assert not station.sim.send("state")["moving"]


def test_a_stop_on_the_way_back_leaves_the_verdict_and_tells_it(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    station.sim.send("slider 0.2")
    wait_until(lambda: inspection.rises(ACCEPT))
    station.sim.send("protective_stop")
    ended = Ended.of(process)
    assert ended.code == 3, ended.err
    assert "protective stop" in ended.complaint()
    ((_, manifest),) = inspection.records()
    assert manifest.verdict == "accept"
    assert [(row["sheet"], row["verdict"]) for row in ended.rows()] == [(manifest.sheet, "accept")]


def test_a_killed_inspection_leaves_a_record_without_a_verdict(inspection: Inspection) -> None:
    inspection.judge_by("toy/1", 0.9)
    station = inspection.station
    process = station.start("inspect --recipe two --sheets 2 --json")
    wait_until(lambda: pictures(station))
    process.kill()
    process.communicate()
    wait_until(lambda: not station.sim.send("state")["moving"], 1.0)
    again = station.run("inspect --recipe two --sheets 1 --json")
    assert again.code == 0, again.err
    verdicts = {manifest.sheet: manifest.verdict for _, manifest in inspection.records()}
    assert verdicts == {"sim-0001-000001": "none", "sim-0002-000001": "accept"}
    assert len(inspection.rises(ACCEPT)) == 1
