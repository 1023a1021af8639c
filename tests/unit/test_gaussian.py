"""The Gaussians: their distances by definition, folded and unfolded, over all and per place."""

import pytest
import torch
from torch import Tensor, nn

from station.detectors import GAUSSIAN, PER_POSITION
from station.errors import ConfigError
from station.learn import gaussian
from station.learn.features.local import AveragePool
from station.learn.gaussian import Gaussian, GaussianHead, PlacesHead, of_patches, of_places
from station.learn.simplenet.network import patch_features
from station.preset import changed

LEVELS = [(3, 8), (5, 4)]  # channels and cells of a side


def levels(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, c, side, side, generator=generator) for c, side in LEVELS]


def pools() -> list[nn.Module]:
    return [AveragePool(channels) for channels, _ in LEVELS]


def distances(patches: Tensor, found: Gaussian) -> Tensor:
    """Mahalanobis's distance as textbooks write it, one vector at a time."""
    rows = []
    for i, patch in enumerate(patches.double()):
        mean = found.mean if found.mean.dim() == 1 else found.mean[i % len(found.mean)]
        precision = (
            found.precision if found.mean.dim() == 1 else found.precision[i % len(found.mean)]
        )
        gap = patch - mean
        rows.append((gap @ precision @ gap).sqrt())
    return torch.stack(rows)


def test_without_shrinkage_it_is_the_sample_s_own_gaussian() -> None:
    patches = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64)
    found = of_patches(patches, 1e-12)
    assert torch.allclose(found.mean, patches.mean(0))
    covariance = torch.cov(patches.T, correction=0)
    assert torch.allclose(
        found.precision @ covariance, torch.eye(4, dtype=torch.float64), atol=1e-6
    )


def test_shrinkage_is_of_standardised_features() -> None:
    patches = torch.randn(300, 3, dtype=torch.float64)
    scaled = patches * torch.tensor([1.0, 1e-1, 10.0])
    a, b = of_patches(patches, 0.1), of_patches(scaled, 0.1)
    assert torch.allclose(distances(patches[:5], a), distances(scaled[:5], b), rtol=1e-6), (
        "the unit of a channel must not matter"
    )


def test_a_constant_channel_gives_finite_distances() -> None:
    patches = torch.randn(50, 3)
    patches[:, 1] = 7.0
    found = of_patches(patches, 0.01)
    assert torch.isfinite(found.precision).all()


def test_the_folded_map_is_the_distance_of_every_place() -> None:
    train, test = levels(6, 0), levels(2, 1)
    found = of_patches(patch_features(train, pools()).flatten(0, 2), 0.01)
    anomaly_map = GaussianHead(pools(), found)(test)
    assert anomaly_map.shape == (2, 1, 8, 8)
    wanted = distances(patch_features(test, pools()).flatten(0, 2), found)
    assert torch.allclose(anomaly_map.flatten().double(), wanted, atol=1e-4)


def test_every_place_has_its_own_gaussian() -> None:
    train, test = levels(12, 0), levels(2, 1)
    bank = patch_features(train, pools()).flatten(1, 2)  # (N, P, D)
    channels = torch.tensor([0, 2, 3, 7])
    found = of_places(bank[..., channels], 0.01)
    alone = of_patches(bank[:, 17, channels].double(), 0.01)
    assert torch.allclose(found.mean[17], alone.mean)
    assert torch.allclose(found.precision[17], alone.precision)
    anomaly_map = PlacesHead(pools(), found, channels)(test)
    drawn = patch_features(test, pools())[..., channels].flatten(0, 2)
    wanted = distances(drawn, found)
    assert torch.allclose(anomaly_map.flatten().double(), wanted, rtol=1e-4, atol=1e-3)


def test_what_is_far_from_all_training_images_scores_highest() -> None:
    train, test = levels(6, 0), levels(1, 1)
    test[0][0, :, 5, 2] += 40.0
    found = of_patches(patch_features(train, pools()).flatten(0, 2), 0.01)
    anomaly_map = GaussianHead(pools(), found)(test)[0, 0]
    assert divmod(int(anomaly_map.argmax()), 8) in {(y, x) for y in (4, 5, 6) for x in (1, 2, 3)}


def test_channels_are_drawn_by_the_seed_alone() -> None:
    first, again, other = (gaussian._channels(152, PER_POSITION, seed) for seed in (3, 3, 4))
    assert len(set(first.tolist())) == PER_POSITION.channels
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ConfigError, match="the levels have 60"):
        gaussian._channels(60, PER_POSITION, 0)


def test_presets_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="per-position needs 1"):
        changed(PER_POSITION, tiles=2)
    with pytest.raises(ConfigError, match="per position"):
        changed(GAUSSIAN, channels=10)
    assert changed(GAUSSIAN, tiles=2).tiles == 2
