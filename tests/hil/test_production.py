"""A station that stays: commanded by its socket, through faults, without starting anew."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from simulator import Simulator
from station_process import (
    ACCEPT,
    BUSY,
    SMALL,
    Inspection,
    Running,
    Station,
    pictures,
    wait_until,
)

from station import control
from station.records.dataset import after_of, read_record

RETREAT_M_S = 0.03
LOW = "0.02 -0.44 0.27"
SIGN_OF_LIFE_S = 0.4


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL, "--defect-rate", "0")


@pytest.fixture
def running(
    station: Station,
    models: Path,
) -> Iterator[Running]:
    Inspection(station, models).judge_by("toy/1", 10)
    with Running(station) as one:
        yield one


def accepted(station: Station) -> int:
    return len([e for e in station.journal("output") if e["line"] == ACCEPT and e["value"]])


def test_a_shift_from_start_to_stop(running: Running) -> None:
    station = running.station
    assert station.journal("program", "command") == [], "nothing is touched before it is told to"
    assert running.ask("status")["devices"] == "closed"
    mode = (station.folder / "run" / "control.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    refused = station.run("start")
    assert refused.code == 6
    assert "start is not possible in state aborted; possible: clear" in refused.complaint()
    second = station.run("inspect --recipe two --sheets 1")
    assert second.code == 3
    assert "another station command is using this cell" in second.complaint()

    for command in ("clear", "reset", "start"):
        told = station.run(f"{command} --who anna --json")
        assert told.code == 0, told.err
        running.reach({"clear": "stopped", "reset": "idle", "start": "execute"}[command])
    wait_until(lambda: pictures(station))
    assert running.ask("hold")["accepted"]
    running.reach("held")
    assert accepted(station) == 1, "the sheet under way was finished"
    assert not station.sim.send("state")["moving"]
    count = len(station.moves())
    time.sleep(0.5)
    assert len(station.moves()) == count

    assert running.ask("unhold")["accepted"]
    wait_until(lambda: accepted(station) >= 2)
    assert running.ask("stop")["accepted"]
    running.reach("stopped")
    status = json.loads(station.run("status --json").lines[0])
    assert status["sheets"]["accept"] == accepted(station)
    assert status["sheets"]["none"] == status["sheets"]["reject"] == 0
    ended = running.end()
    assert ended.code == 130, ended.err
    sheets = [line.split()[0] for line in ended.lines]  # a hold splits no run
    assert sheets == [f"sim-0001-{n:06d}" for n in range(1, len(sheets) + 1)], (
        "a hold splits no run"
    )
    assert not (station.folder / "run" / "control.sock").exists()


def test_commands_in_a_row_wait_for_each_other(running: Running) -> None:
    station = running.station
    station.sim.send("protective_stop")
    failed = station.run("clear")
    assert failed.code == 1, failed.err
    assert failed.lines[0].split() == ["state", "aborted"]
    assert "protective stop" in failed.lines[1]
    station.sim.send("reset")
    for command, state in (("clear", "stopped"), ("reset", "idle"), ("start", "execute")):
        ended = station.run(command)
        assert ended.code == 0, ended.err
        assert ended.lines[0].split() == ["state", state]
    assert station.run("hold").lines[0].split() == ["state", "held"]
    assert station.run("abort").lines[0].split() == ["state", "aborted"]


def test_after_a_fault_a_person_leads_it_back_by_a_slow_retreat(running: Running) -> None:
    station = running.station
    running.go("clear", "reset", "start")
    wait_until(lambda: pictures(station))
    station.sim.send("protective_stop")
    running.reach("aborted")
    assert "protective stop at x " in running.reason()
    assert running.ask("status")["sheets"]["none"] == 1
    count = len(station.moves())

    assert running.ask("clear")["accepted"]
    running.reach("aborted")
    assert "is in protective stop" in running.reason(), "not cleared at the pendant yet"
    station.sim.send("reset")
    station.sim.wait_for(lambda: not station.sim.send("state")["moving"])
    station.sim.send(f"jog {LOW}")  # the person has also moved the arm
    assert len(station.moves()) == count
    running.go("clear", "reset")
    (retreat,) = station.moves()[count:]
    target, speed = retreat["args"][:6], retreat["args"][6]
    assert target[:3] == pytest.approx([0.02, -0.44, 0.29], abs=1e-3), "up from where it stands"
    assert speed == RETREAT_M_S
    lines = [e for e in station.journal("output", "command") if e["t"] >= retreat["t"] - 5]
    busy = [e["value"] for e in lines if e.get("line") == BUSY and e["t"] <= retreat["t"]]
    assert busy == [] or busy[-1], "the arm moves only while busy is high"

    running.go("start")
    wait_until(lambda: accepted(station) == 1)
    assert running.process.poll() is None


def test_an_abort_stops_the_arm_and_the_sheet_has_no_verdict(running: Running) -> None:
    station = running.station
    running.go("clear", "reset", "start")
    wait_until(lambda: pictures(station))
    station.sim.send("slider 0.2")
    wait_until(lambda: station.sim.send("state")["moving"])
    asked = time.monotonic()
    assert running.ask("abort", reason="a hand in the cell")["accepted"]
    station.sim.wait_for(lambda: not station.sim.send("state")["moving"], 1.0)
    assert time.monotonic() - asked < 1.0
    running.reach("aborted")
    ((_, manifest),) = list(_records(station))
    assert (manifest.verdict, manifest.reasons) == (
        "none",
        ("abort by anna: a hand in the cell",),
    )
    assert accepted(station) == 0
    assert running.process.poll() is None

    robot = _children(running.process.pid)
    running.go("clear", "reset")
    assert _children(running.process.pid) - robot, "the robot's child is a new one"
    running.go("start")
    wait_until(station.moves)
    started = time.monotonic()
    ended = running.end(signal.SIGTERM)
    assert ended.code == 143, ended.err
    assert time.monotonic() - started < 5
    assert not station.sim.send("state")["moving"]


def test_a_lent_cell_can_be_opened_by_others_until_it_is_taken_back(running: Running) -> None:
    station = running.station
    assert station.run("where").code == 3, "the cell is not lent"
    told = station.run("mode manual --who anna")
    assert told.code == 0, told.err
    assert station.run("where").code == 0
    refused = station.run("clear --who anna")
    assert refused.code == 6
    assert "the cell is lent" in refused.complaint()
    second = station.run("inspect --recipe two --sheets 1")
    assert second.code == 2
    assert "already running" in second.complaint()
    with FileLock(station.folder / "run" / "station.lock"):
        answer = running.ask("mode", mode="produce")
        assert not answer["accepted"]
        assert "another station command is using this cell" in answer["why"]
    assert running.ask("mode", mode="produce")["accepted"]
    assert station.run("where").code == 3


def test_a_killed_station_leaves_a_socket_that_the_next_one_replaces(running: Running) -> None:
    station = running.station
    running.process.kill()
    running.process.communicate()
    assert (station.folder / "run" / "control.sock").is_socket()
    gone = station.run("status")
    assert gone.code == 2
    assert "no `station inspect` is running" in gone.complaint()
    assert station.run("inspect --recipe two --sheets 1").code == 0


@pytest.mark.bad_input("029-recipe-changed-while-running", "089-sheet-gone-while-busy")
def test_neither_another_recipe_nor_another_sheet_slips_in(running: Running) -> None:
    station = running.station
    before = (station.folder / "recipes" / "two.yaml").read_bytes()
    running.go("clear", "reset", "start")
    wait_until(lambda: accepted(station) == 1)
    station.write("recipes/two.yaml", before.decode().replace("threshold: 10", "threshold: 0.01"))
    wait_until(lambda: accepted(station) == 2)
    for _, manifest in _records(station):
        assert manifest.recipe_sha256 == hashlib.sha256(before).hexdigest()
        assert manifest.threshold == 10

    wait_until(lambda: pictures(station))
    station.sim.send("input 0 0")  # somebody takes the sheet and lays another
    running.reach("aborted")
    station.sim.send("input 0 1")
    assert "the sheet was taken away while it was worked on" in running.reason()
    *_, (_, last) = _records(station)
    assert (last.verdict, last.complete) == ("none", False)
    assert accepted(station) == 2


def test_a_model_that_is_replaced_under_a_waiting_station_judges_nothing(
    running: Running,
) -> None:
    folder = running.station.folder / "models" / "toy" / "1"
    weights, card = folder / "weights.pt", folder / "card.yaml"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    with zipfile.ZipFile(weights, "a") as archive:
        archive.writestr("weights/extra/trained", "anew")
    after = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert before in card.read_text()
    card.write_text(card.read_text().replace(before, after))
    assert running.ask("clear")["accepted"]
    running.reach("aborted")
    wait_until(lambda: "toy/1" in running.reason())
    assert running.reason() == (
        "models/toy/1: was replaced since this station was started; end it and start it anew"
    )


def exchange_sheet(station: Station) -> None:
    """Somebody takes the sheet away and lays another, while the arm is on its way."""
    assert station.sim.send("state")["moving"]
    station.sim.send("input 0 0")
    time.sleep(0.1)
    station.sim.send("input 0 1")
    assert station.sim.send("state")["moving"], "nobody was to look between two moves"


@pytest.mark.bad_input("089-sheet-exchanged-on-the-way-between-two-setups")
def test_a_sheet_exchanged_within_one_move_has_no_verdict(running: Running) -> None:
    station = running.station
    station.sim.send("slider 0.02")
    running.go("clear", "reset")
    before = len(station.journal("picture"))
    running.go("start")
    # After the two pictures of the first setup the way is long.
    wait_until(
        lambda: (
            len(station.journal("picture")) == before + 2 and station.sim.send("state")["moving"]
        ),
        60.0,
    )
    exchange_sheet(station)
    count = len(station.moves())
    running.reach("aborted")
    assert "the sheet was taken away while it was worked on" in running.reason()
    assert len(station.moves()) == count, "no further move"
    ((_, last),) = _records(station)
    assert last.verdict == "none"
    assert accepted(station) == 0


@pytest.mark.bad_input("089-sheet-exchanged-after-its-verdict")
def test_a_sheet_exchanged_on_the_way_back_is_not_sorted_with_the_verdict_of_the_one_before(
    running: Running,
) -> None:
    station = running.station
    station.sim.send("slider 0.02")
    running.go("clear", "reset")
    before = len(station.journal("sorted"))
    running.go("start")
    wait_until(lambda: accepted(station) and station.sim.send("state")["moving"], 60.0)
    exchange_sheet(station)
    count = len(station.moves())
    running.reach("aborted")
    assert "the sheet was taken away while it was worked on" in running.reason()
    assert len(station.moves()) == count, "no further move"
    levels = [(e["line"], e["value"]) for e in station.journal("output")]
    assert levels[-1] == (ACCEPT, False)
    assert (BUSY, False) not in levels[levels.index((BUSY, True)) :], "busy has not fallen"
    assert len(station.journal("sorted")) == before
    ((folder, last),) = _records(station)
    assert last.verdict == "accept"
    after = after_of(read_record(folder))
    assert after.outcome == "none"
    assert running.ask("status")["sheets"] == {"accept": 0, "reject": 0, "none": 1}

    station.sim.send("slider 1")
    running.go("clear", "reset")
    (sorted_,) = station.journal("sorted")[before:]
    assert (sorted_["accept"], sorted_["reject"]) == (False, False), "it was not inspected"


def test_a_client_that_sends_too_much_or_nothing_disturbs_nobody(running: Running) -> None:
    path = running.station.folder / "run" / "control.sock"
    with control._connected(path, 5.0) as loud, control._connected(path, 5.0) as silent:
        loud.sendall(b"x" * 10_000)
        answer = json.loads(loud.makefile("rb").readline())
        assert not answer["accepted"]
        assert "4096" in answer["why"]
        assert running.state() == "aborted"
        silent.sendall(b"no line yet")
        assert running.state() == "aborted"


def test_systemd_hears_that_the_station_is_ready_and_alive(
    station: Station,
    models: Path,
) -> None:
    Inspection(station, models).judge_by("toy/1", 10)
    name = f"\0station-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(20)
        environment = {
            "NOTIFY_SOCKET": "@" + name[1:],
            "WATCHDOG_USEC": str(int(SIGN_OF_LIFE_S * 1e6)),
        }
        with Running(station, **environment) as running:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            ended = running.end(signal.SIGTERM)
        assert ended.code == 143
        said = b""
        while said != b"STOPPING=1":
            said = systemd.recv(100)


def _records(station: Station) -> Iterator[tuple[Path, Any]]:
    from station.records.dataset import Dataset, read_record

    for folder in Dataset(station.folder, "two").folders():
        yield folder, read_record(folder).manifest


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
