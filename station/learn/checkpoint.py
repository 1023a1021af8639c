"""A training under way on disk: what a stopped one leaves, and another goes on from."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from station.errors import ConfigError, ModelError
from station.learn.curve import Curve
from station.learn.simplenet import Fit
from station.model import CurvePoint


class Checkpoint:
    """A folder under run/training/, named after everything that decides what is learned."""

    def __init__(self, workspace: Path, name: str, decides: Sequence[object], resume: bool) -> None:
        key = hashlib.sha256(json.dumps(list(decides), sort_keys=True).encode()).hexdigest()[:12]
        self.folder = workspace / "run" / "training" / f"{name}-{key}"
        self.bank = self.folder / "features.npy"
        self._saved = self.folder / "state.pt"
        if resume and not self._saved.exists():
            raise ConfigError(
                f"{self.folder}: no training to resume with these images, preset, name and seed"
            )
        if not resume:
            self.remove()

    def save(self, fit: Fit, curve: Curve) -> None:
        """Write the state after a meta-epoch in place of the one before."""
        unfinished = self._saved.with_suffix(".part")
        points = [point.model_dump() for point in curve.points]
        torch.save({"fit": fit.state(), "curve": points}, unfinished)
        unfinished.replace(self._saved)

    def load(self, fit: Fit, curve: Curve) -> None:
        """Bring both to where they were saved, if they were."""
        if not self._saved.exists():
            return
        try:
            saved = torch.load(self._saved, weights_only=True)
            fit.resume(saved["fit"])
            curve.points.extend(CurvePoint.model_validate(point) for point in saved["curve"])
        except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise ModelError(f"{self._saved}: cannot be read; train without --resume") from error

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
