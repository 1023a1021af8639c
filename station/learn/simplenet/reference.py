"""SimpleNet as its authors' code computes it, step by step: the slow definition to compare with.

Everything here is for reading and for measuring; training and models use the collapsed form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

SIGMA = 4.0  # of the Gaussian over the map, in pixels of the image


class Answer(NamedTuple):
    """Score: the highest patch before upsampling, (N). Map: upsampled and smoothed, (N, H, W)."""

    score: Tensor
    anomaly_map: Tensor


class ReferenceHead(nn.Module):
    """Two levels, finest first, to the score of every patch of the finer one."""

    def __init__(self, features: int = 1536, hidden: int = 1024) -> None:
        super().__init__()
        self.features = features
        self.projection = nn.Linear(features, features)
        self.hidden = nn.Linear(features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        for layer in (self.projection, self.hidden, self.out):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return patch scores (N, h, w), high where unlike the training images, and features."""
        images, _, height, width = levels[0].shape
        projected = self.projection(self.embed(levels))  # (N h w, features)
        hidden = F.leaky_relu(self.norm(self.hidden(projected)), 0.2)
        scores = -self.out(hidden)[:, 0]  # (N h w)
        return (
            scores.reshape(images, height, width),
            projected.reshape(images, height, width, self.features),
        )

    def embed(self, levels: list[Tensor]) -> Tensor:
        """Return the local features of every place, (N h w, features)."""
        images, size = len(levels[0]), levels[0].shape[2:]
        pooled = []
        for level in levels:
            patches = F.unfold(level, 3, padding=1)  # (N, 9 C, H W), channel by channel
            # Each channel as an image of its own: torch is slow at one image of thousands of them.
            patches = patches.reshape(-1, 1, *level.shape[2:])  # (N 9 C, 1, H, W)
            if level.shape[2:] != size:
                patches = F.interpolate(patches, size=size, mode="bilinear", align_corners=False)
            patches = patches.reshape(images, -1, *size)  # (N, 9 C, h, w)
            rows = patches.permute(0, 2, 3, 1).flatten(0, 2)  # (N h w, 9 C)
            pooled.append(F.adaptive_avg_pool1d(rows, self.features))
        return F.adaptive_avg_pool1d(torch.cat(pooled, dim=1), self.features)


class Reference(nn.Module):
    """A residual network, its layer2 and layer3, the head, score and map.

    With `wasteful` it also computes what the authors' code computes and throws away: the
    network behind layer3 and every patch's features at image size.
    """

    def __init__(self, network: nn.Module, head: ReferenceHead, *, wasteful: bool = False) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.wasteful = wasteful
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Answer:
        """Score (N, 3, H, W), normalised as the network wants it."""
        patches, features = self.head(self.levels(images))
        size = images.shape[2:]
        maps = F.interpolate(patches[:, None], size=size, mode="bilinear", align_corners=False)
        if self.wasteful:
            F.interpolate(
                features.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
            )
        smooth = np.stack([gaussian_filter(one, sigma=SIGMA) for one in maps[:, 0].numpy()])
        return Answer(patches.flatten(1).amax(1), torch.from_numpy(smooth))

    def levels(self, images: Tensor) -> list[Tensor]:
        """Return layer2 and layer3."""
        net: Any = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        layer2 = net.layer2(net.layer1(x))
        layer3 = net.layer3(layer2)
        if self.wasteful:
            net.fc(torch.flatten(net.avgpool(net.layer4(layer3)), 1))
        return [layer2, layer3]
