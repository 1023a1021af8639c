"""Known sheets end to end: a check that passes, one that fails, the lock, and one sheet repeated.

The sheets are photographs, two dark ones and a bright one: a toy model scores their mean grey.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from simulator import Simulator
from station_process import ACCEPT, BUSY, RECIPE, REJECT, Ended, Inspection, Running, Station

from station.records.dataset import Dataset, read_record

REFERENCE = """reference:
  valid_h: 8
  sheets:
    - {name: dark, expect: accept}
    - {name: bright, expect: reject}
"""
PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator], tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    photographs = tmp_path_factory.mktemp("photographs")
    greys = [60, 200, 61, 62, 63, 64]
    for number, grey in enumerate(greys):
        image = np.full((268, 320), grey, np.uint8)
        cv2.imwrite(str(photographs / f"{number}.png"), image)
    return simulator("--sheets", str(photographs), "--speed", "30")


@pytest.fixture
def station(sim: Simulator, tmp_path: Path, models: Path) -> Iterator[Station]:
    one = Station(tmp_path / "ws", sim)
    one.edit_cell("    host:", "    connect_timeout_s: 100  # a busy computer\n    host:")
    Inspection(one, models)
    one.write("recipes/two.yaml", f"{RECIPE}model: toy/1\nthreshold: 0.5\n{REFERENCE}")
    yield one


def run(station: Station, command: str) -> Ended:
    return Ended.of(station.start(f"{command} --recipe two"), PATIENCE_S)


@pytest.mark.timeout(400)
def test_a_shift_begins_with_the_known_sheets(station: Station) -> None:
    refused = run(station, "inspect --sheets 1")
    assert refused.code == 6
    assert "its reference sheets were not judged yet" in refused.complaint()
    assert station.moves() == []

    passed = run(station, "reference --json")  # 0 dark, 1 bright
    assert passed.code == 0, passed.err
    assert [(row["name"], row["verdict"]) for row in passed.rows()] == [
        ("dark", "accept"),
        ("bright", "reject"),
    ]
    assert "lay reference sheet dark (to accept)" in passed.err
    assert rises(station, ACCEPT) == rises(station, REJECT) == 0, "no line tells of known sheets"
    assert rises(station, BUSY) == 2
    assert not station.sim.send("state")["outputs"] >> BUSY & 1, "the last sheet may be taken too"
    kinds = [read_record(f).manifest.kind for f in Dataset(station.folder, "two").folders()]
    assert kinds == ["reference", "reference"]

    produced = run(station, "inspect --sheets 1 --json")  # 2 dark
    assert produced.code == 0, produced.err
    assert rises(station, ACCEPT) == 1

    wrong = run(station, "reference")  # 3 dark, 4 dark in the place of the bright one
    assert wrong.code == 6
    assert "reference sheet bright must be judged reject and was judged accept" in wrong.complaint()
    assert wrong.lines[-1].startswith("WRONG  bright")
    for command in ("inspect --sheets 1", "reference"):
        locked = run(station, command)
        assert locked.code == 6
        assert "--release --why TEXT" in locked.complaint()
    with Running(station) as stays:
        stays.go("clear")
        answer = stays.ask("reset")
        assert not answer["accepted"]
        assert "--release --why TEXT" in answer["why"]
        assert answer["state"] == "stopped"
    assert run(station, "reference --release").code == 2, "a decision needs a reason"
    released = run(station, "reference --release --why exchanged --who anna")
    assert released.code == 0, released.err
    shown = json.loads(run(station, "reference --show --json").lines[0])
    assert (shown["may_produce"], shown["release"]["who"]) == (False, "anna")
    assert "anna released it" in run(station, "inspect --sheets 1").complaint()

    verified = Ended.of(station.start("verify"), PATIENCE_S)
    assert verified.code == 0, verified.lines

    repeated = run(station, "repeat --times 3 --json")  # 5 dark, three times
    assert repeated.code == 0, repeated.err
    (study,) = repeated.rows()
    assert (study["times"], study["verdicts"]) == (3, {"accept": 3})
    assert study["deviation"] == pytest.approx(0.0, abs=1e-6)
    assert [component["source"] for component in study["components"]] == [
        "poses",
        "shots",
        "time",
        "error",
    ]
    told = [e for e in station.journal("sorted") if e["accept"] or e["reject"]]
    assert [e["sheet"] for e in told] == [2], "production's own sheet alone"


def rises(station: Station, line: int) -> int:
    outputs = station.journal("output")
    return sum(e["line"] == line and e["value"] for e in outputs)
