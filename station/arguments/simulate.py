"""The simulated far ends and their faults."""

from __future__ import annotations

import argparse
from pathlib import Path

from station.arguments.shared import Commands, add_address, add_command, positive, seed, share, size


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    sim = add_command(
        commands, common, "sim", "simulate robot, camera and sheets, and run COMMAND against them",
        "station sim --speed 4 -- station inspect --recipe glassfiber --sheets 5",
    )  # fmt: skip
    add_address(sim)
    sim.add_argument(
        "--speed", type=positive, default=1.0, metavar="X", help="factor on the arm's motion"
    )
    sim.add_argument(
        "--exchange",
        type=positive,
        default=0.3,
        metavar="S",
        help="seconds from busy's fall until the next sheet is laid",
    )
    sim.add_argument("--seed", type=seed, default=0, help="other seeds lay other sheets")
    sim.add_argument(
        "--defect-rate", type=share, default=0.4, metavar="P", help="share of defective sheets"
    )
    sim.add_argument("--defect", metavar="KIND", help="only this kind of defect")
    sim.add_argument("--sheets", type=Path, metavar="DIR", help="lay real photographs instead")
    sim.add_argument(
        "--as",
        dest="show_as",
        choices=("exact", "moved"),
        default="exact",
        help="how to show them",
    )
    sim.add_argument("--size", type=size, metavar="WxH", help="size of the camera's pictures")
    sim.add_argument("--series", choices=("cb3", "e"), default="cb3")
    sim.add_argument(
        "--recipe",
        metavar="R",
        help="whose exposure and gain light the scene (default: COMMAND's)",
    )
    sim.add_argument(
        "--journal", type=Path, metavar="FILE", help="write what happened, one JSON line each"
    )
    sim.add_argument(
        "--truth", type=Path, metavar="DIR", help="write each picture's label and mask"
    )
    sim.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="without it: print exports and stay",
    )

    fault = add_command(
        commands, common, "fault", "disturb a running simulator: protective_stop, slider 0.1",
        "station fault protective_stop",
    )  # fmt: skip
    add_address(fault)
    fault.add_argument("fault", help="its name; docs/simulation.md has the table of all")
    fault.add_argument("values", nargs="*", help="what it needs, as in `slider 0.1`")
