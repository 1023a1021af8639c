"""The method: training is repeatable and folding changes nothing."""

import cv2
import numpy as np
import pytest
import torch

from station.errors import ConfigError
from station.evaluate.metrics import image_auroc
from station.intervals import clopper_pearson
from station.learn import synthetic
from station.learn.features.local import AuthorsPool, AveragePool
from station.learn.simplenet.collapse import CollapsedHead
from station.learn.simplenet.network import Epoch, Fit, Head, fold, patch_features
from station.preset import DEFAULT, PAPER, Preset, changed

CHANNELS = (5, 7, 9)
POOLS = [AveragePool(channels) for channels in CHANNELS]
QUICK = changed(
    DEFAULT,
    hidden=16,
    members=2,
    meta_epochs=2,
    batches={"kind": "patches", "size": 256, "steps": 20},
)
LEARNED = changed(
    PAPER, hidden=16, meta_epochs=2, batches={"kind": "images", "size": 2, "epochs": 2}
)


def features(seed: int, images: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (16, 8, 4)
    return [
        3 * torch.randn(images, c, s, s + 4, generator=generator)
        for c, s in zip(CHANNELS, sizes, strict=True)
    ]


def bank_of(seed: int, images: int = 8) -> torch.Tensor:
    return patch_features(features(seed, images), POOLS).flatten(1, 2)


def trained(seed: int = 0, preset: Preset = QUICK) -> list[Head]:
    return run(Fit(bank_of(0), preset, seed), preset).heads


def run(fit: Fit, preset: Preset) -> Fit:
    while fit.done < preset.meta_epochs:
        list(fit.meta_epoch())
    return fit


@pytest.mark.parametrize("preset", [QUICK, LEARNED], ids=["whitening", "learned"])
def test_folded_heads_equal_the_mean_of_the_heads_they_came_from(preset: Preset) -> None:
    heads = trained(preset=preset)
    levels = features(1)
    with torch.inference_mode():
        patches = patch_features(levels, POOLS)
        answers = torch.stack([-head(patches.flatten(0, 2)) for head in heads])
        found = CollapsedHead(POOLS, *fold(heads))(levels)[:, 0]
    assert torch.allclose(found, answers.mean(0).reshape(found.shape), atol=1e-4)


def test_the_authors_features_fold_too() -> None:
    pools = [AuthorsPool(channels, 6) for channels in CHANNELS]
    bank = patch_features(features(0, 4), pools).flatten(1, 2)
    heads = run(Fit(bank, LEARNED, 0), LEARNED).heads
    levels = features(1)
    with torch.inference_mode():
        patches = patch_features(levels, pools)
        found = CollapsedHead(pools, *fold(heads))(levels)[:, 0]
    expected = -heads[0](patches.flatten(0, 2)).reshape(found.shape)
    assert torch.allclose(found, expected, atol=1e-4)


def test_same_seed_gives_the_same_heads() -> None:
    first, second, other = trained(3), trained(3), trained(4)
    assert torch.equal(first[1].hidden.weight, second[1].hidden.weight)
    assert not torch.equal(first[0].hidden.weight, other[0].hidden.weight)
    assert not torch.equal(first[0].hidden.weight, first[1].hidden.weight)


@pytest.mark.parametrize("preset", [QUICK, LEARNED], ids=["whitening", "learned"])
def test_a_resumed_training_ends_where_an_unbroken_one_does(preset: Preset) -> None:
    unbroken = run(Fit(bank_of(0), preset, 0), preset)
    stopped = Fit(bank_of(0), preset, 0)
    list(stopped.meta_epoch())
    resumed = Fit(bank_of(0), preset, 0)
    resumed.resume(stopped.state())
    run(resumed, preset)
    for one, other in zip(unbroken.heads, resumed.heads, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("preset", [QUICK, LEARNED], ids=["whitening", "learned"])
def test_a_step_equals_the_plain_form_of_the_method(preset: Preset) -> None:
    preset = changed(preset, strewn=0.5)
    ours, plain = (Fit(bank_of(0), preset, 0, bank_of(3)) for _ in range(2))
    for head in ours.heads + plain.heads:
        head.train()
    patches = bank_of(4, 2).flatten(0, 1)
    found = ours._step(patches)
    noise, spoilt = plain._noise(len(patches)), plain._draw(bank_of(3), len(patches) // 2)
    losses = []
    for head, other in zip(plain.heads, ours.heads, strict=True):
        adapted = head.adapt(patches)
        answers = head.decide(
            head.hidden(torch.cat([adapted, adapted + noise, head.adapt(spoilt)]))
        )
        sizes = [len(patches), len(patches), len(spoilt)]
        good, noisy, defect = torch.split(answers, sizes)
        hinge = [torch.relu(0.5 - good), torch.relu(0.5 + noisy), 0.5 * torch.relu(0.5 + defect)]
        loss = sum(part.mean() for part in hinge)
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        for (name, value), same in zip(head.named_parameters(), other.parameters(), strict=True):
            if value.grad is not None:
                assert same.grad is not None
                assert torch.allclose(same.grad, value.grad, atol=1e-5), name
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_only_a_learned_adaptor_learns() -> None:
    fixed, learned = Fit(bank_of(0), QUICK, 0), Fit(bank_of(0), LEARNED, 0)
    before = [fit.heads[0].adaptor.weight.clone() for fit in (fixed, learned)]
    list(fixed.meta_epoch())
    list(learned.meta_epoch())
    assert torch.equal(fixed.heads[0].adaptor.weight, before[0])
    assert not torch.equal(learned.heads[0].adaptor.weight, before[1])


def test_an_epoch_over_images_takes_every_patch_once() -> None:
    preset = changed(LEARNED, batches={"kind": "images", "size": 3, "epochs": 2})
    steps = list(Fit(bank_of(0), preset, 0).meta_epoch())
    assert len(steps) == 2 * 3  # 8 images in batches of 3, twice


def test_training_tells_noise_from_the_good() -> None:
    preset = changed(QUICK, hidden=32, meta_epochs=15, learning_rate=1e-2)
    fit = Fit(bank_of(0), preset, 0)
    epochs: list[Epoch] = []
    while fit.done < preset.meta_epochs:
        epochs.append(list(fit.meta_epoch())[-1])
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].good_right > epochs[0].good_right
    head = fit.heads[0]
    with torch.inference_mode():
        good = head.adapt(bank_of(5).flatten(0, 1))
        noise = torch.randn(good.shape, generator=torch.Generator().manual_seed(1))
        noisy = [head.decide(head.hidden(good + sigma * noise)) for sigma in (0.0, 1.2)]
        scores = [(-answers).tolist() for answers in noisy]
    assert image_auroc(*scores) > 0.7


def test_whitened_features_have_no_correlation() -> None:
    preset = changed(QUICK, adaptor={"kind": "whitening", "strength": 1.0})
    head = Fit(bank_of(0), preset, 0).heads[0]
    adapted = head.adapt(bank_of(0).flatten(0, 1))
    assert torch.allclose(torch.cov(adapted.T), torch.eye(sum(CHANNELS)), atol=0.02)


def test_a_channel_that_never_changes_does_not_break_the_scale() -> None:
    bank = bank_of(0)
    bank[..., 3] = 1.0
    fit = run(Fit(bank, QUICK, 0), QUICK)
    with torch.inference_mode():
        assert torch.isfinite(fit.heads[0](bank.flatten(0, 1))).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input_size": 100}, "--input-size: .*multiple of 32"),
        ({"tiles": 0}, "tiles: "),
        ({"members": 0}, "members: "),
    ],
)
def test_an_impossible_preset_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        changed(DEFAULT, **change)


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


