"""EfficientAD and lite from files to a model: teacher, penalty, held-out quantiles, resumption."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from station.detectors import EFFICIENTAD_S, LITE, StudentPreset
from station.errors import ConfigError, DatasetError, ModelError
from station.learn.images import from_mvtec
from station.learn.method import TrainingStopped
from station.learn.pdn import pdn
from station.learn.teachers import add_teacher
from station.learn.train import TrainOptions, train
from station.model import ModelCard, StudentTraining
from station.preset import changed

QUICK = changed(LITE, input_size=128, steps=40, batch=1, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "store"))


def woven(folder: Path, count: int = 10) -> Path:
    good = folder / "cloth" / "train" / "good"
    good.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    for i in range(count):
        phase = rng.uniform(0, 8, 2)
        weave = 120 + 30 * np.sin((x + phase[0]) * 0.8) * np.sin((y + phase[1]) * 0.8)
        noisy = np.clip(weave + rng.normal(0, 3, weave.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(good / f"{i:03}.png"), noisy)
    return folder / "cloth"


def learn(
    folder: Path, workspace: Path, preset: StudentPreset = QUICK, *, resume: bool = False,
    penalty: Path | None = None, stop: threading.Event | None = None,
) -> ModelCard:  # fmt: skip
    options = TrainOptions("cloth", preset, resume=resume, penalty=penalty)  # type: ignore[arg-type]
    return train(from_mvtec(folder), options, workspace, lambda _: None, stop)


def student_of(card: ModelCard) -> StudentTraining:
    assert card.training is not None and card.training.student is not None
    return card.training.student


def test_lite_says_that_it_is_not_published(tmp_path: Path) -> None:
    folder = woven(tmp_path)
    card = learn(folder, tmp_path)
    student = student_of(card)
    assert (card.detector, card.backbone) == ("lite", "efficientnet_lite0")
    assert (student.steps_done, student.steps_published) == (40, None)
    assert (student.penalty_images, student.penalty_digest) == (0, None)
    assert student.losses[-1].step == 40
    assert student.local_quantiles[0] < student.local_quantiles[1]


def test_efficientad_states_its_steps_teacher_and_penalty(tmp_path: Path) -> None:
    folder = woven(tmp_path)
    preset = changed(EFFICIENTAD_S, input_size=128, steps=2, teacher="any")
    with pytest.raises(ModelError, match="no teacher 'any'"):
        learn(folder, tmp_path, preset)
    torch.manual_seed(0)
    network = pdn("s")
    torch.nn.init.orthogonal_(network[0].weight)  # type: ignore[arg-type]
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    teacher = add_teacher(tmp_path / "teacher.pth", "any", None)
    card = learn(folder, tmp_path, preset, penalty=folder / "train" / "good")
    student = student_of(card)
    assert (student.steps_done, student.steps_published) == (2, 70_000)
    assert (student.teacher, student.teacher_sha256) == ("any", teacher.sha256)
    assert (student.penalty_images, student.losses[0].penalty > 0) == (10, True)
    assert card.golden[0].score < card.golden[-1].score


class AfterFirstStep(threading.Event):
    """Is set once every image was read and one step was taken."""

    asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 8  # of ten images two are held out


def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    folder = woven(tmp_path)
    unbroken = learn(folder, tmp_path)
    with pytest.raises(TrainingStopped, match="stopped after 1 of 40 steps, kept in"):
        learn(folder, tmp_path / "other", stop=AfterFirstStep())
    with pytest.raises(ConfigError, match="another teacher or penalty folder"):
        learn(folder, tmp_path / "other", resume=True, penalty=folder)
    resumed = learn(folder, tmp_path / "other", resume=True)
    assert resumed.golden == unbroken.golden
    assert student_of(resumed) == student_of(unbroken)


def test_too_few_sheets_for_the_quantiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="4 units are too few: from 10 on a fifth is held out"):
        learn(woven(tmp_path, 4), tmp_path)


def test_an_empty_penalty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="none: no image in it"):
        learn(woven(tmp_path), tmp_path, penalty=tmp_path / "none")


def test_lite_without_the_finest_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="levels: the student's grid is that of stride 4"):
        changed(LITE, levels=(8, 16))
