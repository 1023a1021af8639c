"""A small model, trained for real, in its child process."""

import hashlib
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from station import openvino_runtime
from station.errors import ConfigError, DatasetError, ModelError
from station.evaluate.score import bench_model, score_files
from station.learn.certify import convert
from station.learn.export import card_text
from station.learn.images import from_mvtec
from station.learn.method import Progress, TrainingStopped
from station.learn.train import TrainOptions, train
from station.model import open_model
from station.model_card import Golden, ModelCard, list_models, load_card
from station.preset import DEFAULT, changed
from station.records.sheet import RuntimeName
from station.torchscript import has_bf16

openvino_needed = pytest.mark.skipif(
    not openvino_runtime.installed(), reason="needs station[openvino]"
)

PRESET = changed(
    DEFAULT,
    input_size=128,
    hidden=32,
    members=2,
    meta_epochs=3,
    batches={"kind": "patches", "size": 512, "steps": 50},
)
OPTIONS = TrainOptions("cloth", PRESET)


def quiet(_: Progress) -> None:
    pass


def cloth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128]
    weave = 30 * np.sin((x + rng.uniform(0, 8)) * 0.8) * np.sin((y + rng.uniform(0, 8)) * 0.8)
    noisy = 120 + weave + rng.normal(0, 4, weave.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def stained(seed: int) -> np.ndarray:
    image = cloth(seed)
    cv2.circle(image, (64, 48), 14, 240, -1)
    return image


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("workspace")
    good = workspace / "data" / "cloth" / "train" / "good"
    good.mkdir(parents=True)
    for i in range(20):
        cv2.imwrite(str(good / f"s-1-{i // 2}_a_{i % 2}.png"), cloth(i))
    told: list[Progress] = []
    train(from_mvtec(workspace / "data" / "cloth"), OPTIONS, workspace, told.append)
    ended = [p.stage for p in told if p.done == p.total]
    assert ended == ["features", "synthetic defects", "training", "held-out"]
    return workspace


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "models", tmp_path / "models")
    return tmp_path


def edit(workspace: Path, **changes: object) -> None:
    path = workspace / "models" / "cloth" / "1" / "card.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_defects_score_above_good_parts(trained: Path) -> None:
    with open_model(trained, "cloth/1") as model:
        good = [model.predict(cloth(100 + i)) for i in range(3)]
        bad = [model.predict(stained(100 + i)) for i in range(3)]
        assert max(p.score for p in good) < min(p.score for p in bad)
        for prediction in good + bad:
            assert prediction.anomaly_map.dtype == np.float32
            assert prediction.score == prediction.anomaly_map.max()
        row, column = np.unravel_index(bad[0].anomaly_map.argmax(), bad[0].anomaly_map.shape)
        assert abs(row / bad[0].anomaly_map.shape[0] - 0.5) < 0.3
        assert abs(column / bad[0].anomaly_map.shape[1] - 0.5) < 0.3
        # A larger frame after a smaller one needs more shared memory.
        assert np.isfinite(model.predict(np.tile(cloth(1), (8, 8))).score)


def test_training_twice_gives_the_same_scores(trained: Path, workspace: Path) -> None:
    images = from_mvtec(trained / "data" / "cloth")
    again = train(images, OPTIONS, workspace, quiet)
    first = load_card(trained, "cloth/1")
    assert again.version == 2
    assert again.held_out_scores == pytest.approx(first.held_out_scores, abs=1e-5)
    assert again.data == first.data
    assert (first.data.images, first.data.units) == (20, 10)
    assert len(first.data.held_out_units) == len(first.held_out_scores) == 2


def test_two_images_are_enough(tmp_path: Path) -> None:
    good = tmp_path / "data" / "cloth" / "train" / "good"
    good.mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(good / f"{i}.png"), cloth(i))
    card = train(from_mvtec(tmp_path / "data" / "cloth"), OPTIONS, tmp_path, quiet)
    assert card.data.units == 2
    with open_model(tmp_path, "cloth/1") as model:
        assert model.predict(stained(5)).score > model.predict(cloth(5)).score


@pytest.mark.bad_input("060-wrong-channels")
def test_images_that_do_not_fit_are_refused(trained: Path) -> None:
    with open_model(trained, "cloth/1") as model:
        with pytest.raises(ModelError, match="trained on grey images, this one is color"):
            model.predict(np.zeros((96, 128, 3), np.uint8))
        with pytest.raises(ModelError, match="float64"):
            model.predict(np.zeros((96, 128)))  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="4 channels"):
            model.predict(np.zeros((96, 128, 4), np.uint8))
        assert np.isfinite(model.predict(cloth(1)).score)


def test_a_dead_child_is_reported_and_stays_dead(trained: Path) -> None:
    with open_model(trained, "cloth/1") as model:
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(ModelError, match=r"model cloth/1: .*ended"):
                model.predict(cloth(1))


