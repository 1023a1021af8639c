"""The command line: every command, its options and an example."""

from __future__ import annotations

import argparse
import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

LARGEST_SIDE_PX = 8192

Number = TypeVar("Number", int, float)


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
    _control(commands, common)
    _data(commands, common)
    _records(commands, common)
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


def _address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        type=_loopback,
        default="127.0.0.50",
        help="loopback address of the simulated controller",
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
    where.add_argument("--name", type=_setup_name, help="name of the setup")
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
        "--label", type=_name, default="good", help="good (default) or the defect's name"
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
    inspect.add_argument(
        "--sheets",
        type=_count,
        metavar="N",
        help="clear, reset, start and end after N sheets (default: stay and wait for commands)",
    )
    inspect.add_argument("--dry-run", action="store_true", help="slow, and no line is set")
    _cell_file(inspect)
    _json(inspect)


# command -> what it does to the running `station inspect`
_COMMANDS = {
    "status": "print the state of the running `station inspect`",
    "clear": "after a fault was cleared at the pendant: open the devices again",
    "reset": "bring the arm slowly up from where it stands, and become ready",
    "start": "begin to inspect",
    "hold": "finish the sheet, then wait",
    "unhold": "go on after a hold",
    "stop": "finish the sheet, then stop",
    "abort": "stop the arm now; the sheet has no verdict",
    "mode": "produce or dry-run; manual and maintenance lend the cell to other commands",
}


