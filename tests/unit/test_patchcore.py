"""PatchCore: the greedy coreset and the nearest neighbour against brute force."""

import numpy as np
import torch
from torch import Tensor, nn

from station.learn.features.local import AveragePool
from station.learn.patchcore import MemoryHead, farthest_first, project
from station.learn.simplenet.network import patch_features


def brute_force(points: np.ndarray, count: int) -> list[int]:
    """Choose by the definition: the distance of every point from every chosen one, each time."""
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    chosen = [int(distance.argmax())]
    while len(chosen) < count:
        gaps = np.linalg.norm(points[:, None] - points[chosen][None], axis=2)
        chosen.append(int(gaps.min(1).argmax()))
    return chosen


def test_the_coreset_is_the_one_of_brute_force() -> None:
    points = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    found = farthest_first(points, 60, lambda _: None)
    assert found.tolist() == brute_force(points.double().numpy(), 60)


def test_every_point_is_chosen_once_even_among_twins() -> None:
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    told: list[int] = []
    found = farthest_first(points, 30, told.append)
    assert sorted(found.tolist()) == list(range(30))
    assert told == list(range(1, 31))
    ten = set(map(tuple, points[found[:10]].tolist()))
    assert len(ten) == 10, "twins come after all that differ"


def test_the_projection_keeps_distances_and_comes_back_the_same() -> None:
    patches = torch.randn(200, 152, generator=torch.Generator().manual_seed(0)).half()
    projected = project(patches, 64, 5)
    assert torch.equal(projected, project(patches, 64, 5))
    assert not torch.equal(projected, project(patches, 64, 6))
    ratio = torch.pdist(projected) / torch.pdist(patches.float())
    assert abs(float(ratio.mean()) - 1) < 0.05
    assert float(ratio.std()) < 0.15
    assert torch.equal(project(patches, 152, 0), patches.float())


def test_the_map_is_the_distance_from_the_nearest_in_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.randn(2, 6, 4, 4, generator=generator),
    ]
    pools: list[nn.Module] = [AveragePool(4), AveragePool(6)]
    memory = 100 + 0.1 * torch.randn(30, 10, generator=generator)  # far away: digits are at stake
    levels = [level * 0.1 + 100 for level in levels]
    found = MemoryHead(pools, memory)(levels)
    patches = patch_features(levels, pools).flatten(0, 2)
    wanted = [_nearest(patch, memory) for patch in patches]
    assert found.shape == (2, 1, 8, 8)
    assert np.allclose(found.flatten().numpy(), wanted, atol=1e-3)


def test_what_lies_in_memory_has_no_distance() -> None:
    levels = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))]
    pools: list[nn.Module] = [AveragePool(4)]
    memory = patch_features(levels, pools).flatten(0, 2)
    assert float(MemoryHead(pools, memory)(levels).max()) < 1e-2


def _nearest(patch: Tensor, memory: Tensor) -> float:
    return float(np.sqrt(((patch.double() - memory.double()) ** 2).sum(1).min().item()))
