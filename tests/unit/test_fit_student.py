"""EfficientAD and lite from files to a model: teacher, penalty, held-out quantiles, resumption."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from station.detectors import EFFICIENTAD_S, LITE
from station.errors import ConfigError, DatasetError, ModelError
from station.learn.checkpoint import Checkpoint
from station.learn.efficientad.distill import DistillOptions
from station.learn.efficientad.fit import Origin, Penalty, learn_efficientad, learn_student
from station.learn.efficientad.pdn import MARGIN, Autoencoder, ImageNetPixels, map_side, pdn
from station.learn.efficientad.teachers import add_teacher, teachers
from station.learn.efficientad.training import Trio
from station.learn.export import InputForm
from station.learn.held_out import hold_out
from station.learn.images import Reader, from_mvtec
from station.learn.method import Learned, Task, TrainingStopped, memory_told
from station.learn.train import TrainOptions, train
from station.model_card import StudentTraining
from station.preset import DEFAULT, changed

SIDE = 128  # the smallest that the autoencoder takes
QUICK = changed(LITE, input_size=SIDE, steps=6, batch=1, learning_rate=3e-3)
CHANNELS, WIDTH = 12, 8
ABOUT = Origin("tiny", None, "random", None)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small steps by two threads, on a busy processor, are spent waiting for each other."""
    monkeypatch.setattr("station.learn.train.THREADS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def striped(folder: Path, count: int = 10) -> Path:
    """Write strong upright stripes, nearly the same in all: what lies across them is no stripe."""
    good = folder / "cloth" / "train" / "good"
    good.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        row = 128 + 60 * np.sin(2 * np.pi / 16 * (np.arange(SIDE) + rng.uniform(0, 2)))
        noisy = np.clip(row + rng.normal(0, 2, (SIDE, SIDE)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(good / f"{i:03}.png"), noisy)
    return folder / "cloth"


def task(folder: Path, workspace: Path, *, resume: bool = False) -> Task:
    images = from_mvtec(folder)
    held_out = hold_out(images, 0)
    few = len(held_out) > 1
    return Task(
        training=images.only([u for u in images.units if few or u not in held_out[0].units]),
        watched=held_out[0].files,
        form=InputForm.of_frames(SIDE, SIDE, QUICK),
        read=Reader(images).read,
        seed=0,
        precision="fp32",
        checkpoint=Checkpoint(workspace, "cloth", [], resume),
        progress=lambda _: None,
        stop=threading.Event(),
    )


class Constant(nn.Module):
    """Makes one channel the same everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:, :1], 1.2345678), x[:, 1:]], 1)


def learn(chosen: Task, *, bf16: bool = False, constant: bool = False) -> Learned:
    """Train a trio small enough to be quick."""
    torch.manual_seed(0)
    teacher = nn.Sequential(ImageNetPixels(), *pdn("s", CHANNELS, WIDTH))
    if constant:
        teacher.append(Constant())
    narrow = Autoencoder((SIDE, SIDE), (map_side(SIDE),) * 2, CHANNELS, WIDTH)
    trio = Trio(teacher, pdn("s", 2 * CHANNELS, WIDTH), narrow, CHANNELS)
    return learn_student(chosen, QUICK, trio, ABOUT, margin=MARGIN, bf16=bf16)


def student_of(learned: Learned) -> StudentTraining:
    assert learned.student is not None
    return learned.student


def agree(learned: Learned, chosen: Task) -> None:
    """Compare the network to export with the one that was trained, before any scale of scores."""
    frames = chosen.prepare(chosen.read(chosen.watched[0]))
    with torch.inference_mode():
        found, trained = learned.network(frames), learned.reference(frames)
    assert found.shape == (1, 1, SIDE // 4, SIDE // 4)
    assert torch.allclose(found, trained, atol=1e-5)
    assert found.std() > 1e-3


def test_lite_becomes_a_model_that_says_it_is_not_published(tmp_path: Path) -> None:
    preset = changed(QUICK, steps=60)
    card = train(
        from_mvtec(striped(tmp_path)), TrainOptions("cloth", preset), tmp_path, lambda _: None
    )
    assert card.training is not None and card.training.student is not None
    student = card.training.student
    assert (card.detector, card.backbone) == ("lite", "efficientnet_lite0")
    assert (student.steps_done, student.steps_published) == (60, None)
    assert (student.penalty_images, student.penalty_digest) == (0, None)
    assert [point.step for point in student.losses] == list(range(3, 61, 3))
    first, last = student.losses[6], student.losses[-1]  # each a mean of 20 steps
    assert last.hard < 0.8 * first.hard
    assert (last.autoencoder, last.student, student.whole_quantiles) == (0, 0, None)
    good = [golden.score for golden in card.golden if not golden.spoilt]
    spoilt = [golden.score for golden in card.golden if golden.spoilt]
    assert max(good) < min(spoilt)


def test_efficientad_states_its_steps_teacher_and_penalty(tmp_path: Path) -> None:
    folder = striped(tmp_path)
    chosen = task(folder, tmp_path)
    preset = changed(EFFICIENTAD_S, input_size=SIDE, steps=1, teacher="any")
    with pytest.raises(ModelError, match="no teacher 'any'"):
        learn_efficientad(chosen, preset)
    torch.manual_seed(0)
    torch.save(pdn("s").state_dict(), tmp_path / "teacher.pth")
    teacher = add_teacher(tmp_path / "teacher.pth", "any", None)
    learned = learn_efficientad(replace(chosen, penalty=folder), preset)
    student = student_of(learned)
    assert (student.steps_done, student.steps_published) == (1, 70_000)
    assert (student.teacher, student.teacher_sha256) == ("any", teacher.sha256)
    assert (student.penalty_images, student.losses[0].penalty > 0) == (10, True)
    agree(learned, chosen)


def test_without_a_teacher_one_is_made_of_what_may_be_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = DistillOptions("s", "efficientnet_lite0", steps=1, batch=1, side=64)
    monkeypatch.setattr("station.learn.train.TEACHER", quick)
    monkeypatch.setattr("station.learn.efficientad.distill.CALIBRATION", 2)
    options = TrainOptions("cloth", changed(EFFICIENTAD_S, input_size=SIDE, steps=1))
    told: list[str] = []
    with suppress(ModelError):  # after a single step it sees no defect, and that is refused
        images = from_mvtec(striped(tmp_path))
        train(images, options, tmp_path, lambda progress: told.append(progress.stage))
    (teacher,) = teachers()
    assert (teacher.origin, teacher.images) == ("distilled", 8), "two of ten are held out"
    assert list(dict.fromkeys(told))[:2] == ["teacher", "features"]


def test_a_penalty_folder_is_refused_before_a_teacher_is_made(tmp_path: Path) -> None:
    options = TrainOptions(
        "cloth", changed(EFFICIENTAD_S, input_size=SIDE), penalty=tmp_path / "no"
    )
    with pytest.raises(DatasetError, match="no"):
        train(from_mvtec(striped(tmp_path)), options, tmp_path, lambda _: None)
    assert not list(teachers())


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_is_not_given_is_told(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"^out of memory: .*--input-size"), memory_told():
        raise error


def test_torchs_own_refusal_of_memory_is_told_and_no_other_error_is() -> None:
    with pytest.raises(ModelError, match="out of memory"), memory_told():
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="size"), memory_told():
        torch.zeros(2) @ torch.zeros(3)


class AfterTwoSteps(threading.Event):
    """Is set once every image was read and two steps were taken."""

    asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 8 + 1  # of ten images two are held out


@pytest.mark.parametrize("bf16", [False, True])
def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path: Path, bf16: bool) -> None:
    folder = striped(tmp_path)
    unbroken = learn(task(folder, tmp_path), bf16=bf16)
    begun = replace(task(folder, tmp_path / "other"), stop=AfterTwoSteps())
    with pytest.raises(TrainingStopped, match=r"stopped after 2 of 6 steps, kept in .*--resume"):
        learn(begun, bf16=bf16)
    other = replace(task(folder, tmp_path / "other", resume=True), penalty=folder)
    with pytest.raises(ConfigError, match="another teacher or penalty folder"):
        learn(other, bf16=bf16)
    # A processor that now seems faster in the other precision makes no difference.
    resumed = learn(task(folder, tmp_path / "other", resume=True), bf16=not bf16)
    assert student_of(resumed) == student_of(unbroken)
    assert (student_of(resumed).bf16, student_of(resumed).steps_done) == (bf16, 6)
    for name, value in unbroken.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_network_to_export_agrees_with_the_trained_one(tmp_path: Path) -> None:
    chosen = task(striped(tmp_path), tmp_path)
    agree(learn(chosen), chosen)


def test_a_channel_that_never_varies_is_not_divided_by_rounding(tmp_path: Path) -> None:
    chosen = task(striped(tmp_path), tmp_path)
    learned = learn(chosen, constant=True)
    agree(learned, chosen)
    assert max(max(point.hard, point.autoencoder) for point in student_of(learned).losses) < 100


def test_only_students_learn_on_a_gpu_and_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = from_mvtec(striped(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for preset in (QUICK, DEFAULT):
        options = TrainOptions("cloth", preset, device="cuda")
        with pytest.raises(ConfigError, match="torch can use no GPU here"):
            train(images, options, tmp_path, lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="simplenet learns on the processor"):
        train(images, TrainOptions("cloth", DEFAULT, device="cuda"), tmp_path, lambda _: None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_a_student_of_a_gpu_becomes_a_model_for_every_computer(tmp_path: Path) -> None:
    options = TrainOptions("cloth", changed(QUICK, steps=60), device="cuda")
    card = train(from_mvtec(striped(tmp_path)), options, tmp_path, lambda _: None)
    assert card.training is not None and card.training.student is not None
    assert card.training.student.device == "cuda"
    good = [golden.score for golden in card.golden if not golden.spoilt]
    assert max(good) < min(golden.score for golden in card.golden if golden.spoilt)


def test_too_few_sheets_for_the_quantiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="4 units are too few: from 10 on a fifth is held out"):
        learn(task(striped(tmp_path, 4), tmp_path))


def test_an_empty_penalty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="none: no image in it"):
        learn(replace(task(striped(tmp_path), tmp_path), penalty=tmp_path / "none"))


def test_a_penalty_image_is_the_middle_of_another_image_at_times_grey(tmp_path: Path) -> None:
    chosen = task(striped(tmp_path), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    image = np.zeros((200, 300, 3), np.uint8)
    image[45:155, 70:230] = (0, 0, 250)  # red in the middle half and a little around it
    cv2.imwrite(str(tmp_path / "elsewhere" / "red.png"), image)
    penalty = Penalty(tmp_path / "elsewhere", chosen, batch=2)
    seen = torch.cat([penalty(step) for step in range(20)])
    assert seen.shape == (40, 3, SIDE, SIDE)
    assert (seen[:, 0] > 70).all()  # the luma of that red is 75
    grey = seen[:, 0, 0, 0] < 80
    assert torch.equal(seen[grey, 0], seen[grey, 1])
    assert (seen[~grey, 1] < 1).all()
    assert 4 <= int(grey.sum()) <= 20  # three in ten
    assert torch.equal(penalty(3), seen[6:8])


def test_lite_without_the_finest_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="levels: the student's grid is that of stride 4"):
        changed(LITE, levels=(8, 16))