def _control(commands: Commands, common: argparse.ArgumentParser) -> None:
    for name, text in _COMMANDS.items():
        example = f"station {name} --json" if name == "status" else f"station {name}"
        if name == "mode":
            example = "station mode manual"
        command = _add(commands, common, name, text, example)
        if name == "mode":
            command.add_argument("mode", choices=("produce", "dry-run", "manual", "maintenance"))
        command.add_argument("--user", metavar="NAME", help="who asks (default: the login name)")
        command.add_argument("--reason", default="", metavar="TEXT", help="kept in the log")
        command.add_argument(
            "--take", action="store_true", help="take control over from whoever has it"
        )
        _json(command)


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
    train.add_argument(
        "--model",
        type=_name,
        metavar="NAME",
        help="default: the recipe's or folder's name",
    )
    train.add_argument("--seed", type=_seed, default=0)
    train.add_argument(
        "--images",
        type=_count,
        metavar="N",
        help="learn from N sheets only (in a tree without sheets: N images)",
    )
    train.add_argument(
        "--detector",
        default="simplenet",
        metavar="D",
        help="simplenet (default), gaussian, patchcore, efficientad-s, efficientad-m, lite",
    )
    train.add_argument(
        "--preset",
        default="default",
        metavar="P",
        help="of the detector: simplenet has default and paper, gaussian default and per-position",
    )
    train.add_argument("--backbone", metavar="B", help="default: the preset's; `station weights`")
    train.add_argument(
        "--precision",
        choices=["fp32", "int8"],
        default="fp32",
        help="int8: quantise the backbone first; runs through OpenVINO",
    )
    train.add_argument("--resume", action="store_true", help="go on with a stopped training")
    train.add_argument(
        "--input-size",
        type=_input_size,
        metavar="PX",
        help="long side the model sees, a multiple of 32; default 256",
    )
    train.add_argument(
        "--levels",
        type=int,
        nargs="+",
        choices=(4, 8, 16, 32),
        metavar="STRIDE",
        help="of the backbone: 4 shows the finest detail, 32 the widest surroundings",
    )
    train.add_argument(
        "--tiles",
        type=_tiles,
        default=None,
        metavar="N",
        help="N x N tiles for model_input: tiles",
    )
    train.add_argument(
        "--steps", type=_count, metavar="N", help="of EfficientAD (default 70000) and lite"
    )
    train.add_argument(
        "--teacher", type=_name, metavar="NAME", help="of EfficientAD: one that was distilled"
    )
    train.add_argument(
        "--penalty",
        type=Path,
        metavar="DIR",
        help="of EfficientAD and lite: any images of other things; default: no penalty",
    )
    _json(train)

    imported = _add(
        commands, common, "import", "make a model of a TorchScript file that was made elsewhere",
        "station import other.pt --model other --dataset data/glassfiber",
    )  # fmt: skip
    imported.add_argument("file", type=Path, metavar="FILE")
    imported.add_argument("--model", type=_name, required=True, metavar="NAME")
    good = imported.add_mutually_exclusive_group(required=True)
    good.add_argument(
        "--dataset", type=Path, metavar="DIR", help="an MVTec tree: train/good fixes the scale"
    )
    good.add_argument("--recipe", metavar="R", help="good captures of recipe R fix the scale")
    _json(imported)

    distill = _add(
        commands, common, "distill", "make a teacher for EfficientAD from a backbone",
        "station distill --backbone efficientnet_lite0 --images data/glassfiber/train/good",
    )  # fmt: skip
    distill.add_argument(
        "--backbone", default="efficientnet_lite0", metavar="B", help="default: %(default)s"
    )
    distill.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="any images, in any folders"
    )
    distill.add_argument(
        "--size", choices=["s", "m"], default="s", help="of the network: small (default), medium"
    )
    distill.add_argument(
        "--steps", type=_count, default=1500, metavar="N", help="default: %(default)s"
    )
    distill.add_argument("--name", type=_name, metavar="NAME", help="default: the size")
    distill.add_argument("--seed", type=_seed, default=0)
    distill.add_argument("--resume", action="store_true", help="go on with a stopped one")
    _json(distill)

    score = _add(
        commands, common, "score", "score picture files",
        "station score --model glassfiber/1 --threshold 0.5 data/glassfiber/test/*/*.png",
    )  # fmt: skip
    score.add_argument("--model", required=True, metavar="NAME/N")
    score.add_argument(
        "files", nargs="+", type=Path, metavar="FILES", help="pictures, or folders of pictures"
    )
    score.add_argument(
        "--overlay", type=Path, metavar="DIR", help="also write each picture with its heat map"
    )
    limit = score.add_mutually_exclusive_group()
    limit.add_argument("--recipe", metavar="R", help="judge by this recipe's threshold")
    limit.add_argument("--threshold", type=_finite, metavar="T")
    _json(score)

    compare = _add(
        commands, common, "compare", "train detectors beside each other and say which to take",
        "station compare --dataset data/glassfiber --detectors simplenet,patchcore --out which",
    )  # fmt: skip
    place = compare.add_mutually_exclusive_group(required=True)
    place.add_argument("--dataset", type=Path, metavar="DIR", help="an MVTec tree")
    place.add_argument("--recipe", metavar="R", help="captures of recipe R")
    compare.add_argument(
        "--detectors",
        default="simplenet,gaussian,patchcore",
        metavar="A,B",
        help="names as of `station train --detector`, a preset after a colon: simplenet:paper",
    )
    compare.add_argument("--seeds", type=_count, default=3, metavar="N")
    compare.add_argument("--split", choices=("all", "select", "report"), default="select")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="of everything")
    _json(compare)

    evaluate = _add(
        commands, common, "evaluate", "measure a model on labelled images",
        "station evaluate --dataset data/glassfiber --model glassfiber --out page.html",
    )  # fmt: skip
    place = evaluate.add_mutually_exclusive_group(required=True)
    place.add_argument("--dataset", type=Path, metavar="DIR", help="an MVTec tree with test/")
    place.add_argument(
        "--root", type=Path, metavar="DIR", help="every tree in DIR; resumes where it stopped"
    )
    evaluate.add_argument(
        "--model",
        required=True,
        metavar="NAME[/N]",
        help="default version: the newest; with --root NAME-<tree>",
    )
    limit = evaluate.add_mutually_exclusive_group()
    limit.add_argument("--recipe", metavar="R", help="judge by this recipe's threshold")
    limit.add_argument("--threshold", type=_finite, metavar="T", help="default: the model's own")
    evaluate.add_argument("--split", choices=("all", "select", "report"), default="all")
    evaluate.add_argument(
        "--out", type=Path, metavar="F", help="write the page here; with --root the folder of pages"
    )
    _json(evaluate)

    _threshold(commands, common)

    experiment = _add(
        commands, common, "experiment", "train variants beside each other and compare them",
        "station experiment images --dataset data/glassfiber --out few-or-many",
    )  # fmt: skip
    experiment.add_argument("what", choices=("seeds", "images", "backbones", "grey", "ablation"))
    experiment.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    experiment.add_argument("--out", type=Path, required=True, metavar="DIR", help="of everything")
    experiment.add_argument("--preset", choices=("default", "paper"), default="default")
    experiment.add_argument("--seeds", type=_count, default=3, metavar="N")
    experiment.add_argument("--split", choices=("all", "select", "report"), default="select")
    _json(experiment)

    weights = _add(
        commands, common, "weights", "bring pretrained weights; training never downloads any",
        "station weights list",
    )  # fmt: skip
    actions = weights.add_subparsers(dest="action", metavar="ACTION", required=True)
    _json(actions.add_parser("list", help="what is here, what is missing and where to get it"))
    add = actions.add_parser("add", help="copy a file into the store")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument(
        "--teacher", type=_name, metavar="NAME", help="FILE is a teacher for EfficientAD"
    )
    add.add_argument("--sha256", metavar="HEX", help="that a teacher must have, or its beginning")
    _json(add)
    fetch = actions.add_parser("fetch", help="download a file into the store")
    fetch.add_argument("name", metavar="NAME", help="of the backbone")
    _json(fetch)

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

    draw = _add(
        commands, common, "draw", "draw a model's network: stages, shapes, parameters",
        "station draw --model glassfiber/1 --out network.svg",
    )  # fmt: skip
    draw.add_argument("--model", required=True, metavar="NAME/N", help="an fp32 or bf16 model")
    draw.add_argument("--out", type=Path, required=True, metavar="F.svg")
    _json(draw)

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


