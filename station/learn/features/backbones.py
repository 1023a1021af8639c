"""Frozen feature extractors by name; weights come from the local store, never a download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torchvision
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.errors import ConfigError, ModelError
from station.learn.features.weights import WEIGHTS, Weights, read_weights


@dataclass(frozen=True)
class Architecture:
    """What is known of a backbone; its levels are named by their strides."""

    weights: Weights
    kind: Literal["resnet", "efficientnet"]
    channels: dict[int, int]  # by stride
    levels: tuple[int, ...]  # used unless others are asked for


def _resnet(name: str, widths: tuple[int, int, int, int]) -> Architecture:
    channels = dict(zip((4, 8, 16, 32), widths, strict=True))  # layer1 to layer4
    return Architecture(WEIGHTS[name], "resnet", channels, (8, 16))


def _efficientnet(name: str, widths: tuple[int, int, int, int]) -> Architecture:
    channels = dict(zip((4, 8, 16, 32), widths, strict=True))
    return Architecture(WEIGHTS[name], "efficientnet", channels, (4, 8, 16))


BACKBONES: dict[str, Architecture] = {
    "efficientnet_lite0": _efficientnet("efficientnet_lite0", (24, 40, 112, 192)),
    "efficientnet_lite2": _efficientnet("efficientnet_lite2", (24, 48, 120, 208)),
    "resnet18": _resnet("resnet18", (64, 128, 256, 512)),
    "resnet50": _resnet("resnet50", (256, 512, 1024, 2048)),
    "resnet101": _resnet("resnet101", (256, 512, 1024, 2048)),
    "wide_resnet50_2": _resnet("wide_resnet50_2", (256, 512, 1024, 2048)),
}

# Mean and deviation of the pixels, 0 to 255, as each family was trained.
_IMAGENET = (
    [255 * mean for mean in (0.485, 0.456, 0.406)],
    [255 * deviation for deviation in (0.229, 0.224, 0.225)],
)
_PIXELS = {"resnet": _IMAGENET, "efficientnet": ([127.0] * 3, [128.0] * 3)}


class Backbone(nn.Module):
    """Features of some levels from RGB values of 0 to 255; ends after the last of them."""

    def __init__(self, name: str, strides: tuple[int, ...], stages: list[nn.Module]) -> None:
        super().__init__()
        known = BACKBONES[name]
        self.name = name
        self.strides = strides  # finest first, as everything by level
        self.channels = tuple(known.channels[stride] for stride in strides)
        mean, deviation = _PIXELS[known.kind]
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])
        self.mean: Tensor
        self.deviation: Tensor
        self.stages = nn.ModuleList(stages)  # one per level
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the levels of (N, 3, H, W), each (N, C, H / stride, W / stride)."""
        x = (images - self.mean) / self.deviation
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


def load_backbone(name: str, levels: Sequence[int] | None = None) -> Backbone:
    """Build a backbone with its pretrained weights."""
    _check(name, levels)
    return cut(name, load_network(name), levels)


def random_backbone(
    name: str = "efficientnet_lite0", levels: Sequence[int] | None = None, seed: int = 0
) -> Backbone:
    """Build a backbone with random weights, for what does not depend on them."""
    _check(name, levels)
    return cut(name, random_network(name, seed), levels)


def load_network(name: str) -> nn.Module:
    """Build the whole classifier with its pretrained weights."""
    known = _check(name, None)
    values = read_weights(name, known.weights)
    network = random_network(name)
    if known.kind == "efficientnet":
        # The file's own network names its layers otherwise but builds them in the same order.
        names = [key for key in network.state_dict() if not _is_counter(key)]
        kept = [value for key, value in values.items() if not _is_counter(key)]
        values = dict(zip(names, kept, strict=True))
    # Neither family's files need the counters of their batch norms.
    odd = network.load_state_dict(values, strict=False)
    if odd.unexpected_keys or not all(_is_counter(key) for key in odd.missing_keys):
        raise ModelError(f"{known.weights.file}: not the layers of {name}")
    return network


def random_network(name: str, seed: int = 0) -> nn.Module:
    """Build the whole classifier with random weights."""
    known = _check(name, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if known.kind == "resnet":
            network: nn.Module = torchvision.models.get_model(name, weights=None)
        else:
            network = timm.create_model(f"tf_{name}", pretrained=False)
    return network.eval().requires_grad_(False)


def cut(name: str, network: nn.Module, levels: Sequence[int] | None = None) -> Backbone:
    """Keep of a whole classifier what the levels need, in one stage per level; takes it over."""
    known = _check(name, levels)
    strides = known.levels if levels is None else tuple(sorted(levels))
    net: Any = network
    if known.kind == "resnet":
        begin = [net.conv1, net.bn1, net.relu, net.maxpool]
        parts = {4: [*begin, net.layer1], 8: [net.layer2], 16: [net.layer3], 32: [net.layer4]}
    else:
        _pad_in_the_kernel(network)
        b = net.blocks
        parts = {4: [net.conv_stem, net.bn1, b[0], b[1]], 8: [b[2]], 16: [b[3], b[4]], 32: [b[5]]}
    stages: list[nn.Module] = []
    pending: list[nn.Module] = []
    for stride, modules in parts.items():
        pending += modules
        if stride in strides:
            stages.append(nn.Sequential(*pending))
            pending = []
    # Whatever is pending now would be computed and thrown away.
    return Backbone(name, strides, stages)


def _pad_in_the_kernel(module: nn.Module) -> None:
    """Replace TensorFlow's padding of the strided convolutions: one row more below than above.

    It copies the widest activations before each of them. A kernel with a row and a column of zeros
    in front, padded alike on all sides, gives the very same values, where the sides are even.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame) and child.stride == (2, 2):
            module.set_submodule(name, _padded_alike(child))
        else:
            _pad_in_the_kernel(child)


def _padded_alike(conv: nn.Conv2d) -> nn.Conv2d:
    side = conv.kernel_size[0] + 1  # 3 reaches 0 and 1 beyond the picture, 5 reaches 1 and 2
    alike = nn.Conv2d(
        conv.in_channels, conv.out_channels, side, stride=2, padding=(side - 2) // 2,
        groups=conv.groups, bias=conv.bias is not None, device="meta",
    )  # fmt: skip
    alike.weight = nn.Parameter(F.pad(conv.weight, (1, 0, 1, 0)), requires_grad=False)
    alike.bias = conv.bias
    return alike


def _check(name: str, levels: Sequence[int] | None) -> Architecture:
    if name not in BACKBONES:
        raise ConfigError(f"no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    known = BACKBONES[name]
    if levels is not None:
        wrong = sorted(set(levels) - set(known.channels))
        if wrong or not levels or len(set(levels)) < len(levels):
            there = ", ".join(map(str, known.channels))
            raise ConfigError(
                f"{name}: levels {list(levels)}: some of the strides {there}, each once"
            )
    return known


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
