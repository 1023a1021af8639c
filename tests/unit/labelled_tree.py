"""A small labelled tree in MVTec form, and a detector for it that needs no training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from station.evaluate import measure as evaluate
from station.evaluate.evaluation import Evaluation
from station.evaluate.measure import Examples, Judging, Scored
from station.model_card import ModelCard
from station.recipe import HIGHEST
from station.records.sheet import Image, Prediction

SIZE = 32
LIMIT = 0.5


def picture(seed: int, spot: int | None = None) -> Image:
    """Grey noise, with a bright square at (spot, spot) if one is asked for."""
    image = np.random.default_rng(seed).integers(40, 90, (SIZE, SIZE), np.uint8)
    if spot is not None:
        image[spot : spot + 8, spot : spot + 8] = 230
    return image


def mask(spot: int) -> Image:
    painted = np.zeros((SIZE, SIZE), np.uint8)
    painted[spot : spot + 8, spot : spot + 8] = 255
    return painted


def write(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def make_tree(root: Path) -> Path:
    """Write six good images and two kinds of defect, three of each with masks."""
    for i in range(6):
        write(root / "test" / "good" / f"{i:03}.png", picture(i))
    for label, spot in (("dent", 8), ("stain", 16)):
        for i in range(3):
            write(root / "test" / label / f"{i:03}.png", picture(100 + spot + i, spot))
            write(root / "ground_truth" / label / f"{i:03}_mask.png", mask(spot))
    return root


def make_sheets(root: Path) -> Path:
    """Write three good sheets of two shots each, and three with a dent in one of their shots."""
    for sheet in range(3):
        for shot in range(2):
            write(root / "test" / "good" / f"s1-1-{sheet}_left_{shot}.png", picture(sheet))
            label, spot = ("dent", 8) if shot else ("good", None)
            image = picture(50 + sheet, spot)
            write(root / "test" / label / f"s1-1-1{sheet}_left_{shot}.png", image)
    return root


def brightness(image: Image) -> Prediction:
    """Find what is bright: a map of a quarter of the size."""
    small = cv2.resize(image, (SIZE // 4, SIZE // 4), interpolation=cv2.INTER_AREA)
    anomaly_map = np.asarray(small, np.float32) / np.float32(255)
    return Prediction(float(anomaly_map.max()), anomaly_map)


def evaluated(root: Path, card: ModelCard) -> tuple[Evaluation, Examples, list[Scored]]:
    examples = evaluate.read_examples(root, "all")
    scored = evaluate.score(brightness, examples, lambda _: None)
    judging = Judging(LIMIT, "given", HIGHEST)
    return evaluate.evaluate(card, examples, scored, judging), examples, scored
