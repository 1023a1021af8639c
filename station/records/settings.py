"""The texts of recipe and cell file that sheets were made by, under the hash their manifests name.

data/<recipe>/settings/<sha256>.yaml   written before a run's first move; never changed or thinned
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from station.errors import DatasetError
from station.records.dataset import sync_folder, write_durably


def keep(root: Path, text: str) -> None:
    """Keep a text below data/<recipe>, durably; one that is there and whole stays."""
    content = text.encode()
    path = place(root, hashlib.sha256(content).hexdigest())
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
        sync_folder(path.parent)
        sync_folder(root)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error


def place(root: Path, sha256: str) -> Path:
    """Return where a text is kept."""
    return root / "settings" / f"{sha256}.yaml"


def problems(root: Path) -> Iterator[tuple[str, str]]:
    """Yield every kept file that is not what its name says, and what is wrong with it."""
    for path in sorted((root / "settings").glob("*")):
        name = f"settings/{path.name}"
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            yield name, (error.strerror or str(error)).lower()
            continue
        if path.name != f"{found}.yaml":
            yield name, f"sha256 is {found}, its name says otherwise"