def _threshold(commands: Commands, common: argparse.ArgumentParser) -> None:
    threshold = _add(
        commands, common, "threshold", "choose a recipe's threshold and say what it is worth",
        "station threshold --recipe glassfiber --policy zero-escape",
    )  # fmt: skip
    _recipe(threshold)
    threshold.add_argument(
        "--policy",
        nargs="+",
        required=True,
        metavar="P",
        help="zero-escape, max-false-reject 0.05, cost 50:1 or good-only 0.01",
    )
    source = threshold.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset", type=Path, metavar="DIR", help="a tree with test/ (default: data/<recipe>)"
    )
    source.add_argument(
        "--from-card", action="store_true", help="use the model's held-out good units instead"
    )
    threshold.add_argument(
        "--split", choices=("select", "all"), default="select", help="which half of test/ to use"
    )
    threshold.add_argument(
        "--claim", type=_share, default=0.01, metavar="P", help="escape rate to be supported"
    )
    threshold.add_argument("--write", action="store_true", help="make it a revision of the recipe")
    threshold.add_argument("--who", metavar="NAME", help="who answers for it (with --write)")
    threshold.add_argument("--why", metavar="TEXT", help="why it is changed (with --write)")
    _json(threshold)


def _records(commands: Commands, common: argparse.ArgumentParser) -> None:
    verify = _add(
        commands, common, "verify", "prove every record: files, hashes, chain, ledger",
        "station verify",
    )  # fmt: skip
    verify.add_argument("--recipe", metavar="R", help="default: every recipe with data")
    verify.add_argument(
        "--rebuild", action="store_true", help="make the ledger's index anew from the records first"
    )
    _cell_file(verify)
    _json(verify)

    why = _add(
        commands, common, "why", "say from disk why a sheet was accepted or rejected",
        "station why s1-0042-000007",
    )  # fmt: skip
    why.add_argument("sheet", metavar="SHEET")
    _json(why)

    records = _add(
        commands, common, "records", "list inspected sheets, or export them as CSV or Parquet",
        "station records --recipe glassfiber --csv sheets.csv",
    )  # fmt: skip
    records.add_argument("--recipe", metavar="R", help="default: every recipe")
    records.add_argument("--run", metavar="RUN", help="default: every run")
    records.add_argument("--shots", action="store_true", help="one row per shot, not per sheet")
    form = records.add_mutually_exclusive_group()
    form.add_argument("--csv", type=Path, metavar="F")
    form.add_argument("--parquet", type=Path, metavar="F")
    records.add_argument(
        "--mark", action="store_true", help="note in the sheets that they are exported"
    )
    _cell_file(records)
    _json(records)

    keep = _add(
        commands, common, "keep", "keep a sheet whole, whatever `station retention` would do",
        "station keep s1-0042-000007 --why 'customer asked'",
    )  # fmt: skip
    keep.add_argument("sheet", metavar="SHEET")
    keep.add_argument("--why", required=True, metavar="TEXT")
    keep.add_argument("--who", metavar="NAME", help="default: the user at the keyboard")
    keep.add_argument("--release", action="store_true", help="no longer keep it")
    _cell_file(keep)

    retention = _add(
        commands, common, "retention", "thin old accepted sheets by the recipe's policy",
        "station retention --recipe glassfiber --apply",
    )  # fmt: skip
    _recipe(retention)
    retention.add_argument("--apply", action="store_true", help="without it nothing is deleted")
    retention.add_argument("--sheets", type=_count, metavar="N", help="the oldest N at most")
    _cell_file(retention)
    _json(retention)


