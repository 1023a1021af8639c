"""The UR driver while something goes wrong: every fault is told, and the arm comes to rest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from robot_link import FAR, SLOW_M_S, START, Underway, refused, seconds_to_rest
from simulator import ROOT, Simulator
from test_worker import gone

from station.devices.ur import Settings, UrRobot, connect
from station.errors import (
    DeviceError,
    DeviceTimeout,
    RobotStopped,
)
from station.geometry import Pose


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator("--size", "320", "268")


@pytest.fixture
def robot(sim: Simulator) -> Iterator[UrRobot]:
    """A connection of its own, for a test that may ruin it."""
    sim.clear()
    with connect(Settings(host=sim.address)) as robot:
        yield robot


def moves(sim: Simulator) -> int:
    return sum(event["name"].startswith("move") for event in sim.events("command"))


def test_a_slow_dashboard_costs_neither_the_line_nor_the_watchdog(
    robot: UrRobot, sim: Simulator
) -> None:
    """It is asked before a line rises, for longer than the controller waits to hear of us."""
    sim.send("dashboard 0.6")
    try:
        started = time.monotonic()
        robot.set_outputs({0: True}, 1.0)
        assert time.monotonic() - started > 0.6, "it was asked"
        robot.move(START, 0.5, 1.2, 10.0)
        robot.set_outputs({0: False}, 1.0)
    finally:
        sim.send("dashboard 0")
    assert robot.status().program_running


def test_a_moving_arm_can_be_stopped_only_by_ending_the_move(
    robot: UrRobot, sim: Simulator
) -> None:
    """One request at a time: the deadline is what ends a move that takes too long."""
    sim.send("slider 0.02")
    started = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"speed slider 2%"):
        robot.move(FAR, 0.1, 1.0, 0.5)
    assert time.monotonic() - started < 1.5
    assert seconds_to_rest(sim) < 0.5


@pytest.mark.bad_input("082-protective-stop")
def test_a_protective_stop_in_a_move_ends_it_and_nothing_moves_after(
    robot: UrRobot, sim: Simulator
) -> None:
    with Underway(robot, sim) as move:
        sim.send("protective_stop")
        tripped = time.monotonic()
    assert isinstance(move.error, RobotStopped)
    assert time.monotonic() - tripped < 0.5
    assert str(move.error).startswith(f"robot {sim.address}: protective stop at x ")
    assert move.error.advice == "clear the cause at the pendant, then start again"
    assert seconds_to_rest(sim) < 0.5
    count, place = moves(sim), sim.send("state")["pose"]
    with pytest.raises(RobotStopped):
        robot.move(START, 0.5, 1.2, 5.0)
    assert moves(sim) == count
    assert sim.send("state")["pose"] == pytest.approx(place, abs=1e-9)
    sim.send("reset")
    time.sleep(0.3)
    with pytest.raises(DeviceError):
        robot.move(START, 0.5, 1.2, 5.0)
    assert moves(sim) == count, "cleared by a person, yet nothing moves before a new start"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("emergency_stop", "emergency stop"),
        ("safeguard_stop", "safeguard stop"),
        ("stop_program", "control program was stopped"),
    ],
    ids=["083-emergency-stop", "084-safeguard-stop", "086-program-stopped"],
)
def test_every_other_stop_ends_a_move_too(
    robot: UrRobot, sim: Simulator, fault: str, said: str
) -> None:
    with Underway(robot, sim) as move:
        sim.send(fault)
    assert isinstance(move.error, RobotStopped)
    assert said in str(move.error)
    assert seconds_to_rest(sim) < 0.6


def test_a_safeguard_that_resumes_by_itself_finds_no_program_to_go_on_with(
    robot: UrRobot, sim: Simulator
) -> None:
    with Underway(robot, sim) as move:
        sim.send("safeguard_stop")
        time.sleep(0.15)  # less than the watchdog's
        sim.send("safeguard_release")
    assert isinstance(move.error, RobotStopped)
    place = sim.send("state")["pose"]
    time.sleep(0.5)
    assert sim.send("state")["pose"] == pytest.approx(place, abs=1e-9), "the old move is over"
    assert Pose.of(place).distance_m(FAR) > 0.05


@pytest.mark.bad_input("084-safeguard-stop-that-is-over-when-the-robot-is-asked")
def test_a_stop_that_comes_and_goes_while_nobody_asks_is_not_missed(
    robot: UrRobot, sim: Simulator
) -> None:
    """A light curtain that resumes by itself, while a picture is taken or a record written."""
    robot.move(START, 0.5, 1.2, 10.0)
    sim.send("safeguard_stop")
    time.sleep(0.06)
    sim.send("safeguard_release")
    sim.wait_for(lambda: sim.send("state")["safety"] == "NORMAL")
    time.sleep(0.1)
    count = moves(sim)
    for forbidden in (
        lambda: robot.status().check_ready(robot.device),
        lambda: robot.move(FAR, 0.5, 1.2, 10.0),
        lambda: robot.set_outputs({0: True}, 1.0),
    ):
        with pytest.raises(RobotStopped, match=r"stopped for a moment \(safeguard stop\) at x "):
            forbidden()
    assert moves(sim) == count
    assert not sim.send("state")["outputs"] & 1


def test_a_frozen_stream_ends_a_move_and_the_arm_is_stopped(robot: UrRobot, sim: Simulator) -> None:
    with Underway(robot, sim) as move:
        sim.send("freeze")
        frozen = time.monotonic()
        rest_s = seconds_to_rest(sim)
    assert isinstance(move.error, DeviceTimeout)
    assert "no fresh data" in str(move.error)
    assert "last at x " in str(move.error)
    assert rest_s < 1.2
    assert time.monotonic() - frozen < 2
    sim.send("unfreeze")
    with pytest.raises(DeviceError):
        robot.move(START, 0.5, 1.2, 5.0)
    assert not sim.send("state")["moving"]


@pytest.mark.bad_input("096-half-open")
def test_a_half_open_connection_ends_a_move_and_the_watchdog_stops_the_arm(
    robot: UrRobot, sim: Simulator
) -> None:
    """Nothing passes either way, and nothing says so."""
    with Underway(robot, sim) as move:
        sim.send("half_open")
        rest_s = seconds_to_rest(sim)
    assert isinstance(move.error, DeviceTimeout)
    assert "no fresh data" in str(move.error)
    assert rest_s < 0.6
    place = sim.send("state")["pose"]
    sim.send("whole")
    time.sleep(0.3)
    assert sim.send("state")["pose"] == pytest.approx(place, abs=1e-9)


def test_a_child_that_hangs_is_ended_long_before_the_moves_deadline(
    robot: UrRobot, sim: Simulator
) -> None:
    pid = robot._worker.pid
    assert pid is not None
    with Underway(robot, sim) as move:
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 3.0
    assert "no answer to move" in str(move.error)


def test_no_line_rises_once_the_robot_has_stopped(robot: UrRobot, sim: Simulator) -> None:
    robot.set_outputs({0: False, 2: True}, 1.0)
    sim.send("protective_stop")
    with pytest.raises(RobotStopped):
        robot.set_outputs({0: True}, 1.0)
    robot.set_outputs({2: False}, 1.0)
    assert sim.send("state")["outputs"] & 5 == 0


@pytest.mark.bad_input("085-not-in-remote-control")
def test_remote_control_that_is_taken_away_ends_a_move(
    simulator: Callable[..., Simulator],
) -> None:
    with simulator("--size", "320", "268", "--series", "e") as sim:
        with connect(Settings(host=sim.address)) as robot:
            with Underway(robot, sim) as move:
                sim.send("local")
                rest_s = seconds_to_rest(sim)
            assert isinstance(move.error, RobotStopped)
            assert "remote control was taken away" in str(move.error)
            assert rest_s < 1.0
        error = refused(Settings(host=sim.address))
        assert "Remote Control" in error.advice


def test_a_stream_that_freezes_while_a_command_is_sent_is_told_within_a_second(
    robot: UrRobot, sim: Simulator
) -> None:
    """ur_rtde then waits for seconds, or minutes, for the controller's answer."""
    sim.send("freeze")
    frozen = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"no fresh data for 0\.\d s, last at x ") as caught:
        robot.move(FAR, SLOW_M_S, 1.0, 20.0)
    assert time.monotonic() - frozen < 1.0
    assert caught.value.advice
    assert seconds_to_rest(sim) < 0.5
    assert not robot._worker.alive


