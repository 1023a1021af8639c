"""What is drawn of a network was read from its file."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model_card import card
from torch import nn

from station.errors import ModelError
from station.learn.anatomy import take_apart
from station.learn.export import Detector, InputForm, freeze, to_bytes, write_model
from station.learn.features.backbones import random_backbone
from station.learn.features.local import AveragePool
from station.learn.simplenet.collapse import CollapsedHead
from station.learn.simplenet.deviations import deviations
from station.learn.simplenet.network import Fit, fold
from station.model_card import ModelCard, ModelInput
from station.pages.network_figure import write_network
from station.preset import DEFAULT, changed

PRESET = changed(DEFAULT, input_size=96, hidden=8, members=2)


@pytest.fixture(scope="module")
def fit() -> Fit:
    bank = torch.randn(20, 100, 24 + 40 + 112, generator=torch.Generator().manual_seed(0))
    return Fit(3 * bank, PRESET, 0)


@pytest.fixture
def written(tmp_path: Path, fit: Fit) -> ModelCard:
    backbone = random_backbone()
    head = CollapsedHead([AveragePool(c) for c in backbone.channels], *fold(fit.heads))
    form = InputForm.of_frames(64, 96, PRESET)
    weights = to_bytes(freeze(Detector(nn.Sequential(backbone, head), form, 1.5)))
    training = card().training
    assert training is not None
    made = card().model_copy(
        update={
            "sha256": hashlib.sha256(weights).hexdigest(),
            "input": ModelInput(
                width=96, height=64, tiles=1, channels="grey", frame_width=192, frame_height=128
            ),
            "training": training.model_copy(update={"preset": PRESET}),
        }
    )
    return write_model(tmp_path, made, weights, [np.zeros((8, 8), np.uint8)], "")


def test_stages_shapes_and_parameters_are_those_of_the_file(
    tmp_path: Path, written: ModelCard
) -> None:
    found = take_apart(tmp_path, written)
    assert (found.frame, found.given) == ((1, 128, 192), (3, 64, 96))
    assert [part.shape for part in found.stages] == [(24, 16, 24), (40, 8, 12), (112, 4, 6)]
    stages = random_backbone().stages
    counts = [sum(p.numel() for p in stage.parameters()) for stage in stages]
    assert [part.parameters for part in found.stages] == counts
    assert [part.shape for part in found.local] == [part.shape for part in found.stages]
    assert found.hidden == ((16, 16, 24), 16 * (24 + 40 + 112) + 16)
    assert found.raw == ((1, 16, 24), 16)


def test_the_drawing_says_them(tmp_path: Path, written: ModelCard) -> None:
    picture = tmp_path / "network.svg"
    write_network(picture, take_apart(tmp_path, written), written)
    texts = re.findall(r">([^<]*)</text>", picture.read_text())
    for text in ("24 x 16 x 24", "stage, stride 16", "16 parameters", "1 x 128 x 192"):
        assert text in texts


def test_another_network_is_refused(tmp_path: Path, written: ModelCard) -> None:
    int8 = written.model_copy(update={"precision": "int8"})
    with pytest.raises(ModelError, match="cloth/1: its int8 network is OpenVINO's"):
        take_apart(tmp_path, int8)
    form = InputForm.of_frames(64, 96, PRESET)
    weights = to_bytes(freeze(Detector(nn.Conv2d(3, 1, 4, 4), form, 1.5)))
    strange = written.model_copy(update={"sha256": hashlib.sha256(weights).hexdigest()})
    (tmp_path / "models" / "cloth" / "1" / "weights.pt").write_bytes(weights)
    with pytest.raises(ModelError, match="cloth/1: its network cannot be taken apart"):
        take_apart(tmp_path, strange)


def test_every_dimension_is_counted_by_its_deviation(fit: Fit) -> None:
    bank = torch.randn(50, 200, 176, generator=torch.Generator().manual_seed(1)) * 3
    found = deviations(bank, fit.heads[0])
    assert sum(found.local) == sum(found.adapted) == 176
    centres = np.sqrt(np.array(found.edges[1:]) * np.array(found.edges[:-1]))
    local, adapted = (float(np.average(centres, weights=w)) for w in (found.local, found.adapted))
    assert local == pytest.approx(3.0, rel=0.05)
    assert adapted == pytest.approx(1.0, rel=0.1)  # standardised
