"""run/control.sock: how commands and the page speak to the running loop, one JSON line each way.

    {"command": "start", "user": "anna", "reason": "shift 2"}
    {"accepted": true, "state": "starting", ...}
    {"accepted": false, "why": "start is not possible in state aborted; possible: clear", ...}

One person at a time has control: who commands first has it, another takes it with `"take": true`.
Looking, holding, stopping and aborting need no control.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import structlog
from pydantic import Field, ValidationError

from station.errors import CommandRefused, ConfigError, StationError
from station.states import Command, Machine, Mode
from station.strict import Strict, first_problem

LINE_LIMIT_BYTES = 4096
IDLE_S = 30.0
ANSWER_S = 5.0
CLIENTS = 16
WAITING = 128  # to be accepted: a client that finds no place is refused at once
FREE = {"status", Command.HOLD, Command.STOP, Command.ABORT}

log = structlog.get_logger()


class Request(Strict):
    """One line of a client."""

    command: Literal["status", "mode", "start", "hold", "unhold", "stop", "abort", "clear", "reset"]
    user: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
    reason: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    mode: Mode | None = None
    take: bool = Field(default=False, description="take control over from whoever has it")


class Control:
    """Decides on requests; `facts` adds to the state what only the loop knows."""

    def __init__(self, machine: Machine, facts: Callable[[], dict[str, Any]]) -> None:
        self._machine = machine
        self._facts = facts
        self._lock = threading.Lock()
        self.owner: str | None = None

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one line; the answer has `accepted`, and `why` where that is false."""
        try:
            request = _request(line)
            with self._lock:
                self._carry_out(request)
        except StationError as refusal:
            log.warning("command.refused", why=str(refusal))
            return {"accepted": False, "why": str(refusal), **self.status()}
        return {"accepted": True, **self.status()}

    def status(self) -> dict[str, Any]:
        """Return the state and what is known about it."""
        machine = self._machine
        state = machine.state
        return {
            "state": state,
            "number": state.number,
            "since_s": round(machine.since_s, 1),
            "reason": machine.reason,
            "mode": machine.mode,
            "owner": self.owner,
            "commands": machine.commands(),
            "pid": os.getpid(),
            **self._facts(),
        }

    def _carry_out(self, request: Request) -> None:
        if request.command == "status":
            return
        self._check_control(request)
        if request.command == "mode":
            if request.mode is None:
                raise CommandRefused("mode: which one?")
            self._machine.set_mode(request.mode)
        else:
            self._machine.command(Command(request.command), _told(request))
        log.info("command.accepted", command=request.command, user=request.user)
        if request.command not in FREE:
            self.owner = request.user

    def _check_control(self, request: Request) -> None:
        free = request.command in FREE or request.take
        if not free and self.owner not in (None, request.user):
            raise CommandRefused(
                f"{request.command}: {self.owner} has control; take it over with --take"
            )


@contextmanager
def serve(workspace: Path, control: Control) -> Iterator[None]:
    """Answer clients in threads for the length of the block."""
    path = workspace / "run" / "control.sock"
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _reachable(path) as short:
            before = os.umask(0o177)  # the socket is the owner's alone from its first moment
            try:
                listener.bind(short)
            except OSError as error:
                raise ConfigError(f"{path}: {error.strerror}") from error
            finally:
                os.umask(before)
        listener.listen(WAITING)
        threading.Thread(
            target=_accept, args=(listener, control), name="control", daemon=True
        ).start()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts


def answers(workspace: Path) -> bool:
    """Tell whether a process listens in this workspace, whatever its state."""
    try:
        with _connected(workspace / "run" / "control.sock", 1.0):
            return True
    except OSError:
        return False


def ask(workspace: Path, **request: object) -> dict[str, Any]:
    """Send one request to the running loop; return its answer."""
    path = workspace / "run" / "control.sock"
    try:
        with _connected(path, ANSWER_S) as connection, connection.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ConfigError(
            "no `station inspect` is running in this workspace; start it, or use --workspace"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: the running station does not answer; it may be stopped or ending"
        ) from error
    return answer


def _request(line: bytes) -> Request:
    try:
        request = Request.model_validate_json(line)
    except ValidationError as error:
        at, text = first_problem(error, Request)
        key = ".".join(map(str, at))
        raise CommandRefused(f"not understood: {key + ': ' if key else ''}{text}") from error
    keys = [key for key, _ in json.loads(line, object_pairs_hook=list)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise CommandRefused(f"not understood: {twice[0]}: given twice")
    return request


def _told(request: Request) -> str:
    reason = f": {request.reason}" if request.reason else ""
    return f"{request.command} by {request.user}{reason}"


def _remove_stale(path: Path) -> None:
    """Take away the socket of a process that was killed; one that is alive is left alone."""
    try:
        with _connected(path, 1.0):
            pass
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    else:
        raise ConfigError("a `station inspect` is already running in this workspace; end it first")


def _accept(listener: socket.socket, control: Control) -> None:
    clients = _Clients()
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        clients.add(connection)
        threading.Thread(
            target=_talk, args=(connection, control, clients), name="control-client", daemon=True
        ).start()


class _Clients:
    """Those that are being talked with; for one too many the oldest is left: an abort gets in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.append(connection)
            if len(self._connections) > CLIENTS:
                with contextlib.suppress(OSError):
                    self._connections.pop(0).shutdown(socket.SHUT_RDWR)

    def remove(self, connection: socket.socket) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(connection)


def _talk(connection: socket.socket, control: Control, clients: _Clients) -> None:
    """Answer one client line by line; one that is silent or sends too much is left."""
    try:
        connection.settimeout(IDLE_S)
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
            while line := stream.readline(LINE_LIMIT_BYTES + 1):
                whole = line.endswith(b"\n") and len(line) <= LINE_LIMIT_BYTES
                answer = (
                    control.answer(line)
                    if whole
                    else {"accepted": False, "why": f"a line has at most {LINE_LIMIT_BYTES} bytes"}
                )
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
                if not whole:
                    return
    finally:
        clients.remove(connection)


@contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _reachable(path) as short:
        connection.settimeout(timeout_s)
        connection.connect(short)
        yield connection


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """Return a name for the socket that is short enough whatever the workspace's path is.

    The kernel takes at most 107 bytes.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
