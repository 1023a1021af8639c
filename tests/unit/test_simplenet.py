"""The method: training is repeatable and folding changes nothing."""

import numpy as np
import pytest
import torch

from station.intervals import clopper_pearson
from station.learn import synthetic
from station.learn.metrics import image_auroc
from station.learn.simplenet import (
    FoldedHead,
    Head,
    HeadOptions,
    patch_features,
    train_head,
)

CHANNELS = (5, 7, 9)
QUICK = HeadOptions(hidden=16, steps=40, batch=256)


def features(seed: int, images: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (16, 8, 4)
    return [
        3 * torch.randn(images, c, s, s + 4, generator=generator)
        for c, s in zip(CHANNELS, sizes, strict=True)
    ]


def trained(seed: int = 0, options: HeadOptions = QUICK) -> Head:
    bank = patch_features(features(0, images=8)).flatten(0, 2)
    return train_head(bank, options, seed, lambda *_: None)


def test_folded_heads_equal_the_mean_of_the_heads_they_came_from() -> None:
    heads = [trained(seed) for seed in range(3)]
    levels = features(1)
    with torch.inference_mode():
        patches = patch_features(levels)
        answers = torch.stack([-head(patches.flatten(0, 2)) for head in heads])
        found = FoldedHead(heads, CHANNELS)(levels)[:, 0]
    assert torch.allclose(found, answers.mean(0).reshape(found.shape), atol=1e-4)


def test_same_seed_gives_the_same_head() -> None:
    first, second, other = trained(3), trained(3), trained(4)
    assert torch.equal(first.hidden.weight, second.hidden.weight)
    assert not torch.equal(first.hidden.weight, other.hidden.weight)


def test_training_tells_noise_from_the_good() -> None:
    head = trained(options=HeadOptions(hidden=32, steps=300, batch=512, learning_rate=1e-2))
    with torch.inference_mode():
        good = head.adapt(patch_features(features(5)).flatten(0, 2))
        noise = torch.randn(good.shape, generator=torch.Generator().manual_seed(1))
        scores = [(-head.discriminate(good + sigma * noise)).tolist() for sigma in (0.0, 1.2)]
    assert image_auroc(*scores) > 0.7


def test_a_channel_that_never_changes_does_not_break_the_scale() -> None:
    bank = patch_features(features(0)).flatten(0, 2)
    bank[:, 3] = 1.0
    head = train_head(bank, QUICK, 0, lambda *_: None)
    with torch.inference_mode():
        assert torch.isfinite(head(bank)).all()


@pytest.mark.parametrize("kind", synthetic.KINDS)
@pytest.mark.parametrize("shape", [(64, 96), (96, 64, 3), (4, 5)])
def test_synthetic_defect_changes_a_part_of_the_image(kind: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(60, 190, shape, np.uint8)
    spoilt = synthetic.spoil(image, kind, np.random.default_rng(1))
    again = synthetic.spoil(image, kind, np.random.default_rng(1))
    assert spoilt.shape == image.shape
    assert spoilt.dtype == np.uint8
    assert np.array_equal(spoilt, again)
    if min(shape[:2]) > 8:
        assert 0 < (spoilt != image).mean() < 0.3


def test_auroc_counts_ties_half() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.integers(0, 5, 30), rng.integers(2, 8, 20)
    pairs = [(b > g) + 0.5 * (b == g) for g in good for b in bad]
    assert image_auroc(good.tolist(), bad.tolist()) == pytest.approx(np.mean(pairs))


def test_interval_of_a_share_is_the_exact_one() -> None:
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert clopper_pearson(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert clopper_pearson(18, 50) == pytest.approx((0.2292, 0.5081), abs=1e-4)
