"""The command line: every command, its options and an example."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake ends with usage and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="station",
        description="Inspect sheets with a UR5, a Basler camera and a learned detector.",
        epilog="example: station sim -- station inspect --recipe glassfiber --sheets 5",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common = _common()
    _workspace(commands, common)
    _cell(commands, common)
    _data(commands, common)
    _sim(commands, common)
    _bench(commands, common)
    return parser.parse_args(argv)


# argparse has no public name for what add_subparsers returns
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--workspace",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="default: current directory",
    )
    common.add_argument("--verbose", action="store_true", help="log every shot")
    return common


def _add(
    commands: Commands, common: argparse.ArgumentParser, name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, parents=[common], help=text, description=text, epilog=f"example: {example}"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="R", help="default: the active recipe (`station use`)")


def _cell_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cell", metavar="FILE", help="default: $STATION_CELL, else calibration/cell.yaml"
    )


def _workspace(commands: Commands, common: argparse.ArgumentParser) -> None:
    init = _add(commands, common, "init", "make a workspace", "station init mystation")
    init.add_argument("dir", type=Path)

    use = _add(commands, common, "use", "set the active recipe", "station use glassfiber")
    use.add_argument("recipe")

    schema = _add(
        commands, common, "schema", "write JSON schemas for editors", "station schema .vscode"
    )
    schema.add_argument("dir", type=Path)

    check = _add(
        commands, common, "check", "validate recipes, cell file and models without moving anything",
        "station check --recipe glassfiber",
    )  # fmt: skip
    check.add_argument("--recipe", metavar="R", help="default: every recipe")
    check.add_argument(
        "--cell",
        nargs="?",
        const="",
        metavar="FILE",
        help="also ask the robot whether it reaches every pose",
    )
    _json(check)


def _cell(commands: Commands, common: argparse.ArgumentParser) -> None:
    where = _add(
        commands, common, "where", "print the arm's present place as a recipe entry; moves nothing",
        "station where --append glassfiber --name left-front",
    )  # fmt: skip
    where.add_argument("--append", metavar="R", help="add it to recipe R as a setup")
    where.add_argument("--name", help="name of the setup")
    _cell_file(where)
    _json(where)

    snap = _add(
        commands,
        common,
        "snap",
        "take one picture where the arm stands; moves nothing",
        "station snap --out one.png",
    )
    snap.add_argument("--out", type=Path, required=True, metavar="F")
    snap.add_argument("--exposure-us", type=_positive, default=8000.0)
    snap.add_argument("--gain-db", type=_not_negative, default=0.0)
    _cell_file(snap)
    _json(snap)

    capture = _add(
        commands, common, "capture", "photograph sheets into data/<recipe>/",
        "station capture --recipe glassfiber --label good --sheets 30",
    )  # fmt: skip
    _recipe(capture)
    capture.add_argument(
        "--label", type=_label, default="good", help="good (default) or the defect's name"
    )
    capture.add_argument(
        "--split", choices=("train", "test"), help="default: train for good, test for defects"
    )
    capture.add_argument("--sheets", type=_count, default=1, metavar="N")
    capture.add_argument(
        "--restart", action="store_true", help="do not continue an interrupted session"
    )
    _cell_file(capture)
    _json(capture)

    inspect = _add(
        commands, common, "inspect", "the production loop: accept or reject each sheet",
        "station inspect --recipe glassfiber --sheets 20",
    )  # fmt: skip
    _recipe(inspect)
    inspect.add_argument("--sheets", type=_count, metavar="N", help="default: until stopped")
    inspect.add_argument("--dry-run", action="store_true", help="slow, and no line is set")
    _cell_file(inspect)
    _json(inspect)


def _data(commands: Commands, common: argparse.ArgumentParser) -> None:
    label = _add(
        commands,
        common,
        "label",
        "attach labels and masks to captures",
        "station label --recipe glassfiber --from truth",
    )
    _recipe(label)
    label.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    _json(label)

    train = _add(
        commands, common, "train", "learn from good sheets and write models/<name>/<n>/",
        "station train --recipe glassfiber",
    )  # fmt: skip
    train.add_argument(
        "--recipe", metavar="R", help="captures of recipe R (default: the active one)"
    )
    train.add_argument("--dataset", type=Path, metavar="DIR", help="an MVTec tree with train/good")
    train.add_argument("--model", metavar="NAME", help="default: the recipe's or folder's name")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--images",
        type=_count,
        metavar="N",
        help="learn from N sheets only (in a tree without sheets: N images)",
    )
    train.add_argument(
        "--input-size", type=_count, default=256, metavar="PX", help="long side the model sees"
    )
    train.add_argument(
        "--tiles",
        type=_count,
        default=None,
        metavar="N",
        help="N x N tiles for model_input: tiles",
    )
    _json(train)

    score = _add(
        commands, common, "score", "score picture files",
        "station score --model glassfiber/1 --threshold 0.5 data/glassfiber/test/*/*.png",
    )  # fmt: skip
    score.add_argument("--model", required=True, metavar="NAME/N")
    score.add_argument("files", nargs="+", type=Path, metavar="FILES")
    limit = score.add_mutually_exclusive_group()
    limit.add_argument("--recipe", metavar="R", help="judge by this recipe's threshold")
    limit.add_argument("--threshold", type=_finite, metavar="T")
    _json(score)

    export = _add(
        commands, common, "export", "write a model again, to run in another way",
        "station export --model glassfiber/1 --precision bf16 --runtime openvino",
    )  # fmt: skip
    export.add_argument("--model", required=True, metavar="NAME/N", help="an fp32 model")
    export.add_argument("--runtime", choices=("torchscript", "openvino"), default="torchscript")
    export.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    export.add_argument(
        "--recipe", metavar="R", help="no golden image may change its verdict at R's threshold"
    )
    _json(export)

    weights = _add(
        commands, common, "weights", "bring pretrained weights; training never downloads any",
        "station weights list",
    )  # fmt: skip
    actions = weights.add_subparsers(dest="action", metavar="ACTION", required=True)
    _json(actions.add_parser("list", help="what is here, what is missing and where to get it"))
    add = actions.add_parser("add", help="copy a file into the store")
    add.add_argument("file", type=Path, metavar="FILE")
    _json(add)
    fetch = actions.add_parser("fetch", help="download a file into the store")
    fetch.add_argument("name", metavar="NAME", help="of the backbone")
    _json(fetch)

    report = _add(
        commands,
        common,
        "report",
        "write one run as a self-contained HTML page",
        "station report --recipe glassfiber",
    )
    _recipe(report)
    report.add_argument("--run", metavar="RUN", help="default: the last one")
    report.add_argument(
        "--truth",
        type=Path,
        metavar="DIR",
        help="compare with the labels of `station sim --truth`",
    )
    report.add_argument("--out", type=Path, metavar="FILE", help="default: run/<run>.html")
    _json(report)


def _sim(commands: Commands, common: argparse.ArgumentParser) -> None:
    sim = _add(
        commands, common, "sim", "simulate robot, camera and sheets, and run COMMAND against them",
        "station sim --speed 4 -- station inspect --recipe glassfiber --sheets 5",
    )  # fmt: skip
    sim.add_argument("--address", default="127.0.0.50", help="loopback address of the controller")
    sim.add_argument(
        "--speed", type=_positive, default=1.0, metavar="X", help="factor on the arm's motion"
    )
    sim.add_argument("--seed", type=int, default=0, help="other seeds lay other sheets")
    sim.add_argument(
        "--defect-rate", type=_share, default=0.4, metavar="P", help="share of defective sheets"
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
    sim.add_argument("--size", type=_size, metavar="WxH", help="size of the camera's pictures")
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

    fault = _add(
        commands, common, "fault", "disturb a running simulator: protective_stop, slider 0.1",
        "station fault protective_stop",
    )  # fmt: skip
    fault.add_argument("--address", default="127.0.0.50")
    fault.add_argument("fault")
    fault.add_argument("values", nargs="*")


def _bench(commands: Commands, common: argparse.ArgumentParser) -> None:
    bench = _add(commands, common, "bench", "measure", "station bench cycle --json")
    bench.add_argument("what", choices=("cycle", "scene", "model", "simplenet"))
    _recipe(bench)
    bench.add_argument("--model", metavar="NAME/N", help="default: the recipe's")
    bench.add_argument("--sheets", type=_count, metavar="N")
    bench.add_argument("--seed", type=int, default=1)
    bench.add_argument("--size", type=_size, metavar="WxH")
    bench.add_argument(
        "--rounds", type=_count, default=20, metavar="N", help="of simplenet; all in turn in each"
    )
    _json(bench)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _not_negative(text: str) -> float:
    value = _finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below zero")
    return value


def _share(text: str) -> float:
    value = _finite(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 1224x1024")
    return int(width), int(height)


def _label(text: str) -> str:
    if (
        not text
        or not all(c.islower() or c.isdigit() or c in "-_" for c in text)
        or not text.isascii()
    ):
        raise argparse.ArgumentTypeError(f"{text!r}: lower-case letters, digits, - and _ only")
    return text