def test_a_link_that_was_lost_between_two_requests_is_named_by_the_next(
    robot: UrRobot, sim: Simulator
) -> None:
    sim.send("freeze")
    sim.wait_for(lambda: sim.send("state")["program"] != "PLAYING")
    sim.send("unfreeze")
    time.sleep(0.1)
    with pytest.raises(DeviceTimeout, match="no fresh data"):
        robot.status()


@pytest.mark.bad_input("087-slider-0")
def test_a_slider_at_zero_ends_a_move_early_and_for_good(robot: UrRobot, sim: Simulator) -> None:
    robot.move(START, 0.5, 1.2, 10.0)
    with Underway(robot, sim) as move:
        sim.send("slider 0")
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 4.0
    assert isinstance(move.error, DeviceTimeout)
    assert "stands still on its way at x " in str(move.error)
    assert "speed slider 0%" in str(move.error)
    place = sim.send("state")["pose"]
    sim.send("slider 1")
    time.sleep(0.5)
    assert sim.send("state")["pose"] == pytest.approx(place, abs=1e-6)
    assert not sim.send("state")["moving"]


@pytest.mark.bad_input("087-slider-0-before")
def test_at_a_slider_of_zero_no_move_begins_and_no_line_rises(
    robot: UrRobot, sim: Simulator
) -> None:
    robot.move(START, 0.5, 1.2, 10.0)
    sim.send("slider 0")
    sent = moves(sim)
    with pytest.raises(RobotStopped, match="speed slider is at 0 %"):
        robot.move(START._replace(z=START.z + 0.006), 0.04, 1.0, 20.0)
    with pytest.raises(RobotStopped, match="speed slider is at 0 %"):
        robot.set_outputs({3: True}, 1.0)
    sim.send("slider 1")
    time.sleep(0.3)
    assert moves(sim) == sent
    assert not robot.status().outputs & 1 << 3


