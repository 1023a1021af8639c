"""Exact intervals against the binomial sums that define them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.intervals import Share, clopper_pearson, share, units_needed, upper_bound


def at_most(count: int, total: int, rate: float) -> float:
    """Chance of no more than `count` of `total` at a true rate."""
    return sum(math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(count + 1))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_are_where_the_count_becomes_improbable(counted: tuple[int, int]) -> None:
    count, total = counted
    low, high = clopper_pearson(count, total)
    assert low <= count / total <= high
    if count < total:
        assert at_most(count, total, high) == pytest.approx(0.025)
        assert at_most(count, total, upper_bound(count, total)) == pytest.approx(0.05)
    if count > 0:
        assert 1 - at_most(count - 1, total, low) == pytest.approx(0.025)


@pytest.mark.parametrize("count", [0, 3, 30])
def test_a_share_has_the_two_sided_interval_whatever_was_counted(count: int) -> None:
    found = share(count, 30)
    assert (found.low, found.high) == clopper_pearson(count, 30)


@pytest.mark.parametrize("total", [30, 80])
def test_the_interval_holds_the_true_share_95_times_in_100(total: int) -> None:
    for rate in (0.005, 0.01, 0.02, 0.05, 0.2, 0.5):
        held = sum(
            math.comb(total, k) * rate**k * (1 - rate) ** (total - k)
            for k in range(total + 1)
            if share(k, total).low <= rate <= share(k, total).high
        )
        assert held >= 0.95


def test_none_of_many_has_a_one_sided_bound_of_its_own() -> None:
    assert upper_bound(0, 30) == pytest.approx(1 - 0.05 ** (1 / 30))


def test_of_nothing_nothing_is_known() -> None:
    assert share(0, 0) == Share(0, 0, 0.0, 1.0)
    assert share(0, 0).value is None


@pytest.mark.parametrize(
    ("defects", "percent"), [(10, 25.9), (25, 11.3), (30, 9.5), (60, 4.9), (299, 1.0)]
)
def test_no_escape_among_few_defects_says_little(defects: int, percent: float) -> None:
    assert round(100 * upper_bound(0, defects), 1) == percent


@given(st.integers(0, 20), st.floats(0.001, 0.9))
def test_the_units_needed_are_the_fewest(count: int, limit: float) -> None:
    needed = units_needed(count, limit)
    assert needed is not None
    assert upper_bound(count, needed) <= limit
    assert needed == count + 1 or upper_bound(count, needed - 1) > limit


def test_a_claim_of_one_percent_takes_299_and_an_impossible_one_has_no_number() -> None:
    assert units_needed(0, 0.01) == 299
    assert units_needed(0, 1e-12) is None
