"""Verdicts and the record they are kept in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sheets import capture, manifest

from station.errors import (
    ConfigError,
    DatasetError,
    DeviceError,
    ModelError,
    RobotStopped,
    StationError,
)
from station.recipe import HIGHEST, SheetRule
from station.records.sheet import Manifest, Verdict, judge, pixels_sha256
from station.sheet_score import ShotScore

LOWEST = SheetRule("lowest")

scores = st.lists(st.one_of(st.none(), st.floats()), max_size=5)


def judged(
    scores: Sequence[float | None], required: int, threshold: float
) -> tuple[Verdict, float | None, tuple[str, ...]]:
    """Judge shots of one setup by the highest."""
    return judge([ShotScore("a", score) for score in scores], required, threshold, HIGHEST)


def test_the_lowest_shot_of_a_setup_tells_a_defect_from_a_glint() -> None:
    setups = ["left", "left", "left", "right", "right", "right"]
    glint = [0.9, 0.0, 0.1, 0.1, 0.1, 0.0]
    defect = [0.1, 0.0, 0.1, 0.9, 0.8, 0.7]
    glint_shots = [ShotScore(*pair) for pair in zip(setups, glint, strict=True)]
    defect_shots = [ShotScore(*pair) for pair in zip(setups, defect, strict=True)]
    assert judge(glint_shots, 6, 0.5, LOWEST)[:2] == (Verdict.ACCEPT, 0.0)
    assert judge(defect_shots, 6, 0.5, LOWEST)[:2] == (Verdict.REJECT, 0.7)
    assert judge(glint_shots, 6, 0.5, HIGHEST)[:2] == (Verdict.REJECT, 0.9)


def test_the_lowest_shot_never_hides_one_without_a_score() -> None:
    calm, odd, none = (ShotScore("left", score) for score in (0.1, math.nan, None))
    assert judge([calm, odd], 2, 0.5, LOWEST)[0] is Verdict.REJECT
    assert judge([calm, none], 2, 0.5, LOWEST)[0] is Verdict.REJECT
    assert judge([calm], 2, 0.5, LOWEST)[0] is Verdict.NONE


def test_one_shot_a_setup_is_judged_alike_either_way() -> None:
    shots = [ShotScore(s, v, np.full((4, 4), v)) for s, v in (("a", 0.25), ("b", 0.625))]
    for how in (HIGHEST, LOWEST, SheetRule("consensus", 0.1)):
        assert judge(shots, 2, 0.5, how)[:2] == (Verdict.REJECT, 0.625)


def test_all_scores_below_the_threshold_accept() -> None:
    assert judged([0.1, 0.13, -0.2], 3, 0.14) == (Verdict.ACCEPT, 0.13, ())


def test_a_score_at_the_threshold_rejects() -> None:
    verdict, score, reasons = judged([0.1, 0.14], 2, 0.14)
    assert (verdict, score) == (Verdict.REJECT, 0.14)
    assert "threshold 0.14" in reasons[0]


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_finite_number_rejects(bad: float | None) -> None:
    verdict, score, reasons = judged([0.1, bad], 2, 0.14)
    assert (verdict, score) == (Verdict.REJECT, 0.1)
    assert reasons == ("1 of 2 shots without a finite score",)


def test_a_missing_shot_leaves_no_verdict_however_bad_the_others() -> None:
    verdict, score, reasons = judged([0.1, 9.0], 3, 0.14)
    assert (verdict, score, reasons) == (Verdict.NONE, None, ("2 of 3 shots recorded",))


def test_sheet_without_captures_has_no_verdict() -> None:
    assert judged([], 12, 0.14)[0] is Verdict.NONE


def test_a_sheet_that_needs_no_shots_is_not_accepted() -> None:
    assert judged([], 0, 0.14)[0] is not Verdict.ACCEPT


@pytest.mark.parametrize("threshold", [math.nan, -math.inf])
def test_a_threshold_that_is_no_number_accepts_nothing(threshold: float) -> None:
    assert judged([0.1], 1, threshold)[0] is Verdict.REJECT


@given(scores, st.integers(1, 5), st.floats(allow_nan=False, allow_infinity=False))
def test_accept_is_the_positive_statement(
    given_scores: list[float | None], required: int, threshold: float
) -> None:
    verdict, score, reasons = judged(given_scores, required, threshold)
    proven = len(given_scores) >= required and all(
        s is not None and math.isfinite(s) and s < threshold for s in given_scores
    )
    assert (verdict is Verdict.ACCEPT) == proven
    assert (verdict is Verdict.NONE) == (len(given_scores) < required)
    assert bool(reasons) != proven
    assert score is None or math.isfinite(score)


def test_a_manifest_reads_back_as_it_was_written() -> None:
    record = manifest(verdict=Verdict.REJECT, score=0.5, threshold=0.14)
    text = record.model_dump_json(by_alias=True, exclude_none=True)
    assert '"schema":1' in text
    assert Manifest.model_validate_json(text) == record


@pytest.mark.parametrize(
    ("key", "value"),
    [("schema", 2), ("kind", "other"), ("verdict", "maybe"), ("extra", 1), ("split", "val")],
)
def test_a_manifest_of_another_form_is_refused(key: str, value: object) -> None:
    content = manifest().model_dump(mode="json", by_alias=True, exclude_none=True)
    with pytest.raises(ValidationError):
        Manifest.model_validate({**content, key: value}, strict=False)


def test_a_capture_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        capture(1).score = 0.0  # type: ignore[misc]


def test_the_hash_is_of_the_pixels_not_of_their_layout_in_memory() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (8, 16), dtype=np.uint8)
    assert pixels_sha256(wide[:, ::2]) == pixels_sha256(wide[:, ::2].copy())
    assert pixels_sha256(wide) != pixels_sha256(wide[:, ::2])


def test_every_kind_of_error_has_its_exit_code() -> None:
    codes: dict[type[StationError], int] = {
        StationError: 1,
        ConfigError: 2,
        DeviceError: 3,
        ModelError: 4,
        DatasetError: 5,
    }
    for error, code in codes.items():
        assert error.exit_code == code
    assert RobotStopped.exit_code == 3


def test_a_device_error_names_device_problem_and_the_next_action() -> None:
    error = RobotStopped("robot 10.0.0.1", "protective stop", "clear it at the pendant")
    assert str(error) == "robot 10.0.0.1: protective stop; clear it at the pendant"
    assert str(DeviceError("camera", "gone")) == "camera: gone"


def test_times_are_kept_with_their_zone() -> None:
    record = manifest()
    again = Manifest.model_validate_json(record.model_dump_json(by_alias=True))
    assert again.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
