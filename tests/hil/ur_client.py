"""Scenarios played with the unmodified ur_rtde client: `python ur_client.py ADDRESS NAME`.

ur_rtde may hang or crash its process, so each scenario has a process of its own. It prints its
findings as one JSON line and leaves without destructors, which may abort.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from dashboard_client import DashboardClient
from rtde_control import RTDEControlInterface
from rtde_io import RTDEIOInterface
from rtde_receive import RTDEReceiveInterface

START = [0.0, -0.45, 0.40, math.pi, 0.0, 0.0]
LOW = [0.0, -0.45, 0.26, math.pi, 0.0, 0.0]
ASIDE = [0.06, -0.40, 0.26, math.pi, 0.0, 0.0]
FAR = [0.0, -0.45, 0.70, math.pi, 0.0, 0.0]
Findings = dict[str, Any]


class Client:
    """The four interfaces, and the control port beside them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.receive = RTDEReceiveInterface(address)
        self.control = RTDEControlInterface(address)

    def fault(self, command: str) -> Findings:
        with socket.create_connection((self.address, 29900), 5) as connection:
            connection.sendall(command.encode() + b"\n")
            answer: Findings = json.loads(connection.makefile().readline())
        return answer

    def miss_m(self, pose: list[float]) -> float:
        return math.dist(self.receive.getActualTCPPose()[:3], pose[:3])

    def is_at(self, pose: list[float]) -> bool:
        return self.miss_m(pose) < 2e-4

    def wait(self, condition: Callable[[], object], deadline_s: float = 3.0) -> float:
        """Return how long the condition took to hold, or infinity."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > deadline_s:
                return math.inf
            time.sleep(0.002)
        return time.monotonic() - started

    def is_still(self) -> bool:
        return not any(self.receive.getTargetQd())  # measured ones are never all 0

    def run_async(self, pose: list[float], speed: float) -> None:
        before = self.control.getAsyncOperationProgressEx().operationId()
        assert self.control.moveL(pose, speed, 1.0, True)
        self.wait(lambda: self.control.getAsyncOperationProgressEx().operationId() != before)

    def is_running(self) -> bool:
        return bool(self.control.getAsyncOperationProgressEx().isAsyncOperationRunning())


def connect(address: str) -> Findings:
    dashboard = DashboardClient(address)
    dashboard.connect()
    io = RTDEIOInterface(address)
    client = Client(address)
    return {
        "robotmode": dashboard.robotmode(),
        "safetymode": dashboard.safetymode(),
        "version": dashboard.polyscopeVersion(),
        "state": dashboard.programState(),
        "running": dashboard.running(),
        "slider": io.setSpeedSlider(1.0),
        "mode": client.receive.getRobotMode(),
        "bits": client.receive.getSafetyStatusBits(),
        "payload": client.receive.getPayload(),
        "tcp": client.control.getTCPOffset(),
        "second": _second(address),
    }


def _second(address: str) -> str:
    try:
        RTDEControlInterface(address)
    except RuntimeError as error:
        return str(error)
    return ""


def moves(address: str) -> Findings:
    client = Client(address)
    misses, pictures = [], []
    for pose in (LOW, ASIDE, LOW):
        assert client.control.moveL(pose, 0.5, 2.0)
        pictures.append(_digest(Path(sys.argv[3])))
        misses.append(client.wait(partial(client.is_at, pose)))
    q = [angle + 0.1 for angle in client.receive.getActualQ()]
    assert client.control.moveJ(q, 1.0, 3.0)
    client.wait(client.is_still)
    joint_miss = max(abs(a - b) for a, b in zip(client.receive.getActualQ(), q, strict=True))
    assert client.control.moveJ_IK(START, 1.0, 3.0)
    return {
        "misses": misses,
        "pictures": pictures,
        "joint_miss": joint_miss,
        "inverse": client.control.getInverseKinematics(START),
        "forward": client.control.getForwardKinematics(),
        "joints": client.receive.getActualQ(),
        "reachable": client.control.getInverseKinematicsHasSolution(LOW),
        "unreachable": client.control.getInverseKinematicsHasSolution([0, -2, 0, math.pi, 0, 0]),
        "within": client.control.isPoseWithinSafetyLimits(LOW),
        "steady": client.control.isSteady(),
        "transformed": client.control.poseTrans(LOW, [0, 0, 0.1, 0, 0, 0]),
    }


def asynchronous(address: str) -> Findings:
    client = Client(address)
    client.control.moveL(START, 0.5, 2.0)
    speeds, feed = [], Path(sys.argv[3])
    before = _digest(feed)
    client.run_async(LOW, 0.3)
    first = client.control.getAsyncOperationProgressEx().operationId()
    while client.is_running():
        speeds.append(max(map(abs, client.receive.getActualQd())))
        time.sleep(0.002)
    picture, miss = _digest(feed), client.miss_m(LOW)
    client.run_async(FAR, 0.2)
    time.sleep(0.4)
    client.control.stopL(2.0)
    stopped = client.receive.getTargetTCPPose()
    return {
        "fastest": max(speeds),
        "miss": miss,
        "changed": before != picture,
        "picture": picture,
        "operations": client.control.getAsyncOperationProgressEx().operationId() - first,
        "stopped_z": stopped[2],
        "still": client.is_still() or client.wait(client.is_still) < 0.1,
        "runtime": client.receive.getRuntimeState(),
        "stopped_picture": _digest(feed),
    }


def lines(address: str) -> Findings:
    client, io = Client(address), RTDEIOInterface(address)
    io.setStandardDigitalOut(5, True)
    high = client.wait(lambda: client.receive.getDigitalOutState(5))
    io.setStandardDigitalOut(5, False)
    low = client.wait(lambda: not client.receive.getDigitalOutState(5))
    client.fault("input 6 1")
    seen = client.wait(lambda: client.receive.getDigitalInState(6))
    client.fault("input 6 0")
    return {"high": high, "low": low, "input": seen}


def watchdog(address: str) -> Findings:
    client = Client(address)
    client.control.moveL(LOW, 0.5, 2.0)
    assert client.control.setWatchdog(10)
    client.run_async(FAR, 0.1)
    for _ in range(20):
        client.control.kickWatchdog()
        time.sleep(0.02)
    kicked = client.receive.getRuntimeState()
    stopped = client.wait(lambda: client.receive.getRuntimeState() == 1)
    still = client.wait(client.is_still)
    return {"kicked": kicked, "stopped": stopped, "still": still, "z": client.miss_m(LOW)}


def protective_stop(address: str) -> Findings:
    client = Client(address)
    dashboard = DashboardClient(address)
    dashboard.connect()
    client.control.moveL(LOW, 0.5, 2.0)
    client.run_async(FAR, 0.3)
    time.sleep(0.4)
    client.fault("protective_stop")
    paused = client.wait(lambda: client.receive.getRuntimeState() == 4)
    still = client.wait(client.is_still)
    findings = {
        "paused": paused,
        "still": still,
        "bits": client.receive.getSafetyStatusBits(),
        "mode": client.receive.getSafetyMode(),
        "moved": client.control.moveL(LOW, 0.5, 2.0),
        "unlocked": _unlocked(dashboard),
    }
    rest = client.receive.getTargetTCPPose()
    client.fault("reset")
    findings["stopped"] = client.wait(lambda: client.receive.getRuntimeState() == 1)
    client.control.reuploadScript()
    findings["playing"] = client.wait(client.control.isProgramRunning)
    time.sleep(0.3)
    findings["crept_m"] = math.dist(client.receive.getTargetTCPPose()[:3], rest[:3])
    findings["moves_again"] = client.control.moveL(LOW, 0.5, 2.0)
    return findings


def _unlocked(dashboard: DashboardClient) -> bool:
    try:
        dashboard.unlockProtectiveStop()
    except RuntimeError:
        return False
    return True


def emergency_stop(address: str) -> Findings:
    client = Client(address)
    client.control.moveL(LOW, 0.5, 2.0)
    client.run_async(FAR, 0.3)
    time.sleep(0.3)
    client.fault("emergency_stop")
    stopped = client.wait(lambda: client.receive.getRuntimeState() == 1)
    still = client.wait(client.is_still)
    findings = {
        "stopped": stopped,
        "still": still,
        "mode": client.receive.getRobotMode(),
        "emergency": client.receive.isEmergencyStopped(),
    }
    client.fault("reset")
    findings["running"] = client.wait(lambda: client.receive.getRobotMode() == 7)
    return findings


def dashboard_stop(address: str) -> Findings:
    client = Client(address)
    dashboard = DashboardClient(address)
    dashboard.connect()
    client.control.moveL(LOW, 0.5, 2.0)
    client.run_async(FAR, 0.3)
    time.sleep(0.3)
    dashboard.stop()
    stopped = client.wait(lambda: client.receive.getRuntimeState() == 1)
    still = client.wait(client.is_still)
    return {"stopped": stopped, "still": still, "travelled": client.miss_m(LOW)}


def unreachable(address: str) -> Findings:
    client = Client(address)
    moved = client.control.moveL([0.0, -1.5, 0.3, math.pi, 0.0, 0.0], 0.5, 2.0)
    client.wait(lambda: client.receive.getRuntimeState() == 4)  # this stream may lag the other's
    findings = {
        "moved": moved,
        "mode": client.receive.getSafetyMode(),
        "runtime": client.receive.getRuntimeState(),
    }
    client.fault("reset")
    client.control.reuploadScript()
    client.wait(client.control.isProgramRunning)
    findings["solution"] = client.control.getInverseKinematics([0.0, -1.5, 0.3, math.pi, 0, 0])
    findings["died"] = client.wait(lambda: client.receive.getRuntimeState() == 1)
    client.control.reuploadScript()
    client.wait(client.control.isProgramRunning)
    findings["back"] = client.control.moveL(START, 0.5, 2.0)
    return findings


def network(address: str) -> Findings:
    client = Client(address)
    assert client.control.moveL(LOW, 0.5, 2.0)
    client.fault("freeze")
    time.sleep(0.1)
    first = client.receive.getTimestamp()
    time.sleep(0.3)
    findings: Findings = {"frozen_s": client.receive.getTimestamp() - first}
    findings["connected"] = client.receive.isConnected()
    client.fault("unfreeze")
    findings["thawed"] = client.wait(lambda: client.receive.getTimestamp() > first)
    client.fault("offset 0.004 0 0")
    assert client.control.moveL(ASIDE, 0.5, 2.0)
    client.wait(client.is_still)
    findings["offset_m"] = client.receive.getTargetTCPPose()[0] - ASIDE[0]
    client.fault("offset 0 0 0")
    client.fault("refuse")
    client.fault("cut")
    findings["cut"] = client.wait(lambda: not client.receive.isConnected())
    findings["refused"] = _refused(address)
    client.fault("accept")
    findings["accepted"] = not _refused(address)
    return findings


def _refused(address: str) -> bool:
    try:
        socket.create_connection((address, 30004), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def _digest(picture: Path) -> str:
    """Return the sha256 of a feed file's pixels as the journal counts them."""
    pixels = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    return hashlib.sha256(pixels.tobytes()).hexdigest()


if __name__ == "__main__":
    print("\n" + json.dumps(globals()[sys.argv[2]](sys.argv[1])), flush=True)  # noqa: T201 - its one result
    os._exit(0)
