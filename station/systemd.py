"""Tells systemd, where it started us, that the process is ready and still runs (sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keep_alive() -> Iterator[None]:
    """Say READY, then WATCHDOG at half its period; nothing where systemd did not ask for it.

    Sent by a thread: a process that is stopped, or whose interpreter hangs, falls silent.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    ended = threading.Event()
    if not address:
        yield
        return
    _notify(address, "READY=1")

    def ping() -> None:
        while not ended.wait(period_s):
            _notify(address, "WATCHDOG=1")

    if period_s:
        threading.Thread(target=ping, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _notify(address, "STOPPING=1")


def _notify(address: str, text: str) -> None:
    # A leading @ means a name in the abstract namespace.
    name = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify,
    ):
        notify.sendto(text.encode(), name)
