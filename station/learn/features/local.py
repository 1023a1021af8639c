"""Local features: what a 3x3 neighbourhood of a level says, on the level's own grid."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know


class AveragePool(nn.Module):
    """The mean of the neighbourhood, at the border over what there is of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels_out = channels

    def forward(self, level: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, C, H, W)."""
        return F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False)


class AuthorsPool(nn.Module):
    """The authors' features of one of two levels as a grouped 3x3 convolution, zeros outside.

    They list the 9 C values of a neighbourhood, channel by channel, pool that list to 2 F values,
    put both levels' lists one after the other and pool them to 2 F again: each level gives F. A
    group of channels thus fills a group of features of its own, in all groups alike.
    """

    def __init__(self, channels: int, features: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.channels_out = features
        groups = gcd(channels, features)
        inside, outside = channels // groups, features // groups
        taps = torch.eye(9 * inside, dtype=torch.float64)
        pooled = F.adaptive_avg_pool1d(F.adaptive_avg_pool1d(taps, 2 * outside), outside)
        weight = pooled.T.reshape(outside, inside, 3, 3).repeat(groups, 1, 1, 1)
        self.conv = nn.Conv2d(channels, features, 3, padding=1, groups=groups, bias=False)
        self.conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)

    def forward(self, level: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, F, H, W)."""
        result: Tensor = self.conv(level)
        return result


def upsample(level: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring a coarse level onto a finer grid."""
    return F.interpolate(level, (int(size[0]), int(size[1])), mode="bilinear", align_corners=False)


def mean_of(patches: Tensor) -> Tensor:
    """Return the mean of patches (P, D) in float64; a bank is never cast whole."""
    parts = torch.split(patches, 1 << 15)
    return torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(patches)
