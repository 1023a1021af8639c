"""Teachers: distilled, resumed, kept by their hash, brought from elsewhere."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from station.cli import main
from station.errors import ConfigError, DatasetError, ModelError
from station.learn.efficientad import textures
from station.learn.efficientad.distill import (
    Distillation,
    DistillOptions,
    Pictures,
    Target,
    distil,
    first_teacher,
    read_pictures,
)
from station.learn.efficientad.pdn import pdn
from station.learn.efficientad.teachers import add_teacher, load_teacher, teachers
from station.learn.features.backbones import random_backbone
from station.learn.images import pictures
from station.learn.method import Progress, TrainingStopped

QUICK = DistillOptions("quick", "efficientnet_lite0", steps=3, batch=1, side=64)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures" / "deeper").mkdir(parents=True)
    for name in ("a.png", "deeper/b.png"):
        image = rng.integers(0, 255, (90, 120, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / name), image)
    return tmp_path / "pictures"


def seen_in(folder: Path) -> Pictures:
    return read_pictures(pictures(folder))


def published_file(path: Path) -> tuple[Path, str]:
    torch.manual_seed(0)
    torch.save(pdn("s").state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_published_teacher_is_recognised_by_its_layers_and_kept_by_its_hash(
    tmp_path: Path,
) -> None:
    file, digest = published_file(tmp_path / "teacher_small.pth")
    added = add_teacher(file, "paper", digest[:8])
    assert (added.size, added.sha256, added.steps) == ("s", digest, None)
    network, teacher = load_teacher("paper", "s")
    assert teacher == added
    values = torch.load(file, weights_only=True)
    assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
    with pytest.raises(ModelError, match="teacher paper is of size s, m is needed"):
        load_teacher("paper", "m")
    with pytest.raises(
        ModelError, match=r"no teacher 'other' .* there are: paper; `station distill"
    ):
        load_teacher("other", "s")


def test_another_file_than_the_published_one_is_refused(tmp_path: Path, own_store: Path) -> None:
    file, digest = published_file(tmp_path / "teacher_small.pth")
    with pytest.raises(ModelError, match=rf"sha256 is {digest[:12]}…, not 0123…: another file"):
        add_teacher(file, "paper", "0123")
    torch.save({"0.weight": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match="not the layers of a published teacher"):
        add_teacher(file, "paper", None)
    assert not own_store.exists()


def test_a_teacher_that_was_damaged_or_exists_is_told(tmp_path: Path, own_store: Path) -> None:
    file, _ = published_file(tmp_path / "a.pth")
    add_teacher(file, "paper", None)
    add_teacher(file, "paper", None)  # the same again changes nothing
    torch.save(pdn("m").state_dict(), file)
    with pytest.raises(ModelError, match="another teacher has this name"):
        add_teacher(file, "paper", None)
    (own_store / "teacher-paper.pth").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"its record says .*: damaged"):
        load_teacher("paper", "s")


def test_the_target_is_pooled_as_published() -> None:
    backbone = random_backbone("efficientnet_lite0", (8, 16))
    target = Target(backbone, 6)
    image = torch.rand(1, 3, 32, 64) * 255
    found = target(image)
    assert found.shape == (1, 6, 8, 16)
    # One cell by hand: its neighbourhood of each level, listed channel by channel.
    large = F.interpolate(image, (64, 128), mode="bilinear", align_corners=False)
    fine = F.pad(backbone(large)[0], [1, 1, 1, 1])[0, :, 3:6, 5:8].reshape(1, 1, -1)
    listed = F.adaptive_avg_pool1d(fine, 1024)
    assert F.adaptive_avg_pool1d(listed, 3).flatten().tolist() == pytest.approx(
        found[0, :3, 3, 5].tolist(), abs=1e-4
    )


def test_a_stopped_distillation_ends_where_an_unbroken_one_does(folder: Path) -> None:
    target = Target(random_backbone("efficientnet_lite0", (8, 16)), 12)
    pictures = seen_in(folder)
    unbroken, stopped, resumed = (Distillation(target, pictures, QUICK) for _ in range(3))
    for one in (unbroken, stopped):
        one.mean, one.deviation = torch.zeros(1, 12, 1, 1), torch.ones(1, 12, 1, 1)
    first = [unbroken.step() for _ in range(3)]
    stopped.step()
    resumed.resume(stopped.state())
    second = [resumed.step() for _ in range(2)]
    assert second == first[1:]
    values = resumed.teacher().state_dict()
    for name, value in unbroken.teacher().state_dict().items():
        assert torch.equal(value, values[name]), name


def test_the_targets_channels_are_normalised_by_pictures_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("station.learn.efficientad.distill.CALIBRATION", 3)
    target = Target(random_backbone("efficientnet_lite0", (8, 16)), 12)
    run = Distillation(target, seen_in(folder), QUICK)
    run.measure()
    with torch.inference_mode():
        found = torch.cat([target(run._draw(1, number)) for number in range(3)])
    normalised = (found - run.mean) / run.deviation
    assert normalised.mean((0, 2, 3)).tolist() == pytest.approx([0] * 12, abs=1e-4)
    assert normalised.std((0, 2, 3)).tolist() == pytest.approx([1] * 12, abs=1e-4)
    assert not torch.equal(run._draw(0, 0), run._draw(1, 0))


def test_a_distillation_that_is_stopped_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(
        TrainingStopped, match=r"stopped after 0 of 3 steps of the teacher, kept in .*--resume"
    ):
        distil(seen_in(folder), QUICK, tmp_path, lambda _: None, stop)
    assert not list(teachers())


def test_a_teacher_is_made_at_first_use_and_only_then(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("station.learn.efficientad.distill.CALIBRATION", 2)
    told: list[Progress] = []

    def first(name: str, files: list[Path]) -> str:
        options = replace(QUICK, name=name, steps=1)
        return first_teacher(files, options, tmp_path, told.append, threading.Event())

    files = pictures(folder)
    made = first("s", files)
    assert made.startswith("s-")
    assert {p.stage for p in told} == {"teacher"}
    assert load_teacher(made, "s")[1].images == 2
    told.clear()
    assert first("s", files) == made
    assert told == [], "the same images have their teacher"
    assert first("s", files[:1]) not in {made, "s"}, "others have one of their own"
    add_teacher(published_file(tmp_path / "a.pth")[0], "s", None)
    assert first("s", files) == "s", "one that was brought or distilled before comes first"


def test_the_command_leaves_a_teacher(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("station.learn.efficientad.distill.CALIBRATION", 2)
    for name in ("recipes", "calibration"):
        (tmp_path / name).mkdir()
    arguments = ["distill", "--images", str(folder), "--steps", "1", "--name", "mine", "--json"]
    assert main([*arguments, "--workspace", str(tmp_path)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["steps"], row["images"]) == ("mine", 1, 2)
    assert row["loss"] > 0
    _, teacher = load_teacher("mine", "s")
    assert (teacher.origin, teacher.backbone) == ("distilled", "efficientnet_lite0")
    assert main(["weights", "list", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["teacher"], last["distilled_from"]) == ("mine", "efficientnet_lite0")


def test_without_a_gpu_none_can_be_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cuda: torch can use no GPU here"):
        options = replace(QUICK, device="cuda")
        distil(seen_in(folder), options, tmp_path, lambda _: None, threading.Event())


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image in it"):
        seen_in(tmp_path)


def test_pictures_differ_and_follow_from_the_seed() -> None:
    image = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
    seen = [textures.picture([image], 48, np.random.default_rng(seed)) for seed in range(20)]
    again = [textures.picture([image], 48, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == (48, 48, 3) and one.dtype == np.uint8 for one in seen)
    assert all(np.array_equal(one, other) for one, other in zip(seen, again, strict=True))
    assert len({one.tobytes() for one in seen}) == 20
