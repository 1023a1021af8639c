"""The store of pretrained weights: what is here, add a file, download one."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator

from station import show
from station.errors import ConfigError


def weights(args: argparse.Namespace) -> int:
    """Run `station weights list`, `add` or `fetch`."""
    actions = {"list": _list, "add": _add, "fetch": _fetch}
    actions[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    from station.learn.features.weights import listed, store

    if not args.json:
        show.say(f"the store is {store()}")
    for stored in listed():
        if args.json:
            print(json.dumps({**stored._asdict(), "path": str(stored.path)}))
            continue
        digest = f"  sha256 {stored.sha256[:8]}…" if stored.sha256 else ""
        print(
            f"{stored.backbone:18}  {stored.state:7}  {stored.megabytes:5.1f} MB{digest}"
            f"  {stored.licence}\n"
            f"    {stored.source if stored.state == 'absent' else stored.path}"
        )
    _list_teachers(as_json=args.json)


def _list_teachers(*, as_json: bool) -> None:
    from station.learn.efficientad.teachers import teachers

    for teacher in teachers():
        if as_json:
            row = teacher.model_dump(mode="json")
            renamed = {"teacher": row.pop("name"), "distilled_from": row.pop("backbone")}
            print(json.dumps(renamed | row))
            continue
        made: str = teacher.origin
        if teacher.steps is not None:
            made += f" from {teacher.backbone} on {teacher.images} pictures, {teacher.steps} steps"
        print(
            f"teacher {teacher.name:10}  size {teacher.size}  sha256 {teacher.sha256[:8]}…  {made}"
        )


def _add(args: argparse.Namespace) -> None:
    from station.learn.efficientad.teachers import add_teacher
    from station.learn.features.weights import add, known, recognise

    if args.teacher is not None:
        teacher = add_teacher(args.file, args.teacher, args.sha256)
        show.values(teacher.model_dump(mode="json"), as_json=args.json)
        return
    if args.sha256 is not None:
        raise ConfigError("--sha256 goes with --teacher: every backbone's is known")
    backbone = recognise(args.file)
    path = add(args.file, known(backbone))
    show.values({"backbone": backbone, "path": str(path)}, as_json=args.json)


def _fetch(args: argparse.Namespace) -> None:
    from station.learn.features.weights import fetch, known

    wanted = known(args.name)
    with _download(wanted.megabytes) as progress:
        path = fetch(args.name, wanted, progress)
    show.values({"backbone": args.name, "path": str(path)}, as_json=args.json)


@contextlib.contextmanager
def _download(megabytes: float) -> Iterator[Callable[[int], None]]:
    """Show bytes, speed and time left; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=megabytes * 1e6)
        yield lambda done: bars.update(task, completed=done)
