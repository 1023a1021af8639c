"""EfficientAD's answer as anomalib computes it, step by step: the slow definition to compare with.

It pads the maps with zeros and brings them to image size before it normalises them, while the
authors, and this station, normalise first. Normalising is affine, so inside the padded border both
give the same; the border itself is 0 here and below 0 there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.efficientad.pdn import MARGIN
from station.learn.efficientad.training import MapScale, Trio


class Reference(nn.Module):
    """Images (N, 3, H, W) of 0 to 255 to the map at image size (N, 1, H, W)."""

    def __init__(self, trio: Trio, scale: MapScale) -> None:
        super().__init__()
        self.trio = trio
        self.student = nn.Sequential(*trio.student.trunk, trio.student.last)
        self.scale = scale
        self.eval()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return the map."""
        trio = self.trio
        pixels = trio.pixels(images)
        teacher = (trio.teacher(images) - trio.mean) / trio.deviation
        student = self.student(pixels)
        channels = teacher.shape[1]
        local = ((teacher - student[:, :channels]) ** 2).mean(1, keepdim=True)
        whole = ((trio.autoencoder(pixels) - student[:, channels:]) ** 2).mean(1, keepdim=True)
        maps = []
        for raw, (low, high) in zip((local, whole), self.scale, strict=True):
            padded = F.pad(raw, [MARGIN] * 4)
            large = F.interpolate(padded, images.shape[2:], mode="bilinear", align_corners=False)
            maps.append(0.1 * (large - low) / (high - low))
        return 0.5 * maps[0] + 0.5 * maps[1]
