"""The trained head without its detours: one affine map per level, then the answer.

Everything from the neighbourhood to the leaky ReLU is linear, so local features, projection, Linear
and batch norm in use are one affine map; it splits by levels. Bilinear weights add up to one, so a
coarse level may be brought onto the finest grid before its part of the map or after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.features.local import upsample

SLOPE = 0.2  # of the leaky ReLU
# A level this many times narrower than the hidden layer goes onto the finest grid before the map:
# more multiplications, but moving every hidden value once more through memory costs more.
NARROW = 4


class CollapsedHead(nn.Module):
    """Levels, finest first, to the raw anomaly map on the finest grid.

    `pools` gives each level's local features, `weight` (hidden, D) and `bias` (hidden) lead from
    all of them, level by level, to the leaky ReLU; `out` (1, hidden) is the discriminator's last
    layer, whose answer is high for good: the map is its negative.
    """

    def __init__(
        self,
        pools: Sequence[nn.Module],
        weight: Tensor,
        bias: Tensor,
        out: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        widths = [int(pool.channels_out) for pool in pools]  # type: ignore[arg-type]
        parts = torch.split(weight, widths, dim=1)
        early = [i == 0 or NARROW * width <= len(weight) for i, width in enumerate(widths)]
        self.early, self.late = (
            [i for i, is_early in enumerate(early) if is_early is wanted]
            for wanted in (True, False)
        )
        self.pools = nn.ModuleList(pools)
        self.fine = pointwise(torch.cat([parts[i] for i in self.early], dim=1), bias, dtype)
        self.coarse = nn.ModuleList(pointwise(parts[i], None, dtype) for i in self.late)
        self.out = pointwise(-out.reshape(1, -1), None, dtype)
        self.eval()
        self.requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w), high where unlike the training images."""
        size = levels[0].shape[2:]
        pooled = [pool(level) for pool, level in zip(self.pools, levels, strict=True)]
        narrow = [pooled[0], *(upsample(pooled[i], size) for i in self.early[1:])]
        hidden = self.fine(torch.cat(narrow, dim=1))  # (N, hidden, h, w)
        for i, conv in zip(self.late, self.coarse, strict=True):
            hidden = hidden.add_(upsample(conv(pooled[i]), size))
        result: Tensor = self.out(F.leaky_relu_(hidden, SLOPE))
        return result


def collapse(
    pools: Sequence[nn.Module],
    projection: nn.Linear,
    hidden: nn.Linear,
    norm: nn.BatchNorm1d,
    out: nn.Linear,
    dtype: torch.dtype = torch.float32,
) -> CollapsedHead:
    """Compose projection and discriminator as they are in use; the products are float64."""
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = gain[:, None] * (hidden.weight.double() @ projection.weight.double())
    shift = hidden.weight.double() @ projection.bias.double() + hidden.bias.double()
    bias = gain * (shift - norm.running_mean.double()) + norm.bias.double()
    return CollapsedHead(pools, weight.detach(), bias.detach(), out.weight.detach(), dtype)


def pointwise(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Conv2d:
    """Return the 1x1 convolution that applies a matrix (out, in) at every place."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, dtype=dtype)
    conv.weight.data = weight[:, :, None, None].to(dtype)
    if bias is not None and conv.bias is not None:
        conv.bias.data = bias.to(dtype)
    return conv
