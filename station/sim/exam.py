"""How hard the rendered scene is: two detectors that know only grey values must do badly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from station.errors import ConfigError
from station.geometry import Pose
from station.sim.options import SimOptions
from station.sim.scene import SCENE_VERSION, open_scene
from station.sim.truth import Truth

LIMIT = 0.85  # both baselines stay below, or the scene is too easy to prove anything

SETUPS = tuple((x, y) for y in (-0.405, -0.495) for x in (-0.055, 0.055))
OFFSETS = ((0.0, 0.0), (0.003, 0.0), (0.0, 0.003))
HEIGHT_M = 0.26

_WIDTH_PX = 256  # what the learned detectors see, too
_BLURS_PX = (0.0, 1.0, 2.0, 4.0)  # a baseline may look at any of these scales; its best counts
_TRAIN_SEED = 1_000_003  # training sheets come from another draw than the exam's
_SEEN_SHARE = 0.0002  # of a picture's pixels: about ten of those 256 wide


class Look(NamedTuple):
    """One picture as the baselines get it."""

    view: int  # setup and offset
    image: NDArray[np.float32]
    seen: bool


@dataclass(frozen=True)
class ExamResult:
    """I-AUROC of each baseline, per sheet (maximum over its pictures) and per picture."""

    scene_version: int
    seed: int
    train_sheets: int
    sheets: int
    defective: int
    mean_image_sheet: float
    mean_image_picture: float
    grey_gaussian_sheet: float
    grey_gaussian_picture: float

    @property
    def passed(self) -> bool:
        """Whether the scene is hard enough."""
        scores = (
            self.mean_image_sheet,
            self.mean_image_picture,
            self.grey_gaussian_sheet,
            self.grey_gaussian_picture,
        )
        return max(scores) < LIMIT

    def as_dict(self) -> dict[str, object]:
        """Return everything for `--json`."""
        return {**asdict(self), "limit": LIMIT, "passed": self.passed}


def poses() -> list[Pose]:
    """Return the tool's poses: four setups that cover the sheet, three shots each."""
    return [
        Pose(x + dx, y + dy, HEIGHT_M, math.pi, 0.0, 0.0) for x, y in SETUPS for dx, dy in OFFSETS
    ]


def exam(sheets: int, seed: int) -> ExamResult:
    """Train both baselines on good sheets and let them judge `sheets` others."""
    if sheets < 20:
        raise ConfigError(f"sheets: {sheets} is too few, a block has 20")
    train_sheets = min(40, sheets)
    train = SimOptions(seed=seed + _TRAIN_SEED, defect_rate=0.0)
    mean, deviation = _learn(train, train_sheets)
    mean_image, gaussian, shown, bad = [], [], [], []
    for label, looks in _rendered(SimOptions(seed=seed), sheets):
        bad.append(label != "good")
        differences = [np.abs(look.image - mean[look.view]) for look in looks]
        mean_image.append([_peaks(difference) for difference in differences])
        gaussian.append(
            [_peaks(d / deviation[look.view]) for d, look in zip(differences, looks, strict=True)]
        )
        shown.append([look.seen for look in looks])
    truth = np.array(bad)
    seen = np.array(shown)
    mean_sheet, mean_picture = _best(np.array(mean_image), truth, seen)
    grey_sheet, grey_picture = _best(np.array(gaussian), truth, seen)
    return ExamResult(
        SCENE_VERSION,
        seed,
        train_sheets,
        sheets,
        int(truth.sum()),
        mean_sheet,
        mean_picture,
        grey_sheet,
        grey_picture,
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    if positive.all() or not positive.any():
        return math.nan
    order = np.sort(scores[~positive])
    wins = np.searchsorted(order, scores[positive], "left")
    ties = np.searchsorted(order, scores[positive], "right") - wins
    return float(np.mean(wins + 0.5 * ties) / order.size)


def _rendered(options: SimOptions, sheets: int) -> Iterator[tuple[str, list[Look]]]:
    scene = open_scene(options)
    lamp = Truth.load().lamp
    height = round(_WIDTH_PX * scene.size[1] / scene.size[0])
    for number in range(sheets):
        sheet = scene.lay(number)
        if sheet is None:
            return
        looks = []
        for view, pose in enumerate(poses()):
            image, mask = scene.picture(pose, lamp.exposure_us, 0.0)
            small = cv2.resize(image, (_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
            seen = float(np.mean(mask > 0)) > _SEEN_SHARE
            looks.append(Look(view, small.astype(np.float32), seen))
        yield sheet.label, looks


def _learn(
    options: SimOptions, sheets: int
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Return mean and deviation of every pixel of every view."""
    seen: list[list[NDArray[np.float32]]] = [[] for _ in poses()]
    for _, looks in _rendered(options, sheets):
        for look in looks:
            seen[look.view].append(look.image)
    stacks = [np.array(images) for images in seen]
    mean = [stack.mean(axis=0) for stack in stacks]
    # one grey level more: a pixel that happened not to change is no reason to call anything odd
    return mean, [stack.std(axis=0) + np.float32(1) for stack in stacks]


def _peaks(difference: NDArray[np.float32]) -> list[float]:
    """Return the maximum of the map at each scale."""
    peaks = []
    for blur in _BLURS_PX:
        smoothed = cv2.GaussianBlur(difference, (0, 0), blur) if blur else difference
        peaks.append(float(smoothed.max()))
    return peaks


def _best(
    scores: NDArray[np.float64], bad: NDArray[np.bool_], seen: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the best scale's AUROC per sheet and per picture; scores are (sheet, view, scale)."""
    per_sheet = [auroc(scores[..., i].max(axis=1), bad) for i in range(scores.shape[2])]
    per_picture = [auroc(scores[..., i].ravel(), seen.ravel()) for i in range(scores.shape[2])]
    return max(per_sheet), max(per_picture)