def test_what_is_strewn_on_good_images_is_learned_as_not_good() -> None:
    """A shift far smaller than the noise, which training on noise alone cannot tell from good."""
    aside = torch.zeros(sum(CHANNELS))
    aside[:3] = 2.5
    preset = changed(QUICK, hidden=32, meta_epochs=8, learning_rate=1e-2, noise=(2.4,))
    told = []
    for weight in (0.0, 1.0):
        weighted = changed(preset, strewn=weight)
        fit = run(Fit(bank_of(0), weighted, 0, bank_of(3) + aside if weight else None), preset)
        with torch.inference_mode():
            good, defect = (fit.heads[0](p.flatten(0, 1)) for p in (bank_of(5), bank_of(5) + aside))
        told.append(image_auroc((-good).tolist(), (-defect).tolist()))
    assert told[0] < 0.75, told
    assert told[1] > 0.9, told


@pytest.mark.parametrize("shape", [(128, 192), (192, 128, 3)])
def test_a_strewn_image_differs_where_its_mask_says(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(60, 190, shape, np.uint8)
    shares = []
    for seed in range(20):
        strewn = synthetic.strew(image, np.random.default_rng(seed))
        again = synthetic.strew(image, np.random.default_rng(seed))
        assert np.array_equal(strewn.image, again.image)
        assert np.array_equal(strewn.mask, again.mask)
        assert strewn.image.dtype == np.uint8
        assert strewn.image.shape == shape
        assert set(np.unique(strewn.mask)) == {0, 255}
        changed_at = (strewn.image != image).reshape(*shape[:2], -1).any(-1)
        near = cv2.dilate(strewn.mask, np.ones((9, 9), np.uint8)) > 0
        assert not (changed_at & ~near).any(), "outside the defects nothing changes"
        shares.append(changed_at[strewn.mask > 0].mean())
    assert np.mean(shares) > 0.9
