"""The page of an evaluation: complete by itself, whatever could be measured."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled_tree import evaluated, make_sheets, make_tree, picture, write
from test_model_card import card

from station.evaluate.metrics import Estimate
from station.evaluate.root import averages
from station.pages.evaluation_figures import BINS, _edges, grouped_bars, marks
from station.pages.evaluation_report import write_evaluation, write_overview


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "cloth")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(make_tree(tmp_path_factory.mktemp("page") / "cloth"))


def page(tree: Path) -> str:
    out = tree.parent / "page.html"
    evaluation, examples, scored = evaluated(tree, card())
    write_evaluation(out, evaluation, examples, scored, card())
    assert not list(tree.parent.glob("*.part"))
    return out.read_text(encoding="utf-8")


def words(html: str) -> str:
    for kind in ("svg", "style", "script"):
        html = re.sub(rf"<{kind}.*?</{kind}>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_page_needs_nothing_beside_itself(html: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "@import" not in html


def test_ids_of_figures_differ(html: str) -> None:
    ids = re.findall(r'<clipPath id="([^"]*)"', html)
    assert len(set(ids)) == len(ids) > 1


def test_page_says_what_the_threshold_does(html: str) -> None:
    text = words(html)
    assert "0 of 6 defective images escape" in text
    assert "0 of 6 good images are rejected" in text
    assert "the threshold that judges" in text
    assert "dent, from the lowest score to the highest of 3" in text


def test_page_of_sheets_counts_what_the_line_judges(tmp_path: Path) -> None:
    text = words(page(make_sheets(tmp_path / "sheets")))
    assert "0 of 3 defective sheets escape" in text
    assert "the threshold that judges 0.500 0 of 3 0 of 3" in text
    assert "the lowest that rejects no good sheet" in text
    assert "Scores of sheets" in text
    assert "good sheets rejected if no defect of these sheets may escape" in text
    assert "The verdict is the sheet's, the score the picture's" in text


def test_page_shows_every_region_and_the_learning_curve(html: str) -> None:
    assert html.count("<td>dent</td>") >= 3
    assert "How it learned" in html
    assert "meta-epoch" in html


def test_names_are_text_never_markup(tree: Path) -> None:
    (tree / "test" / "dent").rename(tree / "test" / "<b>&")
    (tree / "ground_truth" / "dent").rename(tree / "ground_truth" / "<b>&")
    html = page(tree)
    assert "&lt;b&gt;&amp;" in html
    assert "<b>&" not in html


def test_page_without_masks_shows_dashes_and_the_reason(tree: Path) -> None:
    shutil.rmtree(tree / "ground_truth")
    text = words(page(tree))
    assert "no masks: pixel AUROC and AU-PRO cannot be measured" in text
    assert "no mask" in text
    assert "Pixel AUROC - not measured" in text


@pytest.mark.parametrize("gone", [["good"], ["dent", "stain"]])
def test_page_of_one_kind_alone_has_no_roc(tree: Path, gone: list[str]) -> None:
    for label in gone:
        shutil.rmtree(tree / "test" / label)
        shutil.rmtree(tree / "ground_truth" / label, ignore_errors=True)
    text = words(page(tree))
    assert "What the threshold does" not in text
    assert "What to know of these figures" in text


def test_letters_mark_what_they_say(tree: Path) -> None:
    for i in range(40):
        write(tree / "test" / "good" / f"more{i}.png", picture(200 + i, 4 if i == 0 else None))
    evaluation, _, _ = evaluated(tree, card())
    judge, no_escape, few, none = marks(evaluation)
    assert judge.threshold == evaluation.threshold
    assert (no_escape.escapes, no_escape.letter) == (0, "A")
    assert few.false_rejects <= 0.05 * evaluation.good
    assert none.false_rejects == 0


@pytest.mark.parametrize("threshold", [0.03, -1.0, 0.5, 9.0])
def test_no_bar_of_the_histogram_lies_on_both_sides_of_the_threshold(threshold: float) -> None:
    scores = np.random.default_rng(0).normal(0.1, 0.3, 50)
    edges = _edges(scores, threshold)
    assert edges[0] <= scores.min() < scores.max() < edges[-1]
    inside = edges[0] < threshold < edges[-1]
    assert not inside or np.isclose(edges, threshold).any()
    assert len(edges) <= BINS + 3


def test_bars_stand_for_any_labels_and_estimates() -> None:
    known = Estimate(value=0.9, low=0.8, high=0.95)
    drawn = grouped_bars("b", ["2 images", "90 images"], {"AU-PRO": [known, None]})
    assert "2 images" in drawn
    assert "0.90" in drawn
    many = grouped_bars("b", [str(i) for i in range(15)], {k: [known] * 15 for k in "abc"})
    assert many.count("0.90") == 45


def test_overview_names_every_category_and_what_is_missing(tree: Path) -> None:
    found, _, _ = evaluated(tree, card())
    results = [found.model_copy(update={"dataset": name}) for name in ("carpet", "pill")]
    out = tree.parent / "index.html"
    write_overview(out, "mvtec", results, averages(results), ["zipper"])
    text = words(out.read_text(encoding="utf-8"))
    assert "mvtec: 2 categories" in text
    assert "zipper" in text
    assert "textures mean of 1" in text
    assert "all mean of 2" in text
