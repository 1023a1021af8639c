"""What the children in test_worker.py run: each method misbehaves in its own way."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from station import worker
from station.errors import RobotStopped
from station.worker import give_up, parent_age_s


class Server:
    idle_s = 0.01

    def __init__(self, *args: object) -> None:
        self._args = args
        self._idles = 0
        self._folder = Path(str(args[0])) if args else None

    def idle(self) -> None:
        self._idles += 1

    def idles(self) -> int:
        return self._idles

    def echo(self, value: object) -> object:
        return value

    def pid(self) -> int:
        return os.getpid()

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def give_up_after(self, seconds: float) -> None:
        """Have a thread end the process, whatever this one does meanwhile."""
        error = RobotStopped("robot", "given up", "look at it")
        threading.Timer(seconds, give_up, (error, lambda: None)).start()

    def hold_interpreter(self) -> None:
        """As a vendor's constructor does: no other Python thread gets a turn."""
        sys.setswitchinterval(1e6)
        while True:
            pass

    def freeze_while_sending(self) -> None:
        """Leave the parent with the beginning of an answer: its length, and a little of it."""
        connection = worker._to_parent
        assert connection is not None
        os.write(connection.fileno(), struct.pack("!i", 1_000_000) + b"begun")
        os.kill(os.getpid(), signal.SIGSTOP)

    def die(self) -> None:
        os._exit(7)

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def stopped(self) -> NoReturn:
        raise RobotStopped("robot", "protective stop", "clear it")

    def bug(self) -> NoReturn:
        raise KeyError("nobody foresaw this")

    def unpicklable(self) -> object:
        return lambda: None

    def age(self) -> float:
        return parent_age_s()

    def close(self) -> None:
        if self._folder is not None:
            (self._folder / "closed").write_text(str(os.getpid()))


class Refuses:
    def __init__(self) -> None:
        raise RobotStopped("robot", "protective stop", "clear it")


class Hangs:
    def __init__(self) -> None:
        time.sleep(60)


class Stays(Server):
    """Takes the kernel's promise back, as the robot's child does, and watches the pipe itself."""

    def __init__(self, *args: object) -> None:
        from station.worker import die_with_parent

        super().__init__(*args)
        die_with_parent(0)
