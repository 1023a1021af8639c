"""Experiments: their variants, and what becomes of them when weights or seeds are missing."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.errors import ConfigError, DatasetError
from station.evaluate import experiment
from station.evaluate.experiment import METRICS, Mean, Plan, Row, _in_grey
from station.evaluate.measure import read_examples
from station.evaluate.variants import Variant, model_name
from station.learn.images import from_mvtec, read_image
from station.pages.experiment_report import write_experiment, written
from station.preset import DEFAULT, PAPER, Preset, changed


def tree(folder: Path, count: int, *, colour: bool = False) -> Path:
    good = folder / "train" / "good"
    good.mkdir(parents=True)
    for i in range(count):
        shape = (16, 16, 3) if colour else (16, 16)
        cv2.imwrite(str(good / f"{i:03}.png"), np.full(shape, i, np.uint8))
    return folder


def test_few_against_many_ends_with_all(tmp_path: Path) -> None:
    images = from_mvtec(tree(tmp_path, 12))
    found = experiment.variants("images", DEFAULT, images)
    assert [(v.name, v.units) for v in found] == [
        ("2 good", 2),
        ("5 good", 5),
        ("10 good", 10),
        ("12 good", 12),
    ]


def test_every_ablation_changes_something(tmp_path: Path) -> None:
    found = experiment.variants("ablation", DEFAULT, from_mvtec(tree(tmp_path, 2)))
    assert found[0].preset == DEFAULT
    assert all(v.preset != DEFAULT for v in found[1:])
    assert len({v.name for v in found}) == len(found)


def test_every_backbone_is_compared(tmp_path: Path) -> None:
    found = experiment.variants("backbones", DEFAULT, from_mvtec(tree(tmp_path, 2)))
    presets = [v.preset for v in found]
    assert {p.backbone for p in presets if isinstance(p, Preset)} >= {
        "efficientnet_lite0",
        "wide_resnet50_2",
    }


def test_the_published_crop_takes_neither_tiles_nor_a_larger_input(tmp_path: Path) -> None:
    found = experiment.variants("ablation", PAPER, from_mvtec(tree(tmp_path, 2)))
    assert all(v.preset.tiles == 1 for v in found if isinstance(v.preset, Preset))
    for change in ({"tiles": 2}, {"input_size": 512}):
        with pytest.raises(ConfigError, match=r"preset paper cuts .* it takes no tiles"):
            changed(PAPER, **change)


def test_grey_pictures_are_those_of_the_colour_split(tmp_path: Path) -> None:
    root = tree(tmp_path / "a", 2, colour=True)
    for number in range(8):
        place = root / "test" / "good" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), np.full((16, 16, 3), 20 * number, np.uint8))
    (root / "train" / "good" / "Thumbs.db").write_bytes(b"no picture")
    examples = read_examples(root, "select")
    grey, found = _in_grey(examples, tmp_path / "out")
    stems = [example.file.stem for example in examples.members]
    assert len(stems) == 4
    assert [example.file.stem for example in found.members] == stems
    assert all(read_image(e.file).image.ndim == 2 for e in found.members)
    assert len(from_mvtec(grey).files) == 2
    cv2.imwrite(str(root / "train" / "good" / "new.png"), np.full((16, 16, 3), 99, np.uint8))
    assert _in_grey(examples, tmp_path / "out")[0] != grey, "another set, another folder"


def test_grey_needs_colour(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="grey already"):
        experiment.variants("grey", DEFAULT, from_mvtec(tree(tmp_path / "a", 2)))
    images = from_mvtec(tree(tmp_path / "b", 2, colour=True))
    assert [v.grey for v in experiment.variants("grey", DEFAULT, images)] == [False, True]


def test_absent_weights_have_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path / "none"))
    plan = Plan([Variant("paper", PAPER)], tmp_path, tmp_path, "select", 1)
    (row,) = experiment.run(plan, lambda *_: None, threading.Event())
    assert row == Row("paper", 0, dict.fromkeys(METRICS), "weights absent")


def test_means_are_written_with_their_deviation() -> None:
    assert written(Mean(0.93142, 0.0081)) == "0.931 ± 0.008"
    assert written(Mean(0.5, None)) == "0.500"
    assert written(None) == "-"


def test_the_page_names_every_variant(tmp_path: Path) -> None:
    rows = [
        Row("as it is", 2, dict.fromkeys(METRICS, Mean(0.9, 0.01))),
        Row("paper <b>", 0, dict.fromkeys(METRICS), "weights absent"),
    ]
    plan = Plan([], tmp_path / "cloth", tmp_path, "select", 2)
    write_experiment(tmp_path / "page.html", "ablation", plan, rows)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "as it is" in text
    assert "paper &lt;b&gt;" in text
    assert "weights absent" in text
    assert "0.900 ± 0.010" in text


def test_published_figures_stand_apart_and_with_backbones_alone(tmp_path: Path) -> None:
    rows = [Row("resnet18", 0, dict.fromkeys(METRICS), "weights absent")]
    plan = Plan([], tmp_path / "cloth", tmp_path, "select", 1)
    texts = {}
    for what in ("backbones", "seeds"):
        write_experiment(tmp_path / "page.html", what, plan, rows)
        texts[what] = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0.983 / 0.957" in texts["backbones"]
    assert "published" not in texts["seeds"].lower()


def test_models_of_different_experiments_never_share_a_name(tmp_path: Path) -> None:
    tree(tmp_path / "x", 2)
    tree(tmp_path / "y", 3)
    names = {
        model_name(variant, dataset, seed)
        for variant in (Variant("a", DEFAULT), Variant("a", PAPER), Variant("a", DEFAULT, 2))
        for dataset in (tmp_path / "x", tmp_path / "y")
        for seed in (0, 1)
    }
    assert len(names) == 12
