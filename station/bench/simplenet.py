"""`station bench simplenet`: what collapse, precision and runtime are worth, in one run.

The published configuration, Wide-ResNet-50-2 at 288 pixels, from a uint8 frame to score and map,
against the authors' way to compute it; and the embedded backbone. All variants take turns in every
round, so that whatever else the machine does falls on all of them alike. Weights are random where
the store has none: times do not depend on them.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from station import openvino_runtime
from station.bench.authors import authors_model, authors_score
from station.learn.export import Detector, InputForm, freeze, to_bytes, torchscript_is_meant
from station.learn.features.backbones import Backbone, cut, load_network, random_network
from station.learn.features.local import AuthorsPool, AveragePool
from station.learn.features.quantise import Int8Network, int8_file, quantised_backbone
from station.learn.features.weights import find, known
from station.learn.simplenet.collapse import CollapsedHead, collapse
from station.learn.simplenet.reference import Answer, Reference, ReferenceHead
from station.preset import DEFAULT, PAPER, Preset, changed
from station.torchscript import THREADS, Runtime, torch_network
from station.torchscript import Detector as Loaded

WIDE, EMBEDDED = "wide_resnet50_2", "efficientnet_lite0"
CALIBRATION_IMAGES = 2  # enough for the time of int8, not for its scores
FRAMES = 8  # of which every other one has a spot

Variant = Callable[[Tensor], Tensor]  # a uint8 frame to its score
TORCH_FP32, TORCH_BF16 = Runtime("torchscript", "fp32"), Runtime("torchscript", "bf16")
OPENVINO_FP32, OPENVINO_BF16 = Runtime("openvino", "fp32"), Runtime("openvino", "bf16")
OPENVINO_INT8 = Runtime("openvino", "int8")


@dataclass(frozen=True)
class Setting:
    """Which networks, and the sides of their pictures."""

    wide: str = WIDE
    side: int = 288
    features: int = 1536
    hidden: int = 1024
    embedded: str = EMBEDDED
    embedded_side: int = 256
    authors: Path | None = None
    """A checkout of the authors' code, to run beside the reference that stands for it."""


def bench_simplenet(rounds: int, setting: Setting = Setting()) -> dict[str, Any]:
    """Measure all variants; ratios are of medians, above one where ours is faster."""
    load = os.getloadavg()[0]
    with TemporaryDirectory(prefix="station-bench-") as folder, torch_threads(THREADS):
        variants = dict(_wide(setting, Path(folder)))
        wide = _medians_ms(variants, woven_frames(setting.side)[:1], rounds)
        scores = {name: _scores(variants[name], setting.side) for name in variants}
        del variants
        embedded = _medians_ms(
            dict(_embedded(setting, Path(folder))), woven_frames(setting.embedded_side)[:1], rounds
        )
    authors = wide["authors"]

    def ratio(name: str) -> float | None:
        return round(authors / wide[name], 2) if name in wide else None

    return {
        # Near one, or the reference does not stand for the authors' code.
        "checkout_ratio": ratio("checkout"),
        "fp32_ratio": ratio("fp32"),
        "bf16_ratio": ratio("bf16"),
        "openvino_fp32_ratio": ratio("openvino_fp32"),
        "openvino_bf16_ratio": ratio("openvino_bf16"),
        "openvino_int8_ratio": ratio("openvino_int8"),
        "embedded_ms": embedded["embedded"],
        "embedded_int8_ms": embedded.get("embedded_int8"),
        "backbone_ratio": round(wide["fp32"] / wide["backbone"], 3),
        **_agreement(scores),
        **{f"{name}_ms": value for name, value in wide.items()},
        **{f"{name}_ms": value for name, value in embedded.items() if name != "embedded"},
        "weights": "pretrained" if _has_weights(setting.wide) else "generated",
        "threads": THREADS,
        "rounds": rounds,
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }


