"""Cards are read strictly, and models on disk are refused when anything about them is off."""

import hashlib
import resource
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from station.errors import ConfigError, DatasetError, ModelError
from station.evaluate.metrics import held_out_rejects
from station.learn.export import card_text, write_model
from station.learn.images import TrainingImages
from station.learn.train import TrainOptions, train
from station.model_card import (
    CurvePoint,
    Golden,
    ModelCard,
    ModelInput,
    Scale,
    Training,
    TrainingData,
    list_models,
    load_card,
)
from station.preset import DEFAULT, changed
from station.torchscript import load_graph

IMAGE = np.zeros((8, 8), np.uint8)
PRESET = changed(DEFAULT, noise=(1e-5,))
POINT = CurvePoint(meta_epoch=1, loss=1e-7, good_right=1.0, noisy_right=0.5, synthetic_auroc=0.75)
SUMS = "00  a.png\n"


def card(name: str = "cloth") -> ModelCard:
    return ModelCard(
        name=name,
        version=1,
        detector="simplenet",
        backbone="efficientnet_lite0",
        sha256="00",
        input=ModelInput(
            width=64, height=64, tiles=1, channels="grey", frame_width=8, frame_height=8
        ),
        scale=Scale(raw_zero=0.0, raw_one=1.0, synthetic_seed=0, synthetic_kinds=("blob",)),
        data=TrainingData(
            folder="data/cloth", digest="123", images=4, units=4, held_out_units=("0089", "0010")
        ),
        training=Training(preset=PRESET, seed=0, patches=1, threads=2, curve=(POINT,)),
        golden=(Golden(file="golden-0.png", score=0.1),),
        held_out_scores=(0.1, 0.3, float("1e-7"), -0.2),
        software={"torch": "2.14.1"},
        created=datetime(2030, 1, 2, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("size", "refused", "doubted"),
    [
        ((1224, 1024), False, False),
        ((1300, 1000), False, False),  # as unlike as pictures to learn from may be
        ((640, 480), False, True),
        ((2448, 2048), False, True),
        ((1024, 1224), True, True),
        ((1024, 1024 * 8), True, True),
    ],
)
def test_a_picture_of_another_size_is_doubted_one_of_another_shape_refused(
    size: tuple[int, int], refused: bool, doubted: bool
) -> None:
    trained = ModelInput(
        width=256, height=214, tiles=1, channels="grey", frame_width=1224, frame_height=1024
    )
    assert (trained.refusal(*size) is not None, trained.doubt(*size) is not None) == (
        refused,
        doubted,
    )
    told = "learned from pictures of 1224 x 1024 pixels"
    assert all(told in text for text in (trained.refusal(*size), trained.doubt(*size)) if text)


def test_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_model(tmp_path, card(), b"weights", [IMAGE], SUMS)
    assert load_card(tmp_path, "cloth/1") == written


def test_a_model_is_never_overwritten(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        assert write_model(tmp_path, card(), bytes([version]), [IMAGE], SUMS).version == version
    assert (tmp_path / "models" / "cloth" / "1" / "weights.pt").read_bytes() == b"\x01"
    assert list_models(tmp_path) == ["cloth/1", "cloth/2", "cloth/3"]
    assert sorted(p.name for p in (tmp_path / "models" / "cloth").iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize("before", [(), ("1",)])
def test_a_full_disk_leaves_the_models_as_they_were(
    tmp_path: Path, before: tuple[str, ...]
) -> None:
    for _ in before:
        write_model(tmp_path, card(), b"weights", [IMAGE], SUMS)
    home = tmp_path / "models" / "cloth"
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DatasetError, match=r"weights\.pt: File too large"):
            write_model(tmp_path, card(), bytes(2000), [IMAGE], SUMS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert home.exists() == bool(before)
    assert [p.name for p in home.glob("*")] == list(before)


def test_a_missing_model_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are: none"):
        load_card(tmp_path, "cloth/1")
    write_model(tmp_path, card(), b"", [IMAGE], SUMS)
    for name in ("cloth/2", "cloth", "../models/cloth/1"):
        with pytest.raises(ModelError, match="there are: cloth/1"):
            load_card(tmp_path, name)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("detector: simplenet", "detektor: simplenet", r"detektor: unknown key; did you mean"),
        ("precision: fp32", "precision: int4", "precision"),
        ("raw_one: 1.0", "raw_one: .nan", "not a finite number"),
        ("raw_one: 1.0", "raw_one: one", "scale.raw_one"),
        ("name: cloth", "name: wool", "say wool/1, not cloth/1"),
        ("golden-0.png", "../golden.png", "golden"),
    ],
)
def test_an_altered_card_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    write_model(tmp_path, card(), b"", [IMAGE], SUMS)
    path = tmp_path / "models" / "cloth" / "1" / "card.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=rf"card\.yaml.*{problem}"):
        load_card(tmp_path, "cloth/1")


@pytest.mark.bad_input("066-another-release")
def test_a_card_of_another_release_says_so(tmp_path: Path) -> None:
    write_model(tmp_path, card(), b"", [IMAGE], SUMS)
    path = tmp_path / "models" / "cloth" / "1" / "card.yaml"
    newer = path.read_text().replace("torch: ", 'station: "99.0"\n  torch: ')
    path.write_text(newer + "colour_depth: 8\n")
    refused = r"colour_depth: unknown key.*\(the model was made by station 99\.0; this is "
    with pytest.raises(ModelError, match=refused):
        load_card(tmp_path, "cloth/1")


def test_card_has_no_threshold() -> None:
    assert "threshold" not in card_text(card())


def test_held_out_rejects_are_counted_with_their_interval() -> None:
    assert held_out_rejects(card(), 0.2)[:2] == (1, 4)
    assert held_out_rejects(card(), 0.3)[:2] == (1, 4)
    count, total, low, high = held_out_rejects(card(), 0.31)
    assert (count, total, low) == (0, 4, 0.0)
    assert high == pytest.approx(0.6024, abs=1e-4)


def test_weights_that_do_not_match_the_card_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"tampered")
    with pytest.raises(ModelError, match=r"weights\.pt: sha256 is .*its card says 0000"):
        load_graph(path, "0" * 64)
    with pytest.raises(ModelError, match="no such file"):
        load_graph(tmp_path / "gone.pt", "0" * 64)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="no TorchScript file"):
        load_graph(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_impossible_name_is_refused_at_once(tmp_path: Path) -> None:
    images = TrainingImages(tmp_path, {"a": (tmp_path / "a.png",), "b": (tmp_path / "b.png",)})
    with pytest.raises(ConfigError, match=r"model name '\.\./cloth'"):
        train(images, TrainOptions("../cloth"), tmp_path, lambda _: None)
    assert not (tmp_path / "models").exists()
