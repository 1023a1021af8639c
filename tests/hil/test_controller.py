"""The simulated controller as the unmodified vendor clients see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator import ROOT, Simulator

from station.errors import ConfigError
from station.sim.faults import send

CLIENT = Path(__file__).with_name("ur_client.py")
SMALL = ("--size", "320", "268")


@pytest.fixture(scope="module")
def shared(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator(*SMALL)


@pytest.fixture
def sim(shared: Simulator) -> Iterator[Simulator]:
    """One simulator for the whole module, cleared of what the last test did to it."""
    for command in ("accept", "unfreeze", "offset 0 0 0", "slider 1", "remote", "reset"):
        shared.send(command)
    shared.wait_for(lambda: not shared.send("state")["busy"])
    yield shared


def play(sim: Simulator, scenario: str) -> dict[str, Any]:
    """Run one scenario of ur_client.py in its own process and return its findings."""
    done = subprocess.run(
        [sys.executable, str(CLIENT), sim.address, scenario, str(sim.picture)],
        env={**os.environ, **sim.env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    findings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return findings


def test_all_four_clients_connect(sim: Simulator) -> None:
    found = play(sim, "connect")
    assert found["robotmode"] == "Robotmode: RUNNING"
    assert found["safetymode"] == "Safetymode: NORMAL"
    assert found["version"] == "3.15.8.106339"
    assert found["state"].startswith("PLAYING")
    assert (found["mode"], found["bits"]) == (7, 1)
    assert found["payload"] == 1.2
    assert found["tcp"] == pytest.approx([0, 0, 0.1, 0, 0, 0])
    assert "already in use" in found["second"]


def test_moves_arrive_with_their_picture_in_the_feed(sim: Simulator) -> None:
    before = len(sim.events("picture"))
    found = play(sim, "moves")
    assert max(found["misses"]) < 0.1, "reported pose came within 0.2 mm at once"
    assert found["joint_miss"] < 1e-9
    pictures = [event["sha256"] for event in sim.events("picture")[before:]]
    assert found["pictures"] == pictures[:3]
    assert len(set(pictures)) == len(pictures)
    assert found["inverse"] == pytest.approx(found["joints"], abs=1e-6)
    assert found["forward"][:3] == pytest.approx([0, -0.45, 0.4], abs=1e-9)
    assert found["transformed"][:3] == pytest.approx([0, -0.45, 0.16], abs=1e-9)
    assert (found["reachable"], found["unreachable"]) == (True, False)
    assert found["within"] and found["steady"]
    moves = [event for event in sim.events("command") if event["name"] == "moveL"]
    assert moves[-1]["args"] == pytest.approx([0, -0.45, 0.26, 3.14159265, 0, 0, 0.5, 2.0, 0])


def test_asynchronous_move_reports_progress_until_its_picture_is_there(sim: Simulator) -> None:
    found = play(sim, "asynchronous")
    assert found["fastest"] > 0.1
    assert found["miss"] < 2e-4
    assert found["changed"]
    pictures = [event["sha256"] for event in sim.events("picture")]
    assert found["picture"] in pictures
    assert found["operations"] >= 1
    assert 0.27 < found["stopped_z"] < 0.6, "stopped between start and goal"
    assert found["still"]
    assert found["runtime"] == 2
    assert found["stopped_picture"] == pictures[-1]
    assert sim.events("picture")[-1]["pose"][2] == pytest.approx(found["stopped_z"], abs=1e-9)


def test_lines_are_set_and_read_back(sim: Simulator) -> None:
    found = play(sim, "lines")
    assert max(found.values()) < 0.5
    changes = [(e["line"], e["value"]) for e in sim.events("output") if e["line"] == 5]
    assert changes == [(5, True), (5, False)]


def test_watchdog_stops_program_and_arm(sim: Simulator) -> None:
    found = play(sim, "watchdog")
    assert found["kicked"] == 2
    assert found["stopped"] < 0.3
    assert found["still"] < 0.5
    assert 0.01 < found["z"] < 0.3
    assert sim.events("program")[-1]["reason"] == "watchdog"


def test_protective_stop_ends_the_move_for_good(sim: Simulator) -> None:
    found = play(sim, "protective_stop")
    assert found["paused"] < 0.2
    assert found["still"] < 0.4
    assert (found["bits"], found["mode"]) == (1028, 3)
    assert found["moved"] is False
    assert found["unlocked"] is False, "the pendant allows it only after 5 s"
    assert found["stopped"] < 0.2
    assert found["playing"] < 0.5
    assert found["crept_m"] == 0.0
    assert found["moves_again"] is True


def test_emergency_stop_cuts_power_and_program(sim: Simulator) -> None:
    found = play(sim, "emergency_stop")
    assert found["stopped"] < 0.2
    assert found["still"] < 0.4
    assert found["mode"] == 3
    assert found["emergency"] is True
    assert found["running"] < 0.2


def test_dashboard_stop_stops_program_and_arm(sim: Simulator) -> None:
    found = play(sim, "dashboard_stop")
    assert found["stopped"] < 0.2
    assert found["still"] < 0.5
    assert 0.01 < found["travelled"] < 0.3


def test_unreachable_target_trips_and_missing_solution_ends_program(sim: Simulator) -> None:
    found = play(sim, "unreachable")
    assert found["moved"] is False
    assert (found["mode"], found["runtime"]) == (3, 4)
    assert found["solution"] == []
    assert found["died"] < 0.2
    assert found["back"] is True


def test_network_faults_are_seen_by_the_client(sim: Simulator) -> None:
    found = play(sim, "network")
    assert found["frozen_s"] == 0.0
    assert found["connected"] is True
    assert found["thawed"] < 0.5
    assert found["offset_m"] == pytest.approx(0.004, abs=1e-6)
    assert found["cut"] < 0.5
    assert found["refused"] is True
    assert found["accepted"] is True


def test_sheet_is_sorted_and_the_next_one_laid(sim: Simulator) -> None:
    """The handshake over RTDE's own lines, played by the smallest possible client."""
    with RawLines(sim.address) as lines:
        first = sim.send("state")
        assert first["inputs"] & 1, "a sheet is present"
        lines.set(busy=True)
        lines.set(busy=True, reject=True)
        lines.set(reject=True)
        sim.wait_for(lambda: not sim.send("state")["inputs"] & 1)
        assert sim.send("state")["sheet"] == first["sheet"], "none comes while reject is high"
        lines.set()
        sim.wait_for(lambda: sim.send("state")["inputs"] & 1)
    assert sim.events("sorted")[-1] | {"t": 0} == {
        "t": 0,
        "event": "sorted",
        "sheet": first["sheet"],
        "accept": False,
        "reject": True,
    }
    laid = sim.send("state")
    assert laid["sheet"] == first["sheet"] + 1
    picture = sim.events("picture")[-1]
    assert (picture["sheet"], picture["label"]) == (laid["sheet"], laid["label"])
    truth = json.loads((sim.truth / f"{picture['sha256']}.json").read_text())
    assert (truth["sheet"], truth["label"]) == (laid["sheet"], laid["label"])
    assert (sim.truth / f"{picture['sha256']}.png").exists() <= (truth["label"] != "good")


