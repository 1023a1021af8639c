"""The steps of the cycle at which `station bench faults` does something to the robot, and what.

Each is done to the far end or to the processes as its users would see it done, and undone as a
person undoes it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

SHOTS = 4  # of a sheet of the bench's recipe

# Seconds in which a fault is to be noticed that the robot does not tell by itself.
SILENT_S = 2.0  # its data stand still, and for a second its dashboard does not answer either
SETTLED_S = 2.0  # the arm has to be steady before it is measured
STALLED_S = 3.5  # the arm does not come on
HUNG_S = 3.5  # no answer: one is waited for longer while nothing moves
WATCHDOG_S = 0.5  # and the arm to stand still after its controller's death


class Step(NamedTuple):
    """A moment of the cycle, told by the n-th event of a kind since start (or reset)."""

    name: str
    event: str
    number: int = 1
    command: str = "start"


class Fault(NamedTuple):
    """What is done to the far end or the processes, and how a person undoes it."""

    name: str
    do: str
    undo: tuple[str, ...] = ()
    only: str | None = None
    """A controller series that alone knows this fault."""
    goes_on: bool = False
    """The arm may go on, only slower."""
    at_rest: bool = False
    """It happens once the arm comes to rest: only there can anybody know of it."""
    noticed_s: float = 1.0
    """So soon the station is to leave what it does: the robot says so itself, at its next look."""
    rests_s: float = 1.0
    """So soon the arm is to stand still."""


STEPS = {
    step.name: step
    for step in (
        Step("retreat", "move", 1, "reset"),
        Step("waiting", "none"),
        Step("approach", "move", 1),
        Step("descent", "move", 2),
        Step("standing", "rest", 2),
        Step("offset", "move", 3),
        Step("travel", "move", 5),
        Step("judging", "picture saved", SHOTS),
        Step("return", "move", 8),
        Step("removal", "busy falls", 1),
    )
}
FAULTS = {
    fault.name: fault
    for fault in (
        Fault("protective stop", "protective_stop"),
        Fault("safeguard stop", "safeguard_stop"),
        Fault("emergency stop", "emergency_stop"),
        Fault("connection cut", "cut"),
        Fault("cut, then refused", "refuse+cut", ("accept",)),
        Fault("half-open connection", "half_open", ("whole",), noticed_s=SILENT_S),
        Fault("frozen data", "freeze", ("unfreeze",), noticed_s=SILENT_S),
        Fault(
            "wrong pose reached",
            "offset 0 0.004 0",
            ("offset 0 0 0",),
            at_rest=True,
            noticed_s=SETTLED_S,
        ),
        Fault("slider 0 %", "slider 0", ("slider 1",), noticed_s=STALLED_S, rests_s=STALLED_S),
        Fault("slider 10 %", "slider 0.1", ("slider 1",), goes_on=True),
        Fault("program stopped", "stop_program"),
        Fault("remote control off", "local", ("remote",), only="e"),
        Fault("robot controller killed", "kill far end"),
        # Its arm is frozen with it, and comes to rest once it thaws.
        Fault("robot controller frozen", "stop far end", noticed_s=SILENT_S, rests_s=math.inf),
        Fault("robot child killed", "kill child", rests_s=WATCHDOG_S),
        Fault("robot child frozen", "stop child", noticed_s=HUNG_S, rests_s=WATCHDOG_S),
        Fault("station killed", "kill station", rests_s=WATCHDOG_S),
        Fault("station frozen", "stop station", noticed_s=math.inf),
        Fault("both killed", "kill both", rests_s=WATCHDOG_S),
        Fault("both frozen", "stop both", noticed_s=math.inf, rests_s=WATCHDOG_S),
    )
}
