"""A file made elsewhere: what breaks the contract is named, what keeps it gets a card."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.export import torchscript_is_meant
from station.learn.held_out import to_frames
from station.learn.images import TrainingImages, from_mvtec, read_image
from station.learn.imported import import_model, read_graph
from station.model_card import WEIGHTS, check_files, load_card
from station.torchscript import load_graph


class Contrast(nn.Module):
    """Distance of every 4x4 cell from the frame's mean grey."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        cells = nn.functional.avg_pool2d(frames.float().mean(1), 4)
        maps = (cells - cells.mean((1, 2), keepdim=True)).abs()
        return maps.flatten(1).amax(1), maps


class Broken(nn.Module):
    """Contrast, but for one thing."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        cells = nn.functional.avg_pool2d(frames.float().mean(1), 4)
        maps = (cells - cells.mean((1, 2), keepdim=True)).abs()
        scores = maps.flatten(1).amax(1)
        if self.how == "mean":
            scores = maps.flatten(1).mean(1)
        if self.how == "nan":
            maps = maps * float("nan")
        if self.how == "double":
            maps, scores = maps.double(), scores.double()
        if self.how == "map of four":
            maps = maps[:, None]
        if self.how == "score of two":
            scores = scores[:, None]
        if self.how == "random":
            maps = maps + torch.rand(1)
            scores = maps.flatten(1).amax(1)
        if self.how == "batch":
            maps = maps * maps.mean()
            scores = maps.flatten(1).amax(1)
        if self.how == "cuda":
            maps = maps.to("cuda")
        if self.how == "one size" and frames.shape[2] != 32:
            raise ValueError("only 32 rows")
        return scores, maps


class MapAlone(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.float().mean(1)


def save(module: nn.Module, path: Path) -> Path:
    with torchscript_is_meant():
        torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> TrainingImages:
    place = tmp_path / "cloth" / "train" / "good"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(place / f"{i}.png"), rng.normal(120, 3, (32, 48)).astype(np.uint8))
    return from_mvtec(tmp_path / "cloth")


def quiet(_done: int, _total: int) -> None:
    pass


def test_an_imported_model_has_scale_golden_images_and_its_origin(
    tmp_path: Path, good: TrainingImages
) -> None:
    file = save(Contrast(), tmp_path / "other.pt")
    card = import_model(read_graph(file), "other", good, tmp_path, quiet)
    assert load_card(tmp_path, "other/1") == card
    check_files(tmp_path, card)
    assert card.imported is not None
    assert card.imported.file == "other.pt"
    assert card.imported.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card.training is None
    written = load_graph(tmp_path / "models" / "other" / "1" / WEIGHTS, card.sha256)
    frames = torch.cat([to_frames(read_image(path).image) for path in good.files])
    scores, maps = written(frames)
    raw, _ = Contrast()(frames)
    assert np.isclose(float(scores.median()), 0, atol=0.5), "good images score about 0"
    wanted = (raw - card.scale.raw_zero) / (card.scale.raw_one - card.scale.raw_zero)
    assert torch.allclose(scores, wanted, atol=1e-5)
    assert torch.equal(scores, maps.flatten(1).amax(1))
    spoilt = [golden.score for golden in card.golden if golden.spoilt]
    assert sorted(spoilt)[1] > 0.5, "the median synthetic defect scores about 1"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("mean", "the map's maximum"),
        ("nan", "not finite"),
        ("double", "float64"),
        ("map of four", r"\[2, 1, 8, 12\]"),
        ("score of two", r"\[2, 1\]"),
        ("random", "differently a second time"),
        ("batch", "otherwise alone than in a batch"),
        ("cuda", "made for a GPU"),
        ("one size", "fails on a uint8 frame 1x1x16x24"),
    ],
    ids=[
        "061-score-is-no-maximum",
        "061-nan",
        "062-float64",
        "062-map-of-four",
        "062-score-of-two",
        "061-random",
        "061-depends-on-the-batch",
        "063-made-for-a-gpu",
        "060-one-size-alone",
    ],
)
def test_what_breaks_the_contract_is_named(
    tmp_path: Path, good: TrainingImages, how: str, says: str
) -> None:
    file = save(Broken(how), tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"other\.pt.*{says}"):
        import_model(read_graph(file), "other", good, tmp_path, quiet)
    assert not (tmp_path / "models" / "other").exists()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: save(MapAlone(), path), "answers a Tensor"),
        (lambda path: torch.save({"model": nn.Linear(2, 2).state_dict()}, path), "pickled"),
        (lambda path: path.write_bytes(b"no model"), "no TorchScript file"),
        (lambda _: None, "no such file"),
    ],
    ids=["062-map-alone", "059-state-dict", "054-text", "052-missing"],
)
def test_what_is_no_detector_is_named(
    tmp_path: Path, good: TrainingImages, write: Callable[[Path], object], says: str
) -> None:
    write(tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"other\.pt.*{says}"):
        import_model(read_graph(tmp_path / "other.pt"), "other", good, tmp_path, quiet)


@pytest.mark.bad_input("061-constant")
def test_a_detector_blind_to_defects_gets_no_scale(tmp_path: Path, good: TrainingImages) -> None:
    class Blind(nn.Module):
        def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
            maps = torch.zeros(frames.shape[0], 2, 2)
            return maps.flatten(1).amax(1), maps

    file = save(Blind(), tmp_path / "other.pt")
    with pytest.raises(ModelError, match="no scale"):
        import_model(read_graph(file), "other", good, tmp_path, quiet)
    with pytest.raises(ConfigError, match="model name"):
        import_model(read_graph(file), "Other", good, tmp_path, quiet)
