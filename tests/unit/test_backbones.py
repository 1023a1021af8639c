"""Backbones: levels, strides, channels, pretrained weights."""

from typing import Any

import pytest
import torch

from station.errors import ConfigError
from station.learn.features.backbones import (
    BACKBONES,
    cut,
    load_backbone,
    random_backbone,
    random_network,
)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2", "resnet18"])
@pytest.mark.parametrize("levels", [None, (4,), (16, 8), (4, 8, 16, 32)])
def test_levels_have_the_promised_strides_and_channels(
    name: str, levels: tuple[int, ...] | None
) -> None:
    backbone = random_backbone(name, levels)
    asked = BACKBONES[name].levels if levels is None else tuple(sorted(levels))
    assert backbone.strides == asked
    with torch.inference_mode():
        found = backbone(torch.zeros(1, 3, 64, 96))
    promised = zip(backbone.channels, backbone.strides, strict=True)
    assert [tuple(level.shape) for level in found] == [
        (1, channels, 64 // stride, 96 // stride) for channels, stride in promised
    ]


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "wide_resnet50_2"])
def test_deep_residual_networks_give_layer2_and_layer3(name: str) -> None:
    with torch.device("meta"):
        backbone = cut(name, random_network(name))
        found = backbone(torch.zeros(1, 3, 288, 288))
    assert backbone.strides == (8, 16)
    assert [tuple(level.shape[1:]) for level in found] == [(512, 36, 36), (1024, 18, 18)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_padding_in_the_kernel_changes_no_value(name: str) -> None:
    image = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    plain: Any = random_network(name)
    with torch.inference_mode():
        expected = plain.forward_intermediates(image, indices=[1, 2, 3], intermediates_only=True)
        expected.append(plain.blocks[5](expected[-1]))
        backbone = cut(name, random_network(name), (4, 8, 16, 32))
        found = backbone(image * backbone.deviation + backbone.mean)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_fewer_levels_change_no_value() -> None:
    image = 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        two = random_backbone("resnet18", (8, 16))(image)
        three = random_backbone("resnet18", (4, 8, 16))(image)
    assert all(torch.equal(a, b) for a, b in zip(two, three[1:], strict=True))


def test_residual_networks_are_given_what_torchvision_gives_them() -> None:
    from torchvision.models import ResNet18_Weights

    backbone = random_backbone("resnet18")
    pixels = torch.randint(0, 256, (3, 224, 224), generator=torch.Generator().manual_seed(0))
    transform = ResNet18_Weights.IMAGENET1K_V1.transforms(resize_size=224)
    expected = transform(pixels.to(torch.uint8))
    assert torch.allclose((pixels - backbone.mean) / backbone.deviation, expected, atol=1e-5)


def test_same_seed_gives_the_same_random_backbone_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (random_backbone(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    values = [backbone.state_dict()["stages.0.0.weight"] for backbone in (first, second, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(ConfigError, match="no backbone 'resnet'; there are: efficientnet_lite0"):
        load_backbone("resnet")


@pytest.mark.parametrize("levels", [(), (2,), (8, 8), (8, 64)])
def test_levels_that_are_not_there_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="some of the strides 4, 8, 16, 32, each once"):
        random_backbone("resnet18", levels)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_pretrained_weights_are_loaded(name: str) -> None:
    pretrained, random = load_backbone(name), random_backbone(name)
    image = torch.full((1, 3, 64, 64), 100.0)
    with torch.inference_mode():
        assert not torch.allclose(pretrained(image)[2], random(image)[2])