def _wide(setting: Setting, folder: Path) -> Iterator[tuple[str, Variant]]:
    """Yield the authors' way and ours, all with the same weights."""
    network = _network(setting.wide)
    backbone = cut(setting.wide, network, (8, 16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = ReferenceHead(setting.features, setting.hidden).eval().requires_grad_(False)
    pools = [AuthorsPool(count, setting.features // 2) for count in backbone.channels]
    collapsed = collapse(pools, head.projection, head.hidden, head.norm, head.out)
    for name, wasteful in (("authors", True), ("authors_without_waste", False)):
        yield name, _reference(Reference(network, head, wasteful=wasteful), backbone)
    if setting.authors is not None:
        yield "checkout", _checkout(setting.authors, network, head, backbone, setting.side)
    yield "backbone", _bare(backbone, setting.side)
    form = _square(changed(PAPER, input_size=setting.side, crop_from=None))
    path = folder / "wide.pt"
    # Without smoothing: the authors take the score before it.
    digest = _write(path, to_bytes(freeze(Detector(nn.Sequential(backbone, collapsed), form, 0.0))))
    yield "fp32", _loaded(path, digest, TORCH_FP32, folder)
    yield "bf16", _loaded(path, digest, TORCH_BF16, folder)
    if openvino_runtime.installed():
        yield "openvino_fp32", _loaded(path, digest, OPENVINO_FP32, folder)
        yield "openvino_bf16", _loaded(path, digest, OPENVINO_BF16, folder)
        yield "openvino_int8", _int8(backbone, collapsed, form, 0.0, folder)


def _embedded(setting: Setting, folder: Path) -> Iterator[tuple[str, Variant]]:
    """Yield the embedded backbone with a head of the default size."""
    backbone = cut(setting.embedded, _network(setting.embedded), (4, 8, 16))
    hidden = DEFAULT.hidden * DEFAULT.members
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight, bias = torch.randn(hidden, sum(backbone.channels)) / 20, torch.randn(hidden)
        out = torch.randn(1, hidden) / hidden
    head = CollapsedHead([AveragePool(c) for c in backbone.channels], weight, bias, out)
    form = _square(changed(DEFAULT, input_size=setting.embedded_side))
    path = folder / "embedded.pt"
    digest = _write(
        path, to_bytes(freeze(Detector(nn.Sequential(backbone, head), form, DEFAULT.smoothing)))
    )
    yield "embedded", _loaded(path, digest, TORCH_FP32, folder)
    yield "embedded_bf16", _loaded(path, digest, TORCH_BF16, folder)
    if openvino_runtime.installed():
        yield "embedded_openvino_fp32", _loaded(path, digest, OPENVINO_FP32, folder)
        yield "embedded_openvino_bf16", _loaded(path, digest, OPENVINO_BF16, folder)
        yield "embedded_int8", _int8(backbone, head, form, DEFAULT.smoothing, folder)


def _has_weights(name: str) -> bool:
    return find(known(name)) is not None


def _network(name: str) -> nn.Module:
    return load_network(name) if _has_weights(name) else random_network(name)


def _reference(reference: Reference, backbone: Backbone) -> Variant:
    def run(frame: Tensor) -> Tensor:
        torch.set_num_threads(THREADS)
        answer: Answer = reference((frame.float() - backbone.mean) / backbone.deviation)
        return answer.score

    return run


def _checkout(
    folder: Path, network: nn.Module, head: ReferenceHead, backbone: Backbone, side: int
) -> Variant:
    model = authors_model(folder, network, head, side)

    def run(frame: Tensor) -> Tensor:
        torch.set_num_threads(THREADS)
        return authors_score(model, (frame.float() - backbone.mean) / backbone.deviation)

    return run


def _bare(backbone: Backbone, side: int) -> Variant:
    """Return the backbone alone, frozen as the whole graph is."""
    with torchscript_is_meant():
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            nn.Sequential(backbone, _Last()), torch.zeros(1, 3, side, side), check_trace=False
        )
    network = torch_network(traced)

    def run(frame: Tensor) -> Tensor:
        torch.set_num_threads(THREADS)
        return network(frame.float())

    return run


class _Last(nn.Module):
    """The coarsest level: what the backbone has computed once it is there."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        return levels[-1]


def _loaded(path: Path, digest: str, runtime: Runtime, folder: Path) -> Variant:
    detector = Loaded(path, digest, runtime, folder)
    return lambda frame: detector(frame)[0]


def _int8(
    backbone: Backbone, head: nn.Module, form: InputForm, smoothing: float, folder: Path
) -> Variant:
    frames = woven_frames(form.height)[:CALIBRATION_IMAGES]
    quantised = quantised_backbone(backbone, [frame.float() for frame in frames])
    path = folder / f"{backbone.name}-int8.pt"
    detector = Detector(Int8Network(quantised, head), form, smoothing)
    return _loaded(path, _write(path, int8_file(detector)), OPENVINO_INT8, folder)


def _square(preset: Preset) -> InputForm:
    return InputForm.of_frames(preset.input_size, preset.input_size, preset)


def _write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def woven_frames(side: int) -> list[Tensor]:
    """Draw woven frames, (1, 3, side, side), every other one with a bright spot."""
    generator = torch.Generator().manual_seed(0)
    frames = []
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for i in range(FRAMES):
        phase = torch.rand(2, generator=generator) * 8
        weave = 120 + 40 * torch.sin((x + phase[0]) * 0.6) * torch.sin((y + phase[1]) * 0.6)
        noisy = weave + 6 * torch.randn(3, side, side, generator=generator)
        if i % 2:
            centre = side // 4 + torch.randint(side // 2, (2,), generator=generator)
            noisy[:, (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (side // 12) ** 2] = 250.0
        frames.append(noisy.clamp(0, 255).to(torch.uint8)[None])
    return frames


def _medians_ms(
    variants: dict[str, Variant], frames: list[Tensor], rounds: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    with torch.inference_mode():
        # The first two rounds only warm caches and let torch choose its kernels.
        for number in range(rounds + 2):
            for name, variant in variants.items():
                variant(frames[0])  # until the threads of the one before have come to rest
                started = time.perf_counter()
                variant(frames[0])
                if number >= 2:
                    times[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def _scores(variant: Variant, side: int) -> list[float]:
    with torch.inference_mode():
        return [float(variant(frame).flatten()[0]) for frame in woven_frames(side)]


def _agreement(scores: dict[str, list[float]]) -> dict[str, float | int]:
    """Compare with the authors' scores: fp32 by value, bf16 by verdict in their widest gap.

    Int8 is left out: its head would have to be trained on its own features.
    """
    authors = scores["authors"]
    low, high = max(pairwise(sorted(authors)), key=lambda pair: pair[1] - pair[0])
    threshold = (low + high) / 2
    same = [name for name in scores if name in {"fp32", "openvino_fp32", "checkout"}]
    judged = [*same, *(name for name in scores if name in {"bf16", "openvino_bf16"})]
    return {
        "max_score_difference": max(
            abs(a - b) for name in same for a, b in zip(scores[name], authors, strict=True)
        ),
        "verdict_flips": sum(
            (a < threshold) != (b < threshold)
            for name in judged
            for a, b in zip(scores[name], authors, strict=True)
        ),
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
