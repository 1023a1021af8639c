"""What is measured, said and kept of a sheet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from station.recipe import MODEL_PATTERN, JointsField, PoseField, SetupScore, SheetRule
from station.sheet_score import ShotScore, sheet_score
from station.strict import Strict

Image = NDArray[np.uint8]
SHEET_PATTERN = r"([a-z0-9][a-z0-9-]*)-([0-9]{1,9})-([0-9]{1,9})"  # station, boot, counter
Kind = Literal["capture", "inspection", "reference", "repeat"]
Precision = Literal["fp32", "bf16", "int8"]  # of a model's network
RuntimeName = Literal["torchscript", "openvino", "cuda"]  # what runs it


class Frame(NamedTuple):
    """One exposed picture: uint8 (H, W) grey or (H, W, 3) RGB, with what the camera read back."""

    image: Image
    number: int
    exposure_us: float
    gain_db: float
    taken_at: datetime


class Prediction(NamedTuple):
    """A model's answer on its own fixed scale: 0 = typical good sheet, 1 = typical defect."""

    score: float
    anomaly_map: NDArray[np.float32]  # (h, w)


class Verdict(StrEnum):
    """The outcome of a sheet; reject is a result, none a cycle that could not finish."""

    ACCEPT = "accept"
    REJECT = "reject"
    NONE = "none"


def pixels_sha256(image: Image) -> str:
    """Hash the pixels themselves, whatever file they are kept in."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


class FileEntry(Strict):
    """A file of the record and what proves it unchanged."""

    sha256: str
    bytes: int


class Capture(Strict):
    """One frame on disk with what was measured when it was taken."""

    file: str
    pixels_sha256: str
    width: int
    height: int
    setup: str
    shot: int
    pose_asked: PoseField
    pose: PoseField
    joints_rad: JointsField
    exposure_us: float
    gain_db: float
    frame: int
    taken_at: datetime
    retaken: tuple[str, ...] = Field(
        default=(), description="what was wrong with the pictures taken before it, at this place"
    )
    score: float | None = None
    map_file: str | None = None
    problem: str | None = None
    label: str | None = Field(
        default=None, description="set where a picture differs from its sheet"
    )


class Timing(Strict):
    """Milliseconds one sheet spent where; stages overlap, so they do not add up to the total."""

    total_ms: float
    motion_ms: float
    camera_ms: float
    scoring_ms: float
    saving_ms: float
    waited_ms: float  # from the last frame until all were saved and scored


class Manifest(Strict):
    """The record of one sheet, the same for captures and inspections."""

    schema_version: Literal[1] = Field(default=1, alias="schema", serialization_alias="schema")
    kind: Kind
    sheet: str
    run: str
    started_at: datetime
    finished_at: datetime
    complete: bool
    recipe: str
    recipe_sha256: str
    cell_sha256: str
    model: str | None = Field(default=None, pattern=MODEL_PATTERN)
    model_sha256: str | None = None
    runtime: RuntimeName | None = None
    precision: Precision | None = None
    threshold: float | None = None
    setup_score: SetupScore | None = None
    same_place: float | None = Field(
        default=None, description="share of a map's width that consensus takes for one place"
    )
    score: float | None = None
    verdict: Verdict | None = None
    dry_run: bool = False
    reasons: tuple[str, ...] = ()
    label: str | None = None
    split: Literal["train", "test"] | None = None
    captures: tuple[Capture, ...]
    files: dict[str, FileEntry]
    software: dict[str, str]
    scene_version: int | None = None
    timing: Timing | None = None
    previous: str | None = Field(default=None, description="sha256 of the manifest before this one")

    @property
    def silent(self) -> bool:
        """Tell whether no line was to tell its verdict."""
        return self.dry_run or self.kind != "inspection"


def judge(
    shots: Sequence[ShotScore],
    required: int,
    threshold: float,
    rule: SheetRule,
) -> tuple[Verdict, float | None, tuple[str, ...]]:
    """Return verdict, sheet score and reasons from the recorded shots.

    Accept is the positive statement: every required shot is there, every score is a finite number
    and the sheet's is below the threshold. A shot without a score rejects; one not recorded leaves
    no verdict.
    """
    if len(shots) < required or required < 1:
        return Verdict.NONE, None, (f"{len(shots)} of {required} shots recorded",)
    # NaN compares false, so it must be asked for by name.
    scores = [shot.score for shot in shots if shot.score is not None]
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) < len(shots):
        missing = len(shots) - len(finite)
        reason = f"{missing} of {required} shots without a finite score"
        return Verdict.REJECT, max(finite, default=None), (reason,)
    score = sheet_score(shots, rule)
    if score < threshold:
        return Verdict.ACCEPT, score, ()
    return Verdict.REJECT, score, (f"score {score:.3f} is not below threshold {threshold:g}",)
