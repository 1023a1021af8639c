"""Shots, states and frames, for tests that collect them."""

from __future__ import annotations

import numpy as np
from arm_double import ArmDouble
from sheets import PLACE, WHEN

from station.devices import RobotStatus
from station.recipe import Shot
from station.records.sheet import Frame


def shot(number: int) -> Shot:
    return Shot("left", number, PLACE, PLACE.raised(0.05), 8000.0, 0.0)


def status() -> RobotStatus:
    return ArmDouble().status()


def frame(value: int) -> Frame:
    return Frame(np.full((6, 8), value, np.uint8), value, 8000.0, 0.0, WHEN)
