"""`station evaluate` and `station score`, with the shipped model in its child process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from station.cli import main
from station.learn.export import card_text
from station.model_card import CARD, load_card

SHIPPED = "glassfiber/1"


def cloth(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    weave = 30 * np.sin(0.8 * (x + rng.uniform(0, 8))) * np.sin(0.8 * (y + rng.uniform(0, 8)))
    return np.asarray(np.clip(120 + weave + rng.normal(0, 4, weave.shape), 0, 255), np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model under a category's name, and two trees of cloth, one without a model."""
    workspace = tmp_path_factory.mktemp("workspace")
    assert main(["init", str(workspace)]) == 0
    own = workspace / "models" / "m-carpet" / "1"
    shutil.copytree(workspace / "models" / SHIPPED, own)
    card = load_card(workspace, SHIPPED).model_copy(update={"name": "m-carpet"})
    (own / CARD).write_text(card_text(card))
    tree = workspace / "root" / "carpet"
    for i in range(4):
        write(tree / "test" / "good" / f"{i}.png", cloth(100 + i))
        stained, mask = cloth(200 + i), np.zeros((64, 64), np.uint8)
        cv2.circle(stained, (32, 24), 9, 250, -1)
        cv2.circle(mask, (32, 24), 9, 255, -1)
        write(tree / "test" / "stain" / f"{i}.png", stained)
        write(tree / "ground_truth" / "stain" / f"{i}_mask.png", mask)
    shutil.copytree(tree, workspace / "root" / "pill")
    return workspace


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_evaluation_has_its_figures_and_its_page(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, page = workspace / "root" / "carpet", tmp_path / "page.html"
    command = ["evaluate", "--workspace", str(workspace), "--dataset", str(tree)]
    assert main([*command, "--model", "m-carpet", "--out", str(page), "--json"]) == 0
    (row,) = rows(capsys)
    for figure in ("image_auroc", "pixel_auroc", "au_pro", "false_rejects_at_zero_escapes"):
        assert set(row[figure]) >= {"value", "low", "high"}
    assert row["pixel_auroc"]["low"] <= row["pixel_auroc"]["value"]
    assert row["latency_ms"]["p95"] >= row["latency_ms"]["p50"] > 0
    assert (row["good"], row["defective"], row["masks"]) == (4, 4, 4)
    assert "m-carpet/1 on carpet" in page.read_text()


def test_a_folder_of_trees_is_resumed_and_names_missing_models(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pages"
    command = ["evaluate", "--workspace", str(workspace), "--root", str(workspace / "root")]
    command += ["--model", "m", "--out", str(out), "--json"]
    assert main(command) == 0
    first = rows(capsys)
    assert [row.get("average") for row in first[1:3]] == ["textures", "all"]
    assert first[3] == {"missing_models": ["m-pill"]}
    assert sorted(p.name for p in out.iterdir()) == ["carpet.html", "carpet.json", "index.html"]
    assert main(command) == 0
    assert rows(capsys)[0]["evaluated"] == first[0]["evaluated"]


def test_what_cannot_be_evaluated_ends_in_one_line(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["evaluate", "--workspace", str(workspace)]
    tree = ["--dataset", str(workspace / "root" / "carpet")]
    for wrong, code, reason in (
        ([*tree, "--model", "wool"], 4, "no model 'wool'"),
        ([*tree, "--model", "m-carpet", "--out", str(tmp_path / "no" / "p.html")], 2, "no such"),
        (["--dataset", str(tmp_path), "--model", "m-carpet"], 5, "no folder test"),
        (["--root", str(workspace / "root"), "--model", "x"], 4, "no model x-<category>"),
        (["--root", str(workspace / "root"), "--model", "m/1"], 2, "beginning of the models"),
    ):
        assert main([*base, *wrong]) == code
        out, err = capsys.readouterr()
        assert not out
        assert reason in err


def test_a_folder_is_scored_with_overlays(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = workspace / "root" / "carpet" / "test"
    command = ["score", "--workspace", str(workspace), "--model", "m-carpet/1", str(tree)]
    command += ["--threshold", "0.5", "--overlay", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    scored = rows(capsys)
    assert len(scored) == 8
    assert all(Path(row["overlay"]).is_file() for row in scored)
    assert {row["verdict"] for row in scored} <= {"accept", "reject"}
