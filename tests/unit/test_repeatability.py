"""How well one sheet repeats: variance components against a table by hand and against truth."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from station.errors import ConfigError
from station.geometry import Pose
from station.kinematics import Joints
from station.records.sheet import Capture, Manifest, Verdict
from station.repeatability import Component, components, study

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
PLACE = Pose(0.0, -0.45, 0.26, 3.14159265, 0.0, 0.0)


def of(found: tuple[Component, ...], source: str) -> Component:
    return next(component for component in found if component.source == source)


def test_a_table_worked_by_hand() -> None:
    """Two times, one place, two shots: means 2 and 4 by time, 2.5 and 3.5 by shot, no rest."""
    found = components(np.array([[1.5, 2.5], [3.5, 4.5]]), ["a", "a"])
    assert of(found, "time").variance == pytest.approx(4.0 / 2)  # MS 4, error 0, two shots
    assert of(found, "shots").variance == pytest.approx(1.0 / 2)  # MS 1, error 0, two times
    assert of(found, "error").variance == pytest.approx(0.0)
    assert of(found, "poses").variance is None, "one place tells nothing of places"
    assert [c.degrees_of_freedom for c in found] == [0, 1, 1, 1]
    assert of(found, "time").share == pytest.approx(0.8)


@pytest.mark.parametrize("shots_of", [(3, 3, 3, 3), (1, 5, 2, 4)])
def test_the_estimates_are_unbiased(shots_of: tuple[int, ...]) -> None:
    """Averaged over many studies they come to the variances the scores were made with."""
    draw = np.random.default_rng(7)
    poses = [name for name, count in zip("abcd", shots_of, strict=True) for _ in range(count)]
    members = np.array([ord(name) - ord("a") for name in poses])
    truth = {"poses": 4.0, "shots": 1.0, "time": 0.5, "error": 0.25}
    sums = dict.fromkeys(truth, 0.0)
    trials = 1500
    for _ in range(trials):
        scores = (
            draw.normal(0, 2.0, 4)[members][None, :]
            + draw.normal(0, 1.0, len(poses))[None, :]
            + draw.normal(0, 0.5**0.5, 12)[:, None]
            + draw.normal(0, 0.5, (12, len(poses)))
        )
        for component in components(scores, poses):
            sums[component.source] += component.variance or 0.0
    for source, value in truth.items():
        # A pose's estimate below zero is cut off, which lifts its average a little.
        assert sums[source] / trials == pytest.approx(value, rel=0.08), source


def test_the_order_of_shots_changes_nothing() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 6))
    poses = ["a", "a", "b", "b", "b", "c"]
    order = np.array([5, 2, 0, 3, 1, 4])
    mixed = components(scores[:, order], [poses[i] for i in order])
    for one, other in zip(components(scores, poses), mixed, strict=True):
        assert one.variance == pytest.approx(other.variance)


def test_one_shot_tells_time_and_error_as_one() -> None:
    found = components(np.array([[1.0], [3.0]]), ["a"])
    assert of(found, "error").variance == pytest.approx(2.0)
    assert [c.variance for c in found if c.source != "error"] == [None, None, None]


def manifest(number: int, scores: tuple[float, ...], verdict: Verdict) -> Manifest:
    captures = tuple(
        Capture(
            file=f"{number}_{shot}.png", pixels_sha256="0" * 64, width=8, height=6,
            setup="left" if shot < 2 else "right", shot=shot % 2 + 1, pose_asked=PLACE, pose=PLACE,
            joints_rad=Joints(0, 0, 0, 0, 0, 0), exposure_us=8000.0, gain_db=0.0, frame=shot,
            taken_at=WHEN, score=score,
        )
        for shot, score in enumerate(scores)
    )  # fmt: skip
    return Manifest(
        schema=1, kind="repeat", sheet=f"s1-0001-{number:06d}", run="s1-0001", started_at=WHEN,
        finished_at=WHEN, complete=True, recipe="a", recipe_sha256="0" * 64, cell_sha256="0" * 64,
        verdict=verdict, score=max(scores), threshold=0.5, captures=captures, files={}, software={},
    )  # fmt: skip


def test_a_study_tells_agreement_margin_and_gauge_share() -> None:
    near = [0.46, 0.48, 0.52, 0.47]
    records = [
        manifest(n, (0.1, 0.12, score, 0.3), Verdict.ACCEPT if score < 0.5 else Verdict.REJECT)
        for n, score in enumerate(near, start=1)
    ]
    found = study(records, 0.5)
    assert (found.times, found.verdicts) == (4, {"accept": 3, "reject": 1})
    assert found.agreement == 0.75
    assert found.agreement_low < 0.3, "four times are few"
    assert (found.lowest, found.highest) == (0.46, 0.52)
    assert found.margin_in_deviations == pytest.approx((0.5 - np.mean(near)) / np.std(near, ddof=1))
    shares = [c.share or 0.0 for c in found.components]
    assert sum(shares) == pytest.approx(1.0)
    assert found.gauge_share == pytest.approx(shares[2] + shares[3])


def test_a_score_that_never_changes_has_no_margin_in_deviations() -> None:
    same = [manifest(n, (0.1, 0.2, 0.3, 0.4), Verdict.ACCEPT) for n in (1, 2, 3)]
    found = study(same, 0.5)
    assert (found.deviation, found.margin_in_deviations) == (0.0, None)
    assert found.gauge_share == pytest.approx(0.0)


def test_what_was_not_scored_is_no_study() -> None:
    unscored = manifest(1, (0.1, 0.2, 0.3, 0.4), Verdict.REJECT).model_copy(update={"score": None})
    with pytest.raises(ConfigError, match="at least 2 complete repetitions"):
        study([unscored, unscored], 0.5)
