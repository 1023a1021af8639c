"""An int8 backbone is a basis to train on, and goes into the one file."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from station import openvino_runtime
from station.errors import ModelError
from station.learn.export import Detector, InputForm
from station.learn.features.backbones import Backbone, random_backbone
from station.learn.features.local import AveragePool
from station.learn.features.quantise import (
    Int8Network,
    QuantisedBackbone,
    int8_file,
    quantised_backbone,
)
from station.learn.simplenet.collapse import CollapsedHead
from station.preset import DEFAULT, changed
from station.torchscript import Detector as Loaded
from station.torchscript import Runtime, load_graph

pytestmark = pytest.mark.skipif(not openvino_runtime.installed(), reason="needs station[openvino]")


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 64, 96, generator=generator) * 255 for _ in range(count)]


@pytest.fixture(scope="module")
def plain() -> Backbone:
    return random_backbone("resnet18", (4, 8))


@pytest.fixture(scope="module")
def quantised(plain: Backbone) -> QuantisedBackbone:
    return quantised_backbone(plain, images(2))


FORM = changed(DEFAULT, input_size=96)


@pytest.fixture(scope="module")
def detector(quantised: QuantisedBackbone) -> Detector:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, sum(quantised.channels), generator=generator) / 10
    pools = [AveragePool(count) for count in quantised.channels]
    head = CollapsedHead(pools, weight, torch.zeros(8), torch.randn(1, 8, generator=generator))
    return Detector(Int8Network(quantised, head), InputForm.of_frames(64, 96, FORM), 1.0)


def test_features_have_the_backbones_form_and_nearly_its_values(
    plain: Backbone, quantised: QuantisedBackbone
) -> None:
    assert (quantised.name, quantised.strides) == (plain.name, plain.strides)
    batch = torch.cat(images(2))
    for found, exact in zip(quantised(batch), plain(batch), strict=True):
        assert found.shape == exact.shape
        assert found.dtype == torch.float32
        assert 0.0 < float((found - exact).std() / exact.std()) < 0.2


def test_features_are_the_same_every_time(quantised: QuantisedBackbone) -> None:
    image = images(1)[0]
    first = [level.clone() for level in quantised(image)]
    quantised(images(3)[2])
    assert all(torch.equal(a, b) for a, b in zip(first, quantised(image), strict=True))


def test_the_head_sees_the_features_it_was_trained_on(
    detector: Detector, quantised: QuantisedBackbone
) -> None:
    network = detector.network
    assert isinstance(network, Int8Network)
    image = images(1)[0]
    assert torch.allclose(network(image), network.head(quantised(image)), atol=1e-4)


def test_one_file_scores_as_in_training(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(int8_file(detector))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    frame = (images(1)[0]).to(torch.uint8)
    score, anomaly_map = Loaded(path, sha256, Runtime("openvino", "int8"), None)(frame)
    expected = detector(frame)
    assert torch.equal(anomaly_map, expected[1])
    assert score == expected[0] == anomaly_map.max()
    with pytest.raises(torch.jit.Error, match="runs through OpenVINO only"):
        load_graph(path, sha256)(frame)
    with pytest.raises(ModelError, match="no int8 network for torchscript"):
        Loaded(path, sha256, Runtime("torchscript", "int8"), None)


def test_nothing_to_calibrate_on_is_refused(plain: Backbone) -> None:
    with pytest.raises(ModelError, match="no image to calibrate"):
        quantised_backbone(plain, [])
