"""The dashboard server: one text line in, one line out, worded as the robot words it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from station.sim.arm import Mode
from station.sim.controller import Controller, Runtime
from station.sim.journal import Journal

GREETING = "Connected: Universal Robots Dashboard Server"
REFUSED = (
    "Command is not allowed due to safety reasons, please switch robot to Remote Control mode "
    "and reconnect to port 29999"
)
TOO_EARLY = (
    "Cannot unlock protective stop until 5s after occurrence. "
    "Always inspect cause of protective stop before unlocking"
)
SERIAL_NUMBER = "20153000050"
PROGRAM = "rtde_control.urp"
# Reading the state is allowed in local mode too.
QUERIES = frozenset(
    {"running", "robotmode", "safetymode", "safetystatus", "programstate", "polyscopeversion"}
    | {"is in remote control", "get serial number", "get robot model", "get loaded program"}
    | {"isprogramsaved", "quit"}
)


class Dashboard:
    """Answers for one controller."""

    def __init__(self, controller: Controller, journal: Journal) -> None:
        self._controller = controller
        self._journal = journal
        self.delay_s = 0.0  # from a line to its answer
        self._fixed = {
            "close popup": "closing popup",
            "close safety popup": "closing safety popup",
            "restart safety": "Restarting safety",
            "shutdown": "Shutting down",
            "addtolog": "Added log message",
            "quit": "Disconnected",
            "isprogramsaved": f"true {PROGRAM}",
            "get loaded program": f"Loaded program: {PROGRAM}",
            "get robot model": "UR5",
        }
        self._verbs: dict[str, Callable[[], str]] = {
            "play": self._play,
            "stop": self._stop,
            "pause": self._pause,
            "running": lambda: f"Program running: {str(self._plays()).lower()}",
            "robotmode": lambda: f"Robotmode: {controller.arm.mode.name}",
            "safetymode": lambda: f"Safetymode: {controller.arm.safety.name}",
            "safetystatus": lambda: f"Safetystatus: {controller.arm.safety.name}",
            "programstate": self._program_state,
            "polyscopeversion": lambda: controller.series.polyscope,
            "unlock protective stop": self._unlock,
            "power on": lambda: self._power(Mode.IDLE, "Powering on"),
            "power off": lambda: self._power(Mode.POWER_OFF, "Powering off"),
            "brake release": lambda: self._power(Mode.RUNNING, "Brake releasing"),
        }
        if controller.series.has_remote_control:
            self._verbs["is in remote control"] = lambda: str(controller.remote).lower()
            self._verbs["get serial number"] = lambda: SERIAL_NUMBER

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet one client and answer its lines until it leaves."""
        writer.write(GREETING.encode() + b"\n")
        while line := await reader.readline():
            text = line.decode("utf-8", "replace").strip()
            await asyncio.sleep(self.delay_s)
            writer.write(self.answer(text).encode() + b"\n")
            await writer.drain()
            if text.lower() == "quit":
                return

    def answer(self, text: str) -> str:
        """Carry out one command and return the robot's words for it."""
        command = text.lower()
        if command not in QUERIES:
            self._journal.write("dashboard", command=text)
            if self._controller.series.has_remote_control and not self._controller.remote:
                return REFUSED
        if command.startswith("popup"):
            self._controller.popup = text[5:].strip()
            return "showing popup"
        if command.startswith("load "):
            return f"Loading program: {text[5:]}"
        if command == "close popup":
            self._controller.popup = ""
        verb = self._verbs.get(command)
        if verb is not None:
            return verb()
        fixed = self._fixed.get("addtolog" if command.startswith("addtolog") else command)
        return fixed or f'could not understand: "{text}"'

    def _plays(self) -> bool:
        return self._controller.runtime is Runtime.PLAYING

    def _play(self) -> str:
        played = self._controller.play_program()
        return "Starting program" if played else "Failed to execute: play"

    def _stop(self) -> str:
        self._controller.stop_program()
        return "Stopped"

    def _pause(self) -> str:
        paused = self._controller.pause_program()
        return "Pausing program" if paused else "Failed to execute: pause"

    def _unlock(self) -> str:
        unlocked = self._controller.unlock(time.monotonic())
        return "Protective stop releasing" if unlocked else TOO_EARLY

    def _power(self, mode: Mode, words: str) -> str:
        self._controller.power(mode)
        return words

    def _program_state(self) -> str:
        state = self._controller.runtime
        shown = state if state in (Runtime.PLAYING, Runtime.PAUSED) else Runtime.STOPPED
        return f"{shown.name} {PROGRAM}"
