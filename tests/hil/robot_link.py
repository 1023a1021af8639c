"""What the tests of the UR driver do with it: connect, begin a move, wait for rest."""

from __future__ import annotations

import math
import threading
import time

import pytest
from simulator import Simulator

from station.devices.ur import Settings, UrRobot, connect
from station.errors import (
    DeviceError,
)
from station.geometry import Pose

START = Pose(0.0, -0.45, 0.40, math.pi, 0.0, 0.0)
ASIDE = START._replace(x=0.05)
FAR = START._replace(z=0.65)
SLOW_M_S = 0.1


def refused(settings: Settings) -> DeviceError:
    """Return the error that connecting ends with."""
    with pytest.raises(DeviceError) as caught, connect(settings):
        pass
    return caught.value


class Underway:
    """A slow move in a thread; leave the block once the move has ended, however it did."""

    def __init__(self, robot: UrRobot, sim: Simulator, pose: Pose = FAR) -> None:
        self._robot = robot
        self._sim = sim
        self._pose = pose
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._move)

    def _move(self) -> None:
        try:
            self._robot.move(self._pose, SLOW_M_S, 1.0, 20.0)
        except DeviceError as error:
            self.error = error

    def __enter__(self) -> Underway:
        self._thread.start()
        self._sim.wait_for(lambda: self._sim.send("state")["moving"])
        time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive(), "the move did not end"


def seconds_to_rest(sim: Simulator) -> float:
    """Return how long the arm went on moving."""
    started = time.monotonic()
    sim.wait_for(lambda: not sim.send("state")["moving"])
    return time.monotonic() - started


def input_is(robot: UrRobot, line: int, value: int) -> bool:
    return robot.status().inputs >> line & 1 == value
