"""`station doctor`: what of this computer stands in the station's way, and what to do about it.

Nothing is changed, no device is opened. The kernel's files are read below `root`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib.metadata
import os
import platform
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from station.config import CellConfig
from station.records.dataset import write_durably
from station.records.storage import free, in_gb

BASLER = "2676"  # USB vendor id
JUMBO_MTU = 8192
RMEM_BYTES = 33_554_432
USBFS_MB = 1000
OPEN_FILES = 1024
MEMORY_GB = 4.0  # a model's child may take as much
SHARED_MB = 64.0  # a colour picture of 5 megapixels takes 15
FSYNC_WARN_MS, FSYNC_FAIL_MS = 20.0, 200.0  # three pictures, a manifest, a row: some ten of them
FSYNCS = 9
PICTURE_BYTES = 300_000
PYTHONS = ((3, 11), (3, 12))  # those ur-rtde has wheels for
PACKAGES = ("ur-rtde", "pypylon", "torch", "numpy", "opencv-python-headless")
_ETHTOOL, _GET_RING = 0x8946, 0x10  # SIOCETHTOOL, ETHTOOL_GRINGPARAM
_CLOCK_ERROR = 5  # adjtimex: the clock is not synchronised
_ROOT = Path("/")


class Finding(NamedTuple):
    """One thing looked at; `do` is the command or step that mends it."""

    level: Literal["ok", "warn", "fail"]
    what: str
    do: str = ""


def examine(workspace: Path, cell: CellConfig, root: Path = _ROOT) -> Iterator[Finding]:
    """Look at everything, worst news in the order of the subjects."""
    yield from software()
    yield from processor(root)
    yield from memory(root)
    yield from folders(workspace)
    yield from disk(workspace, cell)
    yield from clock(root)
    yield from network(root)
    yield from usb(root)


def software() -> Iterator[Finding]:
    """Look at Python and at the libraries that speak to the devices."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHONS:
        yield Finding("ok", f"Python {version}")
    else:
        known = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        yield Finding("fail", f"Python {version}: ur-rtde has no wheel for it", f"use {known}")
    for package in PACKAGES:
        try:
            yield Finding("ok", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", f"{package} is not installed", f"pip install {package}")


def processor(root: Path) -> Iterator[Finding]:
    """Look at instructions, threads and clock of the processor."""
    cores = len(os.sched_getaffinity(0))
    name = platform.machine()
    text = _read(root / "proc/cpuinfo")
    flags = next((x.split() for x in text.splitlines() if x.startswith("flags")), [])
    if name == "x86_64" and "avx2" not in flags:
        yield Finding(
            "warn",
            "the processor has no AVX2: models run several times slower",
            "use a newer one; `station bench cycle` tells what it costs",
        )
    else:
        fast = [
            x for x in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if x in flags
        ]
        yield Finding("ok", f"{name}: {', '.join(fast) or 'instructions not told'}")
    if cores < 2:
        yield Finding("warn", "one processor core: scoring delays the robot's heartbeat", "use two")
    else:
        yield Finding("ok", f"{cores} processor cores")
    load = _read(root / "proc/loadavg").split()
    if load and float(load[0]) > cores:
        yield Finding(
            "warn",
            f"{load[0]} processes want a processor at once, there are {cores} cores: the robot "
            "stops by itself when it hears nothing for a quarter of a second",
            "end other programs; `top` names them",
        )
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > cores:
        yield Finding(
            "warn",
            f"OMP_NUM_THREADS={threads}, but there are {cores} cores",
            "unset OMP_NUM_THREADS",
        )
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor and governor != "performance":
        yield Finding(
            "warn",
            f"the processor's clock follows {governor!r}: cycle times vary",
            "cpupower frequency-set -g performance",
        )


def memory(root: Path) -> Iterator[Finding]:
    """Look at memory and open files."""
    words = dict(x.split(":", 1) for x in _read(root / "proc/meminfo").splitlines() if ":" in x)
    if "MemAvailable" in words:
        gb = int(words["MemAvailable"].split()[0]) * 1024 / 1e9
        enough = gb >= MEMORY_GB
        yield Finding(
            "ok" if enough else "warn",
            f"{gb:.1f} GB of memory available",
            "" if enough else f"end other programs; a model may take {MEMORY_GB:g} GB",
        )
    shared = root / "dev/shm"
    if shared.is_dir() and (mb := free(shared).gb * 1000) < SHARED_MB:
        yield Finding(
            "warn",
            f"{mb:.0f} MB free in /dev/shm: pictures are handed to the model there",
            "look what lies there; in a container give it more (docker run --shm-size=1g)",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        yield Finding(
            "fail",
            f"{soft} open files allowed",
            f"ulimit -n {4 * OPEN_FILES}; as a service LimitNOFILE={4 * OPEN_FILES}",
        )


def folders(workspace: Path) -> Iterator[Finding]:
    """Look at whether the workspace can be written."""
    for name in ("run", "data", "recipes", "models"):
        folder = workspace / name
        nearest = folder if folder.is_dir() else workspace
        try:
            with tempfile.NamedTemporaryFile(dir=nearest, prefix=".doctor-"):
                yield Finding("ok", f"{name}/ can be written")
        except OSError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM)
            mend = f"chown -R {os.geteuid()} {nearest}" if denied else "mount it writable"
            yield Finding("fail", f"{nearest}: {error.strerror}", mend)


def disk(workspace: Path, cell: CellConfig) -> Iterator[Finding]:
    """Look at room and speed of the disk that takes the records."""
    folder = workspace / "data" if (workspace / "data").is_dir() else workspace
    limits, room = cell.disk, free(folder)
    told = f"{in_gb(room.gb)} free for records"
    if room.gb < limits.start_free_gb:
        yield Finding("fail", f"{told}, {in_gb(limits.start_free_gb)} wanted", "station retention")
    elif room.gb < limits.warn_free_gb:
        yield Finding("warn", f"{told}, {in_gb(limits.warn_free_gb)} wanted", "station retention")
    else:
        yield Finding("ok", told)
    try:
        one_ms = fsync_ms(folder)
    except OSError:
        return  # told with the folders
    text = f"one fsync takes {one_ms:.1f} ms (median of {FSYNCS})"
    if one_ms < FSYNC_WARN_MS:
        yield Finding("ok", text)
    else:
        yield Finding(
            "fail" if one_ms >= FSYNC_FAIL_MS else "warn",
            f"{text}: each sheet waits",
            "put data/ on a local SSD; `station bench durability`",
        )


def fsync_ms(folder: Path) -> float:
    """Write a picture's worth durably, several times; return the median."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
        spans = []
        for number in range(FSYNCS):
            started = time.perf_counter()
            write_durably(Path(place) / f"{number}", os.urandom(PICTURE_BYTES))
            spans.append(1e3 * (time.perf_counter() - started))
    return statistics.median(spans)


def clock(root: Path) -> Iterator[Finding]:
    """Look at whether the wall clock is kept right, and what ticks below it."""
    if synchronised():
        yield Finding("ok", "the clock is synchronised")
    else:
        yield Finding(
            "warn",
            "the clock is not synchronised: times in records may be wrong",
            "timedatectl set-ntp true, or install chrony",
        )
    told = time.get_clock_info("monotonic")
    source = _read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
    if not told.monotonic or told.resolution > 1e-3:
        yield Finding(
            "fail", f"the monotonic clock has steps of {told.resolution:g} s", "use another kernel"
        )
    elif source in ("acpi_pm", "jiffies", "refined-jiffies"):
        yield Finding(
            "warn",
            f"the kernel ticks by {source}: slow to read, coarse",
            "boot with clocksource=tsc",
        )
    else:
        yield Finding("ok", f"the monotonic clock ticks by {source or 'an unknown source'}")


def synchronised() -> bool:
    """Ask the kernel, which chrony, ntpd or systemd-timesyncd tell."""
    nothing_to_change = ctypes.create_string_buffer(256)  # struct timex, modes = 0
    return ctypes.CDLL(None).adjtimex(nothing_to_change) not in (_CLOCK_ERROR, -1)


def network(root: Path) -> Iterator[Finding]:
    """Look at the wired network cards, as a GigE camera needs them."""
    cards = [
        card.name
        for card in sorted((root / "sys/class/net").glob("*"))
        if (card / "device").exists() and not (card / "wireless").exists()
    ]
    if not cards:
        yield Finding("ok", "no wired network card: nothing to set for a GigE camera")
        return
    for card in cards:
        mtu = int(_read(root / "sys/class/net" / card / "mtu") or 0)
        if mtu < JUMBO_MTU:
            yield Finding(
                "warn",
                f"{card}: MTU {mtu}, a GigE camera's card wants 9000",
                f"ip link set dev {card} mtu 9000",
            )
        else:
            yield Finding("ok", f"{card}: MTU {mtu}")
        now, most = ring(card)
        if now < most:
            yield Finding(
                "warn", f"{card}: {now} receive buffers of {most}", f"ethtool -G {card} rx {most}"
            )
        elif most:
            yield Finding("ok", f"{card}: {now} receive buffers, its most")
    found = int(_read(root / "proc/sys/net/core/rmem_max") or 0)
    if found < RMEM_BYTES:
        yield Finding(
            "warn",
            f"net.core.rmem_max is {found}: bursts of a GigE camera are lost",
            f"sysctl -w net.core.rmem_max={RMEM_BYTES}",
        )
    else:
        yield Finding("ok", f"net.core.rmem_max is {found}")


def ring(card: str) -> tuple[int, int]:
    """Return a card's receive buffers, now and at most; zeros where it does not tell."""
    told = bytearray(struct.pack("9I", _GET_RING, *(0,) * 8))
    address = ctypes.addressof((ctypes.c_char * len(told)).from_buffer(told))
    request = struct.pack("16sP", card.encode(), address).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        fcntl.ioctl(any_socket, _ETHTOOL, request)
        _, most, _, _, _, now, _, _, _ = struct.unpack("9I", told)
        return now, most
    return 0, 0


def usb(root: Path) -> Iterator[Finding]:
    """Look at what a USB camera needs."""
    setting = _read(root / "sys/module/usbcore/parameters/usbfs_memory_mb").strip()
    if not setting:
        yield Finding("ok", "no USB in this kernel: nothing to set for a USB camera")
        return
    if 0 < int(setting) < USBFS_MB:  # 0 is no limit
        yield Finding(
            "warn",
            f"usbfs_memory_mb is {setting}: pictures of a USB camera are lost",
            f"echo {USBFS_MB} > /sys/module/usbcore/parameters/usbfs_memory_mb; for good: "
            f"boot with usbcore.usbfs_memory_mb={USBFS_MB}",
        )
    else:
        yield Finding("ok", f"usbfs_memory_mb is {setting}")
    for device in sorted((root / "sys/bus/usb/devices").glob("*")):
        if _read(device / "idVendor").strip() != BASLER:
            continue
        bus, number = (int(_read(device / name) or 0) for name in ("busnum", "devnum"))
        node = root / f"dev/bus/usb/{bus:03d}/{number:03d}"
        serial = _read(device / "serial").strip()
        if os.access(node, os.R_OK | os.W_OK):
            yield Finding("ok", f"USB camera {serial} may be opened")
        else:
            yield Finding(
                "fail",
                f"USB camera {serial} may not be opened by this user",
                "add the udev rule of docs/first-day.md, then replug the camera",
            )


def _read(path: Path) -> str:
    """Return a file of the kernel; empty where this one has none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
