"""Revisions of a recipe: every change keeps the old text, with who, when, why and on what data.

recipes/.revisions/<recipe>/<n>.yaml   what the recipe was before change n; never overwritten
"""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from station.errors import ConfigError, DatasetError
from station.recipe import Recipe, load_recipe
from station.records.dataset import write_durably
from station.strict import Strict, parse, read


class Author(NamedTuple):
    """Who changes a recipe, and why."""

    who: str
    why: str


class Basis(Strict):
    """What a threshold was chosen on."""

    model: str
    model_sha256: str
    policy: str
    data: str  # the folder, or the model's card
    split: str
    digest: str = Field(description="sha256 over the files' sorted sha256")
    files: int
    unit: str
    good: int
    defective: int


class Change(Strict):
    """One key before and after; None where it was missing."""

    key: str
    before: float | None
    after: float


class Revision(Strict):
    """One change of a recipe, as it is kept."""

    recipe: str
    number: int = Field(ge=1)
    who: str = Field(min_length=1, max_length=200)
    when: datetime
    why: str = Field(min_length=1, max_length=2000)
    change: Change
    basis: Basis
    before_sha256: str
    after_sha256: str
    before: str = Field(description="the recipe's whole text before the change")


def set_threshold(
    workspace: Path, name: str, threshold: float, author: Author, basis: Basis
) -> Revision | None:
    """Write a threshold into recipes/<name>.yaml and keep what stood there; None: it stands there.

    The revision is written before the recipe: a power cut in between loses nothing.
    """
    check(author)
    loaded = load_recipe(workspace, name)
    if loaded.recipe.threshold == threshold:
        return None
    path = workspace / "recipes" / f"{name}.yaml"
    before = read(path)
    after = _with_threshold(before, threshold)
    # Never write what could not be read back, or would say more than was asked for.
    if parse(after, path, Recipe) != loaded.recipe.model_copy(update={"threshold": threshold}):
        raise ConfigError(
            f"{path}: its form does not let the threshold be changed; edit it by hand"
        )
    revision = Revision(
        recipe=name,
        number=_next_number(workspace, name),
        who=author.who.strip(),
        when=datetime.now(UTC),
        why=author.why.strip(),
        change=Change(key="threshold", before=loaded.recipe.threshold, after=threshold),
        basis=basis,
        before_sha256=_sha256(before),
        after_sha256=_sha256(after),
        before=before,
    )
    kept = revision_path(workspace, name, revision.number)
    _write_new(kept, _dump(revision))
    try:
        if read(path) != before:
            raise ConfigError(f"{path}: was changed meanwhile; nothing is written")
        write_durably(path, after.encode())
    except (ConfigError, DatasetError):
        kept.unlink()
        raise
    return revision


def check(author: Author) -> None:
    """Refuse a change that nobody answers for."""
    for option, text in (("--who", author.who), ("--why", author.why)):
        if not text.strip() or not text.isprintable():
            raise ConfigError(f"{option}: one line of text is needed to change a recipe")


def revision_path(workspace: Path, name: str, number: int) -> Path:
    """Return where a revision is kept."""
    return workspace / "recipes" / ".revisions" / name / f"{number}.yaml"


def revisions(workspace: Path, name: str) -> list[Revision]:
    """Read all revisions of a recipe, the oldest first."""
    return [
        Revision.load(revision_path(workspace, name, number))
        for number in _numbers(workspace, name)
    ]


def _with_threshold(text: str, threshold: float) -> str:
    """Change one key; comments and the order of keys stay."""
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096  # lines stay as long as they are
    editor.indent(mapping=2, sequence=4, offset=2)
    document = editor.load(text)
    document["threshold"] = threshold
    stream = io.StringIO()
    editor.dump(document, stream)
    return stream.getvalue()


def _dump(revision: Revision) -> bytes:
    values: dict[str, Any] = revision.model_dump(mode="json")
    values["before"] = LiteralScalarString(revision.before)
    editor = YAML()
    editor.width = 4096
    stream = io.StringIO()
    editor.dump(values, stream)
    return stream.getvalue().encode()


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet: whole, or not at all."""
    draft = path.with_name(f".{path.name}.{_sha256(content.decode())[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(draft, content)
        try:
            path.hardlink_to(draft)  # unlike a rename, this never replaces
        finally:
            draft.unlink()
    except FileExistsError as error:
        raise ConfigError(f"{path}: another change was written just now; read it first") from error
    except OSError as error:
        raise DatasetError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _next_number(workspace: Path, name: str) -> int:
    return max(_numbers(workspace, name), default=0) + 1


def _numbers(workspace: Path, name: str) -> list[int]:
    folder = revision_path(workspace, name, 1).parent
    return sorted(int(path.stem) for path in folder.glob("*.yaml") if path.stem.isdecimal())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
