"""Features of all training images, computed once: the backbone is frozen, only the head learns."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.detectors import FeaturePreset
from station.errors import DatasetError
from station.learn.export import torchscript_is_meant
from station.learn.features.backbones import Backbone, load_backbone
from station.learn.features.local import AuthorsPool, AveragePool
from station.learn.features.quantise import Int8Network, QuantisedBackbone, quantised_backbone
from station.learn.method import Progress, Task
from station.learn.simplenet.network import patch_features
from station.learn.synthetic import strew
from station.preset import Preset
from station.records.sheet import Image

Bank = np.memmap[Any, np.dtype[np.float16]]

CALIBRATION_IMAGES = 60  # about as many give int8 its ranges
STREWN_IMAGES = 90  # at least; few training images are strewn with defects several times
STREWN_PATCHES = 400  # of each, drawn from those that lie in a defect
COVERED = 0.6  # of a patch's own pixels, at least


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


def pools_for(backbone: Backbone, preset: Preset | FeaturePreset) -> list[nn.Module]:
    """Return what turns each level into local features."""
    if preset.pooling == "average":
        return [AveragePool(channels) for channels in backbone.channels]
    # The authors take 1536 features in all, as many from each level.
    features = 1536 // len(backbone.channels)
    return [AuthorsPool(channels, features) for channels in backbone.channels]


class Features:
    """The frozen half of a detector: backbone and neighbourhoods, for learning and for use."""

    def __init__(self, task: Task, preset: Preset | FeaturePreset) -> None:
        self._task, self._preset = task, preset
        plain = load_backbone(preset.backbone, preset.levels)
        self.backbone: Backbone | QuantisedBackbone = plain
        if task.precision == "int8":
            files = task.training.files
            some = files[:: max(1, len(files) // CALIBRATION_IMAGES)]
            frames = [task.prepare(task.read(file)) for file in some]
            # Tiles of one frame come as a batch; the network takes them one by one.
            self.backbone = quantised_backbone(plain, list(torch.split(torch.cat(frames), 1)))
        self.pools = pools_for(plain, preset)
        extractor = Extractor(self.backbone, self.pools)
        self._extractor: nn.Module = extractor
        if isinstance(self.backbone, Backbone):
            form = task.form
            example = torch.zeros(form.tiles**2, 3, form.height, form.width)
            self._extractor = fused(extractor, example)

    def patches_of(self, image: Image) -> Tensor:
        """Return every patch of an image, (tiles * tiles * P, D)."""
        with torch.inference_mode():
            found: Tensor = self._extractor(self._task.prepare(image)).flatten(0, 1)
        return found

    def bank(self, *, whole: bool = False) -> Tensor:
        """Return the patches (N, P, D) of all training images, computed once.

        Drawn by the seed to the preset's limit; `whole` keeps every one in its place.
        """
        task = self._task
        files, path = task.training.files, task.checkpoint.bank

        def told(done: int, size: int) -> None:
            task.progress(Progress("features", done, len(files), f"{size / 1e6:.0f} MB"))
            task.check_stop("stopped while reading the images; nothing was learned yet")

        if not path.exists():
            wanted = BankOptions(None if whole else self._preset.patches, task.seed)
            fill_bank(files, lambda file: self.patches_of(task.read(file)), wanted, path, told)
        return open_bank(path)

    def strewn_bank(self) -> Tensor:
        """Return patches (N, P, D) in synthetic defects; image by image, again and again.

        Row n belongs to training image n modulo their number.
        """
        task = self._task
        files = task.training.files
        files = files * math.ceil(STREWN_IMAGES / len(files))
        path = task.checkpoint.bank.with_name("strewn.npy")
        rng = np.random.default_rng(task.seed)

        def told(done: int, size: int) -> None:
            task.progress(Progress("synthetic defects", done, len(files), f"{size / 1e6:.0f} MB"))
            task.check_stop("stopped while reading the images; nothing was learned yet")

        if not path.exists():
            wanted = BankOptions(None, task.seed)
            fill_bank(files, lambda file: self._strewn(task.read(file), rng), wanted, path, told)
        return open_bank(path)

    def _strewn(self, image: Image, rng: np.random.Generator) -> Tensor:
        """Spoil an image and return STREWN_PATCHES of its patches that lie in a defect."""
        cover = torch.zeros(1)
        while not cover.any():  # all defects may lie where the preset cuts the picture's border off
            spoilt = strew(image, rng)
            with torch.inference_mode():
                mask = self._task.prepare(spoilt.mask)[:, :1] / 255  # (tiles * tiles, 1, H, W)
                cover = F.avg_pool2d(mask, self._preset.stride).flatten()
        inside = torch.nonzero(cover >= min(COVERED, float(cover.max())))[:, 0]
        drawn = rng.integers(len(inside), size=STREWN_PATCHES)
        return self.patches_of(spoilt.image)[inside[torch.from_numpy(drawn)]]

    def rows_without(self, units: Collection[str], bank: Tensor) -> list[int]:
        """Return the rows of a bank that show none of these units."""
        owners = [unit for unit, files in self._task.training.units.items() for _ in files]
        return [row for row in range(len(bank)) if owners[row % len(owners)] not in units]

    def network(self, head: nn.Module) -> nn.Module:
        """Join the backbone and a head that takes its levels to the raw anomaly map."""
        if isinstance(self.backbone, QuantisedBackbone):
            return Int8Network(self.backbone, head)
        return nn.Sequential(self.backbone, head)


def fused(network: nn.Module, example: Tensor) -> nn.Module:
    """Return it with every convolution, batch norm and activation in one, for inputs like this."""
    with torch.no_grad(), torchscript_is_meant():
        traced = torch.jit.trace(network.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        graph: nn.Module = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return graph


class BankOptions(NamedTuple):
    """At most `limit` patches are kept, equally many of each image, drawn by the seed.

    Without a limit all are kept, in the order of their places.
    """

    limit: int | None
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
    bank: Bank | None = None
    try:
        for i, file in enumerate(files):
            patches = patches_of(file)  # (P, D)
            if options.limit is None:
                chosen = torch.arange(len(patches))
            else:
                kept = min(len(patches), max(1, options.limit // len(files)))
                chosen = torch.randperm(len(patches), generator=generator)[:kept]
            if bank is None:
                shape = len(files), len(chosen), patches.shape[1]
                told(0, 2 * math.prod(shape))
                bank = reserve(unfinished, shape)
            bank[i] = patches[chosen].half().numpy()
            told(i + 1, bank.nbytes)
        if bank is not None:
            bank.flush()  # to the disk: a later state tells that it is whole
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        with suppress(OSError):  # it stays where something lies in it
            path.parent.rmdir()


def open_bank(path: Path) -> Tensor:
    """Map a filled bank; only what is touched is read."""
    try:
        # Copy on write: torch wants to be able to write, the file must not change.
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read; train without --resume") from error


def reserve(path: Path, shape: tuple[int, ...]) -> Bank:
    """Make the file and take its space: a full disk must not show as a bus error later."""
    size = 2 * math.prod(shape)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise DatasetError(
            f"{path.parent}: the features need {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        )
    try:
        bank = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DatasetError(
            f"{path.parent}: no place for {size / 1e9:.2f} GB of features: {error.strerror}"
        ) from error
    return bank
