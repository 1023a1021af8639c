"""A detector that anomalib trained, as a graph that keeps the contract; nothing is downloaded.

anomalib is an extra, `station[anomalib]`. Its checkpoints hold weights and settings, not the
network, so the library itself builds it. What it answers to real frames is the parity certificate.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.export import from_bytes, to_bytes, torchscript_is_meant
from station.learn.held_out import to_frames
from station.learn.imported import Source
from station.records.sheet import Image

TOLERANCE = 1e-4  # of the map's largest value, between anomalib's network and the traced one


class Contract(nn.Module):
    """anomalib's pre-processing and network; uint8 frames (N, C, H, W) in, score and map out.

    Frames are resized as in training (the library's own exports resize without antialiasing). The
    score is the map's maximum, whatever the library itself would make of it; its post-processing,
    which only rescales, is left out.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        before = detector.pre_processor
        self.transform = (before and before.transform) or nn.Identity()
        self.model = detector.model
        self.eval()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return score (N) and map (N, h, w)."""
        answer = self.model(self.transform(frames.expand(-1, 3, -1, -1).float() / 255))
        drawn = answer.anomaly_map
        anomaly_map = drawn.reshape(drawn.shape[0], drawn.shape[-2], drawn.shape[-1]).float()
        return anomaly_map.flatten(1).amax(1), anomaly_map


def read_checkpoint(file: Path, kind: str, image: Image) -> Source:
    """Build anomalib's `kind` from its checkpoint and trace it on a frame like `image`.

    Raises ModelError where the library cannot, and where the traced graph answers otherwise.
    """
    try:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    network = Contract(_build(file, kind))
    # Of one picture, or of one whose colours lie interleaved, the trace would fit no others.
    frames = torch.cat([to_frames(image)] * 2).contiguous()
    try:
        with torch.no_grad(), torchscript_is_meant(), warnings.catch_warnings():
            # Sizes are constants of the trace: the contract is tried with other batches afterwards.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            traced = torch.jit.trace(network, frames, check_trace=False)  # type: ignore[no-untyped-call]
            graph = from_bytes(to_bytes(traced))
            wanted, found = network(frames.flip(-1))[1], graph(frames.flip(-1))[1]
    except Exception as error:  # whatever a library of forty detectors may raise
        raise ModelError(f"{file}: anomalib's {kind} cannot be traced: {_said(error)}") from error
    difference = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(f"{file}: traced, its map differs by {difference:.2g} of its maximum")
    library = f"anomalib {importlib.metadata.version('anomalib')} {kind}"
    return Source(file, graph, sha256, library)


def _build(file: Path, kind: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between the libraries that it imports
            models = importlib.import_module("anomalib.models")
    except ImportError as error:
        raise ConfigError(
            "--anomalib: anomalib is not installed; pip install 'station[anomalib]'"
        ) from error
    detector: Any = getattr(models, kind, None)
    known = inspect.isclass(detector) and issubclass(detector, models.AnomalibModule)
    if not known:
        raise ConfigError(
            f"--anomalib {kind}: no detector of anomalib; they are named like Patchcore or Dinomaly"
        )
    # The checkpoint brings the weights that pretrained ones would be replaced by.
    takes = inspect.signature(detector.__init__).parameters
    changes = {"pre_trained": False} if "pre_trained" in takes else {}
    try:
        # Weights alone: a checkpoint that wants to run code is refused.
        return detector.load_from_checkpoint(file, map_location="cpu", weights_only=True, **changes)
    except Exception as error:  # whatever a library of forty detectors may raise
        raise ModelError(f"{file}: no checkpoint of anomalib's {kind}: {_said(error)}") from error


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