@pytest.mark.bad_input("064-never-returns")
def test_a_hanging_child_is_ended_at_the_deadline(trained: Path) -> None:
    with open_model(trained, "cloth/1", deadline_s=5.0) as model:
        assert model.pid is not None
        os.kill(model.pid, signal.SIGSTOP)
        with pytest.raises(ModelError, match=r"no answer to score within 5\.\d s"):
            model.predict(cloth(1))


def test_tampered_weights_are_refused(workspace: Path) -> None:
    path = workspace / "models" / "cloth" / "1" / "weights.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with (
        pytest.raises(ModelError, match=r"weights\.pt: sha256 is"),
        open_model(workspace, "cloth/1"),
    ):
        pass


def test_a_golden_image_that_scores_otherwise_is_refused(workspace: Path) -> None:
    card: ModelCard = load_card(workspace, "cloth/1")
    golden = card.golden[0].model_copy(update={"score": card.golden[0].score + 0.01})
    altered = card.model_copy(update={"golden": (golden, *card.golden[1:])})
    (workspace / "models" / "cloth" / "1" / "card.yaml").write_text(card_text(altered))
    with pytest.raises(ModelError, match="golden image scores"), open_model(workspace, "cloth/1"):
        pass


def test_a_missing_golden_image_is_refused(workspace: Path) -> None:
    (workspace / "models" / "cloth" / "1" / "golden-0.png").unlink()
    refused = pytest.raises(ModelError, match=r"golden-0\.png: golden image missing")
    with refused, open_model(workspace, "cloth/1"):
        pass


@pytest.mark.bad_input("061-nan-at-load")
def test_scores_that_are_not_numbers_are_refused(workspace: Path, nan_weights: bytes) -> None:
    folder = workspace / "models" / "cloth" / "1"
    (folder / "weights.pt").write_bytes(nan_weights)
    card = load_card(workspace, "cloth/1")
    altered = card.model_copy(update={"sha256": hashlib.sha256(nan_weights).hexdigest()})
    (folder / "card.yaml").write_text(card_text(altered))
    with pytest.raises(ModelError, match="not a finite number"), open_model(workspace, "cloth/1"):
        pass


@pytest.fixture
def nan_weights() -> bytes:
    import torch

    from station.learn.export import Detector, InputForm, freeze, to_bytes
    from station.learn.features.backbones import random_backbone
    from station.learn.features.local import AveragePool
    from station.learn.simplenet.collapse import CollapsedHead
    from station.learn.simplenet.network import Folded

    backbone = random_backbone()
    pools = [AveragePool(channels) for channels in backbone.channels]
    folded = Folded(
        torch.zeros(8, sum(backbone.channels)), torch.full((8,), torch.nan), torch.ones(8)
    )
    form = InputForm.of_frames(96, 128, PRESET)
    return to_bytes(
        freeze(Detector(torch.nn.Sequential(backbone, CollapsedHead(pools, *folded)), form, 1.0))
    )


def test_a_stopped_training_goes_on_where_it_was(trained: Path, tmp_path: Path) -> None:
    images = from_mvtec(trained / "data" / "cloth")
    stop = threading.Event()

    def stop_after_one(progress: Progress) -> None:
        if progress.stage == "training":
            stop.set()

    with pytest.raises(TrainingStopped, match="after 1 of 3 meta-epochs"):
        train(images, OPTIONS, tmp_path, stop_after_one, stop)
    assert not (tmp_path / "models").exists()
    told: list[Progress] = []
    resumed = train(images, replace(OPTIONS, resume=True), tmp_path, told.append)
    assert [p.done for p in told if p.stage == "training"] == [2, 3]
    assert not [p for p in told if p.stage == "features"], "the features are still there"
    unbroken = load_card(trained, "cloth/1")
    assert resumed.training == unbroken.training
    assert resumed.held_out_scores == unbroken.held_out_scores
    assert not list((tmp_path / "run" / "training").iterdir())


def test_there_must_be_something_to_resume(trained: Path, tmp_path: Path) -> None:
    images = from_mvtec(trained / "data" / "cloth")
    with pytest.raises(ConfigError, match="no training to resume"):
        train(images, replace(OPTIONS, resume=True), tmp_path, quiet)


def test_a_picture_that_is_there_twice_is_refused(trained: Path, tmp_path: Path) -> None:
    good = tmp_path / "data" / "train" / "good"
    shutil.copytree(trained / "data" / "cloth" / "train" / "good", good)
    shutil.copy(good / "s-1-0_a_0.png", good / "s-1-9_a_0.png")
    with pytest.raises(DatasetError, match=r"s-1-9_a_0\.png and .*s-1-0_a_0\.png are the same"):
        train(from_mvtec(tmp_path / "data"), OPTIONS, tmp_path, quiet)
    assert not (tmp_path / "models").exists()


def test_a_disk_too_small_for_the_features_is_told_before(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DatasetError, match=r"the features need .* GB, 0\.00 GB are free"):
        train(from_mvtec(trained / "data" / "cloth"), OPTIONS, tmp_path, quiet)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_images_learned_from_can_be_checked(trained: Path) -> None:
    sums = (trained / "models" / "cloth" / "1" / "images.sha256").read_text().splitlines()
    good = trained / "data" / "cloth" / "train" / "good"
    assert len(sums) == 20
    for line in sums:
        sha256, _, name = line.partition("  ")
        assert hashlib.sha256((good / name).read_bytes()).hexdigest() == sha256


