"""A catalogue of bad inputs: each case spoils a workspace, runs a command and says what it answers.

The numbers are those of `docs/bad-input.md`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from station.cli import main

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/glassfiber.yaml"
CELL = "calibration/cell.yaml"
MODEL = "models/glassfiber/1"


class Desk:
    """A workspace that a case may spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("recipes", "calibration", "models"):
            shutil.copytree(ROOT / name, folder / name)

    def path(self, file: str) -> Path:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, file: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.path(file).write_bytes(data)

    def edit(self, file: str, old: str, new: str) -> None:
        text = self.path(file).read_text(encoding="utf-8")
        assert old in text, old
        self.write(file, text.replace(old, new, 1))

    def content(self) -> dict[Path, bytes | str]:
        """Everything that lies here, byte for byte."""
        return {
            path: str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


class Case(NamedTuple):
    """What is done to a workspace, and how a command has to answer."""

    number: int
    name: str
    spoil: Callable[[Desk], object]
    says: str
    code: int = 2
    command: str = "check --recipe glassfiber"


def each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Run a test once for each case; the case's number begins its id."""
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=f"{case.number:03}-{case.name}") for case in cases]
    )


def edit(file: str, old: str, new: str) -> Callable[[Desk], object]:
    return lambda desk: desk.edit(file, old, new)


def write(file: str, content: str | bytes) -> Callable[[Desk], object]:
    return lambda desk: desk.write(file, content)


def add(file: str, content: str) -> Callable[[Desk], object]:
    return lambda desk: desk.write(file, desk.path(file).read_text(encoding="utf-8") + content)


def check(case: Case, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command: one line says what is wrong, the exit code is right, nothing is written."""
    case.spoil(desk)
    before = desk.content()
    code = main([*case.command.split(), "--workspace", str(desk.folder)])
    out, err = capsys.readouterr()
    told = [line for line in (out + err).splitlines() if case.says in line]
    assert len(told) == 1, out + err
    assert len(told[0]) < 600
    assert code == case.code
    assert desk.content() == before, "nothing was written"
