"""PatchCore: the distance of every place's features from the nearest in a memory of normal ones.

The memory is a coreset of all training patches, chosen greedily: always the patch that is farthest
from those chosen before, so that no normal patch is far from the memory. Distances while choosing
are those of a random projection, which keeps them nearly and costs less. The score is the maximum
of the map, as of every detector here; the published reweighting by the neighbour's neighbours is
left out, because no map would show it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from station.detectors import PatchcorePreset
from station.learn.features.bank import Features
from station.learn.method import Learned, Progress, Task
from station.learn.simplenet.network import patch_features

TOLD_EVERY = 100  # members of the coreset


def project(patches: Tensor, dimensions: int, seed: int) -> Tensor:
    """Return patches (P, D) in float32 as (P, dimensions) whose distances are nearly the same."""
    size = patches.shape[1]
    if dimensions >= size:
        return patches.float()
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, dimensions, generator=generator) / dimensions**0.5
    projected = torch.empty(len(patches), dimensions)
    for i, part in enumerate(torch.split(patches, 1 << 15)):
        projected[i << 15 : (i << 15) + len(part)] = part.float() @ matrix
    return projected


def farthest_first(points: Tensor, count: int, told: Callable[[int], None]) -> Tensor:
    """Choose `count` of points (P, D): from the one farthest from the mean on, always the farthest.

    Of equally far ones the first is taken; `told` gets how many are chosen.
    """
    centred = points - points.mean(0)  # near zero the digits of a small distance are not lost
    squares = centred.square().sum(1)
    chosen = torch.empty(count, dtype=torch.int64)
    nearest = squares.clone()  # squared distance from the nearest chosen so far
    for i in range(count):
        found = int(nearest.argmax())
        chosen[i] = found
        distance = torch.addmv(squares, centred, centred[found], alpha=-2).add_(squares[found])
        nearest = distance if i == 0 else torch.minimum(nearest, distance, out=nearest)
        nearest[found] = -torch.inf  # rounding must not let it be chosen again
        told(i + 1)
    return chosen


class MemoryHead(nn.Module):
    """Levels, finest first, to the distance from the nearest member of the memory (M, D)."""

    def __init__(self, pools: Sequence[nn.Module], memory: Tensor) -> None:
        super().__init__()
        centre = memory.mean(0)
        members = memory - centre
        self.pools = nn.ModuleList(pools)
        self.register_buffer("centre", centre)
        self.register_buffer("members", members.T.contiguous())  # (D, M)
        self.register_buffer("squares", members.square().sum(1))  # (M,)
        self.centre: Tensor
        self.members: Tensor
        self.squares: Tensor
        self.eval()

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        # In fp32 also where the network runs in bf16: a difference of squares needs the digits.
        patches = patch_features(levels, list(self.pools)).float()  # (N, h, w, D)
        centred = patches.flatten(0, 2) - self.centre.float()
        nearest = torch.addmm(self.squares.float(), centred, self.members.float(), alpha=-2).amin(1)
        squared = nearest + centred.square().sum(1)
        return squared.clamp_min(0).sqrt().reshape(patches.shape[:3])[:, None]


class Unfolded(nn.Module):
    """The distance by its definition, member by member, in float64."""

    def __init__(self, features: Features, memory: Tensor) -> None:
        super().__init__()
        self.backbone = features.backbone
        self.pools = nn.ModuleList(features.pools)
        self.memory = memory.double()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw anomaly map (N, 1, h, w)."""
        patches = patch_features(self.backbone(images), list(self.pools)).double()
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(patches.flatten(0, 2), self.memory, compute_mode=exact)
        return distances.amin(1).reshape(patches.shape[:3])[:, None].float()


def learn(task: Task, preset: PatchcorePreset) -> Learned:
    """Choose the memory; it takes seconds, so a stopped training begins again."""
    features = Features(task, preset)
    bank = features.bank()  # (N, P, D)

    def memory_of(rows: Tensor, *, silent: bool) -> Tensor:
        patches = rows.flatten(0, 1)
        count = max(1, round(preset.coreset * len(patches)))

        def told(done: int) -> None:
            task.check_stop("stopped while choosing the memory; nothing was learned yet")
            if not silent and (done % TOLD_EVERY == 0 or done == count):
                task.progress(Progress("training", done, count, "members of the memory"))

        points = project(patches, preset.projected, task.seed)
        return patches[farthest_first(points, count, told)].float()

    def without(units: Collection[str]) -> nn.Module:
        kept = bank[features.rows_without(units, bank)]
        return features.network(MemoryHead(features.pools, memory_of(kept, silent=True)))

    memory = memory_of(bank, silent=False)
    return Learned(
        network=features.network(MemoryHead(features.pools, memory)),
        reference=Unfolded(features, memory),
        without=without,
        backbone=preset.backbone,
        patches=bank.shape[0] * bank.shape[1],
    )
