"""The UR driver as it runs in production, against the simulated controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from robot_link import ASIDE, START, input_is, refused
from simulator import Simulator

from station.devices.ur import Settings, UrRobot, connect
from station.errors import (
    DeviceError,
    DeviceTimeout,
)
from station.geometry import Pose
from station.kinematics import Joints


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator("--size", "320", "268")


@pytest.fixture(scope="module")
def calm(simulator: Callable[..., Simulator]) -> Simulator:
    """A controller that nothing bad happens to."""
    return simulator("--size", "320", "268")


@pytest.fixture(scope="module")
def shared(calm: Simulator) -> Iterator[UrRobot]:
    """The one connection to it, for all tests that leave it as it was."""
    with connect(Settings(host=calm.address)) as robot:
        yield robot


def test_the_robot_tells_what_is_installed_on_it(shared: UrRobot) -> None:
    info = shared.info()
    assert "3.15" in info.version
    assert info.tcp.distance_m(Pose(0, 0, 0.1, 0, 0, 0)) < 1e-6
    assert info.payload_kg == pytest.approx(1.2)


def test_the_state_is_fresh_and_whole(shared: UrRobot, calm: Simulator) -> None:
    status = shared.status()
    truth = calm.send("state")
    assert status.age_s < 0.1
    assert (status.robot_mode, status.safety_mode) == ("running", "normal")
    assert status.program_running
    assert status.steady
    assert status.pose.distance_m(Pose.of(truth["pose"])) < 0.0003
    assert status.joints.largest_step_rad(Joints.of(truth["joints"])) < 1e-3


def test_a_move_returns_the_measured_place(shared: UrRobot, calm: Simulator) -> None:
    for pose in (START, ASIDE):
        status = shared.move(pose, 0.5, 1.2, 10.0)
        truth = Pose.of(calm.send("state")["pose"])
        assert status.steady
        assert truth.distance_m(pose) < 1e-6
        assert 0 < status.pose.distance_m(truth) < 0.0003, "measured, not the one asked for"
        assert not calm.send("state")["moving"]


def test_a_move_to_where_the_arm_stands_returns_at_once(shared: UrRobot) -> None:
    shared.move(ASIDE, 0.5, 1.2, 10.0)
    started = time.monotonic()
    shared.move(ASIDE, 0.5, 1.2, 10.0)
    assert time.monotonic() - started < 1.0


def test_the_picture_is_there_before_the_move_ends(shared: UrRobot, calm: Simulator) -> None:
    """The far end writes the picture first, so that no driver needs to know of it."""
    before = len(calm.events("picture"))
    shared.move(START, 0.5, 1.2, 10.0)
    ended = time.monotonic()
    (picture,) = calm.events("picture")[before:]
    assert picture["t"] < ended
    assert Pose.of(picture["pose"]).distance_m(START) < 1e-6


def test_outputs_read_back_as_set(shared: UrRobot, calm: Simulator) -> None:
    for values in ({0: True, 1: False, 2: True}, {0: False, 2: False}, {7: True}, {7: False}):
        shared.set_outputs(values, 1.0)
        truth = calm.send("state")["outputs"]
        assert all(bool(truth >> line & 1) == value for line, value in values.items())
        assert shared.status().outputs == truth


def test_inputs_are_read(shared: UrRobot, calm: Simulator) -> None:
    for value in (1, 0):
        calm.send(f"input 5 {value}")
        calm.wait_for(partial(input_is, shared, 5, value), 0.5)


def test_the_slider_is_read(shared: UrRobot, calm: Simulator) -> None:
    calm.send("slider 0.5")
    calm.wait_for(lambda: abs(shared.status().speed_slider - 0.5) < 1e-3, 0.5)
    calm.send("slider 1")


def test_the_controller_is_asked_what_it_can_reach(shared: UrRobot) -> None:
    assert shared.reachable(START)
    assert not shared.reachable(START._replace(y=-1.5))
    assert shared.reachable(ASIDE), "an unreachable pose must not have killed the script"


def test_the_controller_is_asked_where_joints_lead(shared: UrRobot) -> None:
    status = shared.move(START, 0.5, 1.2, 10.0)
    assert shared.forward(status.joints).distance_m(START) < 1e-5


def test_a_second_station_is_refused(shared: UrRobot, calm: Simulator) -> None:
    error = refused(Settings(host=calm.address))
    assert "another program or a fieldbus holds the registers" in str(error)
    shared.move(START, 0.5, 1.2, 10.0)


def test_reading_alone_needs_no_script_and_disturbs_no_one(
    shared: UrRobot, calm: Simulator
) -> None:
    programs, commands = len(calm.events("program")), len(calm.events("command"))
    with connect(Settings(host=calm.address, control=False)) as reader:
        assert reader.status().pose.distance_m(shared.status().pose) < 0.0003
        for forbidden in (
            lambda: reader.move(ASIDE, 0.1, 1.0, 1.0),
            lambda: reader.set_outputs({0: True}, 1.0),
            lambda: reader.reachable(START),
        ):
            with pytest.raises(DeviceError, match="opened for reading only"):
                forbidden()
    assert len(calm.events("program")) == programs
    assert len(calm.events("command")) == commands
    assert shared.status().program_running


def test_a_reader_that_loses_the_stream_stops_nobody_elses_program(sim: Simulator) -> None:
    sim.clear()
    before = len(sim.events("dashboard"))
    with connect(Settings(host=sim.address, control=False)) as reader:
        sim.send("freeze")
        time.sleep(0.7)
        with pytest.raises(DeviceTimeout):
            reader.status()
    sim.clear()
    assert sim.events("dashboard")[before:] == [], "not one word that could stop a program"
