"""The controller's listening ports, which can be cut and refused as a broken network would."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable

from station.errors import ConfigError
from station.sim.controller import Controller
from station.sim.script import framed

RTDE_PORT, SCRIPT_PORT, DASHBOARD_PORT, CONTROL_PORT = 30004, 30003, 29999, 29900
UPLOAD_LIMIT_CHARS = 1 << 20

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ports:
    """Listens for every protocol on one address."""

    def __init__(self, address: str, handlers: dict[int, Handler]) -> None:
        self._address = address
        self._handlers = handlers
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self.passing = asyncio.Event()
        self.passing.set()

    async def open(self) -> None:
        """Begin to listen; once open, nothing changes."""
        if self._servers:
            return
        for port, handler in self._handlers.items():
            self._servers.append(await listen(self._address, port, self._tracked(handler)))

    def refuse(self) -> None:
        """Stop listening; connections that stand are left alone."""
        for server in self._servers:
            server.close()
        self._servers = []

    def cut(self) -> None:
        """Reset every connection, without the farewell a closing program sends."""
        for writer in tuple(self._writers):
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def silence(self) -> None:
        """Let nothing through either way while every connection stands: half open."""
        self.passing.clear()
        for writer in self._writers:
            writer.transport.pause_reading()  # type: ignore[attr-defined]

    def unsilence(self) -> None:
        """Let everything through again, what was sent meanwhile included."""
        self.passing.set()
        for writer in self._writers:
            writer.transport.resume_reading()  # type: ignore[attr-defined]

    def _tracked(self, handler: Handler) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._writers.add(writer)
            try:
                await self.passing.wait()
                await handler(reader, writer)
            finally:
                self._writers.discard(writer)

        return serve


async def listen(address: str, port: int, handler: Handler) -> asyncio.Server:
    """Listen on one port; whatever way a client leaves, its connection is closed quietly."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the simulator is ending
        except (ValueError, struct.error):
            pass  # it broke the protocol: the robot hangs up too
        finally:
            writer.close()

    try:
        return await asyncio.start_server(serve, address, port, limit=1 << 20)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"{address}:{port} is in use: another simulator may be running there; "
                "end it or choose another 127.x.y.z with --address"
            ) from error
        # asyncio words a failed bind at length; a name that does not resolve has no such number
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        raise ConfigError(f"{address}:{port}: {reason}") from error


def receive_scripts(controller: Controller) -> Handler:
    """Return the handler of the upload port; clients never read it, so nothing is sent."""

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        buffer = ""
        while chunk := await reader.read(65536):
            buffer = (buffer + chunk.decode("utf-8", "replace"))[-UPLOAD_LIMIT_CHARS:]
            program, buffer = framed(buffer)
            while program is not None:
                controller.load(program)
                program, buffer = framed(buffer)

    return serve
