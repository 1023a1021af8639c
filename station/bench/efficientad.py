"""`station bench efficientad`: what the station's graph and its training step are worth.

EfficientAD-S at 256 pixels with random weights, which times do not depend on, against the same
computed step by step in fp32: anomalib's graph in use, the published step in training. All variants
take turns in every round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import copy
import hashlib
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.bench.simplenet import TORCH_BF16, TORCH_FP32, torch_threads, woven_frames
from station.learn.efficientad.graph import published_graph
from station.learn.efficientad.pdn import STRIDE, Size, pdn
from station.learn.efficientad.reference import Reference
from station.learn.efficientad.training import (
    HARD,
    Fit,
    Plan,
    Trio,
    change_colours,
    drawing,
    measure_maps,
    published,
)
from station.learn.export import Detector, InputForm, freeze, to_bytes
from station.torchscript import THREADS, has_bf16
from station.torchscript import Detector as Loaded

IMAGES = 4  # that training takes in turn
COMPARED = 50  # steps whose losses are compared


@dataclass(frozen=True)
class Setting:
    """Which network, and the side of its pictures."""

    size: Size = "s"
    side: int = 256
    compared: int = COMPARED


def bench_efficientad(rounds: int, setting: Setting = Setting()) -> dict[str, Any]:
    """Measure use and training; ratios are of medians, above one where ours is faster.

    Without bf16 instructions its figures are None: emulated, a step takes a minute.
    """
    load = os.getloadavg()[0]
    bf16 = has_bf16()
    with torch_threads(THREADS):
        used = _use(rounds, setting, bf16=bf16)
        trained = _training(rounds, setting, bf16=bf16)
    return {
        **used,
        **trained,
        "bf16_instructions": bf16,
        "weights": "generated",
        "threads": THREADS,
        "rounds": rounds,
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _trio(setting: Setting) -> Trio:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = pdn(setting.size)
        # As a teacher that was learned: every channel of about the same strength.
        with torch.no_grad():
            for value in teacher[-1].parameters():
                value.mul_(10)
        trio = published(teacher, setting.size, (setting.side, setting.side))
    raw = torch.cat([trio.raw(frame.float()) for frame in woven_frames(setting.side)[:2]])
    trio.mean.copy_(raw.mean((0, 2, 3))[:, None, None])
    trio.deviation.copy_(raw.std((0, 2, 3))[:, None, None])
    return trio.eval()


def _use(rounds: int, setting: Setting, *, bf16: bool) -> dict[str, Any]:
    trio, side = _trio(setting), setting.side
    pictures = woven_frames(side)
    scale = measure_maps(trio, [frame.float() for frame in pictures[::2]])
    reference = Reference(trio, scale)
    form = InputForm(side, side, 1, 1.0, STRIDE)
    with TemporaryDirectory(prefix="station-bench-") as folder:
        path = Path(folder) / "efficientad.pt"
        content = to_bytes(freeze(Detector(published_graph(trio, scale), form, 0.0)))
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()

        def plain(frame: Tensor) -> Tensor:
            found: Tensor = reference(frame.float())
            return found

        # Ours brought to image size as well, so that one definition of the score serves both.
        def enlarged(detector: Callable[[Tensor], tuple[Tensor, Tensor]], frame: Tensor) -> Tensor:
            raw = detector(frame)[1][:, None]
            return F.interpolate(raw, (side, side), mode="bilinear", align_corners=False)

        runtimes = {"fp32": TORCH_FP32, **({"bf16": TORCH_BF16} if bf16 else {})}
        variants: dict[str, Callable[[Tensor], Tensor]] = {"plain": plain}
        for name, runtime in runtimes.items():
            variants[name] = partial(enlarged, Loaded(path, digest, runtime, None))
        with torch.inference_mode():
            times = _in_turn(
                {name: _once(run, pictures[0]) for name, run in variants.items()}, rounds
            )
            scores = {
                name: [float(run(frame).max()) for frame in pictures]
                for name, run in variants.items()
            }
    low, high = max(pairwise(sorted(scores["plain"])), key=lambda pair: pair[1] - pair[0])
    threshold = (low + high) / 2
    flips = None
    if bf16:
        pairs = zip(scores["plain"], scores["bf16"], strict=True)
        flips = sum((a < threshold) != (b < threshold) for a, b in pairs)
    return {
        "fp32_ratio": _ratio(times, "fp32"),
        "bf16_ratio": _ratio(times, "bf16"),
        "max_score_difference": max(
            abs(a - b) for a, b in zip(scores["plain"], scores["fp32"], strict=True)
        ),
        "bf16_verdict_flips": flips,
        **{f"{name}_ms": round(1e3 * value, 1) for name, value in times.items()},
    }


def _ratio(times: dict[str, float], name: str) -> float | None:
    return round(times["plain"] / times[name], 2) if name in times else None


def _training(rounds: int, setting: Setting, *, bf16: bool) -> dict[str, Any]:
    pictures = torch.cat([frame.float() for frame in woven_frames(setting.side)[:IMAGES]])
    first = _trio(setting)
    with torch.inference_mode():
        targets = torch.cat([first.raw(image).half() for image in torch.split(pictures, 1)])
    targets = targets.clone()
    fits: dict[str, Any] = {"plain": _PlainFit(first, pictures)}
    for name in ("fp32", "bf16") if bf16 else ("fp32",):
        plan = Plan(steps=10**6, bf16=name == "bf16")
        fits[name] = Fit(copy.deepcopy(first), pictures, targets, plan, 0)
    times: dict[str, list[float]] = {name: [] for name in fits}
    lost: dict[str, list[float]] = {name: [] for name in fits}
    for number in range(max(rounds, setting.compared)):
        for name, fit in fits.items():
            started = time.perf_counter()
            lost[name].append(sum(fit.step()))
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in times.items()}
    mean = {name: statistics.fmean(values[: setting.compared]) for name, values in lost.items()}
    return {
        "train_fp32_ratio": _ratio(middle, "fp32"),
        "train_bf16_ratio": _ratio(middle, "bf16"),
        "train_fp32_loss_difference": abs(mean["fp32"] / mean["plain"] - 1),
        "train_bf16_loss_difference": abs(mean["bf16"] / mean["plain"] - 1) if bf16 else None,
        "compared_steps": setting.compared,
        **{f"train_{name}_ms": round(1e3 * value, 1) for name, value in middle.items()},
    }


class _PlainFit:
    """The published step, one network call at a time, in fp32 and torch's own memory order."""

    def __init__(self, trio: Trio, images: Tensor) -> None:
        self.trio = copy.deepcopy(trio)
        self.student = nn.Sequential(*self.trio.student.trunk, self.trio.student.last)
        self.done = 0
        self._images = images
        learned = [*self.student.parameters(), *self.trio.autoencoder.parameters()]
        self._optimiser = torch.optim.Adam(learned, lr=1e-4, weight_decay=1e-5)

    def step(self) -> tuple[float, ...]:
        trio, generator = self.trio, drawing(0, 0, self.done)
        count = len(self._images)
        row = torch.randperm(count, generator=drawing(0, 1, self.done // count))[self.done % count]
        image = self._images[row][None]
        changed = change_colours(image, generator)
        channels = len(trio.mean)
        trio.autoencoder.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            pixels, other = trio.pixels(image), trio.pixels(changed)
            distance = (trio.described(image) - self.student(pixels)[:, :channels]) ** 2
            limit = torch.quantile(distance.detach(), HARD)
            hard = distance[distance >= limit].mean()
            whole = trio.autoencoder(other)
            of_whole = ((trio.described(changed) - whole) ** 2).mean()
            of_student = ((whole - self.student(other)[:, channels:]) ** 2).mean()
            self._optimiser.zero_grad()
            (hard + of_whole + of_student).backward()
        self._optimiser.step()
        self.done += 1
        return tuple(float(loss.detach()) for loss in (hard, of_whole, of_student))


def _in_turn(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each; two more rounds before them only warm caches."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def _once(run: Callable[[Tensor], Tensor], frame: Tensor) -> Callable[[], Tensor]:
    return lambda: run(frame)
