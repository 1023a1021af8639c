"""What an evaluation found: one frozen record, kept as JSON and read back the same."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from station.errors import DatasetError
from station.evaluate.metrics import Estimate, ImageMetrics, Rate
from station.records.dataset import write_durably
from station.strict import Strict

Split = Literal["all", "select", "report"]
SPLITS: tuple[Split, ...] = ("all", "select", "report")


class Latency(Strict):
    """Milliseconds from pixels to answer, the way to the model's process and back included."""

    p50: float
    p95: float


class LabelMetrics(Strict):
    """One kind of defect against all good images; of `good` only counts and rejects."""

    label: str
    images: int
    units: int
    masks: int
    image_auroc: Estimate | None
    pixel_auroc: Estimate | None
    au_pro: Estimate | None
    rejected: Rate | None
    lowest_score: float
    median_score: float
    highest_score: float


class RegionRow(Strict):
    """One connected defect of a mask; `overlap` is read where `overlap_fpr` of good pixels are."""

    file: str
    label: str
    area_px: int
    au_pro: float
    overlap: float
    highest_score: float


class ScoredImage(Strict):
    """The score of one image."""

    file: str
    label: str
    unit: str
    score: float


class ScoredSheet(Strict):
    """The score of one sheet, made of its shots as the line makes it."""

    sheet: str
    defective: bool
    score: float


class Evaluation(ImageMetrics):
    """Everything an evaluation says; what it cannot say is None, and `notes` tell why."""

    dataset: str
    data_digest: str  # sha256 over label, image and mask of every entry
    split: Split
    model: str
    model_sha256: str
    backbone: str
    seed: int  # of the bootstrap
    threshold_from: str
    images: int
    units: int
    masks: int
    pixel_auroc: Estimate | None
    au_pro: Estimate | None
    fpr_limit: float
    overlap_fpr: float
    latency_ms: Latency
    sheets: ImageMetrics | None
    notes: tuple[str, ...]
    classes: tuple[LabelMetrics, ...]
    regions: tuple[RegionRow, ...]
    scores: tuple[ScoredImage, ...]
    sheet_scores: tuple[ScoredSheet, ...] = ()  # where every file is a capture
    software: dict[str, str]
    evaluated: datetime

    @property
    def judged(self) -> ImageMetrics:
        """Figures of what the line judges: of sheets where there are any, else of images."""
        return self.sheets or self

    @property
    def judged_unit(self) -> Literal["sheet", "image"]:
        """What `judged` is of."""
        return "sheet" if self.sheet_scores else "image"


def save(evaluation: Evaluation, path: Path) -> None:
    """Write an evaluation, whole or not at all."""
    write_durably(path, f"{evaluation.model_dump_json(indent=1)}\n".encode())


def load(path: Path) -> Evaluation:
    """Read an evaluation back."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DatasetError(f"{path}: not an evaluation: {place}: {first['msg']}") from error
