"""The networks of EfficientAD as published: patch description networks and an autoencoder.

The layers stand in the published order, so that the published files of weights fit by name.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.errors import ModelError

Size = Literal["s", "m"]
SIZES: tuple[Size, ...] = ("s", "m")
CHANNELS = 384  # of a description
STRIDE = 4
REACH = 33  # side of the patch that one description sees, in pixels
MARGIN = 4  # cells at each border of the map for which there is no whole patch
_WIDTHS: dict[Size, int] = {"s": 128, "m": 256}  # of the first layer


def pdn(
    size: Size, channels: int = CHANNELS, width: int | None = None, *, padding: bool = False
) -> nn.Sequential:
    """Build a patch description network with random weights.

    Without padding every description depends on its own patch alone; with it, as in distillation,
    the map has a cell for every `STRIDE` pixels.
    """
    first = width or _WIDTHS[size]
    pad = int(padding)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, first), (first, 2 * first)):
        layers += [nn.Conv2d(inputs, outputs, 4, padding=3 * pad), nn.ReLU()]
        layers.append(nn.AvgPool2d(2, 2, padding=pad))
    wide = 2 * first
    if size == "m":
        layers += [nn.Conv2d(wide, wide, 1), nn.ReLU()]
    layers += [nn.Conv2d(wide, wide, 3, padding=pad), nn.ReLU(), nn.Conv2d(wide, channels, 4)]
    if size == "m":
        layers += [nn.ReLU(), nn.Conv2d(channels, channels, 1)]
    return nn.Sequential(*layers)


def map_side(side: int) -> int:
    """Return the side of the map that an unpadded network makes of an image of this side."""
    return side // STRIDE - 2 * MARGIN


class Autoencoder(nn.Sequential):
    """Squeezes the image into one vector and describes every place of it from that."""

    def __init__(
        self,
        sides: tuple[int, int] = (256, 256),
        map_sides: tuple[int, int] = (56, 56),
        channels: int = CHANNELS,
        width: int = 64,
    ) -> None:
        if min(sides) < 128 or any(side % 32 for side in sides):
            raise ModelError(f"autoencoder: sides {sides}: multiples of 32 from 128 on are needed")
        narrow = width // 2
        layers: list[nn.Module] = []
        for inputs, outputs in (
            (3, narrow), (narrow, narrow), (narrow, width), (width, width), (width, width)
        ):  # fmt: skip
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
        layers.append(nn.Conv2d(width, width, (sides[0] // 32, sides[1] // 32)))
        # At 256 pixels: 3, 8, 15, 32, 63, 127, the published sizes.
        for part, less in ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)):
            size = tuple(side // part - less for side in sides)
            layers += [_Upsample(size), nn.Conv2d(width, width, 4, padding=2), nn.ReLU()]
            layers.append(nn.Dropout(0.2))
        layers += [_Upsample(map_sides), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        layers.append(nn.Conv2d(width, channels, 3, padding=1))
        super().__init__(*layers)


class _Upsample(nn.Module):
    """Bilinear, to a fixed size."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = list(size)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, mode="bilinear", align_corners=False)


class ImageNetPixels(nn.Module):
    """Normalises RGB values of 0 to 255 as the published networks want them."""

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("mean", 255 * mean[:, None, None])
        self.register_buffer("deviation", 255 * deviation[:, None, None])
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, 3, H, W)."""
        return (images - self.mean) / self.deviation
