"""What a training leaves behind when the disk does not take it: named, and nothing half written."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from station.errors import ConfigError, DatasetError, ModelError
from station.learn.checkpoint import Checkpoint
from station.learn.features.bank import BankOptions, fill_bank, open_bank
from station.learn.images import TrainingImages
from station.learn.simplenet.network import Fit
from station.learn.train import TrainOptions, train
from station.preset import DEFAULT, changed

PRESET = changed(DEFAULT, hidden=8, members=1, batches={"kind": "patches", "size": 16, "steps": 2})


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let no file grow beyond that many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_disk_that_fills_up_while_caching_leaves_nothing(tmp_path: Path) -> None:
    bank = tmp_path / "training" / "features.npy"
    told: list[int] = []
    refused = pytest.raises(DatasetError, match=r"training: no place for 0\.00 GB of features")
    with full_disk(1000), refused:
        fill_bank(
            [tmp_path / "a.png"] * 4,
            lambda _: torch.zeros(100, 8),
            BankOptions(10**6, 0),
            bank,
            lambda done, _: told.append(done),
        )
    assert told == [0], "the size is told before anything is written"
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_fails_while_caching_leaves_nothing(tmp_path: Path) -> None:
    def patches_of(path: Path) -> torch.Tensor:
        if path.name == "b.png":
            raise DatasetError("b.png: changed during training")
        return torch.zeros(4, 8)

    with pytest.raises(DatasetError, match=r"b\.png: changed"):
        fill_bank(
            [tmp_path / "a.png", tmp_path / "b.png"],
            patches_of,
            BankOptions(10**6, 0),
            tmp_path / "training" / "features.npy",
            lambda *_: None,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    bank = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))
    fit = Fit(bank, PRESET, 0)
    checkpoint = Checkpoint(tmp_path, "cloth", [1], resume=False)
    checkpoint.save(fit.state())
    kept = {path: path.read_bytes() for path in files(tmp_path)}
    list(fit.meta_epoch())
    with full_disk(1000), pytest.raises(DatasetError, match=r"state\.pt: File too large"):
        checkpoint.save(fit.state())
    assert {path: path.read_bytes() for path in files(tmp_path)} == kept
    again = Fit(bank, PRESET, 0)
    checkpoint.load(again.resume)
    assert again.done == 0


def test_a_training_belongs_to_one_process_and_leaves_only_what_can_be_resumed(
    tmp_path: Path,
) -> None:
    first, second = (Checkpoint(tmp_path, "cloth", [1], resume=False) for _ in range(2))
    place = tmp_path / "run" / "training"
    with first:
        first.folder.mkdir()
        first.bank.write_bytes(b"half of them")
        with pytest.raises(ConfigError, match="the same training is running"), second:
            pass
        assert first.bank.read_bytes() == b"half of them"
        with Checkpoint(tmp_path, "cloth", [2], resume=False):
            pass
    assert list(place.iterdir()) == []
    with second:
        second.save({"done": 1})
    assert files(tmp_path) == [place / second.folder.name / "state.pt"]
    with pytest.raises(ConfigError, match="no training to resume"):
        Checkpoint(tmp_path, "cloth", [2], resume=True).__enter__()


def test_what_goes_on_by_itself_goes_on_only_where_something_was_stopped(tmp_path: Path) -> None:
    for _ in range(2):
        with Checkpoint(tmp_path, "cloth", [1], resume=None) as training:
            found: list[dict[str, int]] = []
            training.load(found.append)
            training.save({"done": len(found) + 1})
    assert found == [{"done": 1}]


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_training_is_told(tmp_path: Path, left: int) -> None:
    checkpoint = Checkpoint(tmp_path, "cloth", [1], resume=False)
    checkpoint.save({"done": 1})
    np.save(checkpoint.bank, np.zeros((4, 50, 8), np.float16))
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ModelError, match=r"state\.pt: cannot be read; train without --resume"):
        checkpoint.load(lambda _: None)
    with pytest.raises(DatasetError, match=r"features\.npy: cannot be read; train without"):
        open_bank(checkpoint.bank)


def test_a_place_for_models_that_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, no folder")
    images = TrainingImages(tmp_path, {"a": (tmp_path / "a.png",)})
    with pytest.raises(DatasetError, match="models: no model can be written there: File exists"):
        train(images, TrainOptions("cloth"), tmp_path, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
