"""A workspace: a folder with recipes/ models/ calibration/ data/, one recipe active in it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from station.errors import ConfigError
from station.recipe import list_recipes, load_recipe
from station.records.dataset import write_durably

_FOLDERS = ("recipes", "calibration", "models")
_SOFTWARE = ("station", "ur-rtde", "pypylon", "opencv-python-headless", "numpy", "torch")


def init(target: Path) -> list[Path]:
    """Copy the shipped recipes, cell files and models to `target`; return what was made.

    Nothing that is already there is touched.
    """
    if any(path.is_file() for path in (target, *target.parents)):
        raise ConfigError(f"{target}: is a file")
    made = []
    for folder in _FOLDERS:
        source = templates() / folder
        for path in sorted(source.rglob("*")):
            copy = target / folder / path.relative_to(source)
            if path.is_file() and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_durably(copy, path.read_bytes())
                made.append(copy)
    (target / "data").mkdir(parents=True, exist_ok=True)
    return made


def templates() -> Path:
    """Return the folder that holds the shipped recipes/, calibration/ and models/.

    In the wheel they lie inside the package; in a checkout they are its root folders.
    """
    package = Path(__file__).parent
    shipped = package / "templates"
    return shipped if shipped.is_dir() else package.parent


def use(workspace: Path, name: str) -> None:
    """Make a recipe the active one."""
    load_recipe(workspace, name)
    (workspace / "run").mkdir(exist_ok=True)
    write_durably(workspace / "run" / "recipe", name.encode())


def active_recipe(workspace: Path) -> str:
    """Return the active recipe's name, or list what there is."""
    path = workspace / "run" / "recipe"
    if path.is_file():
        name = path.read_text(encoding="utf-8", errors="replace").strip()
        if name not in list_recipes(workspace):
            raise ConfigError(f"{path}: names no recipe here; set it with `station use NAME`")
        return name
    found = ", ".join(list_recipes(workspace)) or "none"
    raise ConfigError(
        f"no active recipe; name one with --recipe or `station use NAME`; there are: {found}"
    )


def software() -> dict[str, str]:
    """Return the versions that stand in every record."""
    versions = {}
    for name in _SOFTWARE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