def test_files_are_scored_in_order(trained: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for i, file in enumerate(files):
        cv2.imwrite(str(file), cloth(50 + i))
    scored = list(score_files(trained, "cloth/1", files))
    assert [file for file, _ in scored] == files
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"bad\.png: empty file"):
        list(score_files(trained, "cloth/1", [tmp_path / "bad.png"]))


def test_bench_measures_both_sizes(trained: Path) -> None:
    figures = bench_model(trained, "cloth/1", 3)
    assert sorted(figures) == ["p50_ms_256", "p50_ms_frame", "p95_ms_256", "p95_ms_frame"]
    assert all(value > 0 for value in figures.values())


bf16_needed = pytest.mark.skipif(not has_bf16(), reason="needs a processor with bf16 instructions")


@pytest.fixture
def certified(workspace: Path) -> Path:
    """Give cloth/1 whole frames as golden images, two good ones and a stained one."""
    images = [cloth(200), cloth(201), stained(200)]
    with open_model(workspace, "cloth/1") as model:
        scores = [model.predict(image).score for image in images]
    folder = workspace / "models" / "cloth" / "1"
    golden = []
    for i, (image, score) in enumerate(zip(images, scores, strict=True)):
        golden.append(Golden(file=f"golden-{i}.png", score=score, spoilt=i == 2))
        cv2.imwrite(str(folder / f"golden-{i}.png"), image)
    card = load_card(workspace, "cloth/1").model_copy(update={"golden": tuple(golden)})
    (folder / "card.yaml").write_text(card_text(card))
    return workspace


def middle(workspace: Path) -> float:
    """Return a threshold far from every golden image: so small a model is rough in bf16."""
    scores = [golden.score for golden in load_card(workspace, "cloth/1").golden]
    return (max(scores[:2]) + scores[2]) / 2


@bf16_needed
@pytest.mark.parametrize(
    "runtime", ["torchscript", pytest.param("openvino", marks=openvino_needed)]
)
def test_bf16_is_a_new_model_with_scores_of_its_own(certified: Path, runtime: RuntimeName) -> None:
    threshold = middle(certified)
    done = convert(certified, "cloth/1", runtime, "bf16", threshold)
    parent, card = load_card(certified, "cloth/1"), load_card(certified, "cloth/2")
    assert card == done.card
    assert (card.parent, card.runtime, card.precision) == ("cloth/1", runtime, "bf16")
    assert card.sha256 == parent.sha256
    assert [g.score for g in card.golden] != [g.score for g in parent.golden]
    assert done.difference > 0.0
    with open_model(certified, "cloth/2", threshold=threshold) as model:
        assert model.predict(stained(100)).score > threshold > model.predict(cloth(100)).score


@openvino_needed
def test_openvino_in_fp32_scores_the_same(certified: Path) -> None:
    done = convert(certified, "cloth/1", "openvino", "fp32")
    assert done.difference < 1e-4
    (kept,) = (certified / "run" / "openvino").iterdir()
    assert kept.name.startswith(done.card.sha256)
    with open_model(certified, "cloth/1") as torch, open_model(certified, "cloth/2") as openvino:
        for image in (cloth(100), stained(100), np.tile(cloth(3), (3, 3))):
            expected, found = torch.predict(image), openvino.predict(image)
            assert found.score == pytest.approx(expected.score, abs=1e-4)
            assert np.abs(found.anomaly_map - expected.anomaly_map).max() < 1e-4


@bf16_needed
def test_an_export_that_changes_a_verdict_leaves_nothing(certified: Path) -> None:
    exact = load_card(certified, "cloth/1").golden[2].score
    card = convert(certified, "cloth/1", "torchscript", "bf16", middle(certified)).card
    moved = card.golden[2].score
    with pytest.raises(ModelError, match=r"golden-2\.png scores .*another verdict at threshold"):
        convert(certified, "cloth/1", "torchscript", "bf16", (exact + moved) / 2)
    assert list_models(certified) == ["cloth/1", "cloth/2"]


@bf16_needed
def test_a_golden_image_with_another_verdict_is_refused_at_load(certified: Path) -> None:
    card = convert(certified, "cloth/1", "torchscript", "bf16", middle(certified)).card
    here = card.golden[0].score
    # As if it had been exported on another processor: not too far, but over the threshold.
    there = card.golden[0].model_copy(update={"score": here + 0.04})
    changed = card.model_copy(update={"golden": (there, *card.golden[1:])})
    (certified / "models" / "cloth" / "2" / "card.yaml").write_text(card_text(changed))
    with open_model(certified, "cloth/2", threshold=here - 0.1):
        pass
    with (
        pytest.raises(ModelError, match="another verdict at threshold"),
        open_model(certified, "cloth/2", threshold=here + 0.02),
    ):
        pass
