"""`station compare` from pictures to page; what is done is not done again."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.cli import main
from station.model_card import list_models, load_card


def cloth(seed: int, *, stained: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    weave = 30 * np.sin((x + rng.uniform(0, 8)) * 0.8) * np.sin((y + rng.uniform(0, 8)) * 0.8)
    image = np.clip(120 + weave + rng.normal(0, 4, weave.shape), 0, 255).astype(np.uint8)
    if stained:
        cv2.circle(image, (40, 24), 8, 240, -1)
    return np.asarray(image, np.uint8)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "cloth"
    for place, count, stained in (
        ("train/good", 10, False), ("test/good", 4, False), ("test/stain", 4, True)
    ):  # fmt: skip
        (folder / place).mkdir(parents=True)
        for i in range(count):
            image = cloth(1000 * len(place) + i, stained=stained)
            cv2.imwrite(str(folder / place / f"{place[-4:]}{i}-.png"), image)
    return folder


def test_detectors_are_trained_measured_and_shown_once(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "which"
    command = ["compare", "--dataset", str(dataset), "--detectors", "gaussian,patchcore",
               "--seeds", "1", "--split", "all", "--out", str(out), "--json"]  # fmt: skip
    assert main(command) == 0
    *rows, said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["detector"] for row in rows] == ["gaussian", "patchcore"]
    for row in rows:
        assert row["image_auroc"]["value"] == 1.0, "a white spot on cloth"
        assert row["training_s"] > 0
        assert row["memory_mb"] > 50
    assert said["take"] in {"gaussian", "patchcore"}
    assert said["differences"][0]["shown"] is False
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "No difference can be shown" in page
    assert page.count("heat map of patchcore") == 5, "four defects and a good image"
    made = [load_card(out, name).created for name in list_models(out)]
    assert main(command) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [*rows, said]
    assert [load_card(out, name).created for name in list_models(out)] == made

    # A model that is there is measured as it is, beside one that is trained.
    there = next(name for name in list_models(out) if name.startswith("patchcore"))
    beside = tmp_path / "beside"
    command = ["compare", "--dataset", str(dataset), "--workspace", str(out),
               "--detectors", f"gaussian,{there}", "--seeds", "2", "--split", "all",
               "--out", str(beside), "--json"]  # fmt: skip
    assert main(command) == 0
    trained, as_it_is, _ = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (trained["seeds"], as_it_is["seeds"]) == (2, 1)
    assert (as_it_is["detector"], as_it_is["models"]) == (there, [there])
    assert as_it_is["image_auroc"] == rows[1]["image_auroc"]
    assert as_it_is["training_s"] is None
    assert f"heat map of {there}" in (beside / "compare.html").read_text(encoding="utf-8")
