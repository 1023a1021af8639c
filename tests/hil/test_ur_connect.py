"""A robot that the UR driver cannot work with is refused with what to do, and at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from robot_link import refused
from simulator import Simulator

from station.devices.ur import Settings
from station.errors import (
    DeviceNotFound,
    DeviceTimeout,
    RobotStopped,
)


@pytest.fixture(scope="module")
def sim(simulator: Callable[..., Simulator]) -> Simulator:
    return simulator("--size", "320", "268")


@pytest.mark.bad_input("080-robot-off")
def test_an_absent_robot_is_named_with_what_to_look_at() -> None:
    started = time.monotonic()
    error = refused(Settings(host="127.77.0.1"))
    assert isinstance(error, DeviceNotFound)
    assert str(error).startswith("robot 127.77.0.1: nothing answers on port 30004")
    assert "cable" in error.advice
    assert time.monotonic() - started < 3


@pytest.mark.bad_input("097-no-such-name")
def test_a_name_that_leads_nowhere_is_named() -> None:
    error = refused(Settings(host="no-such-robot.invalid"))
    assert isinstance(error, DeviceNotFound)
    assert "no-such-robot.invalid" in str(error)


def test_a_port_that_answers_nonsense_does_not_hang_the_station() -> None:
    import socket

    with socket.create_server(("127.77.0.2", 30004)):
        started = time.monotonic()
        error = refused(Settings(host="127.77.0.2", connect_timeout_s=1.5))
        assert isinstance(error, DeviceTimeout)
        assert time.monotonic() - started < 4


def test_a_stopped_robot_is_refused_at_once(sim: Simulator) -> None:
    sim.clear()
    sim.send("protective_stop")
    error = refused(Settings(host=sim.address))
    assert isinstance(error, RobotStopped)
    assert "protective stop" in str(error)
    assert error.advice


def test_a_robot_without_power_is_refused_with_what_to_do(sim: Simulator) -> None:
    sim.clear()
    sim.send("emergency_stop")
    error = refused(Settings(host=sim.address))
    assert "emergency stop" in str(error)
    sim.clear()


def test_registers_that_a_fieldbus_holds_are_named(sim: Simulator) -> None:
    sim.clear()
    sim.send("claim")
    error = refused(Settings(host=sim.address))
    sim.send("unclaim")
    assert "holds the registers" in error.problem
    assert "EtherNet/IP" in error.advice
