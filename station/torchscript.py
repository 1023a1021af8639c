"""The model's child process: loads the frozen graph and scores what lies in shared memory."""

from __future__ import annotations

import hashlib
import io
import resource
import warnings
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from station.errors import ModelError

# On two free cores 25 ms in place of 43; where other work keeps them busy, slower than one.
THREADS = 2
# RLIMIT_AS counts what torch only reserves; the data segment is what it really writes to.
DATA_LIMIT_BYTES = 4 << 30


class Scorer:
    """Answers score(); built and called by `station.worker`."""

    def __init__(self, weights: str, sha256: str) -> None:
        _limit_memory()
        torch.set_num_threads(THREADS)
        self._graph = load_graph(Path(weights), sha256)
        self._block: SharedMemory | None = None

    def score(self, block: str, shape: tuple[int, ...]) -> tuple[float, NDArray[np.float32]]:
        """Score the image of this shape at the start of the named shared memory."""
        if self._block is None or self._block.name != block:
            if self._block is not None:
                self._block.close()
            self._block = SharedMemory(block)
        image: NDArray[np.uint8] = np.ndarray(shape, np.uint8, self._block.buf).copy()
        pixels = torch.from_numpy(image)
        frames = pixels[None, None] if image.ndim == 2 else pixels.permute(2, 0, 1)[None]
        try:
            with torch.inference_mode():
                scores, maps = self._graph(frames)
        except (RuntimeError, torch.jit.Error) as error:
            raise ModelError(f"the model failed: {str(error).strip().splitlines()[-1]}") from error
        return float(scores[0]), maps[0].numpy()


def load_graph(path: Path, sha256: str) -> torch.jit.ScriptModule:
    """Read the file once; load from the very bytes whose hash was compared."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"{path}: sha256 is {found[:12]}…, its card says {sha256[:12]}…")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            graph: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(content), map_location="cpu"
            )
    except RuntimeError as error:
        raise ModelError(f"{path}: no TorchScript file") from error
    return graph.eval()


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = DATA_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(hard, DATA_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
