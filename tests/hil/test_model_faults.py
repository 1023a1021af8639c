"""Models that misbehave, and files that are not what they were: none of it passes for a score."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import toy_models
import yaml
from toy_models import Toy

from station.check import check_model
from station.cli import main
from station.errors import ModelError
from station.model import open_model
from station.records.sheet import Image
from station.torchscript import checked, load_graph

FLIPS = 8


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    for kind in toy_models.KINDS:
        toy_models.write(folder, kind)
    return folder


def cloth(seed: int) -> Image:
    return np.random.default_rng(seed).integers(60, 200, (48, 64), np.uint8)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("shapeless", r"answered a map of torch\.float32, shape \(1, 4\)"),
        ("hidden", r"its score is 0\.\d+, the maximum of its map 0"),
    ],
)
def test_what_breaks_the_contract_is_no_answer(kind: str, told: str) -> None:
    graph = Toy(kind)
    with pytest.raises(ModelError, match=told):
        checked(*graph(torch.from_numpy(cloth(1))[None, None]))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("greedy", "failed: .*memory"),
        ("blind", "answers the same whatever the picture"),
    ],
)
def test_what_is_no_answer_is_no_score(toys: Path, kind: str, told: str) -> None:
    with (
        open_model(toys, f"{kind}/1") as model,
        pytest.raises(ModelError, match=f"model {kind}/1: {told}"),
    ):
        model.predict(cloth(1))


def test_an_inference_that_hangs_is_ended_and_the_next_child_is_sound(toys: Path) -> None:
    with open_model(toys, "hanging/1", deadline_s=1.0) as model:
        with pytest.raises(ModelError, match=r"no answer to score within 1\.0 s"):
            model.predict(cloth(1))
        asked = time.monotonic()
        with pytest.raises(ModelError, match="already ended"):
            model.predict(cloth(2))
        assert time.monotonic() - asked < 0.1, "the other shots of the sheet do not wait again"
        pid = model.pid
    assert not Path(f"/proc/{pid}").exists()
    with open_model(toys, "hanging/1", niceness=19) as model:
        assert model.predict(np.zeros((8, 8), np.uint8)).score == 0
        # The first to go where memory runs out, and the last to be served where time does.
        assert Path(f"/proc/{model.pid}/oom_score_adj").read_text().strip() == "1000"
        assert Path(f"/proc/{model.pid}/stat").read_text().rpartition(")")[2].split()[16] == "19"


def test_a_flipped_bit_is_noticed_wherever_it_is(toys: Path, tmp_path: Path) -> None:
    shutil.copytree(toys / "models" / "toy", tmp_path / "models" / "toy")
    path = tmp_path / "models" / "toy" / "1" / "weights.pt"
    sound = path.read_bytes()
    rng = np.random.default_rng(1)
    places = [0, len(sound) - 1, *map(int, rng.integers(0, len(sound), FLIPS))]
    for place in places:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ModelError, match=r"weights\.pt: sha256 is "):
            load_graph(path, hashlib.sha256(sound).hexdigest())
    (finding,) = check_model(tmp_path, "toy/1", None)
    assert finding.level == "error"
    assert "weights.pt: sha256 is " in finding.what


def test_a_computer_that_computes_otherwise_is_told_image_by_image(
    toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model whose card was written where the kernels gave other scores."""
    for name in ("recipes", "calibration"):
        (tmp_path / name).mkdir()
    shutil.copytree(toys / "models" / "toy", tmp_path / "models" / "toy")
    folder = tmp_path / "models" / "toy" / "1"
    cv2.imwrite(str(folder / "grey.png"), np.full((8, 8), 102, np.uint8))
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["golden"].append({"file": "grey.png", "score": 0.41})
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    assert main(["check", "--workspace", str(tmp_path), "--model", "toy/1"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].startswith("ok ")
    assert "golden.png: golden image scores 0.0000, its card says 0.0000: 0 apart" in told[0]
    assert told[1].startswith("error ")
    assert "grey.png: golden image scores 0.4000, its card says 0.4100: 0.01 apart" in told[1]
    assert told[1].endswith("0.001 is allowed")