def test_pylon_emulator_delivers_the_picture_pixel_by_pixel(sim: Simulator) -> None:
    """Also after the device was destroyed and attached again: its settings file stays."""
    done = subprocess.run(
        [sys.executable, "-c", PYLON],
        env={**os.environ, **sim.env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = sim.events("picture")[-1]["sha256"]
    assert json.loads(done.stdout) == {"size": [320, 268], "digests": [shown] * 4}


def test_second_simulator_at_the_address_says_so(sim: Simulator) -> None:
    done = _start("--address", sim.address, *SMALL)
    assert done.returncode == 2
    assert sim.address in done.stderr
    assert "another simulator" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_simulator_and_leaves_nothing(
    simulator: Callable[..., Simulator], number: int
) -> None:
    sim = simulator(*SMALL)
    started = time.monotonic()
    assert sim.close(number) == 0
    assert time.monotonic() - started < 1.0
    assert not Path(sim.env["PYLON_CAMEMU_PFS_PATH"]).parent.exists()


def test_command_runs_beside_the_simulator() -> None:
    script = (
        "import os, sys\n"
        "names = 'PYLON_CAMEMU', 'PYLON_CAMEMU_PFS_PATH', 'STATION_CELL'\n"
        "print([os.path.exists(os.environ[n]) or os.environ[n] for n in names])\n"
        "sys.exit(7)"
    )
    address = f"127.{os.getpid() % 200 + 30}.200.201"
    done = _start("--address", address, *SMALL, "--", sys.executable, "-c", script)
    assert done.returncode == 7, done.stderr
    assert done.stdout == "['1', True, True]\n"


def _start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "station.sim", "--workspace", str(ROOT), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class RawLines:
    """Sets accept (0), reject (1), busy (2) without ur_rtde: one input recipe, one package."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> RawLines:
        self._connection = socket.create_connection((self._address, 30004), 5)
        self._send(b"V", struct.pack(">H", 2))
        self._send(b"I", b"standard_digital_output_mask,standard_digital_output")
        self._connection.settimeout(5)
        self._connection.recv(4096)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def set(self, accept: bool = False, reject: bool = False, busy: bool = False) -> None:
        self._send(b"U", bytes([1, 0b111, accept | reject << 1 | busy << 2]))
        time.sleep(0.05)  # longer than the controller's cycle: it samples the lines

    def _send(self, kind: bytes, payload: bytes) -> None:
        self._connection.sendall(struct.pack(">H", len(payload) + 3) + kind + payload)


PYLON = """
import hashlib, json
from pypylon import pylon

camera = pylon.InstantCamera({"SerialNumber": "0815-0000"}, pylon.Unambiguous)
digests = []
for attempt in range(2):
    camera.Open()
    size = [camera.Width.Value, camera.Height.Value]
    pylon.SoftwareTriggerConfiguration.ApplyConfiguration(camera.NodeMap)
    camera.StartGrabbing(pylon.GrabStrategy_OneByOne, pylon.GrabLoop_ProvidedByUser)
    for shot in range(2):
        camera.WaitForFrameTriggerReady(1000, pylon.TimeoutHandling_ThrowException)
        camera.ExecuteSoftwareTrigger()
        with camera.RetrieveResult(1000, pylon.TimeoutHandling_ThrowException) as result:
            assert result.GrabSucceeded(), result.ErrorDescription
            digests.append(hashlib.sha256(result.Array.tobytes()).hexdigest())
    camera.StopGrabbing()
    camera.Close()
    camera.DestroyDevice()
    info = pylon.DeviceInfo()
    info.SerialNumber = "0815-0000"
    camera.Attach(pylon.TlFactory.GetInstance().CreateDevice(info))
print(json.dumps({"size": size, "digests": digests}))
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("slider", "slider takes one number from 0 to 1"),
        ("slider nan", "slider takes one number from 0 to 1"),
        ("slider 1.5", "slider takes one number from 0 to 1"),
        ("offset 1", "offset takes X Y Z in metres"),
        ("offset inf 0 0", "offset takes X Y Z in metres"),
        ("next 5", "next takes nothing more, not '5'"),
        ("input 18 1", "input takes a line from 0 to 17 and 0 or 1"),
        (
            "unicorn é",
            "no fault 'unicorn'; there are accept, claim, cut, dashboard, emergency_stop",
        ),
    ],
)
def test_a_fault_nobody_can_have_meant_is_refused_in_words(
    sim: Simulator, command: str, expected: str
) -> None:
    before = sim.send("state")["slider"]
    with pytest.raises(ConfigError, match=expected):
        send(sim.address, command)
    assert sim.send("state")["slider"] == before
