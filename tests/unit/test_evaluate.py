"""Evaluation of a small tree: what it says, what it cannot say, what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from labelled_tree import LIMIT, SIZE, evaluated, make_sheets, make_tree, mask, picture, write
from test_model_card import card

from station.errors import DatasetError, ModelError
from station.evaluate import evaluation
from station.evaluate import measure as evaluate
from station.evaluate.metrics import Estimate
from station.evaluate.root import averages, categories, finished_before, mean
from station.learn.export import write_model
from station.model_card import HeldOutRule, newest
from station.recipe import HIGHEST, SheetRule
from station.records.sheet import Image, Prediction


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "cloth")


def test_a_detector_that_finds_everything_is_told_so(tree: Path) -> None:
    found, _, _ = evaluated(tree, card())
    assert found.image_auroc is not None
    assert found.false_rejects_at_zero_escapes is not None
    assert found.pixel_auroc is not None
    assert found.au_pro is not None
    assert found.image_auroc.value == 1.0
    assert found.false_rejects_at_zero_escapes.count == 0
    assert found.pixel_auroc.value > 0.99
    assert found.au_pro.value > 0.98
    assert (found.images, found.good, found.defective, found.masks) == (12, 6, 6, 6)
    assert (found.threshold, found.threshold_from, found.split) == (LIMIT, "given", "all")
    assert [row.label for row in found.classes] == ["good", "dent", "stain"]
    assert [row.area_px for row in found.regions] == [64] * 6
    assert found.sheets is None
    assert found.notes == ()


def test_result_comes_back_from_its_file_the_same(tree: Path, tmp_path: Path) -> None:
    found, _, _ = evaluated(tree, card())
    evaluation.save(found, tmp_path / "r.json")
    assert evaluation.load(tmp_path / "r.json") == found
    (tmp_path / "r.json").write_text('{"model": 3}')
    with pytest.raises(DatasetError, match=r"r.json: not an evaluation"):
        evaluation.load(tmp_path / "r.json")


def test_without_masks_pixel_metrics_are_null(tree: Path) -> None:
    shutil.rmtree(tree / "ground_truth")
    found, _, _ = evaluated(tree, card())
    assert found.pixel_auroc is None
    assert found.au_pro is None
    assert found.regions == ()
    assert found.image_auroc is not None
    assert found.notes == ("no masks: pixel AUROC and AU-PRO cannot be measured",)


def test_some_masks_are_used_and_counted(tree: Path) -> None:
    (tree / "ground_truth" / "dent" / "001_mask.png").unlink()
    shutil.rmtree(tree / "ground_truth" / "stain")
    found, _, _ = evaluated(tree, card())
    assert found.masks == 2
    assert len(found.regions) == 2
    assert found.pixel_auroc is not None
    assert found.pixel_auroc.value > 0.99  # the unpainted defects are not called good
    assert "masks for 2 of 6 defective images" in found.notes[0]
    assert [row.au_pro is None for row in found.classes] == [True, False, True]


@pytest.mark.parametrize(
    ("gone", "note"), [(["good"], "no good test image"), (["dent", "stain"], "no defective")]
)
def test_one_kind_of_image_alone_gives_nulls_and_the_reason(
    tree: Path, gone: list[str], note: str
) -> None:
    for label in gone:
        shutil.rmtree(tree / "test" / label)
        shutil.rmtree(tree / "ground_truth" / label, ignore_errors=True)
    found, _, _ = evaluated(tree, card())
    assert found.image_auroc is None
    assert found.average_precision is None
    assert found.false_rejects_at_zero_escapes is None
    assert found.f1 is None
    assert note in found.notes[0]


def test_images_may_differ_in_size(tree: Path) -> None:
    large = np.tile(picture(7), (2, 2))
    write(tree / "test" / "good" / "large.png", np.asarray(large, np.uint8))
    found, _, scored = evaluated(tree, card())
    assert {one.size for one in scored} == {(SIZE, SIZE), (2 * SIZE, 2 * SIZE)}
    assert found.pixel_auroc is not None


def test_same_file_name_under_two_labels_is_not_one_unit(tree: Path) -> None:
    found, _, _ = evaluated(tree, card())
    assert found.units == 12
    assert len({row.unit for row in found.scores}) == 12


def test_shots_of_one_sheet_are_also_measured_together(tmp_path: Path) -> None:
    found, _, _ = evaluated(make_sheets(tmp_path / "sheets"), card())
    assert found.sheets is not None
    assert (found.good, found.defective) == (9, 3)
    assert (found.sheets.good, found.sheets.defective) == (3, 3)
    assert found.sheets.escapes is not None
    assert found.sheets.escapes.count == 0


def spoil_size(tree: Path) -> None:
    write(tree / "ground_truth" / "dent" / "001_mask.png", np.zeros((8, 9), np.uint8))


def spoil_values(tree: Path) -> None:
    grey = mask(8)
    grey[0, :3] = 7, 9, 11
    write(tree / "ground_truth" / "dent" / "001_mask.png", grey)


def spoil_black(tree: Path) -> None:
    write(tree / "ground_truth" / "dent" / "001_mask.png", np.zeros((SIZE, SIZE), np.uint8))


def spoil_colour(tree: Path) -> None:
    colour = np.zeros((SIZE, SIZE, 3), np.uint8)
    colour[4:6, 4:6, 2] = 255
    write(tree / "ground_truth" / "dent" / "001_mask.png", colour)


def spoil_orphan(tree: Path) -> None:
    (tree / "test" / "dent" / "001.png").unlink()


def spoil_name(tree: Path) -> None:
    write(tree / "ground_truth" / "dent" / "001.png", mask(8))


def spoil_cut(tree: Path) -> None:
    path = tree / "test" / "dent" / "001.png"
    path.write_bytes(path.read_bytes()[:-30])


def spoil_empty(tree: Path) -> None:
    (tree / "test" / "dent" / "001.png").write_bytes(b"")


def spoil_depth(tree: Path) -> None:
    deep = np.zeros((SIZE, SIZE), np.uint16)
    write(tree / "test" / "dent" / "001.png", deep)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "dent/001_mask.png: mask has 9x8 pixels, its image 32x32"),
        (spoil_values, "dent/001_mask.png: mask has the values 0, 7, 9, 11, …; 0 and one other"),
        (spoil_black, "dent/001_mask.png: mask is all black"),
        (spoil_colour, "dent/001_mask.png: a mask in colour"),
        (spoil_orphan, "dent/001_mask.png: belongs to no image"),
        (spoil_name, "dent/001.png: belongs to no image"),
        (spoil_cut, "dent/001.png: the file is cut short"),
        (spoil_empty, "dent/001.png: empty file"),
        (spoil_depth, "dent/001.png: 16 bits per channel"),
    ],
    ids=[
        "042-mask-of-another-size",
        "042-mask-of-many-values",
        "042-mask-all-black",
        "042-mask-in-colour",
        "042-mask-without-image",
        "042-mask-by-another-name",
        "076-picture-cut-short",
        "044-empty-file",
        "051-sixteen-bits",
    ],
)
def test_a_bad_file_is_named(tree: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(tree)
    with pytest.raises(DatasetError, match=reason):
        evaluated(tree, card())


def test_a_mask_of_ones_means_the_same(tree: Path) -> None:
    before, _, _ = evaluated(tree, card())
    write(tree / "ground_truth" / "dent" / "001_mask.png", np.asarray(mask(8) // 255, np.uint8))
    after, _, _ = evaluated(tree, card())
    assert after.au_pro == before.au_pro
    assert after.data_digest != before.data_digest


def test_image_that_the_model_refuses_is_named(tree: Path) -> None:
    def refuse(_: Image) -> Prediction:
        raise ModelError("model a/1: trained on color images, this one is grey")

    examples = evaluate.read_examples(tree, "all")
    with pytest.raises(ModelError, match=r"000.png: model a/1: trained on color"):
        evaluate.score(refuse, examples, lambda _: None)


def test_select_and_report_are_the_two_halves(tree: Path) -> None:
    whole, select, report = (evaluate.read_examples(tree, s) for s in evaluation.SPLITS)
    files = [{e.file for e in part.members} for part in (select, report)]
    assert files[0] | files[1] == {e.file for e in whole.members}
    assert not files[0] & files[1]
    assert len({whole.digest, select.digest, report.digest}) == 3


def test_a_name_alone_means_its_newest_version(tmp_path: Path) -> None:
    for version in (1, 2):
        write_model(tmp_path, card(), bytes([version]), [picture(0)], "")
    assert newest(tmp_path, "cloth") == "cloth/2"
    assert newest(tmp_path, "cloth/1") == "cloth/1"
    with pytest.raises(ModelError, match=r"no model 'wool' .* there are: cloth/1, cloth/2"):
        newest(tmp_path, "wool")


def test_without_a_threshold_the_cards_held_out_scores_judge() -> None:
    assert evaluate.own_threshold(card()).threshold == max(card().held_out_scores)
    assert evaluate.own_threshold(card()).rule == HIGHEST
    made = HeldOutRule(setup_score="consensus", same_place=0.02)
    by_consensus = evaluate.own_threshold(card().model_copy(update={"held_out_rule": made}))
    assert by_consensus.rule == SheetRule("consensus", 0.02)


def test_a_finished_category_is_reused_only_while_everything_is_the_same(tree: Path) -> None:
    found, examples, _ = evaluated(tree, card())
    path = tree.parent / "cloth.json"
    assert finished_before(path, examples, "00", LIMIT) is None
    evaluation.save(found, path)
    assert finished_before(path, examples, "00", LIMIT) == found
    assert finished_before(path, examples, "01", LIMIT) is None
    assert finished_before(path, examples, "00", 0.6) is None
    write(tree / "test" / "good" / "new.png", picture(77))
    assert finished_before(path, evaluate.read_examples(tree, "all"), "00", LIMIT) is None


def test_categories_are_the_folders_with_tests(tree: Path) -> None:
    (tree.parent / "notes").mkdir()
    assert categories(tree.parent) == [tree]
    with pytest.raises(DatasetError, match="no folder with a folder test"):
        categories(tree.parent / "notes")
    with pytest.raises(DatasetError, match="no such folder"):
        categories(tree.parent / "away")


def test_averages_are_of_textures_objects_and_all(tree: Path) -> None:
    found, _, _ = evaluated(tree, card())
    results = [found.model_copy(update={"dataset": name}) for name in ("carpet", "pill", "own")]
    assert [(a.name, a.categories) for a in averages(results)] == [
        ("textures", 1),
        ("objects", 1),
        ("all", 3),
    ]


def test_mean_of_independent_estimates_is_surer_than_each() -> None:
    one = Estimate(value=0.8, low=0.6, high=0.9)
    four = mean([one] * 4)
    assert four is not None
    assert (four.value, four.low, four.high) == pytest.approx((0.8, 0.7, 0.85))
    assert mean([one, None]) == one
    assert mean([None]) is None
    unsure = mean([one, Estimate(value=0.6, low=None, high=None)])
    assert unsure is not None
    assert unsure.value == pytest.approx(0.7)
    assert unsure.low is None