@pytest.mark.bad_input("087-slider-5")
def test_a_very_slow_move_is_no_standstill(robot: UrRobot, sim: Simulator) -> None:
    robot.move(START, 0.5, 1.2, 10.0)
    sim.send("slider 0.05")
    robot.move(START._replace(z=START.z + 0.006), 0.04, 1.0, 20.0)


@pytest.mark.bad_input("081-cut-in-a-move")
def test_a_cut_connection_ends_a_move_and_the_arm_is_stopped(
    robot: UrRobot, sim: Simulator
) -> None:
    with Underway(robot, sim) as move:
        sim.send("cut")
        rest_s = seconds_to_rest(sim)
    assert isinstance(move.error, DeviceError)
    assert rest_s < 1.2


def test_a_killed_child_leaves_no_moving_arm(robot: UrRobot, sim: Simulator) -> None:
    pid = robot._worker.pid
    assert pid is not None
    with Underway(robot, sim) as move:
        os.kill(pid, signal.SIGKILL)
        rest_s = seconds_to_rest(sim)
    assert rest_s < 0.5
    assert isinstance(move.error, DeviceTimeout)
    assert "the arm was told to stop" in str(move.error)
    with pytest.raises(DeviceError):
        robot.status()


def test_the_controllers_watchdog_stops_the_arm_of_a_child_that_hangs(
    robot: UrRobot, sim: Simulator
) -> None:
    pid = robot._worker.pid
    assert pid is not None
    with Underway(robot, sim):
        os.kill(pid, signal.SIGSTOP)
        rest_s = seconds_to_rest(sim)
    assert rest_s < 0.6
    reasons = [event.get("reason") for event in sim.events("program")]
    assert "watchdog" in reasons[-3:]


def test_an_arm_that_ends_elsewhere_is_reported_where_it_is(robot: UrRobot, sim: Simulator) -> None:
    sim.send("offset 0.005 0 0")
    status = robot.move(START, 0.5, 1.2, 10.0)
    assert status.pose.distance_m(START) == pytest.approx(0.005, abs=0.0003)


def test_a_frozen_stream_never_passes_for_a_place(sim: Simulator) -> None:
    """Connecting to a stream that stands still must not read zeros as a pose."""
    sim.clear()
    sim.send("freeze")
    with (
        contextlib.suppress(DeviceError),
        connect(Settings(host=sim.address, control=False, connect_timeout_s=1.5)) as reader,
    ):
        assert reader.status().pose.distance_m(Pose.of(sim.send("state")["pose"])) < 0.001
    sim.send("unfreeze")


PARENT = """
import signal
import sys
from station.devices.ur import Settings, connect
from station.geometry import Pose
if __name__ == "__main__":
    # A shell starts its background jobs with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with connect(Settings(host=sys.argv[1])) as robot:
        print(robot._worker.pid, flush=True)
        robot.move(Pose(0.0, -0.45, 0.65, 3.141592653589793, 0.0, 0.0), 0.1, 1.0, 30.0)
"""


def parent_moves(sim: Simulator, tmp_path: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a station that moves the arm slowly; return it and its robot child's id."""
    sim.clear()
    with connect(Settings(host=sim.address)) as robot:
        robot.move(START, 0.5, 1.2, 10.0)
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, str(script), sim.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    sim.wait_for(lambda: sim.send("state")["moving"])
    time.sleep(0.1)
    return parent, pid


@pytest.mark.parametrize(
    ("number", "limit_s"),
    [(signal.SIGKILL, 1.0), (signal.SIGSTOP, 1.3), (signal.SIGINT, 1.0)],
)
def test_an_arm_never_goes_on_without_its_station(
    sim: Simulator, tmp_path: Path, number: signal.Signals, limit_s: float
) -> None:
    parent, pid = parent_moves(sim, tmp_path)
    parent.send_signal(number)
    try:
        assert seconds_to_rest(sim) < limit_s
        assert Pose.of(sim.send("state")["pose"]).z < 0.6, "stopped on the way"
        assert gone(pid, 2.0)
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