def _sim(commands: Commands, common: argparse.ArgumentParser) -> None:
    sim = _add(
        commands, common, "sim", "simulate robot, camera and sheets, and run COMMAND against them",
        "station sim --speed 4 -- station inspect --recipe glassfiber --sheets 5",
    )  # fmt: skip
    _address(sim)
    sim.add_argument(
        "--speed", type=_positive, default=1.0, metavar="X", help="factor on the arm's motion"
    )
    sim.add_argument("--seed", type=_seed, default=0, help="other seeds lay other sheets")
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
    _address(fault)
    fault.add_argument("fault")
    fault.add_argument("values", nargs="*")


def _bench(commands: Commands, common: argparse.ArgumentParser) -> None:
    bench = _add(commands, common, "bench", "measure", "station bench cycle --json")
    bench.add_argument(
        "what",
        choices=(
            "cycle",
            "detectors",
            "durability",
            "efficientad",
            "faults",
            "metrics",
            "model",
            "scene",
            "simplenet",
            "train",
        ),
    )
    _recipe(bench)
    bench.add_argument(
        "--model", metavar="NAME/N", help="default: the recipe's; of detectors: every newest"
    )
    bench.add_argument(
        "--sheets", type=_count, metavar="N", help="of metrics: maps; of train: images"
    )
    bench.add_argument("--seed", type=_seed, default=1)
    bench.add_argument("--size", type=_size, metavar="WxH")
    bench.add_argument(
        "--series", choices=("cb3", "e"), default="cb3", help="of faults: the controller's make"
    )
    bench.add_argument("--steps", nargs="+", metavar="STEP", help="of faults; default: all")
    bench.add_argument("--faults", nargs="+", metavar="FAULT", help="of faults; default: all")
    bench.add_argument(
        "--address",
        type=_loopback,
        default="127.0.0.61",
        help="of faults: loopback address of the simulated controller",
    )
    bench.add_argument(
        "--rounds",
        type=_count,
        default=20,
        metavar="N",
        help="of the models' benches",
    )
    _json(bench)


def _number(
    read: Callable[[str], Number], fits: Callable[[Number], bool], wanted: str
) -> Callable[[str], Number]:
    """Return an argument's type: reads a number and says what is wanted where it is none."""

    def check(text: str) -> Number:
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{wanted} is needed, not {text!r}")
        return value

    return check


_count = _number(int, lambda n: n >= 1, "a whole number from 1 on")
_tiles = _number(int, lambda n: 1 <= n <= 8, "a whole number from 1 to 8")
_seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")
_input_size = _number(
    int, lambda n: 64 <= n <= 2048 and n % 32 == 0, "a multiple of 32 from 64 to 2048"
)
_finite = _number(float, math.isfinite, "a finite number")
_positive = _number(float, lambda x: 0 < x < math.inf, "a number above zero")
_not_negative = _number(float, lambda x: 0 <= x < math.inf, "a number from zero on")
_share = _number(float, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < max(size) <= LARGEST_SIDE_PX:
        raise argparse.ArgumentTypeError(
            f"a size such as 1224x1024, of at most {LARGEST_SIDE_PX} pixels a side, is needed, "
            f"not {text!r}"
        )
    return size


def _word(pattern: str, wanted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{wanted} (at most 40) are needed, not {text!r}")
        return text

    return check


_name = _word(r"[a-z0-9][a-z0-9_-]{0,39}", "lower-case letters, digits, - and _")
_setup_name = _word(r"[a-z0-9][a-z0-9-]{0,39}", "lower-case letters, digits and -")


def _loopback(text: str) -> str:
    try:
        known = ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"an address such as 127.0.0.50 is needed, not {text!r}")
    return text
