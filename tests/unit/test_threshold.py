"""Policies against brute force: every threshold of four decimals is tried."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.errors import ConfigError
from station.evaluate.threshold import (
    ZERO_ESCAPE,
    Policy,
    above,
    at_most,
    choose,
    parse_policy,
    read,
)
from station.intervals import share, upper_bound

# Close together, so that there are ties and scores that share their first four decimals.
NEAR = st.floats(-0.0006, 0.0006).map(float) | st.sampled_from([0.0, 1e-4, -2e-4, 3.5e-4])
ANY = NEAR | st.sampled_from([math.nan, math.inf, -math.inf])
SOME = st.lists(ANY, min_size=1, max_size=12)
GRID = [step / 10_000 for step in range(-8, 9)]


def rejects(scores: list[float], threshold: float) -> int:
    return sum(not (math.isfinite(score) and score < threshold) for score in scores)


def tried(good: list[float], defective: list[float]) -> list[tuple[float, int, int]]:
    """Threshold, escapes and false rejects of every threshold, ascending."""
    return [(t, len(defective) - rejects(defective, t), rejects(good, t)) for t in GRID]


def has_finite(*scores: list[float]) -> bool:
    return any(math.isfinite(score) for some in scores for score in some)


@given(st.floats(-1e6, 1e6))
def test_the_two_thresholds_around_a_score_are_neighbours_and_read_back_the_same(
    score: float,
) -> None:
    low, high = at_most(score), above(score)
    assert low <= score < high
    assert round(high - low, 6) == 0.0001
    assert all(float(f"{number:.4f}") == number for number in (low, high))


@given(SOME, SOME)
def test_zero_escape_is_the_highest_threshold_without_an_escape(
    good: list[float], defective: list[float]
) -> None:
    if not has_finite(defective):
        return
    expected = max(row for row in tried(good, defective) if row[1] == 0)
    found = choose(ZERO_ESCAPE, good, defective)
    assert found.threshold == expected[0]
    assert found.escapes == share(0, len(defective))
    assert found.false_rejects == share(expected[2], len(good))


@given(SOME, SOME, st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.29, 0.5, 0.9]))
def test_max_false_reject_is_the_lowest_threshold_that_keeps_the_share(
    good: list[float], defective: list[float], limit: float
) -> None:
    if not has_finite(good, defective):
        return
    kept = [row for row in tried(good, defective) if row[2] / len(good) <= limit]
    found = choose(Policy("max-false-reject", limit), good, defective)
    if kept:
        assert found == read(kept[0][0], good, defective)
    else:  # so many good units without a score
        assert found.false_rejects == share(rejects(good, 1.0), len(good))


@given(SOME, SOME, st.sampled_from([(50.0, 1.0), (1.0, 1.0), (1.0, 3.0), (2.5, 1.0)]))
def test_cost_is_the_lowest_of_the_cheapest_thresholds(
    good: list[float], defective: list[float], costs: tuple[float, float]
) -> None:
    if not has_finite(good, defective):
        return
    rows = tried(good, defective)
    price = {t: costs[0] * escapes + costs[1] * rejected for t, escapes, rejected in rows}
    found = choose(Policy("cost", costs=costs), good, defective)
    assert price[found.threshold] == min(price.values())
    cheaper = [t for t in GRID if t < found.threshold and price[t] == min(price.values())]
    # Below the lowest score nothing changes any more.
    assert all(read(t, good, defective)[1:] == found[1:] for t in cheaper)


@given(SOME, st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_good_only_is_the_lowest_threshold_whose_bound_keeps_the_promise(
    good: list[float], limit: float
) -> None:
    if not has_finite(good):
        return
    kept = [t for t in GRID if upper_bound(rejects(good, t), len(good)) <= limit]
    found = choose(Policy("good-only", limit), good, [])
    assert found.escapes is None
    if kept:
        assert found.threshold == kept[0]
    else:
        assert found.threshold == above(max(score for score in good if math.isfinite(score)))


def test_good_only_keeps_its_promise_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    policy = Policy("good-only", 0.05)
    # Uniform scores: the true share above a threshold is one minus the threshold.
    true = [1 - choose(policy, rng.random(100).tolist(), []).threshold for _ in range(1000)]
    assert 0.93 <= np.mean(np.array(true) <= 0.05) < 0.99


def test_no_escape_among_the_defects_bounds_the_true_rate_though_they_chose_the_threshold() -> None:
    rng = np.random.default_rng(0)
    true = [choose(ZERO_ESCAPE, [0.0], rng.random(30).tolist()).threshold for _ in range(1000)]
    assert 0.93 <= np.mean(np.array(true) <= upper_bound(0, 30)) <= 0.97


def test_a_higher_share_never_asks_for_a_higher_threshold() -> None:
    good = np.random.default_rng(2).random(60).tolist()
    thresholds = [
        choose(Policy("max-false-reject", limit), good, []).threshold
        for limit in np.linspace(0, 0.99, 40)
    ]
    assert all(high >= low for high, low in pairwise(thresholds))


def test_equal_scores_leave_all_or_nothing() -> None:
    same = [0.25] * 5
    strict = choose(ZERO_ESCAPE, same, same)
    assert (strict.threshold, strict.false_rejects) == (0.25, share(5, 5))
    mild = choose(Policy("max-false-reject", 0.05), same, same)
    assert (mild.threshold, mild.escapes) == (0.2501, share(5, 5))


def test_a_defect_below_every_good_unit_rejects_them_all() -> None:
    found = choose(ZERO_ESCAPE, [0.2, 0.3], [0.1, 0.9])
    assert found == (0.1, share(0, 2), share(2, 2))


def test_a_score_that_is_not_finite_rejects_at_any_threshold() -> None:
    found = read(1e9, [0.1, math.nan, math.inf, -math.inf], [math.nan, 0.1])
    assert found.false_rejects == share(3, 4)
    assert found.escapes == share(1, 2)


def test_one_good_unit_gives_a_threshold_that_promises_next_to_nothing() -> None:
    found = choose(Policy("good-only", 0.01), [0.1], [])
    assert found.threshold == 0.1001
    assert found.false_rejects is not None
    assert found.false_rejects.high == pytest.approx(0.975)


@pytest.mark.parametrize("policy", ["zero-escape", "cost 50:1"])
def test_without_defects_good_only_is_suggested(policy: str) -> None:
    with pytest.raises(ConfigError, match=r"no defective unit .*good-only 0.01"):
        choose(parse_policy(policy), [0.1], [])


@pytest.mark.parametrize(
    "policy", ["zero-escape", "max-false-reject 0.05", "cost 50:1", "good-only 0.01"]
)
def test_without_good_units_every_policy_is_refused(policy: str) -> None:
    with pytest.raises(ConfigError, match="no good unit"):
        choose(parse_policy(policy), [], [0.5])


def test_without_a_finite_score_there_is_no_threshold() -> None:
    with pytest.raises(ConfigError, match="finite"):
        choose(ZERO_ESCAPE, [math.nan], [math.inf])


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("zero-escape", ZERO_ESCAPE),
        ("max-false-reject 0.05", Policy("max-false-reject", 0.05)),
        ("max-false-reject 0", Policy("max-false-reject", 0.0)),
        ("  cost   50:1 ", Policy("cost", costs=(50.0, 1.0))),
        ("good-only 0.01", Policy("good-only", 0.01)),
    ],
)
def test_a_policy_is_read_as_it_is_written(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "", "best", "zero-escape 1", "max-false-reject", "max-false-reject 2",
        "max-false-reject -0.1", "max-false-reject nan", "cost 0:0", "cost 50", "cost 1:-1",
        "cost inf:1", "cost a:b", "good-only 0", "good-only 1", "good-only 0.1 0.2",
    ],
)  # fmt: skip
def test_a_malformed_policy_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="policy"):
        parse_policy(text)
