"""Image metrics against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from station.evaluate.metrics import (
    LabelledScores,
    average_precision,
    draw_units,
    estimate,
    image_auroc,
    measure,
)


def labelled(good: list[float], defective: list[float], shared: int = 1) -> LabelledScores:
    """Label scores; `shared` of one kind in turn are one unit."""
    units = [f"g{i // shared}" for i in range(len(good))]
    units += [f"d{i // shared}" for i in range(len(defective))]
    truth = np.array([False] * len(good) + [True] * len(defective))
    return LabelledScores(np.array(good + defective, np.float64), truth, units)


def drawn(seed: int, levels: int = 5) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    good, defective = rng.integers(0, levels, 12), rng.integers(1, levels + 2, 9)
    return good.astype(float).tolist(), defective.astype(float).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_the_sum_over_thresholds_even_with_ties(seed: int) -> None:
    good, defective = drawn(seed)
    expected, before = 0.0, 0.0
    for threshold in sorted({*good, *defective}, reverse=True):
        found = sum(score >= threshold for score in defective)
        called = found + sum(score >= threshold for score in good)
        recall = found / len(defective)
        expected += (recall - before) * found / called
        before = recall
    assert average_precision(good, defective) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_figures_at_a_threshold_are_the_counts(seed: int) -> None:
    good, defective = drawn(seed)
    threshold = 3.0
    found = measure(labelled(good, defective), threshold)
    escapes = sum(score < threshold for score in defective)
    rejects = sum(score >= threshold for score in good)
    hits = len(defective) - escapes
    assert found.escapes is not None
    assert found.false_rejects is not None
    assert found.f1 is not None
    assert (found.escapes.count, found.escapes.total) == (escapes, len(defective))
    assert (found.false_rejects.count, found.false_rejects.total) == (rejects, len(good))
    assert found.f1.value == pytest.approx(2 * hits / (2 * hits + rejects + escapes))
    assert found.f1.low is not None
    assert found.f1.high is not None
    assert found.f1.low <= found.f1.value <= found.f1.high


@pytest.mark.parametrize("seed", range(20))
def test_zero_escapes_is_the_highest_threshold_that_misses_nothing(seed: int) -> None:
    good, defective = drawn(seed)
    found = measure(labelled(good, defective), None)
    candidates = sorted({*good, *defective})
    highest = max(t for t in candidates if all(score >= t for score in defective))
    rate = found.false_rejects_at_zero_escapes
    assert rate is not None
    assert found.zero_escape_threshold == highest
    assert rate.count == sum(score >= highest for score in good)
    assert found.escapes is None


def test_estimate_of_auroc_is_the_exact_value_with_bounds_around_it() -> None:
    good, defective = drawn(3)
    found = measure(labelled(good, defective), None).image_auroc
    assert found is not None
    assert found.value == image_auroc(good, defective)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_bootstrap_gives_what_resampling_by_hand_gives() -> None:
    good, defective = drawn(5)
    data = labelled(good, defective, shared=3)
    weights = draw_units(data.units, data.defective, seed=0)
    values = []
    for counts in weights.astype(int):
        repeated = np.repeat(data.scores, counts), np.repeat(data.defective, counts)
        values.append(image_auroc(repeated[0][~repeated[1]], repeated[0][repeated[1]]))
    found = measure(data, None, seed=0).image_auroc
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_units_are_drawn_whole_and_each_kind_keeps_its_number() -> None:
    units = ["a", "a", "b", "c", "c", "d"]
    weights = draw_units(units, np.array([True, False, True, False, False, False]), seed=1)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 3], weights[:, 4])
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 3] + weights[:, 5] == 2).all()


def test_perfect_separation_of_few_images_is_not_called_sure() -> None:
    found = measure(labelled([0.1, 0.2, 0.3], [1.0, 1.1, 1.2, 1.3]), 0.5)
    assert found.image_auroc is not None
    assert found.average_precision is not None
    assert (found.image_auroc.value, found.image_auroc.high) == (1.0, 1.0)
    assert found.image_auroc.low == pytest.approx(beta.ppf(0.025, 3, 1))
    assert (found.average_precision.low, found.average_precision.high) == (None, None)


def test_images_of_one_unit_count_once_in_an_exact_interval() -> None:
    alone = measure(labelled([0.0] * 30, [1.0] * 4), 0.5).false_rejects
    shared = measure(labelled([0.0] * 30, [1.0] * 4, shared=10), 0.5).false_rejects
    assert alone is not None
    assert shared is not None
    assert alone.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert shared.high == pytest.approx(1 - 0.025 ** (1 / 3))


@pytest.mark.parametrize("kinds", [([0.1, 0.2], []), ([], [0.1, 0.2])])
def test_one_kind_alone_has_no_ranking(kinds: tuple[list[float], list[float]]) -> None:
    found = measure(labelled(*kinds), 0.15)
    assert found.image_auroc is None
    assert found.average_precision is None
    assert found.false_rejects_at_zero_escapes is None
    assert found.f1 is None
    assert (found.escapes is None) == (not kinds[1])
    assert (found.false_rejects is None) == (not kinds[0])


def test_resamples_that_all_agree_give_no_bounds() -> None:
    assert estimate(0.7, np.full(10, 0.7)).low is None
    assert estimate(0.7, np.array([np.nan, 0.6, 0.9])).low is not None
