"""`station bench`: one measurement each, with its own options."""

from __future__ import annotations

import argparse
from pathlib import Path

from station.arguments.shared import (
    Commands,
    add_command,
    add_json,
    add_recipe,
    count,
    loopback,
    seed,
    size,
)


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add it with its measurements."""
    bench = commands.add_parser(
        "bench", help="measure", description="measure", epilog="example: station bench cycle --json"
    )
    benches = bench.add_subparsers(dest="what", metavar="WHAT", required=True)

    def of(name: str, text: str) -> argparse.ArgumentParser:
        example = f"station bench {name} --json"
        parser = add_command(benches, common, name, text, example)
        add_json(parser)
        return parser

    cycle = of("cycle", "what scoring and saving cost the production loop, sheets in turn")
    add_recipe(cycle)
    cycle.add_argument("--model", metavar="NAME/N", help="default: the recipe's")
    cycle.add_argument("--sheets", type=count, default=20, metavar="N")
    cycle.add_argument("--size", type=size, default="2448x2048", metavar="WxH")

    durability = of("durability", "what it costs a sheet that its record survives a power cut")
    durability.add_argument("--sheets", type=count, default=100, metavar="N")
    durability.add_argument("--size", type=size, default="640x480", metavar="WxH")

    model = of("model", "the time one picture takes in the model's process")
    add_recipe(model)
    model.add_argument("--model", metavar="NAME/N", help="default: the recipe's")

    detectors = of("detectors", "from camera buffer to verdict: every model, runtime and precision")
    detectors.add_argument("--model", metavar="NAME/N", help="default: the newest of every name")
    detectors.add_argument(
        "--size", type=size, metavar="WxH", help="default: the training pictures'"
    )
    _add_rounds(detectors)

    simplenet = of("simplenet", "inference against the plain, unfolded network")
    _add_rounds(simplenet)
    simplenet.add_argument(
        "--authors",
        type=Path,
        metavar="DIR",
        help="a checkout of SimpleNet's authors' code, to be run beside it",
    )
    _add_rounds(of("efficientad", "EfficientAD against a plain implementation"))

    train = of("train", "training on cached features against computing them every epoch")
    train.add_argument("--images", type=count, default=16, metavar="N")

    metrics = of("metrics", "the metrics of many maps: time and memory")
    metrics.add_argument("--maps", type=count, default=1000, metavar="N")
    metrics.add_argument("--size", type=size, default="288x288", metavar="WxH")
    metrics.add_argument("--seed", type=seed, default=1)

    scene = of("scene", "how hard the simulated sheets are for methods that should fail")
    scene.add_argument("--sheets", type=count, default=100, metavar="N")
    scene.add_argument("--seed", type=seed, default=1)

    faults = of("faults", "every fault of the robot at every step of the cycle, and of the camera")
    faults.add_argument("--series", choices=("cb3", "e"), default="cb3", help="the controller's")
    faults.add_argument("--steps", nargs="+", metavar="STEP", help="of the robot's; default: all")
    faults.add_argument(
        "--faults", nargs="+", metavar="FAULT", help="names, or robot, camera; default: all"
    )
    faults.add_argument("--model", default="glassfiber/1", metavar="NAME/N")
    faults.add_argument(
        "--address", type=loopback, default="127.0.0.61", help="of the simulated controller"
    )


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="default: 20")
