"""Detectors beside each other: paired differences, the rule, the published table, the page."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from station.detectors import DETECTORS, GAUSSIAN
from station.errors import ConfigError, ModelError
from station.evaluate import compare
from station.evaluate.compare import Contender, contenders, recommend
from station.evaluate.evaluation import Evaluation, Latency, ScoredImage, ScoredSheet
from station.evaluate.metrics import RESAMPLES, LabelledScores, draw_units, image_auroc, measure
from station.evaluate.published import published
from station.evaluate.variants import Cost, Measured, Variant
from station.pages import compare_figures
from station.preset import changed


def evaluation(good: np.ndarray, defective: np.ndarray, p50_ms: float) -> Evaluation:
    scores = np.concatenate([good, defective])
    truth = np.arange(len(scores)) >= len(good)
    units = [f"u{i}" for i in range(len(scores))]
    labels = ["stain" if bad else "good" for bad in truth]
    found = measure(LabelledScores(scores, truth, units), 0.5)
    return Evaluation(
        **dict(found),
        dataset="cloth", data_digest="00", split="select", model="a/1", model_sha256="00",
        backbone="none", seed=0, threshold_from="a test", images=len(scores), units=len(scores),
        masks=0, pixel_auroc=None, au_pro=None, fpr_limit=0.3, overlap_fpr=0.05,
        latency_ms=Latency(p50=p50_ms, p95=p50_ms), sheets=None, notes=(), classes=(), regions=(),
        scores=tuple(
            ScoredImage(file=f"{u}.png", label=label, unit=u, score=float(s))
            for u, label, s in zip(units, labels, scores, strict=True)
        ),
        software={}, evaluated=datetime(2030, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def contender(
    name: str, gap: float, p50_ms: float, *, count: int = 60, seeds: int = 2
) -> Contender:
    """Return a detector whose defects score `gap` deviations above good ones, on shared luck."""
    luck = np.random.default_rng(0).normal(size=2 * count)
    runs = []
    for seed in range(seeds):
        own = 0.3 * np.random.default_rng([seed, int(10 * gap)]).normal(size=2 * count)
        scores = luck + own + gap * (np.arange(2 * count) >= count)
        found = evaluation(scores[:count], scores[count:], p50_ms)
        runs.append(
            Measured(Path(), "a/1", found, Cost(training_s=10.0 + seed, memory_mb=100.0 + seed))
        )
    return Contender(name, tuple(runs))


def test_a_clear_leader_is_taken() -> None:
    said = recommend(
        [contender("a", 2.5, 30.0), contender("b", 0.5, 3.0), contender("c", 0.2, 3.0)]
    )
    assert (said.take, said.leader) == ("a", "a")
    assert all(d.shown for d in said.differences)
    assert "better than every other" in said.words


def test_what_cannot_be_told_apart_is_said_and_the_fast_one_taken() -> None:
    said = recommend(
        [contender("a", 2.5, 30.0), contender("b", 2.49, 3.0), contender("c", 0.2, 1.0)]
    )
    assert said.take == "b"
    assert "No difference can be shown between a and b" in (
        said.words.replace("b and a", "a and b")
    )
    assert "c" not in [d.other for d in said.differences if not d.shown]


def test_speed_does_not_buy_more_than_a_hundredth() -> None:
    said = recommend([contender("a", 1.5, 30.0, count=8), contender("b", 1.3, 3.0, count=8)])
    assert said.differences[0].value > compare.NEAR
    assert [d.shown for d in said.differences] == [False], "8 images show nothing"
    assert said.take == "a"
    assert "No difference can be shown" in said.words


def test_the_same_scores_show_no_difference() -> None:
    a = contender("a", 1.5, 5.0)
    said = recommend([a, a._replace(name="b")])
    assert said.differences == (compare.Difference(said.differences[0].other, 0.0, 0.0, 0.0),)
    assert not said.differences[0].shown


def test_without_defects_nothing_is_recommended() -> None:
    good = np.random.default_rng(0).normal(size=9)
    one = Contender(
        "a", (Measured(Path(), "a/1", evaluation(good, good[:0], 1.0), Cost(training_s=None)),)
    )
    said = recommend([one, one._replace(name="b")])
    assert said.take is None
    assert one.figure("image_auroc") is None
    assert one.training_s is None


def test_paired_intervals_are_narrower_than_the_difference_of_two() -> None:
    a, b = contender("a", 1.5, 5.0), contender("b", 1.2, 5.0)
    (paired,) = recommend([a, b]).differences
    wide = [c.figure("image_auroc") for c in (a, b)]
    apart = sum(e.high - e.low for e in wide if e and e.high is not None and e.low is not None)
    assert paired.high - paired.low < 0.6 * apart


def test_resampled_aurocs_are_those_of_the_drawn_images() -> None:
    one = contender("a", 1.0, 5.0, count=7, seeds=1)
    row = one.evaluations[0].scores
    defective = np.array([s.label != "good" for s in row])
    weights = draw_units([s.unit for s in row], defective, 0, RESAMPLES)
    for weight, found in zip(weights[:20], one.resampled()[:20], strict=True):
        drawn = [(s, n) for s, n in zip(row, weight.astype(int), strict=True)]
        good, bad = (
            [s.score for s, n in drawn for _ in range(n) if (s.label != "good") == spoilt]
            for spoilt in (False, True)
        )
        assert found == pytest.approx(image_auroc(good, bad))


def test_figures_are_means_over_the_seeds() -> None:
    one = contender("a", 1.0, 5.0)
    found = one.figure("image_auroc")
    values = [e.image_auroc.value for e in one.evaluations if e.image_auroc]
    assert found is not None
    assert found.value == pytest.approx(np.mean(values))
    assert (one.training_s, one.memory_mb) == (10.5, 101.0)


def test_detectors_are_read_with_their_presets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = contenders(["gaussian", "gaussian:per-position"], tmp_path)
    assert [v.preset for v in found if isinstance(v, Variant)] == [*DETECTORS["gaussian"].values()]
    (tiled,) = contenders(["gaussian"], tmp_path, tiles=2)
    assert isinstance(tiled, Variant)
    assert tiled.preset == changed(GAUSSIAN, tiles=2)
    for names, says in (
        (["resnet"], "no detector 'resnet'; there are: simplenet"),
        (["gaussian:paper"], "it has: default, per-position"),
        (["gaussian", "gaussian"], "twice"),
    ):
        with pytest.raises(ConfigError, match=says):
            contenders(names, tmp_path)
    monkeypatch.setenv("STATION_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match="simplenet:paper: its backbone's weights are absent"):
        contenders(["simplenet:paper"], tmp_path)
    with pytest.raises(ModelError, match="no model 'rd/1'"):
        contenders(["gaussian", "rd/1"], tmp_path)


def test_the_published_table_is_whole() -> None:
    table = published()
    assert len(table.systems) == 9
    assert len(table.figures) == 18
    simplenet = [s.name for s in table.systems].index("SimpleNet")
    assert table.figures["Average"][simplenet] == (99.6, 98.1)
    assert "test set" in table.systems[simplenet].note
    classes = [pairs for name, pairs in table.figures.items() if not name.startswith("Average")]
    for i, system in enumerate(table.systems):
        mean = np.mean([pairs[i][0] for pairs in classes])
        # As printed: the averages agree with the classes to rounding, whole per cents for AE-SSIM.
        assert mean == pytest.approx(table.figures["Average"][i][0], abs=1.2), system.name


def by_sheet(found: Contender, sheet_gap: float) -> Contender:
    """Return the same detector of images that are captures; its sheets differ by `sheet_gap`."""
    scores = np.random.default_rng(1).normal(size=40) + sheet_gap * (np.arange(40) >= 20)
    sheets = tuple(
        ScoredSheet(sheet=f"s{i}", defective=i >= 20, score=float(score))
        for i, score in enumerate(scores)
    )
    truth = np.array([s.defective for s in sheets])
    figures = measure(LabelledScores(scores, truth, [s.sheet for s in sheets]), 0.5)
    changes = {"sheets": figures, "sheet_scores": sheets}
    runs = [
        run._replace(evaluation=run.evaluation.model_copy(update=changes)) for run in found.runs
    ]
    return Contender(found.name, tuple(runs))


def test_whole_sheets_decide_where_there_are_any() -> None:
    better_by_image = by_sheet(contender("a", 2.5, 3.0), sheet_gap=0.0)
    better_by_sheet = by_sheet(contender("b", 0.2, 30.0), sheet_gap=9.0)
    said = recommend([better_by_image, better_by_sheet])
    assert said.take == "b"
    assert [d.shown for d in said.differences] == [True]
    rejects = better_by_sheet.judged("false_rejects_at_zero_escapes")
    assert rejects is not None
    assert rejects.value == 0
    by_image = better_by_sheet.figure("false_rejects_at_zero_escapes")
    assert by_image is not None
    assert by_image.value > 0
    again = recommend([better_by_sheet, better_by_sheet._replace(name="c")])
    assert "highest sheet AUROC" in again.words


def test_names_of_neighbours_are_not_written_over_each_other() -> None:
    axes = Figure(layout="constrained").add_subplot()
    points = [(87.0, 70.0, "far", False), (96.2, 99.5, "one", True), (96.3, 99.4, "two", True)]
    for x, y, _, _ in points:
        axes.plot(x, y, "o")
    compare_figures._name(axes, points)
    far, one, two = axes.texts
    assert isinstance(far, Annotation)
    assert isinstance(one, Annotation)
    assert isinstance(two, Annotation)
    assert far.xyann == (9, -3), "beside the point, where there is room"
    assert one.xyann != two.xyann
