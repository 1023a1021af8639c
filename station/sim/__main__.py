"""`station sim`: controller up, the camera's emulator fed, a command run beside them."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from station.config import LoadedCell, load_cell
from station.errors import ConfigError, DatasetError, StationError
from station.geometry import Pose
from station.kinematics import Joints, inverse
from station.sim.arm import Arm
from station.sim.controller import SERIES, Controller
from station.sim.dashboard import Dashboard
from station.sim.faults import FaultPort
from station.sim.feed import Camera, Feed
from station.sim.journal import Journal
from station.sim.options import SimOptions
from station.sim.ports import (
    CONTROL_PORT,
    DASHBOARD_PORT,
    RTDE_PORT,
    SCRIPT_PORT,
    Ports,
    listen,
    receive_scripts,
)
from station.sim.rtde import Server
from station.sim.scene import open_scene
from station.sim.truth import Truth

HOME = Pose(0.0, -0.45, 0.45, 3.141592653589793, 0.0, 0.0)
ELBOW_UP = Joints(-1.6, -1.4, -1.8, -1.5, 1.57, 0.0)
READY = "ready"
LONGEST_TICK_S = 0.1  # a paused process does not make the arm jump
END_GRACE_S = 2.0
_PR_SET_PDEATHSIG = 1


def run(options: SimOptions, command: list[str]) -> int:
    """Run the far ends: beside `command` until it ends, or alone until a signal."""
    if command:
        return _run_beside(options, command)
    asyncio.run(_serve(options))
    return 0


def die_with_parent() -> None:
    """Have the kernel end this process with its parent; for `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_LIBC = ctypes.CDLL(None, use_errno=True)


async def _serve(options: SimOptions) -> None:
    """Be the controller, the table and the camera's feed until SIGTERM or SIGINT."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sys.setswitchinterval(1e-3)  # the drawing thread must not make the 125 Hz loop late
    series = SERIES.get(options.series)
    if series is None:
        raise ConfigError(f"series: '{options.series}' is not one of {', '.join(SERIES)}")
    if not options.speed > 0:
        raise ConfigError(f"speed: {options.speed} is not above zero")
    if not options.exchange >= 0:
        raise ConfigError(f"exchange: {options.exchange} s is below zero")
    truth = Truth.load()
    cell = load_cell((options.cell or options.workspace / "calibration" / "sim.yaml").resolve())
    scene = open_scene(options)
    journal = Journal(options.journal)
    with Feed(scene.size, scene.color) as feed:
        camera = Camera(scene, feed, journal, options.truth)
        camera.expose(options.exposure_us, options.gain_db)
        arm = _arm(truth)
        controller = Controller(
            series, arm, camera, cell.config.lines, journal, options.seed, options.exchange
        )
        rtde, dashboard = Server(controller), Dashboard(controller, journal)
        ports = Ports(
            options.address,
            {
                RTDE_PORT: rtde.serve,
                SCRIPT_PORT: receive_scripts(controller),
                DASHBOARD_PORT: dashboard.serve,
            },
        )
        await ports.open()
        faults = FaultPort(controller, rtde, dashboard, ports, feed, journal)
        await listen(options.address, CONTROL_PORT, faults.serve)
        try:
            station_cell = _station_cell(cell, options, feed.root)
            environment = {**feed.environment, "STATION_CELL": str(station_cell)}
            await _tick(controller, rtde, options.speed, ended, environment)
        finally:
            ports.cut()
            camera.close()
            journal.close()


async def _tick(
    controller: Controller,
    rtde: Server,
    speed: float,
    ended: asyncio.Event,
    environment: dict[str, str],
) -> None:
    """Advance everything at its rate; say `ready` once the first picture is there."""
    loop = asyncio.get_running_loop()
    period = 1 / controller.series.tick_hz
    last = due = loop.time()
    said = False
    while not ended.is_set():
        due = max(due + period, loop.time() - period)  # late ticks are not made up for
        await asyncio.sleep(max(0.0, due - loop.time()))
        now = loop.time()
        controller.tick(now, min(now - last, LONGEST_TICK_S), speed)
        last = now
        rtde.stream()
        if controller.ready and not said:
            said = True
            for name, value in environment.items():
                print(f"export {name}={shlex.quote(value)}")
            print(READY, flush=True)


def _arm(truth: Truth) -> Arm:
    tool = Pose.of(truth.tcp)
    joints = inverse(HOME @ tool.inverse(), ELBOW_UP)
    if joints is None:
        raise ConfigError("station/sim/truth.yaml: tcp: the arm cannot reach its first pose")
    return Arm(joints, tool, truth.payload_kg)


def _station_cell(cell: LoadedCell, options: SimOptions, folder: Path) -> Path:
    """Return the station's cell file: a copy in `folder` where it has to say something else."""
    text = wanted = cell.path.read_text("utf-8")
    host = str(cell.config.robot.settings.get("host"))
    if host != options.address:
        wanted, count = re.subn(rf"\b{re.escape(host)}\b", options.address, text)
        if not count:
            raise ConfigError(
                f"{cell.path}: robot.settings.host: nothing to replace by {options.address}"
            )
    exact = options.sheets is not None and options.show_as == "exact"
    if exact and "noise_expected" not in cell.config.model_fields_set:
        wanted += "\nnoise_expected: false  # a photograph comes as often as it is shown\n"
    if wanted == text:
        return cell.path
    copy = folder / cell.path.name
    copy.write_text(wanted, encoding="utf-8")
    return copy


def _run_beside(options: SimOptions, command: list[str]) -> int:
    """Start the controller, run the command beside it, end with the command's exit code."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)  # while it starts; then the command's own end counts
    controller = subprocess.Popen(  # noqa: S603 - this interpreter, these options
        [sys.executable, "-m", "station.sim", *_arguments(options)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
        start_new_session=True,  # Ctrl-C ends the command first, then the controller
    )
    environment: dict[str, str] = {}
    try:
        for line in controller.stdout or ():
            if line.strip() == READY:
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            environment[name] = shlex.split(value)[0]
        else:
            return controller.wait() or StationError.exit_code
        return _run_command(command, environment)
    finally:
        _end(controller)
        if folder := environment.get("PYLON_CAMEMU_PFS_PATH"):
            shutil.rmtree(Path(folder).parent, ignore_errors=True)  # had the controller been killed


def _run_command(command: list[str], environment: dict[str, str]) -> int:
    # `station` is found beside this interpreter even where its environment is not activated.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    try:
        child = subprocess.Popen(  # noqa: S603 - the user's own command
            command,
            env={**os.environ, **environment, "PATH": path},
            preexec_fn=die_with_parent,
            start_new_session=True,  # so Ctrl-C reaches it once, from here
        )
    except OSError as error:
        raise ConfigError(f"{command[0]}: {error.strerror}") from error

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _arguments(options: SimOptions) -> list[str]:
    """Return the command line that gives these options back."""
    arguments = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is not None:
            words = [f"{number}" for number in value] if isinstance(value, tuple) else [f"{value}"]
            arguments += [f"--{field.name.replace('_', '-')}", *words]
    return arguments


def _parse(arguments: list[str]) -> tuple[SimOptions, list[str]]:
    """Read the same options `station sim` takes, for use without the station's command line."""
    if "--" in arguments:
        split = arguments.index("--")
        arguments, command = arguments[:split], arguments[split + 1 :]
    else:
        command = []
    parser = argparse.ArgumentParser(
        prog="python -m station.sim", argument_default=argparse.SUPPRESS
    )
    for name in ("journal", "truth", "sheets", "cell", "workspace"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve())
    for name in ("speed", "exchange", "defect-rate", "exposure-us", "gain-db"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("address", "defect", "show-as"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--series", choices=sorted(SERIES))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--size", type=int, nargs=2)
    values = vars(parser.parse_args(arguments))
    if "size" in values:
        values["size"] = tuple(values["size"])
    return SimOptions(**values), command


def main() -> int:
    """Run from the command line."""
    options, command = _parse(sys.argv[1:])
    try:
        return run(options, command)
    except StationError as error:
        print(f"station sim: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # A journal or truth folder that cannot be written: the machine's fault, not a bug.
        print(
            f"station sim: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr
        )
        return DatasetError.exit_code


if __name__ == "__main__":
    sys.exit(main())
