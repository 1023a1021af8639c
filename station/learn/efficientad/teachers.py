"""Teachers for EfficientAD in the store of weights: distilled here or brought, known by sha256."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.efficientad.pdn import CHANNELS, SIZES, Size, pdn
from station.learn.export import card_text
from station.learn.features.weights import store
from station.records.dataset import sync_folder, write_durably
from station.strict import Strict

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,39}$"


class Teacher(Strict):
    """What is known of a teacher; it lies beside the file of its weights."""

    name: str = Field(pattern=NAME_PATTERN)
    size: Size
    sha256: str
    origin: Literal["distilled", "added"]
    backbone: str | None = Field(description="what it was distilled from; null if not known")
    steps: int | None = Field(description="of the distillation; null if not known")
    images: int | None = Field(description="pictures it was distilled on; null if not known")
    images_digest: str | None = Field(description="sha256 over the sorted sha256 of these")
    created: datetime


def keep_teacher(network: nn.Sequential, teacher: Teacher) -> Teacher:
    """Write a teacher into the store; return what is known of it, with its hash."""
    buffer = io.BytesIO()
    torch.save({name: value.contiguous() for name, value in network.state_dict().items()}, buffer)
    return _keep(buffer.getvalue(), teacher)


def add_teacher(file: Path, name: str, sha256: str | None) -> Teacher:
    """Copy a published teacher into the store; its layers tell its size.

    With `sha256`, as much of it as is published, another file is refused.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and not digest.startswith(sha256.lower()):
        raise ModelError(f"{file}: sha256 is {digest[:12]}…, not {sha256[:12]}…: another file")
    size, _ = _network(content, file)
    return _keep(
        content,
        Teacher(
            name=name, size=size, sha256=digest, origin="added", backbone=None, steps=None,
            images=None, images_digest=None, created=datetime.now(UTC),
        ),
    )  # fmt: skip


def load_teacher(name: str, size: Size) -> tuple[nn.Sequential, Teacher]:
    """Build a teacher without padding from the very bytes whose hash was compared."""
    known = {teacher.name: teacher for teacher in teachers()}
    if name not in known:
        there = ", ".join(known) or "none"
        raise ModelError(
            f"no teacher {name!r} in {store()}; there are: {there}; `station distill --images DIR "
            f"--size {size}` makes one, `station weights add FILE --teacher NAME` brings one"
        )
    teacher = known[name]
    if teacher.size != size:
        raise ModelError(f"teacher {name} is of size {teacher.size}, {size} is needed")
    path = _weights(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != teacher.sha256:
        raise ModelError(
            f"{path}: sha256 is {digest[:12]}…, its record says {teacher.sha256[:12]}…: damaged"
        )
    return _network(content, path)[1], teacher


def teachers() -> Iterator[Teacher]:
    """Tell of every teacher in the store."""
    for path in sorted(store().glob("teacher-*.yaml")):
        try:
            yield Teacher.load(path)
        except ConfigError as error:
            raise ModelError(str(error)) from error


def _keep(content: bytes, teacher: Teacher) -> Teacher:
    teacher = teacher.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    target = _weights(teacher.name)
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != teacher.sha256:
        raise ModelError(f"{target}: another teacher has this name; choose one with another")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The record last: what has none is not in the store.
        write_durably(target, content)
        write_durably(target.with_suffix(".yaml"), card_text(teacher).encode())
        sync_folder(target.parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelError(f"{target.parent}: the store cannot be written: {reason}") from error
    return teacher


def _weights(name: str) -> Path:
    return store() / f"teacher-{name}.pth"


def _network(content: bytes, origin: Path) -> tuple[Size, nn.Sequential]:
    """Find out whose layers a file has."""
    try:
        values: dict[str, Tensor] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        finite = all(bool(torch.isfinite(value).all()) for value in values.values())
    except (RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise ModelError(f"{origin}: no file of weights") from error
    if not finite:
        raise ModelError(f"{origin}: some weights are not finite numbers")
    for size in SIZES:
        network = pdn(size)
        if shapes == {name: tuple(value.shape) for name, value in network.state_dict().items()}:
            network.load_state_dict(values)
            return size, network.eval().requires_grad_(False)
    raise ModelError(
        f"{origin}: not the layers of a published teacher, small or medium, with {CHANNELS} outputs"
    )
