"""The collapsed head computes what the authors' pipeline computes, step by step."""

import pytest
import torch
from torch import Tensor, nn

from station.learn.features.backbones import cut, random_network
from station.learn.features.local import AuthorsPool, AveragePool
from station.learn.simplenet.collapse import CollapsedHead, collapse
from station.learn.simplenet.network import patch_features
from station.learn.simplenet.reference import Reference, ReferenceHead


def reference_head(features: int, hidden: int, dtype: torch.dtype) -> ReferenceHead:
    """Build a head with a batch norm that has seen something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = ReferenceHead(features, hidden)
        nn.init.uniform_(head.norm.weight, 0.5, 2.0)
        nn.init.normal_(head.norm.bias)
        assert head.norm.running_mean is not None and head.norm.running_var is not None
        nn.init.normal_(head.norm.running_mean)
        nn.init.uniform_(head.norm.running_var, 0.5, 2.0)
    return head.to(dtype).eval().requires_grad_(False)


def collapsed(head: ReferenceHead, channels: tuple[int, ...], dtype: torch.dtype) -> CollapsedHead:
    pools = [AuthorsPool(count, head.features // 2, dtype) for count in channels]
    return collapse(pools, head.projection, head.hidden, head.norm, head.out, dtype)


def levels(channels: tuple[int, ...], dtype: torch.dtype, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((12, 9), (6, 5))  # the coarse grid need not divide the fine one
    return [
        torch.randn(images, count, *size, generator=generator, dtype=dtype)
        for count, size in zip(channels, sizes, strict=True)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    ("channels", "features"),
    [
        ((8, 16), 24),  # in the proportions of a Wide-ResNet
        ((128, 256), 1536),  # a ResNet-18: fewer values than features
        ((10, 14), 12),  # windows of the pooling overlap
    ],
)
def test_collapsed_head_equals_the_unfolded_one(
    channels: tuple[int, ...], features: int, dtype: torch.dtype, tolerance: float
) -> None:
    head = reference_head(features, 32, dtype)
    given = levels(channels, dtype)
    expected = head(given)[0]
    found = collapsed(head, channels, dtype)(given)[:, 0]
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < tolerance


def test_collapsed_wide_resnet_scores_as_the_whole_pipeline() -> None:
    network = random_network("wide_resnet50_2")
    backbone = cut("wide_resnet50_2", network)
    head = reference_head(1536, 1024, torch.float32)
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2)) * 255
    with torch.inference_mode():
        normalised = (pixels - backbone.mean) / backbone.deviation
        answer = Reference(network, head)(normalised)
        found = collapsed(head, backbone.channels, torch.float32)(backbone(pixels))
    assert found.shape == (1, 1, 12, 12)
    assert answer.anomaly_map.shape == (1, 96, 96)
    assert found.amax() == pytest.approx(answer.score.item(), abs=1e-4)


def test_what_the_reference_throws_away_does_not_change_its_answer() -> None:
    network = random_network("resnet18")
    head = reference_head(48, 16, torch.float32)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    plain = Reference(network, head)(image)
    wasteful = Reference(network, head, wasteful=True)(image)
    assert torch.equal(plain.score, wasteful.score)
    assert torch.equal(plain.anomaly_map, wasteful.anomaly_map)


@pytest.mark.parametrize("width", [5, 8, 16])  # none, one, both of the coarse levels are narrow
def test_weights_are_split_by_what_each_level_gives(width: int) -> None:
    generator = torch.Generator().manual_seed(4)
    pools = [AveragePool(3), AuthorsPool(8, 4), AveragePool(2)]
    weight, bias = (torch.randn(width, *s, generator=generator) for s in ((9,), ()))
    out = torch.randn(1, width, generator=generator)
    sizes = ((3, 6, 9), (8, 3, 5), (2, 2, 3))
    given = [torch.randn(1, *size, generator=generator) for size in sizes]
    found = CollapsedHead(pools, weight, bias, out)(given)
    joined = patch_features(given, pools)[0].flatten(0, 1)
    expected = -(nn.functional.leaky_relu(joined @ weight.T + bias, 0.2) @ out.T)
    assert torch.allclose(found, expected.reshape(1, 1, 6, 9), atol=1e-5)
