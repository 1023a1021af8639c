"""EfficientAD: the published networks and steps, by figures and by a second implementation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from station.errors import DatasetError, ModelError
from station.learn.efficientad.graph import published_graph
from station.learn.efficientad.pdn import Autoencoder, ImageNetPixels, Size, map_side, pdn
from station.learn.efficientad.quantiles import quantiles
from station.learn.efficientad.reference import Reference
from station.learn.efficientad.training import (
    Fit,
    Losses,
    MapScale,
    Plan,
    Trio,
    change_colours,
    losses,
    measure_maps,
)
from station.learn.export import Detector, InputForm, freeze, from_bytes, to_bytes
from station.torchscript import torch_network

gpu_needed = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that torch can use"
)
SIDE = 128  # the smallest that the autoencoder takes
WIDTH, CHANNELS = 8, 12


def trio(seed: int = 0, size: Size = "s") -> Trio:
    torch.manual_seed(seed)
    narrow = Autoencoder((SIDE, SIDE), (map_side(SIDE),) * 2, CHANNELS, WIDTH)
    teacher = nn.Sequential(ImageNetPixels(), *pdn(size, CHANNELS, WIDTH))
    made = Trio(teacher, pdn(size, 2 * CHANNELS, WIDTH), narrow, CHANNELS)
    made.mean.normal_()
    made.deviation.uniform_(0.5, 2)
    return made


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return 255 * F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # Of the published table: kernel x kernel x inputs x outputs, and a bias per output.
        (pdn("s"), 4 * 4 * 3 * 128 + 128 + 4 * 4 * 128 * 256 + 256 + 3 * 3 * 256 * 256 + 256
         + 4 * 4 * 256 * 384 + 384),
        (pdn("m"), 4 * 4 * 3 * 256 + 256 + 4 * 4 * 256 * 512 + 512 + 512 * 512 + 512
         + 3 * 3 * 512 * 512 + 512 + 4 * 4 * 512 * 384 + 384 + 384 * 384 + 384),
        (Autoencoder(), 4 * 4 * 3 * 32 + 32 + 4 * 4 * 32 * 32 + 32 + 4 * 4 * 32 * 64 + 64
         + 2 * (4 * 4 * 64 * 64 + 64) + 8 * 8 * 64 * 64 + 64 + 6 * (4 * 4 * 64 * 64 + 64)
         + 3 * 3 * 64 * 64 + 64 + 3 * 3 * 64 * 384 + 384),
    ],
    ids=["s", "m", "autoencoder"],
)  # fmt: skip
def test_networks_have_the_published_number_of_parameters(
    network: nn.Module, parameters: int
) -> None:
    assert sum(value.numel() for value in network.parameters()) == parameters


@pytest.mark.parametrize("size", ["s", "m"])
def test_an_unpadded_map_has_the_published_size(size: Size) -> None:
    network = pdn(size, 6, 4).eval()
    padded = pdn(size, 6, 4, padding=True).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 6, 56, 56)
        assert network(torch.zeros(1, 3, 33, 33)).shape == (1, 6, 1, 1)
        assert padded(torch.zeros(1, 3, 256, 256)).shape == (1, 6, 64, 64)
    assert map_side(256) == 56


def test_the_autoencoder_goes_through_the_published_sizes() -> None:
    network = Autoencoder(channels=4, width=4).eval()
    sides = []
    x = torch.zeros(1, 3, 256, 256)
    with torch.inference_mode():
        for layer in network:
            x = layer(x)
            sides.append(x.shape[-1])
    seen = [side for before, side in zip([256, *sides], sides, strict=False) if side != before]
    assert seen == [128, 64, 32, 16, 8, 1, 3, 4, 8, 9, 15, 16, 32, 33, 63, 64, 127, 128, 56]
    assert sum(isinstance(layer, nn.Dropout) for layer in network) == 6


def test_files_of_published_weights_fit_by_name() -> None:
    assert [n for n in pdn("s").state_dict() if n.endswith("weight")] == [
        "0.weight", "3.weight", "6.weight", "8.weight"
    ]  # fmt: skip
    assert [n for n in pdn("m").state_dict() if n.endswith("weight")] == [
        "0.weight", "3.weight", "6.weight", "8.weight", "10.weight", "12.weight"
    ]  # fmt: skip


def second_implementation(network: Trio, image: Tensor, changed: Tensor, penalty: Tensor) -> Losses:
    """Compute a step from the published formulas, one network call at a time."""
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
    image, changed, penalty = (((x / 255) - mean) / deviation for x in (image, changed, penalty))
    student = nn.Sequential(*network.student.trunk, network.student.last)
    assert isinstance(network.teacher, nn.Sequential)
    teaches = network.teacher[1:]

    def teacher(x: Tensor) -> Tensor:
        with torch.no_grad():
            described: Tensor = (teaches(x) - network.mean) / network.deviation
        return described

    distance = (teacher(image) - student(image)[:, :CHANNELS]) ** 2
    hard = distance[distance >= torch.quantile(distance, 0.999)].mean()
    outside = (student(penalty)[:, :CHANNELS] ** 2).mean()
    whole = network.autoencoder(changed)
    of_whole = ((teacher(changed) - whole) ** 2).mean()
    of_student = ((whole - student(changed)[:, CHANNELS:]) ** 2).mean()
    return Losses(hard, outside, of_whole, of_student)


@pytest.mark.parametrize("size", ["s", "m"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_step_equals_a_second_implementation_of_the_formulas(size: Size, cached: bool) -> None:
    ours, plain = trio(size=size), trio(size=size)
    image, penalty = pictures(1), pictures(1, seed=5)
    changed = change_colours(image, torch.Generator().manual_seed(1))
    for one in (ours, plain):  # without dropout, which draws in another order
        one.eval()
    target = ours.described(image) if cached else None
    found = losses(ours, image, changed, penalty, target)
    expected = second_implementation(plain, image, changed, penalty)
    for name, one, other in zip(Losses._fields, found, expected, strict=True):
        assert float(one.detach()) == pytest.approx(float(other.detach()), abs=1e-5), name
        assert float(one.detach()) > 0, name
    sum(found).backward()
    sum(expected).backward()
    gradients = {name: value.grad for name, value in plain.named_parameters()}
    for name, value in ours.named_parameters():
        grad, expected_grad = value.grad, gradients[name]
        if name.startswith("teacher"):
            assert grad is None and expected_grad is None
            continue
        assert grad is not None and expected_grad is not None, name
        assert torch.allclose(grad, expected_grad, atol=1e-4), name
        assert grad.abs().max() > 0, name


def test_without_penalty_images_that_term_is_zero() -> None:
    image = pictures(1)
    found = losses(trio().eval(), image, image, None, None)
    assert float(found.penalty) == 0


def elsewhere(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return 255 * torch.rand(1, 3, SIDE, SIDE, generator=generator)


def fit(steps: int, *, bf16: bool = False, device: str = "cpu") -> Fit:
    plan = Plan(steps=steps, learning_rate=3e-3, bf16=bf16)
    return Fit(trio(), pictures(3), None, plan, 7, elsewhere, device)


def test_steps_lower_every_loss_term() -> None:
    training = fit(50)
    # An untrained student and autoencoder answer next to nothing, so two terms would begin at 0.
    assert isinstance(training.pair, Trio)
    answers = [*training.pair.student.last.parameters(), *training.pair.autoencoder.parameters()]
    for value in (answers[1], answers[-1]):
        value.data.normal_(0, 2)
    found = list(training.steps())
    for name in Losses._fields:
        values = [getattr(one, name) for one in found]
        assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5]), name


@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_that_was_killed_ends_where_an_unbroken_one_does(bf16: bool) -> None:
    unbroken, killed, resumed = (fit(6, bf16=bf16) for _ in range(3))
    list(unbroken.steps())
    for _ in range(3):
        killed.step()
    resumed.resume(copy.deepcopy(killed.state()))
    killed.step()  # what comes after the state was taken does not count
    list(resumed.steps())
    for name, value in unbroken.pair.state_dict().items():
        assert torch.equal(value, resumed.pair.state_dict()[name]), name


@gpu_needed
def test_a_gpu_loses_what_the_processor_does() -> None:
    here, there = fit(3), fit(3, device="cuda")
    for one in (here, there):
        assert isinstance(one.pair, Trio)
        one.pair.autoencoder.apply(lambda layer: setattr(layer, "p", 0.0))  # dropout draws apart
    for ours, theirs in zip(here.steps(), there.steps(), strict=True):
        assert list(theirs) == pytest.approx(list(ours), rel=1e-2)
    maps, _ = measure_maps(there.pair, [pictures(1)])
    assert maps == pytest.approx(measure_maps(here.pair, [pictures(1)])[0], rel=5e-2)


def test_the_learning_rate_falls_to_a_tenth_at_95_per_cent() -> None:
    training = fit(20)
    rates = [training._optimiser.param_groups[0]["lr"] for _ in training.steps()]
    assert rates == [3e-3] * 19 + [pytest.approx(3e-4)]


def test_every_image_has_its_turn() -> None:
    training = fit(9)
    rows = [int(training._rows(number)) for number in range(9)]
    assert [sorted(rows[i : i + 3]) for i in (0, 3, 6)] == [[0, 1, 2]] * 3
    assert rows[:3] != rows[3:6] or rows[3:6] != rows[6:]


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    training = fit(3)
    training.pair.deviation.zero_()
    with pytest.raises(ModelError, match="step 1: the loss is no finite number"):
        training.step()


def test_colours_change_by_at_most_a_fifth() -> None:
    image = pictures(1) * 0.5 + 50
    kinds = set()
    for seed in range(12):
        changed = change_colours(image, torch.Generator().manual_seed(seed))
        assert changed.shape == image.shape
        assert (changed - image).abs().max() <= 0.2 * 255
        kinds.add(tuple(np.round((changed - image).mean((0, 2, 3)).numpy(), 3)))
    assert len(kinds) == 12


def test_maps_are_measured_without_padding_on_images_apart() -> None:
    network = trio().eval()
    images = list(torch.split(pictures(2), 1))
    scale = measure_maps(network, images)
    with torch.inference_mode():
        both = [network.maps(image) for image in images]
    for i, found in enumerate(scale):
        values = torch.cat([maps[i].flatten() for maps in both]).double().numpy()
        assert found == pytest.approx(np.quantile(values, [0.9, 0.995]))
        assert len(values) == 2 * 24 * 24


def test_quantiles_of_many_values_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3_000_001, generator=generator)
    shares = [0.0, 0.123457, 0.999, 1.0]
    assert quantiles(values, shares) == pytest.approx(
        np.quantile(values.double().numpy(), shares).tolist(), abs=1e-12
    )
    if torch.cuda.is_available():
        assert quantiles(values.cuda(), shares) == quantiles(values, shares)
    with pytest.raises(DatasetError, match="no values"):
        quantiles(torch.zeros(0), [0.5])


SCALE: MapScale = ((0.5, 2.0), (0.3, 1.1))


@pytest.mark.parametrize("size", ["s", "m"])
def test_the_graph_gives_the_published_map_and_score(size: Size) -> None:
    network = trio(size=size).eval()
    image = pictures(2)
    with torch.inference_mode():
        found = published_graph(network, SCALE)(image)
        maps = network.maps(image)
    expected = torch.stack(
        [0.1 * (one - low) / (high - low) for one, (low, high) in zip(maps, SCALE, strict=True)]
    ).mean(0)
    assert found.shape == (2, 1, 32, 32)
    assert torch.allclose(found[:, 0, 4:-4, 4:-4], expected, atol=1e-5)
    border = found.clone()
    border[:, :, 4:-4, 4:-4] = 0
    assert border.abs().max() == 0


def test_the_reference_differs_by_its_padding_alone() -> None:
    network = trio().eval()
    image = pictures(1)
    with torch.inference_mode():
        small = published_graph(network, SCALE)(image)
    ours = F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    theirs = Reference(network, SCALE)(image)
    inside = slice(4 * 4 + 2, -(4 * 4 + 2))  # where bilinear weights reach no padding
    assert torch.allclose(ours[..., inside, inside], theirs[..., inside, inside], atol=1e-4)
    assert ours[..., :14, :].abs().max() == 0
    assert theirs[..., :14, :].max() < -0.03  # 0 before normalising


def test_a_frozen_graph_gives_the_same_for_one_and_for_many_images() -> None:
    network = trio().eval()
    graph = published_graph(network, SCALE)
    form = InputForm(SIDE, SIDE, 1, 1.0)
    frozen = from_bytes(to_bytes(freeze(Detector(graph, form, 0.0))))
    frames = pictures(2).to(torch.uint8)
    with torch.inference_mode():
        scores, maps = frozen(frames)
        expected = graph(frames.float())[:, 0]
        loaded = torch_network(frozen.network)(frames.float())[:, 0]
    assert torch.allclose(maps, expected, atol=1e-4)
    assert torch.allclose(loaded, expected, atol=1e-4)
    assert scores.tolist() == maps.flatten(1).amax(1).tolist()
