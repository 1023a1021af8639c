"""A model is exported only if its golden images score alike."""

from pathlib import Path

import numpy as np
import pytest
from test_model_card import SUMS, card

from station.errors import ModelError
from station.learn.certify import compare, convert
from station.learn.export import write_model
from station.model_card import Golden, ModelCard
from station.records.sheet import Precision, RuntimeName

IMAGE = np.zeros((8, 8), np.uint8)


def wanted(precision: Precision, runtime: RuntimeName = "openvino") -> ModelCard:
    changes = {"runtime": runtime, "precision": precision, "parent": "cloth/1"}
    return card().model_copy(update=changes)


def golden(scores: list[float], *, labelled: bool = True) -> list[Golden]:
    """Two good images and a spoilt one."""
    labels = [False, False, True] if labelled else [None] * 3
    return [
        Golden(file=f"golden-{i}.png", score=score, spoilt=spoilt)
        for i, (score, spoilt) in enumerate(zip(scores, labels, strict=True))
    ]


BEFORE = [0.1, 0.2, 1.2]


def test_fp32_may_differ_by_rounding_alone() -> None:
    compare(wanted("fp32"), BEFORE, golden([0.10009, 0.2, 1.19991]), None)
    with pytest.raises(
        ModelError, match=r"golden-2\.png scores 1\.20020, before 1\.20000; at most"
    ):
        compare(wanted("fp32"), BEFORE, golden([0.1, 0.2, 1.2002]), None)


def test_a_gpu_is_held_to_verdicts_in_fp32_too() -> None:
    compare(wanted("fp32", "cuda"), BEFORE, golden([0.101, 0.2, 1.2]), None)
    with pytest.raises(ModelError, match=r"cuda fp32 of cloth/1: golden-2.*another verdict"):
        compare(wanted("fp32", "cuda"), BEFORE, golden([0.1, 0.2, 0.3]), 0.4)


@pytest.mark.parametrize(
    ("scores", "threshold", "flips"),
    [
        ([0.1, 0.35, 1.1], 0.4, False),
        ([0.1, 0.45, 1.1], 0.4, True),
        ([0.1, 0.2, 0.39], 0.4, True),
        ([0.1, 0.29, 1.11], None, False),  # the gap is 1 wide, its ends do not count
        ([0.1, 0.31, 1.2], None, True),
        ([0.1, 0.2, 1.09], None, True),
    ],
)
def test_bf16_may_not_change_a_verdict(
    scores: list[float], threshold: float | None, flips: bool
) -> None:
    if not flips:
        compare(wanted("bf16"), BEFORE, golden(scores), threshold)
        return
    with pytest.raises(ModelError, match=r"bf16 of cloth/1: golden.*another verdict at threshold"):
        compare(wanted("bf16"), BEFORE, golden(scores), threshold)


def test_without_a_threshold_the_golden_images_must_tell_one() -> None:
    compare(wanted("bf16"), BEFORE, golden(BEFORE, labelled=False), 0.5)
    with pytest.raises(ModelError, match=r"which golden images are good.*give --recipe"):
        compare(wanted("bf16"), BEFORE, golden(BEFORE, labelled=False), None)
    with pytest.raises(ModelError, match=r"good golden images score up to 1\.300"):
        compare(wanted("bf16"), [0.1, 1.3, 1.2], golden([0.1, 1.3, 1.2]), None)


@pytest.mark.parametrize(
    ("changes", "precision", "problem"),
    [
        ({}, "int8", "int8 is another model"),
        ({"precision": "bf16"}, "fp32", "only an fp32 model can be exported"),
        ({"runtime": "openvino"}, "fp32", "already runs through openvino in fp32"),
        ({}, "fp32", r"weights\.pt: not the file its card describes"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(
    tmp_path: Path, changes: dict[str, str], precision: Precision, problem: str
) -> None:
    write_model(tmp_path, card().model_copy(update=changes), b"weights", [IMAGE], SUMS)
    with pytest.raises(ModelError, match=problem):
        convert(tmp_path, "cloth/1", "openvino", precision)
    assert [path.name for path in (tmp_path / "models" / "cloth").iterdir()] == ["1"]
