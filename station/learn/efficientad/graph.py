"""A trained student and its teacher as a model's network: images in, the raw anomaly map out.

Between convolution and pooling the published networks hold 33 MB at 256 pixels, more than a
processor keeps near. Both are local, so they are computed stripe by stripe, without a difference.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.efficientad.pdn import MARGIN
from station.learn.efficientad.training import MapScale, Pair, Trio

STRIPES = (8, 4)  # rows of pooled answers at a time, of the first and the second pooled layer


class AnomalyMap(nn.Module):
    """Images (N, 3, H, W) of 0 to 255 to the raw map (N, 1, h, w).

    `margin` cells of 0 are put around the map: what is known of places without a whole patch.
    """

    def __init__(self, pair: Pair, scale: MapScale, margin: int = 0) -> None:
        super().__init__()
        pair = copy.deepcopy(pair)
        self.pixels = pair.pixels
        self.teacher = _normalised(pair)
        self.trunk = _striped(pair.student.trunk)
        self.of_teacher, *others = pair.student.parts()
        self.of_autoencoder = others[0] if others else None
        self.autoencoder = pair.autoencoder if isinstance(pair, Trio) else None
        self.margin = margin
        # The mean of the maps, each 0.1 where held-out good images have their quantile 0.995.
        self.gains = [0.1 / len(scale) / (high - low) for low, high in scale]
        self.shift = -sum(gain * low for gain, (low, _) in zip(self.gains, scale, strict=True))
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the map, high where unlike the training images."""
        pixels = self.pixels(images)
        trunk = self.trunk(pixels)
        local = ((self.teacher(images) - self.of_teacher(trunk)) ** 2).mean(1, True)
        found = self.gains[0] * local + self.shift
        if self.autoencoder is not None and self.of_autoencoder is not None:
            whole = self.autoencoder(pixels) - self.of_autoencoder(trunk)
            found = found + self.gains[1] * (whole**2).mean(1, True)
        return F.pad(found, [self.margin] * 4) if self.margin else found


def published_graph(trio: Trio, scale: MapScale) -> AnomalyMap:
    """Return the graph of a trio of published shape."""
    return AnomalyMap(trio, scale, MARGIN)


class _Striped(nn.Module):
    """Convolution, ReLU and 2x2 pooling, a stripe of rows at a time."""

    def __init__(self, conv: nn.Conv2d, rows: int) -> None:
        super().__init__()
        self.conv = conv
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        reach = int(self.conv.kernel_size[0]) - 1
        rows = (x.shape[2] - reach) // 2  # of the pooled answer
        parts = []
        for top in range(0, rows, self.rows):
            end = min(top + self.rows, rows)
            part = self.conv(x[:, :, 2 * top : 2 * end + reach])
            parts.append(F.avg_pool2d(F.relu(part), 2, 2))
        return torch.cat(parts, 2)


def _striped(network: nn.Module) -> nn.Module:
    """Replace unpadded convolutions before a pooling."""
    if not isinstance(network, nn.Sequential):
        return network
    layers = list(network)
    made: list[nn.Module] = []
    rows = list(STRIPES)
    while layers:
        first = layers[0]
        if (
            isinstance(first, nn.Conv2d)
            and first.padding == (0, 0)
            and len(layers) > 2
            and isinstance(layers[2], nn.AvgPool2d)
        ):
            made.append(_Striped(first, rows.pop(0)))
            layers = layers[3:]
        else:
            made.append(layers.pop(0))
    return nn.Sequential(*made)


def _normalised(pair: Pair) -> nn.Module:
    """Return the teacher with its channels normalised, by its last convolution where it ends so."""
    teacher = pair.teacher
    last = teacher[-1] if isinstance(teacher, nn.Sequential) else None
    if not isinstance(last, nn.Conv2d) or last.bias is None:
        return nn.Sequential(teacher, _Normalise(pair.mean, pair.deviation))
    mean, deviation = pair.mean.double().flatten(), pair.deviation.double().flatten()
    last.weight.data = (last.weight.double() / deviation[:, None, None, None]).float()
    last.bias.data = ((last.bias.double() - mean) / deviation).float()
    return _striped(teacher)


class _Normalise(nn.Module):
    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.deviation
