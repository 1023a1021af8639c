"""Commands on captures and models: from labels to a threshold."""

from __future__ import annotations

import argparse
from pathlib import Path

from station.arguments.shared import (
    Commands,
    add_command,
    add_json,
    add_recipe,
    count,
    finite,
    input_size,
    name_of,
    not_negative,
    seed,
    share,
    tiles,
)


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add them."""
    label = add_command(
        commands,
        common,
        "label",
        "attach labels and masks to captures",
        "station label --recipe glassfiber --from truth",
    )
    add_recipe(label)
    label.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    add_json(label)

    train = add_command(
        commands, common, "train", "learn from good sheets and write models/<name>/<n>/",
        "station train --recipe glassfiber",
    )  # fmt: skip
    train.add_argument(
        "--recipe", metavar="R", help="captures of recipe R (default: the active one)"
    )
    train.add_argument("--dataset", type=Path, metavar="DIR", help="an MVTec tree with train/good")
    train.add_argument(
        "--model",
        type=name_of,
        metavar="NAME",
        help="default: the recipe's or folder's name",
    )
    train.add_argument("--seed", type=seed, default=0)
    train.add_argument(
        "--images",
        type=count,
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
    _add_input(train)
    train.add_argument(
        "--tiles",
        type=tiles,
        default=None,
        metavar="N",
        help="N x N tiles for model_input: tiles",
    )
    train.add_argument(
        "--steps", type=count, metavar="N", help="of EfficientAD (default 70000) and lite"
    )
    train.add_argument(
        "--teacher", type=name_of, metavar="NAME", help="of EfficientAD: one that was distilled"
    )
    train.add_argument(
        "--penalty",
        type=Path,
        metavar="DIR",
        help="of EfficientAD and lite: any images of other things; default: no penalty",
    )
    _add_device(train)
    add_json(train)

    imported = add_command(
        commands, common, "import", "make a model of a TorchScript file that was made elsewhere",
        "station import other.pt --model other --dataset data/glassfiber",
    )  # fmt: skip
    imported.add_argument("file", type=Path, metavar="FILE")
    imported.add_argument(
        "--anomalib", metavar="DETECTOR", help="FILE is a checkpoint of anomalib's DETECTOR: Padim"
    )
    imported.add_argument("--model", type=name_of, required=True, metavar="NAME")
    good = imported.add_mutually_exclusive_group(required=True)
    good.add_argument(
        "--dataset", type=Path, metavar="DIR", help="an MVTec tree: train/good fixes the scale"
    )
    good.add_argument("--recipe", metavar="R", help="good captures of recipe R fix the scale")
    add_json(imported)

    distill = add_command(
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
        "--steps", type=count, default=1200, metavar="N", help="default: %(default)s"
    )
    distill.add_argument("--name", type=name_of, metavar="NAME", help="default: the size")
    distill.add_argument("--seed", type=seed, default=0)
    distill.add_argument("--resume", action="store_true", help="go on with a stopped one")
    _add_device(distill)
    add_json(distill)

    score = add_command(
        commands, common, "score", "score picture files",
        "station score --model glassfiber/1 --threshold 0.5 data/glassfiber/test/*/*.png",
    )  # fmt: skip
    score.add_argument("--model", required=True, metavar="NAME[/N]", help="alone: its newest")
    score.add_argument(
        "files", nargs="+", type=Path, metavar="FILES", help="pictures, or folders of pictures"
    )
    score.add_argument(
        "--overlay", type=Path, metavar="DIR", help="also write each picture with its heat map"
    )
    limit = score.add_mutually_exclusive_group()
    limit.add_argument("--recipe", metavar="R", help="judge by this recipe's threshold")
    limit.add_argument("--threshold", type=finite, metavar="T")
    add_json(score)

    compare = add_command(
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
        help="as of `station train --detector`, a preset after a colon: simplenet:paper; or models "
        "of the workspace, also imported ones: rd/1",
    )
    compare.add_argument("--seeds", type=count, default=3, metavar="N")
    compare.add_argument("--split", choices=("all", "select", "report"), default="select")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="of everything")
    add_json(compare)

    evaluate = add_command(
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
    limit.add_argument("--threshold", type=finite, metavar="T", help="default: the model's own")
    evaluate.add_argument("--split", choices=("all", "select", "report"), default="all")
    evaluate.add_argument(
        "--out", type=Path, metavar="F", help="write the page here; with --root the folder of pages"
    )
    add_json(evaluate)

    _threshold(commands, common)

    experiment = add_command(
        commands, common, "experiment", "train variants beside each other and compare them",
        "station experiment images --dataset data/glassfiber --out few-or-many",
    )  # fmt: skip
    experiment.add_argument("what", choices=("seeds", "images", "backbones", "grey", "ablation"))
    experiment.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    experiment.add_argument("--out", type=Path, required=True, metavar="DIR", help="of everything")
    experiment.add_argument("--preset", choices=("default", "paper"), default="default")
    _add_input(experiment)
    experiment.add_argument("--seeds", type=count, default=3, metavar="N")
    experiment.add_argument("--split", choices=("all", "select", "report"), default="select")
    add_json(experiment)

    weights = add_command(
        commands, common, "weights", "bring pretrained weights; training never downloads any",
        "station weights list",
    )  # fmt: skip
    actions = weights.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_json(actions.add_parser("list", help="what is here, what is missing and where to get it"))
    add = actions.add_parser("add", help="copy a file into the store")
    add.add_argument("file", type=Path, metavar="FILE")
    add.add_argument(
        "--teacher", type=name_of, metavar="NAME", help="FILE is a teacher for EfficientAD"
    )
    add.add_argument("--sha256", metavar="HEX", help="that a teacher must have, or its beginning")
    add_json(add)
    fetch = actions.add_parser("fetch", help="download a file into the store")
    fetch.add_argument("name", metavar="NAME", help="of the backbone")
    add_json(fetch)

    convert = add_command(
        commands, common, "convert", "write a model again, to run in another way",
        "station convert --model glassfiber/1 --precision bf16 --runtime openvino",
    )  # fmt: skip
    convert.add_argument("--model", required=True, metavar="NAME[/N]", help="an fp32 model")
    convert.add_argument(
        "--runtime", choices=("torchscript", "openvino", "cuda"), default="torchscript"
    )
    convert.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    convert.add_argument(
        "--recipe", metavar="R", help="no golden image may change its verdict at R's threshold"
    )
    add_json(convert)

    draw = add_command(
        commands, common, "draw", "draw a model's network: stages, shapes, parameters",
        "station draw --model glassfiber/1 --out network.svg",
    )  # fmt: skip
    draw.add_argument(
        "--model", required=True, metavar="NAME[/N]", help="an fp32 or bf16 SimpleNet"
    )
    draw.add_argument("--out", type=Path, required=True, metavar="F.svg")
    add_json(draw)

    report = add_command(
        commands,
        common,
        "report",
        "write one run as a self-contained HTML page",
        "station report --recipe glassfiber",
    )
    add_recipe(report)
    report.add_argument("--run", metavar="RUN", help="default: the last one")
    report.add_argument(
        "--truth",
        type=Path,
        metavar="DIR",
        help="compare with the labels of `station sim --truth`",
    )
    report.add_argument("--out", type=Path, metavar="FILE", help="default: run/<run>.html")
    add_json(report)


def _threshold(commands: Commands, common: argparse.ArgumentParser) -> None:
    threshold = add_command(
        commands, common, "threshold", "choose a recipe's threshold and say what it is worth",
        "station threshold --recipe glassfiber --policy zero-escape",
    )  # fmt: skip
    add_recipe(threshold)
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
        "--claim", type=share, default=0.01, metavar="P", help="escape rate to be supported"
    )
    threshold.add_argument("--write", action="store_true", help="make it a revision of the recipe")
    threshold.add_argument("--who", metavar="NAME", help="who answers for it (with --write)")
    threshold.add_argument("--why", metavar="TEXT", help="why it is changed (with --write)")
    add_json(threshold)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: let a student or teacher learn on a GPU",
    )


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-size",
        type=input_size,
        metavar="PX",
        help="long side the model sees, a multiple of 32; default 256",
    )
    parser.add_argument(
        "--levels",
        type=int,
        nargs="+",
        choices=(4, 8, 16, 32),
        metavar="STRIDE",
        help="of the backbone: 4 shows the finest detail, 32 the widest surroundings",
    )
    parser.add_argument(
        "--strewn",
        type=not_negative,
        metavar="W",
        help="SimpleNet: weight of synthetic defects beside the noise; 0: noise alone",
    )
