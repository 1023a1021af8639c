"""A training under way on disk: what a stopped one leaves, and another goes on from."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout

from station.errors import ConfigError, DatasetError, ModelError
from station.records.dataset import write_durably


class Checkpoint:
    """A folder under run/training/, named after everything that decides what is learned.

    Within `with` it belongs to this training alone; what cannot be resumed does not stay. With
    `resume` None it is gone on with where there is something, else begun.
    """

    def __init__(
        self, workspace: Path, name: str, decides: Sequence[object], resume: bool | None
    ) -> None:
        key = hashlib.sha256(json.dumps(list(decides), sort_keys=True).encode()).hexdigest()[:12]
        self.folder = workspace / "run" / "training" / f"{name}-{key}"
        self.bank = self.folder / "features.npy"
        self._saved = self.folder / "state.pt"
        self._resume = resume
        self._lock = FileLock(self.folder.with_suffix(".lock"))

    def __enter__(self) -> Self:
        if self._resume and not self._saved.exists():
            raise ConfigError(
                f"{self.folder}: no training to resume with these images, preset, name and seed"
            )
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                f"{self.folder}: the same training is running; wait for it, or take another --model"
            ) from error
        except OSError as error:
            raise DatasetError(
                f"{self.folder.parent}: cannot be written: {error.strerror}"
            ) from error
        if self._resume is False:
            self.remove()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._saved.exists():
            self.remove()
        # Nobody waits for it: who comes now makes a new one.
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def save(self, state: dict[str, Any]) -> None:
        """Write the state in place of the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # written by torch itself, a full disk would end in a traceback
        torch.save(state, content)
        write_durably(self._saved, content.getvalue())

    def load(self, resume: Callable[[dict[str, Any]], object]) -> None:
        """Hand the saved state, if there is one, to what goes on from it."""
        if not self._saved.exists():
            return
        try:
            resume(torch.load(self._saved, map_location="cpu", weights_only=True))
        except (
            OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError
        ) as error:  # fmt: skip
            raise ModelError(f"{self._saved}: cannot be read; train without --resume") from error

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
