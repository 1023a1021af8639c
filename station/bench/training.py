"""`station bench train`: what computing features once is worth, and how long a training takes."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from station.learn.features.backbones import cut, load_network, random_network
from station.learn.features.bank import BankOptions, Extractor, fill_bank, open_bank, pools_for
from station.learn.features.weights import find, known
from station.learn.images import from_mvtec
from station.learn.simplenet.network import Fit
from station.learn.simplenet.reference import Reference, ReferenceHead
from station.learn.train import THREADS, TrainOptions, train
from station.preset import DEFAULT, PAPER, Preset, changed

EPOCHS = 2
SIDE = 288


class _Recomputed:
    """Stands for a bank whose features are computed anew for every batch."""

    def __init__(self, images: Tensor, patches_of: Any, shape: tuple[int, ...]) -> None:
        self._images, self._patches_of = images, patches_of
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        with torch.inference_mode():
            patches = torch.stack([self._patches_of(self._images[int(i)]) for i in rows])
        return patches.clone()


def bench_train(images: int, embedded_images: int) -> dict[str, Any]:
    """Measure an epoch of the published configuration with features cached and not, and a training.

    Random pictures; the weights are random where the store has none: times do not depend on them.
    """
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory(prefix="station-bench-") as name:
        wide = _epochs(Path(name), images)
        embedded = _whole(Path(name), embedded_images)
    return {**wide, **embedded, "threads": THREADS, "peak_mb": round(_peak_mb())}


def _epochs(folder: Path, count: int) -> dict[str, Any]:
    preset = changed(PAPER, meta_epochs=EPOCHS, batches={"kind": "images", "size": 8, "epochs": 1})
    name = preset.backbone
    there = find(known(name)) is not None
    network = load_network(name) if there else random_network(name)
    backbone = cut(name, network, preset.levels)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator).float()
    extractor = Extractor(backbone, pools_for(backbone, preset))
    reference = Reference(network, ReferenceHead(), wasteful=True)

    def ours(frame: Tensor) -> Tensor:
        found: Tensor = extractor(frame[None])[0]
        return found

    def authors(frame: Tensor) -> Tensor:
        levels = reference.levels((frame[None] - backbone.mean) / backbone.deviation)
        return reference.head.embed(levels)

    paths = [folder / str(i) for i in range(count)]
    started = time.perf_counter()
    with torch.inference_mode():
        wanted = BankOptions(preset.patches, 0)
        place = folder / "features.npy"
        fill_bank(paths, lambda p: ours(frames[int(p.name)]), wanted, place, lambda *_: None)
    caching_s = time.perf_counter() - started
    bank = open_bank(place)
    shape = tuple(bank.shape)
    cached, loss = _run(bank, preset)
    again, loss_again = _run(_Recomputed(frames, ours, shape), preset)
    theirs, _ = _run(_Recomputed(frames, authors, shape), preset)
    return {
        "images": count,
        "epochs": EPOCHS,
        "caching_s": round(caching_s, 2),
        "cached_epoch_s": round(cached / EPOCHS, 2),
        "recomputed_epoch_s": round(again / EPOCHS, 2),
        "authors_epoch_s": round(theirs / EPOCHS, 2),
        "recomputed_ratio": round(again / cached, 2),
        "authors_ratio": round(theirs / cached, 2),
        "loss_difference": abs(loss - loss_again),
        "bank_mb": round(bank.nbytes / 1e6),
        "weights": "pretrained" if there else "generated",
    }


def _run(bank: Any, preset: Preset) -> tuple[float, float]:
    """Return seconds and the mean loss of the last epoch."""
    fit = Fit(bank, preset, 0)
    losses: list[float] = []
    started = time.perf_counter()
    while fit.done < preset.meta_epochs:
        losses = [step.loss for step in fit.meta_epoch()]
    return time.perf_counter() - started, float(np.mean(losses))


def _whole(folder: Path, count: int) -> dict[str, Any]:
    """Time a training with the embedded backbone, from files to the written model."""
    good = folder / "data" / "train" / "good"
    good.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    for i in range(count):
        weave = 30 * np.sin((x + rng.uniform(0, 8)) * 0.8) * np.sin((y + rng.uniform(0, 8)) * 0.8)
        noisy = np.clip(120 + weave + rng.normal(0, 4, weave.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(good / f"{i:03}.png"), noisy)
    started = time.perf_counter()
    train(from_mvtec(folder / "data"), TrainOptions("bench", DEFAULT), folder, lambda _: None)
    return {"embedded_images": count, "embedded_s": round(time.perf_counter() - started, 1)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
