"""A child process with a deadline on every request: the robot's and the model's.

Libraries that may hang, hold the interpreter or crash live in such a child, so the loop never does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from station import process
from station.errors import StationError

HEARTBEAT_S = 0.05
SLICE_S = 0.25  # between two looks whether a child that was asked still lives
HALF_SENT_S = 1.0  # past its deadline an answer that has begun to come may take so long
_PR_SET_PDEATHSIG = 1

# Set in a child:
_parent_heartbeat: Any = None  # the parent's time.monotonic(), shared by the kernel
_to_parent: Connection | None = None


class WorkerError(StationError):
    """A child died, hung past its deadline, or failed in a way nobody foresaw."""


class Worker:
    """One child process that answers one request at a time.

    `target` is "module:Class"; the child builds Class(*args) and calls its methods by name. A class
    with a method `idle()` has it called about every `idle_s` seconds between requests.
    """

    def __init__(
        self, name: str, target: str, args: tuple[Any, ...], start_deadline_s: float
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._lock = threading.Lock()
        self._connection, child = context.Pipe()
        self._heartbeat = context.Value("d", time.monotonic(), lock=False)
        self._pulse = context.Value("d", time.monotonic(), lock=False)
        self._closed = threading.Event()
        self._answer_by = math.inf
        self._process = context.Process(
            target=_serve,
            args=(child, (self._heartbeat, self._pulse), target, args),
            name=f"station-{name}",
            daemon=True,
        )
        self._process.start()
        child.close()
        threading.Thread(target=self._beat, name=f"heartbeat-{name}", daemon=True).start()
        try:
            self._ask("start", None, start_deadline_s)
        except BaseException:
            self._kill()
            raise

    @property
    def alive(self) -> bool:
        """Tell whether the child can still be asked."""
        return not self._closed.is_set() and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Process id of the child."""
        return self._process.pid

    def request(
        self, method: str, *args: Any, deadline_s: float, silence_s: float = math.inf
    ) -> Any:
        """Call a method in the child; past the deadline it is killed and WorkerError raised.

        The same happens once the child has shown no sign of life for `silence_s`.
        """
        with self._lock:
            if self._closed.is_set():
                raise WorkerError(f"{self._name}: the process has already ended")
            return self._ask(method, args, deadline_s, silence_s)

    def close(self, deadline_s: float = 3.0) -> None:
        """Ask the child to end, then make sure that it has."""
        if self._closed.is_set():
            return
        with contextlib.suppress(OSError, ValueError):
            self._connection.send(("close", ()))
        self._process.join(deadline_s)
        self._kill()

    def kill(self) -> None:
        """End the child at once."""
        self._kill()

    def _ask(
        self,
        method: str,
        args: tuple[Any, ...] | None,
        deadline_s: float,
        silence_s: float = math.inf,
    ) -> Any:
        self._answer_by = time.monotonic() + deadline_s
        try:
            if args is not None:
                # A child that gave up has closed its end, but its last word can still be read.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._connection.send((method, args))
            waited_s = self._wait_for_answer(deadline_s, silence_s)
            if waited_s is not None:
                self._kill()
                raise WorkerError(f"{self._name}: no answer to {method} within {waited_s:.1f} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        except BaseException:
            # The answer to an interrupted request would be taken for the answer to the next one.
            self._kill()
            raise
        finally:
            self._answer_by = math.inf
        if kind == "result":
            return value
        if kind == "error":
            raise value
        raise WorkerError(f"{self._name}: {method} failed in its process:\n{value}")

    def _wait_for_answer(self, deadline_s: float, silence_s: float) -> float | None:
        """Wait for an answer; return None once it is there, else how long was waited."""
        started = time.monotonic()
        while not self._connection.poll(min(deadline_s, SLICE_S)):
            now = time.monotonic()
            if now - started >= deadline_s or now - self._pulse.value > silence_s:
                return now - started
        return None

    def _died(self) -> WorkerError:
        self._process.join(1.0)
        code = self._process.exitcode
        self._kill()
        return WorkerError(f"{self._name}: the process ended unexpectedly (exit code {code})")

    def _kill(self) -> None:
        self._closed.set()
        if self._process.is_alive():
            self._process.kill()
            self._process.join(2.0)
        self._connection.close()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            now = time.monotonic()
            self._heartbeat.value = now
            if now - self._answer_by > HALF_SENT_S:
                # It froze while it sent, and who reads waits for the rest.
                self._process.kill()


def parent_age_s() -> float:
    """In a child: seconds since the parent was last seen running."""
    return time.monotonic() - float(_parent_heartbeat.value)


def give_up(error: StationError, last: Callable[[], None]) -> NoReturn:
    """In a child: answer with an error whatever its main thread hangs in, do `last`, and end."""
    if _to_parent is not None:
        with contextlib.suppress(OSError):
            _to_parent.send(("error", error))
    last()
    os._exit(1)


def die_with_parent(sig: int) -> None:
    """In a child: have the kernel send `sig` when the parent is gone; 0 takes it back."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0)


def _serve(
    connection: Connection, beats: tuple[Any, Any], target: str, args: tuple[Any, ...]
) -> None:
    global _parent_heartbeat, _to_parent
    (_parent_heartbeat, pulse), _to_parent = beats, connection
    threading.Thread(target=_show_life, args=(pulse,), name="pulse", daemon=True).start()
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    process.prepare()
    module, _, name = target.partition(":")
    server = _answer(
        connection, lambda: getattr(importlib.import_module(module), name)(*args), send=False
    )
    if server is None:
        return
    connection.send(("result", None))
    idle, idle_s = getattr(server, "idle", None), getattr(server, "idle_s", None)
    idled = time.monotonic()
    while True:
        try:
            # Requests that follow each other closely must not keep `idle` from its turn.
            if idle is not None and time.monotonic() - idled >= (idle_s or 0.0):
                idle()
                idled = time.monotonic()
            if not connection.poll(idle_s):
                continue
            method, arguments = connection.recv()
        except (EOFError, OSError):
            method, arguments = "close", ()
        if method == "close":
            if hasattr(server, "close"):
                server.close()
            return
        _answer(connection, functools.partial(getattr(server, method), *arguments), send=True)


def _show_life(pulse: Any) -> None:
    while True:
        pulse.value = time.monotonic()
        time.sleep(HEARTBEAT_S)


def _answer(connection: Connection, call: Any, *, send: bool) -> Any:
    try:
        result = call()
    except StationError as error:
        connection.send(("error", error))
    except Exception:  # noqa: BLE001 - whatever it was, the parent must hear of it
        connection.send(("failed", traceback.format_exc()))
    else:
        if send:
            connection.send(("result", result))
        return result
    return None
