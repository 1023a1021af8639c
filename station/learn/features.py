"""Features of all training images, computed once: the backbone is frozen, only the head learns."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from station.errors import DatasetError
from station.learn.backbones import Backbone
from station.learn.local import AuthorsPool, AveragePool
from station.learn.simplenet import patch_features
from station.preset import Preset


class Extractor(nn.Module):
    """Prepared frames (N, 3, H, W) to patches (N, P, D): backbone and neighbourhoods."""

    def __init__(self, backbone: nn.Module, pools: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.pools = nn.ModuleList(pools)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return every patch's features, row by row."""
        return patch_features(self.backbone(images), list(self.pools)).flatten(1, 2)


def pools_for(backbone: Backbone, preset: Preset) -> list[nn.Module]:
    """Return what turns each level into local features."""
    if preset.pooling == "average":
        return [AveragePool(channels) for channels in backbone.channels]
    # The authors take 1536 features in all, as many from each level.
    features = 1536 // len(backbone.channels)
    return [AuthorsPool(channels, features) for channels in backbone.channels]


class BankOptions(NamedTuple):
    """At most `limit` patches are kept, equally many of each image, drawn by the seed."""

    limit: int
    seed: int


def fill_bank(
    files: Sequence[Path],
    patches_of: Callable[[Path], Tensor],
    options: BankOptions,
    path: Path,
    told: Callable[[int, int], None],
) -> None:
    """Write the patches of all files to `path`, an array (N, P, D) of half precision.

    `told` gets the number of images done and the size of the whole in bytes; first with 0 images,
    before anything is written.
    """
    generator = torch.Generator().manual_seed(options.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    bank: NDArray[np.float16] | None = None
    try:
        for i, file in enumerate(files):
            patches = patches_of(file)  # (P, D)
            kept = min(len(patches), max(1, options.limit // len(files)))
            if bank is None:
                shape = len(files), kept, patches.shape[1]
                told(0, 2 * math.prod(shape))
                bank = _reserve(unfinished, shape)
            chosen = torch.randperm(len(patches), generator=generator)[:kept]
            bank[i] = patches[chosen].half().numpy()
            told(i + 1, bank.nbytes)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def open_bank(path: Path) -> Tensor:
    """Map a filled bank; only what is touched is read."""
    # Copy on write: torch wants to be able to write, the file must not change.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _reserve(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Make the file and take its space: a full disk must not show as a bus error later."""
    size = 2 * math.prod(shape)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise DatasetError(
            f"{path.parent}: the features need {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        )
    bank = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return bank
