"""Features for learning: of good images, and of the same with synthetic defects strewn on them."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from station.learn.checkpoint import Checkpoint
from station.learn.export import InputForm
from station.learn.features import bank as banks
from station.learn.features.backbones import load_backbone
from station.learn.features.bank import Extractor, Features, pools_for
from station.learn.images import TrainingImages, read_image
from station.learn.method import Progress, Task
from station.preset import DEFAULT, Preset, changed

PRESET = changed(DEFAULT, input_size=128, levels=(8, 16), patches=60)


def task_of(tmp_path: Path, preset: Preset, told: list[Progress]) -> Task:
    units: dict[str, tuple[Path, ...]] = {}
    for i in range(3):
        path = tmp_path / f"unit{i}_0.png"
        picture = np.random.default_rng(i).integers(40, 200, (96, 128), np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(picture, (0, 0), 1.5))
        units[f"unit{i}"] = (path,)
    return Task(
        training=TrainingImages(tmp_path, units),
        watched=[],
        form=InputForm.of_frames(96, 128, preset),
        read=lambda path: read_image(path).image,
        seed=0,
        precision="fp32",
        checkpoint=Checkpoint(tmp_path, "toy", [0], resume=False),
        progress=told.append,
        stop=threading.Event(),
    )


def test_the_fused_extractor_gives_the_backbone_s_own_features(tmp_path: Path) -> None:
    task = task_of(tmp_path, PRESET, [])
    features = Features(task, PRESET)
    image = task.read(task.training.files[0])
    backbone = load_backbone(PRESET.backbone, PRESET.levels)
    plain = Extractor(backbone, pools_for(backbone, PRESET))
    with torch.inference_mode():
        wanted = plain(task.prepare(image)).flatten(0, 1)
    assert torch.allclose(features.patches_of(image), wanted, atol=1e-4)


@pytest.mark.parametrize("tiles", [1, 2])
def test_strewn_patches_lie_in_defects_and_belong_to_their_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: int
) -> None:
    monkeypatch.setattr(banks, "STREWN_IMAGES", 5)
    monkeypatch.setattr(banks, "STREWN_PATCHES", 20)
    preset = changed(PRESET, tiles=tiles)
    told: list[Progress] = []
    task = task_of(tmp_path, preset, told)
    features = Features(task, preset)
    good, strewn = features.bank(), features.strewn_bank()
    assert strewn.shape == (6, 20, good.shape[2]), "three images, twice over"
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("synthetic defects", 6, 6)
    assert features.rows_without(["unit1"], strewn) == [0, 2, 3, 5]
    assert features.rows_without(["unit1"], good) == [0, 2]
    # Good patches are found again in their image, those of defects are not.
    whole = features.patches_of(task.read(task.training.files[0]))
    found, lost = (torch.cdist(bank[0].float(), whole).amin(1) for bank in (good, strewn))
    assert found.max() < 0.1
    assert lost.median() > 0.5
    assert torch.equal(strewn, features.strewn_bank()), "read again, not made again"
