"""Gaussian detectors: the Mahalanobis distance of every place's features, closed-form.

One mean and covariance over all places, or one per place of the grid (PaDiM's idea, for parts that
always lie the same). Features are standardised first; `shrinkage` is what keeps a covariance of few
images invertible. The distance is the length of the whitened feature, and whitening is linear: for
one Gaussian it is computed level by level, as `collapse` does for SimpleNet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from station.detectors import GaussianPreset
from station.errors import ConfigError
from station.learn.features.bank import Features
from station.learn.features.local import mean_of, upsample
from station.learn.method import Learned, Task
from station.learn.simplenet.collapse import pointwise
from station.learn.simplenet.network import patch_features

ROWS = 1 << 15  # patches turned to float64 at a time


class Gaussian(NamedTuple):
    """Mean (..., D) and precision (..., D, D) of features, float64; one, or one per place."""

    mean: Tensor
    precision: Tensor

    def whitening(self) -> Tensor:
        """Return (..., D, D) that makes the Mahalanobis distance a length."""
        lower: Tensor = torch.linalg.cholesky(self.precision)
        return lower.mT


def of_patches(patches: Tensor, shrinkage: float) -> Gaussian:
    """Measure one Gaussian over patches (P, D)."""
    size = patches.shape[1]
    mean = mean_of(patches)
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for part in torch.split(patches, ROWS):
        centred = part.double() - mean
        covariance += centred.mT @ centred
    return _gaussian(mean, covariance / len(patches), shrinkage)


def of_places(bank: Tensor, shrinkage: float) -> Gaussian:
    """Measure one Gaussian for every place of a bank (N, P, D)."""
    means, precisions = [], []
    for part in torch.split(bank, 64, dim=1):  # places
        values = part.transpose(0, 1).double()  # (places, N, D)
        mean = values.mean(1)
        centred = values - mean[:, None]
        found = _gaussian(mean, centred.mT @ centred / len(bank), shrinkage)
        means.append(found.mean)
        precisions.append(found.precision)
    return Gaussian(torch.cat(means), torch.cat(precisions))


def _gaussian(mean: Tensor, covariance: Tensor, shrinkage: float) -> Gaussian:
    # A channel that never changes in training must not turn a rounding error into a defect.
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt().clamp_min(1e-3)
    scale = deviation[..., :, None] * deviation[..., None, :]
    unit = torch.eye(mean.shape[-1], dtype=torch.float64)
    precision = torch.linalg.inv(covariance / scale + shrinkage * unit) / scale
    return Gaussian(mean, (precision + precision.mT) / 2)


class GaussianHead(nn.Module):
    """Levels, finest first, to the distance from one Gaussian on the finest grid."""

    def __init__(self, pools: Sequence[nn.Module], gaussian: Gaussian) -> None:
        super().__init__()
        widths = [int(pool.channels_out) for pool in pools]  # type: ignore[arg-type]
        weight = gaussian.whitening()
        bias = -weight @ gaussian.mean
        self.pools = nn.ModuleList(pools)
        self.maps = nn.ModuleList(
            pointwise(part, bias if i == 0 else None, torch.float32)
            for i, part in enumerate(torch.split(weight, widths, dim=1))
        )
        self.eval()
        self.requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        parts = [
            conv(pool(level))  # (N, D, H / stride, W / stride)
            for conv, pool, level in zip(self.maps, self.pools, levels, strict=True)
        ]
        whitened = parts[0]
        for part in parts[1:]:
            whitened = whitened + upsample(part, whitened.shape[2:])
        # In fp32 also where the network runs in bf16: a sum of squares needs the digits.
        result: Tensor = whitened.float().square().sum(1, keepdim=True).sqrt()
        return result


class PlacesHead(nn.Module):
    """Levels to the distance of every place's drawn channels from that place's own Gaussian."""

    def __init__(self, pools: Sequence[nn.Module], gaussian: Gaussian, channels: Tensor) -> None:
        super().__init__()
        weight = gaussian.whitening()
        self.pools = nn.ModuleList(pools)
        self.register_buffer("channels", channels)
        self.register_buffer("weight", weight.float())  # (P, C, C)
        self.register_buffer("mean", gaussian.mean[:, :, None].float())  # (P, C, 1)
        self.channels: Tensor
        self.weight: Tensor
        self.mean: Tensor
        self.eval()

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        patches = patch_features(levels, list(self.pools)).float()  # (N, h, w, D)
        drawn = patches[..., self.channels].flatten(1, 2).permute(1, 2, 0)  # (P, C, N)
        whitened = torch.matmul(self.weight.float(), drawn - self.mean.float())
        distance = whitened.square().sum(1).sqrt().T  # (N, P)
        return distance.reshape(patches.shape[:3])[:, None]


class Unfolded(nn.Module):
    """The distance by its definition, from features joined on the finest grid, in float64."""

    def __init__(
        self, features: Features, gaussian: Gaussian, channels: Tensor, *, per_position: bool
    ) -> None:
        super().__init__()
        self.backbone = features.backbone
        self.pools = nn.ModuleList(features.pools)
        self.gaussian, self.channels = gaussian, channels
        self.equation = "npi,pij,npj->np" if per_position else "npi,ij,npj->np"
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        patches = patch_features(self.backbone(images), list(self.pools)).double()
        centred = patches[..., self.channels].flatten(1, 2) - self.gaussian.mean  # (N, P, C)
        squared = torch.einsum(self.equation, centred, self.gaussian.precision, centred)
        return squared.sqrt().reshape(patches.shape[:3])[:, None].float()


def learn(task: Task, preset: GaussianPreset) -> Learned:
    """Measure mean and covariance; nothing is iterated, so there is no curve and no resuming."""
    features = Features(task, preset)
    places = preset.per_position
    bank = features.bank(whole=places)  # (N, P, D)
    channels = _channels(bank.shape[2], preset, task.seed)

    def measured(rows: Tensor) -> Gaussian:
        if places:
            return of_places(rows[..., channels], preset.shrinkage)
        return of_patches(rows.flatten(0, 1), preset.shrinkage)

    def network(gaussian: Gaussian) -> nn.Module:
        if places:
            return features.network(PlacesHead(features.pools, gaussian, channels))
        return features.network(GaussianHead(features.pools, gaussian))

    def without(units: Collection[str]) -> nn.Module:
        return network(measured(bank[features.rows_without(units, bank)]))

    gaussian = measured(bank)
    return Learned(
        network=network(gaussian),
        reference=Unfolded(features, gaussian, channels, per_position=places),
        without=without,
        backbone=preset.backbone,
        patches=bank.shape[0] * bank.shape[1],
    )


def _channels(size: int, preset: GaussianPreset, seed: int) -> Tensor:
    """Draw which of the features are used, as PaDiM does; all of them unless the preset says."""
    if preset.channels is None:
        return torch.arange(size)
    if preset.channels > size:
        raise ConfigError(f"channels: {preset.channels} asked for, the levels have {size}")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(size, generator=generator)[: preset.channels].sort().values
