"""The rendered scene: repeatable, honest about where its defects are, and never too faint."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from station.errors import ConfigError
from station.geometry import Pose
from station.sim import defects
from station.sim.exam import auroc, poses
from station.sim.optics import Optics
from station.sim.options import SimOptions
from station.sim.scene import (
    BLOCK,
    SHIFT_MM,
    TURN_DEG,
    RenderedScene,
    corner_from_base,
    label_of,
    make_sheet,
    open_scene,
)
from station.sim.truth import Truth
from station.sim.weave import Cloth

TRUTH = Truth.load()
ABOVE = Pose(0.0, -0.45, 0.26, math.pi, 0.0, 0.0)
SMALL = SimOptions(size=(306, 256))
VIEWS = poses()[::3]


def scene(options: SimOptions) -> RenderedScene:
    opened = open_scene(options)
    assert isinstance(opened, RenderedScene)
    return opened


@functools.cache
def clean(number: int, seed: int) -> Cloth:
    return make_sheet(number, "good", seed, TRUTH)


def test_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    taken = []
    for seed in (3, 3, 4):
        shown = scene(replace(SMALL, seed=seed))
        shown.lay(2)
        taken.append(shown.picture(ABOVE, 8000.0, 0.0).image)
    assert np.array_equal(taken[0], taken[1])
    assert np.mean(taken[0] != taken[2]) > 0.5


def test_two_shots_from_one_pose_differ_by_noise_only() -> None:
    shown = scene(SMALL)
    shown.lay(0)
    first, second = (shown.picture(ABOVE, 8000.0, 0.0).image for _ in range(2))
    difference = first.astype(float) - second
    assert difference.any()
    assert abs(difference.mean()) < 0.2
    assert difference.std() < 5


def test_noise_does_not_repeat() -> None:
    optics = Optics(TRUTH, (64, 48), 0)
    grey = np.full((48, 64), 100, np.float32)
    pictures = {optics.expose(grey, 8000.0, 0.0).tobytes() for _ in range(500)}
    assert len(pictures) == 500


def test_sheet_has_the_nominal_grey_at_nominal_exposure() -> None:
    shown = scene(SMALL)
    greys = []
    for number in range(4):
        shown.lay(number)
        greys.append(shown.picture(ABOVE, TRUTH.lamp.exposure_us, 0.0).image.mean())
    assert abs(np.mean(greys) - TRUTH.lamp.mean_grey) < 8


def test_gain_and_exposure_brighten_alike() -> None:
    shown = scene(SMALL)
    shown.lay(0)
    plain = shown.picture(ABOVE, 4000.0, 0.0).image.mean()
    longer = shown.picture(ABOVE, 8000.0, 0.0).image.mean()
    amplified = shown.picture(ABOVE, 4000.0, 20 * math.log10(2)).image.mean()
    assert longer == pytest.approx(2 * plain, rel=0.03)
    assert amplified == pytest.approx(longer, rel=0.03)


def test_size_scales_the_same_view() -> None:
    views = []
    for size in ((306, 256), (612, 512)):
        shown = scene(replace(SMALL, size=size))
        assert shown.size == size
        shown.lay(0)
        image = shown.picture(ABOVE, 8000.0, 0.0).image
        assert image.shape == size[::-1]
        views.append(cv2.resize(image, (153, 128), interpolation=cv2.INTER_AREA).astype(float))
    assert np.corrcoef(views[0].ravel(), views[1].ravel())[0, 1] > 0.97


def test_camera_sees_the_world_through_the_true_lens() -> None:
    optics = Optics(TRUTH, None, 0)
    sight = optics.sight(ABOVE, np.diag([1e6, 1e6, 1.0]))
    camera = TRUTH.camera
    eye = (ABOVE @ Pose.of(camera.hand_eye)).inverse().matrix()
    matrix = np.array(
        [
            [camera.fx_px, 0, camera.cx_px],
            [0, camera.fy_px, camera.cy_px],
            [0, 0, 1],
        ]
    )
    for column, row in ((0, 0), (1223, 1023), (611, 3), (17, 801)):
        point = [sight.x[row, column] / 1e6, sight.y[row, column] / 1e6, TRUTH.sheet.centre[2]]
        pixel, _ = cv2.projectPoints(
            np.array([point]),
            cv2.Rodrigues(eye[:3, :3])[0],
            eye[:3, 3],
            matrix,
            np.array([camera.k1, camera.k2, 0.0, 0.0]),
        )
        assert pixel.ravel() == pytest.approx([column, row], abs=0.05)


def test_views_from_anywhere_are_pictures() -> None:
    shown = scene(SMALL)
    empty = shown.picture(ABOVE, 8000.0, 0.0)
    assert 10 < empty.image.mean() < 60
    shown.lay(1)
    table = shown.picture(Pose(0.4, -0.2, 0.3, math.pi, 0.0, 0.0), 8000.0, 0.0)
    far = shown.picture(Pose(0.0, -0.45, 0.9, math.pi, 0.0, 0.0), 8000.0, 0.0)
    sky = shown.picture(Pose(0.0, -0.45, 0.3, 0.0, 0.0, 0.0), 8000.0, 0.0)
    sideways = shown.picture(Pose(0.0, -0.3, 0.3, 0.0, -1.7, 0.3), 8000.0, 0.0)
    assert table.image.mean() < 60
    assert not table.mask.any()
    assert 20 < far.image.mean() < 110
    assert sky.image.max() < 10
    assert sideways.image.shape == table.image.shape


def test_glints_move_with_the_camera() -> None:
    optics = Optics(TRUTH, (306, 256), 0)
    middle = optics.sight(ABOVE, np.eye(3))
    aside = optics.sight(ABOVE._replace(x=0.05), np.eye(3))
    assert abs(float((aside.half_x - middle.half_x).mean())) > 0.03


@pytest.mark.parametrize("kind", defects.KINDS)
def test_change_lies_inside_the_mask(kind: str) -> None:
    shown = scene(replace(SMALL, size=(612, 512), seed=11, defect_rate=1.0, defect=kind))
    shown.lay(0)
    largest = 0
    for pose in VIEWS:
        sight = shown._optics.sight(pose, shown._texture)
        spoilt, mask = shown.noiseless(sight)
        shown_levels, shown._levels = shown._levels, [clean(0, 11).layers]
        good, _ = shown.noiseless(sight)
        shown._levels = shown_levels
        assert set(np.unique(mask)) <= {0, 255}
        changed = np.abs(spoilt - good) > 4
        # shadows and the pull on neighbours fade out over two millimetres, 10 pixels here
        near = cv2.dilate(mask, np.ones((21, 21), np.uint8)) > 0
        assert not (changed & ~near).any()
        if mask.any():
            assert changed[mask > 0].mean() > 0.3
        largest = max(largest, int((mask > 0).sum()))
    assert largest > 30


@pytest.mark.parametrize("kind", defects.KINDS)
def test_every_defect_is_seen_in_some_view_and_not_too_faint(kind: str) -> None:
    optics = Optics(TRUTH, (306, 256), 0)
    shown = scene(SMALL)
    for seed in range(3):
        before = clean(7, seed)
        spoilt = make_sheet(7, kind, seed, TRUTH)
        assert defects.contrast(before.layers, spoilt) >= defects.FAINTEST
        shown._levels, shown._masks = [spoilt.layers], [spoilt.mask]
        texture = scene_texture(shown, seed)
        seen = [int((shown.noiseless(optics.sight(p, texture))[1] > 0).sum()) for p in VIEWS]
        assert max(seen) > 15


def scene_texture(shown: RenderedScene, seed: int) -> np.ndarray:
    return shown.place(np.random.default_rng([seed, 7, 1]))


def test_good_sheets_have_an_empty_mask() -> None:
    for number in range(4):
        assert not make_sheet(number, "good", 1, TRUTH).mask.any()


def test_a_third_of_the_sheets_carries_something_harmless_and_mild() -> None:
    faint = []
    varied = 0
    for number in range(60):
        rng = np.random.default_rng([0, number, 3])
        varied += rng.uniform() < defects.VARIED
    assert 12 <= varied <= 28
    for number in range(3):
        cloth = make_sheet(number, "good", 5, TRUTH)
        before = cloth.layers.copy()
        for draw in defects.HARMLESS:
            draw(np.random.default_rng(number), cloth)
        cloth.mask[:] = np.where((cloth.layers != before).any(axis=2), 255, 0)
        faint.append(defects.contrast(before, cloth))
        cloth.mask[:] = 0
    assert max(faint) < defects.FAINTEST


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.4, 1.0])
def test_share_of_defective_sheets_is_exact_in_every_block(rate: float) -> None:
    options = SimOptions(seed=2, defect_rate=rate)
    orders = set()
    for block in range(4):
        labels = [label_of(block * BLOCK + i, options) for i in range(BLOCK)]
        assert sum(label != "good" for label in labels) == round(BLOCK * rate)
        orders.add(tuple(labels))
    assert len(orders) == (4 if rate > 0 else 1)


def test_kinds_are_spread_evenly_or_all_the_one_asked_for() -> None:
    labels = [label_of(i, SimOptions(seed=5)) for i in range(5 * BLOCK)]
    assert set(labels) == {"good", *defects.KINDS}
    assert min(Counter(labels).values()) >= 5
    nuts = {label_of(i, SimOptions(seed=5, defect="nut")) for i in range(BLOCK)}
    assert nuts == {"good", "nut"}


def test_sheets_lie_within_their_shift_and_turn() -> None:
    x, y, _ = TRUTH.sheet.centre
    middle = [500 * TRUTH.sheet.width_m, 500 * TRUTH.sheet.height_m, 1.0]
    for number in range(300):
        corner = corner_from_base(np.random.default_rng([0, number, 1]), TRUTH)
        back = np.linalg.inv(corner)
        moved_mm = 1e3 * np.hypot(*(back @ middle - [x, y, 1.0])[:2])
        assert moved_mm <= SHIFT_MM + 1e-9
        turn = math.degrees(math.atan2(back[1, 0], back[0, 0]))
        assert abs(turn) <= TURN_DEG + 1e-9


def test_what_cannot_be_rendered_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"defect-rate: 1\.5"):
        open_scene(SimOptions(defect_rate=1.5))
    with pytest.raises(ConfigError, match="no kind 'scratch'"):
        open_scene(SimOptions(defect="scratch"))


def test_auroc_counts_ties_half() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    assert auroc(scores, np.array([False, False, True, True])) == pytest.approx(0.875)
