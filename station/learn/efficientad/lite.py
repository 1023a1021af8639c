"""The station's own small student-teacher: its teacher is the embedded backbone itself.

EfficientAD's loss and normalisation, but not its networks: the teacher is a frozen backbone's
levels on the finest level's grid, the student a narrow network that sees as far as the teacher
does, and there is no autoencoder (docs/decisions/0029-lite-without-autoencoder.md). It trains in
minutes where EfficientAD takes days, and is not EfficientAD.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.learn.efficientad.training import Pair
from station.learn.features.backbones import Backbone
from station.learn.features.local import AveragePool, upsample

WIDTH = 32  # of the student's finest level


class LevelsTeacher(nn.Module):
    """A backbone's levels, each averaged over 3x3 cells, side by side on the finest one's grid."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.pools = nn.ModuleList(AveragePool(channels) for channels in backbone.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Describe (N, 3, H, W), 0 to 255."""
        levels = [pool(x) for pool, x in zip(self.pools, self.backbone(images), strict=True)]
        return torch.cat([upsample(level, levels[0].shape[2:]) for level in levels], 1)


class LiteTrunk(nn.Module):
    """Down to stride 16 and back up to stride 4, so that it sees as much as the teacher."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        wide, widest = 2 * width, 3 * width
        self.to4 = _convs(_conv(3, width, 2), _conv(width, width, 2), _conv(width, width))
        self.to8 = _convs(_conv(width, wide, 2), _conv(wide, wide))
        self.to16 = _convs(_conv(wide, widest, 2), _conv(widest, widest))
        self.from16 = nn.Conv2d(widest, wide, 1)
        self.at8 = _convs(_conv(wide, wide))
        self.from4 = nn.Conv2d(width, wide, 1)
        self.at4 = _convs(_conv(wide, wide))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2 width, H / 4, W / 4)."""
        fine = self.to4(x)
        middle = self.to8(fine)
        coarse = self.from16(self.to16(middle))
        middle = self.at8(F.relu(middle + upsample(coarse, middle.shape[2:])))
        joined: Tensor = self.at4(F.relu(self.from4(fine) + upsample(middle, fine.shape[2:])))
        return joined


def lite(backbone: Backbone, width: int = WIDTH) -> Pair:
    """Put an untrained narrow student beside a backbone as the teacher."""
    channels = sum(backbone.channels)
    student = nn.Sequential(LiteTrunk(width), nn.Conv2d(2 * width, channels, 1))
    return Pair(LevelsTeacher(backbone), student, channels)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _convs(*convs: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())))
