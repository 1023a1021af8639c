"""What the commands' arguments have in common: options, and types that say what is wanted."""

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
# argparse has no public name for what add_subparsers returns
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def common_options() -> argparse.ArgumentParser:
    """Return the options of every command, without defaults: they may stand before it or after."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--workspace", type=folder, metavar="DIR", help="default: current directory"
    )
    common.add_argument("--verbose", action="store_true", help="log every shot")
    return common


def add_command(
    commands: Commands, common: argparse.ArgumentParser, name: str, text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with its help and its example."""
    return commands.add_parser(
        name, parents=[common], help=text, description=text, epilog=f"example: {example}"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add --recipe of a command that judges or captures."""
    parser.add_argument("--recipe", metavar="R", help="default: the active recipe (`station use`)")


def add_cell_file(parser: argparse.ArgumentParser) -> None:
    """Add --cell."""
    parser.add_argument(
        "--cell", metavar="FILE", help="default: $STATION_CELL, else calibration/cell.yaml"
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add --address of the far ends."""
    parser.add_argument(
        "--address",
        type=loopback,
        default="127.0.0.50",
        help="loopback address of the simulated controller",
    )


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


count = _number(int, lambda n: n >= 1, "a whole number from 1 on")


repetitions = _number(int, lambda n: 2 <= n <= 1000, "a whole number from 2 to 1000")


tiles = _number(int, lambda n: 1 <= n <= 8, "a whole number from 1 to 8")


seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")


input_size = _number(
    int, lambda n: 64 <= n <= 2048 and n % 32 == 0, "a multiple of 32 from 64 to 2048"
)


finite = _number(float, math.isfinite, "a finite number")


positive = _number(float, lambda x: 0 < x < math.inf, "a number above zero")


not_negative = _number(float, lambda x: 0 <= x < math.inf, "a number from zero on")


share = _number(float, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def folder(text: str) -> Path:
    """Read a folder's name; an empty one, of a variable that is not set, means none."""
    if not text:
        raise argparse.ArgumentTypeError("a folder is needed, not ''")
    return Path(text)


def size(text: str) -> tuple[int, int]:
    """Read WxH in pixels."""
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


name_of = _word(r"[a-z0-9][a-z0-9_-]{0,39}", "lower-case letters, digits, - and _")


setup_name = _word(r"[a-z0-9][a-z0-9-]{0,39}", "lower-case letters, digits and -")


def loopback(text: str) -> str:
    """Read an IPv4 address of this machine alone."""
    try:
        known = ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"an address such as 127.0.0.50 is needed, not {text!r}")
    return text
