"""What commands share: the workspace, cell file and recipe that were asked for."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from station import show
from station.cell import check_drivers
from station.config import LoadedCell, load_cell, open_workspace
from station.errors import ConfigError
from station.recipe import LoadedRecipe, load_recipe
from station.workspace import active_recipe

UNJUDGED = "a sheet under way has no verdict"
KEPT = ("calibration", "data", "models", "recipes")  # folders of a workspace
CONTINUED = "the same command goes on with what is missing"


def workspace_of(args: argparse.Namespace) -> Path:
    """Open the workspace named by --workspace."""
    return open_workspace(args.workspace)


def cell_of(args: argparse.Namespace, workspace: Path) -> LoadedCell:
    """Load the cell file: --cell, else $STATION_CELL, else calibration/cell.yaml."""
    cell = cell_file_of(args.cell, workspace)
    check_drivers(cell, workspace)
    return cell


def cell_file_of(named: Path | str | None, workspace: Path) -> LoadedCell:
    """Load the cell file for what it says of the records; its devices may be anything."""
    named = named or os.environ.get("STATION_CELL")
    return load_cell(Path(named) if named else workspace / "calibration" / "cell.yaml")


def recipe_of(args: argparse.Namespace, workspace: Path) -> LoadedRecipe:
    """Load the recipe of --recipe, else the active one."""
    name = active_recipe(workspace) if args.recipe is None else args.recipe
    return load_recipe(workspace, name)


def judged_by(recipe: LoadedRecipe) -> tuple[str, float]:
    """Return the recipe's model and threshold, both needed to judge."""
    if recipe.recipe.model is None or recipe.recipe.threshold is None:
        missing = "model" if recipe.recipe.model is None else "threshold"
        raise ConfigError(
            f"recipes/{recipe.name}.yaml: {missing}: needed to inspect; `station train` tells one"
        )
    return recipe.recipe.model, recipe.recipe.threshold


def said(option: str, text: str) -> str:
    """Return what a person said, one line of it, as records keep it."""
    if not text.strip() or not text.isprintable():
        raise ConfigError(f"{option}: one line of text is needed")
    return text


def check_out(out: Path | None, workspace: Path) -> None:
    """Find out before the work is done that what it writes has no place."""
    if out is None:
        return
    if out.name == "-":
        raise ConfigError("-: the name of a file is needed; nothing is written to standard output")
    for part in KEPT:
        if out.resolve().is_relative_to((workspace / part).resolve()):
            raise ConfigError(f"{out}: lies in {part}/, which is the station's own; choose another")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder")
    if out.exists() and not out.is_file():
        raise ConfigError(f"{out}: not a file that could be replaced")


def check_out_folder(out: Path, dataset: Path) -> None:
    """Refuse a folder that is a file, or lies among the pictures that it tells of."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: not a folder")
    for part in ("train", "test", "ground_truth"):
        if out.resolve().is_relative_to((dataset / part).resolve()):
            raise ConfigError(f"{out}: lies in {dataset / part}, among the pictures")


def compare_with_training(folder: Path, files: Sequence[Path]) -> str:
    """Refuse copies of images in train/good of the same tree; say what was compared."""
    from station.evaluate.splits import check_disjoint
    from station.learn.images import from_mvtec

    if not (folder / "train" / "good").is_dir():
        return f"{folder}: no train/good, so copies of training images were not looked for"
    training = from_mvtec(folder).files
    with show.progress(len(training) + len(files), "compared with train/good") as told:
        check_disjoint(training, files, ("train", "test"), told)
    return f"none of these is nor resembles one of the {len(training)} images in train/good"


@contextlib.contextmanager
def stopping(
    what: str, lost: str, also: threading.Event | None = None
) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after `what`; the second stops now.

    `lost` says what becomes of it where the process is told to end at once. `also` is set together
    with the event that the block gets.

    Once it stops now, further signals change nothing: the sheet's record is being written.
    """
    stop = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            ignore_further()
            raise KeyboardInterrupt
        stop.set()
        if also is not None:
            also.set()
        show.say(f"stopping once {what} under way is done; Ctrl-C again stops now")

    def terminate(number: int, _frame: FrameType | None) -> None:
        ignore_further()
        show.say(f"station: terminated; {lost}")
        raise SystemExit(128 + number)

    def ignore_further() -> None:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the terminal may go
        handlers[signal.SIGHUP] = terminate
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
