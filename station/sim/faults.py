"""The control port: faults and the person beside the cell, as text lines answered in JSON."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable

from station.errors import ConfigError
from station.sim.arm import Safety
from station.sim.controller import Controller
from station.sim.dashboard import Dashboard
from station.sim.feed import DISTURBANCES, Feed
from station.sim.journal import Journal
from station.sim.ports import CONTROL_PORT, Ports
from station.sim.rtde import Server

STOPS = {
    "protective_stop": Safety.PROTECTIVE_STOP,
    "safeguard_stop": Safety.SAFEGUARD_STOP,
    "emergency_stop": Safety.ROBOT_EMERGENCY_STOP,
}
FARTHEST_M = 1.0
TAKES = {
    "offset": "X Y Z in metres, at most 1",
    "slider": "one number from 0 to 1",
    "dashboard": "seconds from 0 to 10",
    "jog": "X Y Z in metres, at most 1, while no program runs",
    "input": "a line from 0 to 17 and 0 or 1",
    "picture": f"one of {', '.join(DISTURBANCES)}",
}


class FaultPort:
    """Carries out one command per line; the station itself never connects here."""

    def __init__(
        self,
        controller: Controller,
        rtde: Server,
        dashboard: Dashboard,
        ports: Ports,
        feed: Feed,
        journal: Journal,
    ) -> None:
        self._controller = controller
        self._rtde = rtde
        self._dashboard = dashboard
        self._ports = ports
        self._feed = feed
        self._journal = journal
        self._commands: dict[str, Callable[[], object]] = {
            "reset": lambda: controller.reset(time.monotonic()),
            "safeguard_release": controller.release_safeguard,
            "cut": ports.cut,
            "refuse": ports.refuse,
            "half_open": self._half_open,
            "whole": self._whole,
            "claim": rtde.claim,
            "unclaim": rtde.unclaim,
            "freeze": rtde.thawed.clear,
            "unfreeze": rtde.thawed.set,
            "stop_program": controller.stop_program,
            "next": lambda: controller.table.force_next(time.monotonic()),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client's lines until it leaves."""
        while line := await reader.readline():
            answer = await self.answer(line.decode("utf-8", "replace").split())
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    async def answer(self, words: list[str]) -> dict[str, object]:
        """Carry out one command; the answer has `ok`, and `error` where that is false."""
        if not words:
            return _refusal("an empty line is no command")
        name, arguments = words[0], words[1:]
        if name == "state":
            return {"ok": True, **self._controller.state()}
        if arguments and name in self._simple():
            return _refusal(f"{name} takes nothing more, not {' '.join(arguments)[:80]!r}")
        self._journal.write("fault", command=" ".join(words))
        try:
            known = await self._carry_out(name, arguments)
        except ValueError:
            return _refusal(f"{name} takes {TAKES[name]}")
        return {"ok": True} if known else _refusal(f"no fault '{name}'; there are {self._known()}")

    def _simple(self) -> set[str]:
        return {"accept", "local", "remote", *STOPS, *self._commands}

    def _known(self) -> str:
        return ", ".join(sorted({"state", *self._simple(), *TAKES}))

    async def _carry_out(self, name: str, arguments: list[str]) -> bool:
        controller = self._controller
        if name in STOPS:
            controller.trip(STOPS[name])
        elif name in self._commands:
            self._commands[name]()
        elif name == "accept":
            await self._ports.open()
        elif name == "offset":
            x, y, z = (_within(word, -FARTHEST_M, FARTHEST_M) for word in arguments)
            controller.arm.offset_m = (x, y, z)
        elif name == "jog":
            x, y, z = (_within(word, -FARTHEST_M, FARTHEST_M) for word in arguments)
            if not controller.jog(controller.arm.tcp_pose._replace(x=x, y=y, z=z)):
                raise ValueError
        elif name == "slider":
            (controller.arm.slider,) = (_within(word, 0.0, 1.0) for word in arguments)
        elif name == "dashboard":
            (self._dashboard.delay_s,) = (_within(word, 0.0, 10.0) for word in arguments)
        elif name == "input":
            line, value = map(int, arguments)
            if line not in range(18) or value not in (0, 1):
                raise ValueError
            controller.set_input(line, bool(value))
        elif name == "picture":
            (disturbance,) = arguments
            if disturbance not in DISTURBANCES:
                raise ValueError
            self._feed.disturb(disturbance)
        elif name in ("local", "remote"):
            controller.remote = name == "remote"
        else:
            return False
        return True

    def _half_open(self) -> None:
        self._rtde.thawed.clear()
        self._ports.silence()

    def _whole(self) -> None:
        self._rtde.thawed.set()
        self._ports.unsilence()


def _within(word: str, low: float, high: float) -> float:
    value = float(word)
    if not low <= value <= high:  # NaN is refused too
        raise ValueError
    return value


def _refusal(error: str) -> dict[str, object]:
    return {"ok": False, "error": error}


def send(address: str, command: str) -> str:
    """Send one command to a running simulator; return its JSON answer."""
    try:
        with socket.create_connection((address, CONTROL_PORT), timeout=5.0) as connection:
            stream = connection.makefile("rw", encoding="utf-8", newline="\n")
            stream.write(f"{command}\n")
            stream.flush()
            answer = stream.readline().strip()
    except OSError as error:
        raise ConfigError(
            f"no simulator answers at {address}: {error.strerror or error}"
        ) from error
    try:
        told = json.loads(answer)
    except ValueError as error:
        raise ConfigError(f"what answers at {address} is no simulator of this version") from error
    if not told["ok"]:
        raise ConfigError(told["error"])
    return answer
