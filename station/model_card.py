"""What is known about a model: the card beside its weights, and where both lie."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from station.detectors import AnyPreset
from station.errors import ConfigError, ModelError
from station.golden import read_golden
from station.recipe import MODEL_PATTERN, SetupScore, SheetRule
from station.records.sheet import Precision, RuntimeName
from station.strict import Strict

WEIGHTS, CARD = "weights.pt", "card.yaml"
SUMS = "images.sha256"  # of every training image, as sha256sum writes it
CARD_LIMIT_BYTES = 4 << 20  # written by training: a line per held-out unit

OTHER_SIZE = 0.1  # of a side: what training takes for alike
OTHER_SHAPE = 0.2  # of the ratio of the sides: twice that, one side longer and one shorter

Sha256 = str


class ModelInput(Strict):
    """What the network is given, and the frames it was trained on."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    tiles: int = Field(ge=1)
    channels: Literal["grey", "color"]
    frame_width: int = Field(ge=1)
    frame_height: int = Field(ge=1)

    def refusal(self, width: int, height: int) -> str | None:
        """Say why a picture of that size cannot be judged: letterboxed, it would lose its shape."""
        shape = (width / height) / (self.frame_width / self.frame_height)
        if abs(shape - 1) <= OTHER_SHAPE:
            return None
        return f"{self._learned}; one of {width} x {height} has another shape"

    def doubt(self, width: int, height: int) -> str | None:
        """Say what is odd about a size that can be judged."""
        sides = ((width, self.frame_width), (height, self.frame_height))
        if all(abs(side - learned) <= OTHER_SIZE * learned for side, learned in sides):
            return None
        return (
            f"{self._learned}; the camera's have {width} x {height}: train anew, unless a picture "
            "shows as much of the sheet as before"
        )

    @property
    def _learned(self) -> str:
        return f"learned from pictures of {self.frame_width} x {self.frame_height} pixels"


class Scale(Strict):
    """Raw scores that became 0 and 1: medians over held-out good images, plain and spoilt."""

    raw_zero: float
    raw_one: float
    synthetic_seed: int
    synthetic_kinds: tuple[str, ...]


class TrainingData(Strict):
    """What the model saw; `digest` is the sha256 over the sorted sha256 of all files."""

    folder: str
    digest: Sha256
    images: int
    units: int
    held_out_units: tuple[str, ...]


class CurvePoint(Strict):
    """How learning stood after a meta-epoch; never measured on the test's images."""

    meta_epoch: int
    loss: float
    good_right: float = Field(description="share of normal patches on the good side")
    noisy_right: float = Field(description="share of noisy patches on the other side")
    synthetic_auroc: float


class Deviations(Strict):
    """How many feature dimensions deviate how much over training patches, local and adapted."""

    edges: tuple[float, ...] = Field(description="of the bins, on a logarithmic scale")
    local: tuple[int, ...]
    adapted: tuple[int, ...]


class LossPoint(Strict):
    """What the last steps lost on average, term by term."""

    step: int
    hard: float = Field(description="student and teacher, where they differ most")
    penalty: float = Field(description="the student's answer to images from elsewhere")
    autoencoder: float
    student: float = Field(description="student and autoencoder")


class StudentTraining(Strict):
    """How long a student learned, from which teacher, and what its maps are normalised by."""

    steps_done: int
    steps_published: int | None = Field(description="null where nothing was published")
    teacher: str
    teacher_sha256: Sha256 | None = Field(description="null where the backbone is the teacher")
    teacher_origin: str
    penalty_images: int = Field(description="0: without penalty")
    penalty_digest: Sha256 | None
    bf16: bool
    device: Literal["cpu", "cuda"] = "cpu"
    local_quantiles: tuple[float, float] = Field(description="0.9 and 0.995, of held-out images")
    whole_quantiles: tuple[float, float] | None = Field(description="null: no autoencoder")
    losses: tuple[LossPoint, ...]


class Training(Strict):
    """How it was trained; with the same data and software this gives the same model."""

    preset: AnyPreset
    seed: int
    patches: int
    threads: int
    curve: tuple[CurvePoint, ...]
    deviations: Deviations | None = Field(default=None, description="null in older cards")
    student: StudentTraining | None = Field(
        default=None, description="of detectors in which a student learns from a teacher"
    )


class Imported(Strict):
    """Where a model came from that was not trained here."""

    file: str
    sha256: Sha256
    library: str | None = None  # that built it from the file, with its version


class Golden(Strict):
    """An image beside the card and the score it must get at every load, as the model runs."""

    file: str = Field(pattern=r"^[a-z0-9_-]+\.png$")
    score: float
    spoilt: bool | None = Field(
        default=None, description="whether a synthetic defect is in it; null in older cards"
    )


class HeldOutRule(Strict):
    """How held-out scores were made of shots: a threshold on them holds for this rule alone."""

    setup_score: SetupScore
    same_place: float = Field(default=0.0, ge=0)

    @property
    def rule(self) -> SheetRule:
        """As a recipe has it."""
        return SheetRule(self.setup_score, self.same_place)


class ModelCard(Strict):
    """Everything known about a model; the threshold belongs to the recipe."""

    name: str
    version: int = Field(ge=1)
    detector: Literal[
        "simplenet", "gaussian", "patchcore", "efficientad-s", "efficientad-m", "lite", "imported"
    ]
    backbone: str
    sha256: Sha256
    input: ModelInput
    precision: Precision = "fp32"
    runtime: RuntimeName = "torchscript"
    parent: str | None = Field(
        default=None, pattern=MODEL_PATTERN, description="the fp32 model this one was exported from"
    )
    scale: Scale
    data: TrainingData
    training: Training | None = None
    imported: Imported | None = Field(default=None, description="in place of `training`")
    golden: tuple[Golden, ...] = Field(min_length=1)
    held_out_scores: tuple[float, ...] = Field(
        min_length=1, description="per held-out unit of good images"
    )
    held_out_rule: HeldOutRule | None = Field(default=None, description="null in older cards")
    software: dict[str, str]
    created: datetime

    @model_validator(mode="after")
    def _preset_is_the_detectors(self) -> Self:
        if (self.training is None) != (self.detector == "imported"):
            raise ValueError(f"training: not what a card of detector {self.detector} has")
        if (self.imported is None) == (self.detector == "imported"):
            raise ValueError(f"imported: not what a card of detector {self.detector} has")
        if self.training is not None and self.training.preset.detector != self.detector:
            raise ValueError(
                f"detector: {self.detector}, but its preset is for {self.training.preset.detector}"
            )
        return self


def load_card(workspace: Path, name: str) -> ModelCard:
    """Read the card of "name/3"; a missing model lists what there is."""
    path = workspace / "models" / name / CARD
    if name not in list_models(workspace):
        found = ", ".join(list_models(workspace)) or "none"
        raise ModelError(f"no model {name!r} in {workspace / 'models'}; there are: {found}")
    try:
        card = ModelCard.load(path, CARD_LIMIT_BYTES)
    except ConfigError as error:
        raise ModelError(f"{error}{_other_version(path)}") from error
    if f"{card.name}/{card.version}" != name:
        raise ModelError(f"{path}: name and version say {card.name}/{card.version}, not {name}")
    return card


def _other_version(path: Path) -> str:
    """Say who wrote a card that cannot be read, if it was another release of the station."""
    here = importlib.metadata.version("station")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    written = re.search(r"^\s+station: ['\"]?([\w.+-]+)", text, re.MULTILINE)
    if written is None or written[1] == here:
        return ""
    return f" (the model was made by station {written[1]}; this is {here})"


def check_files(workspace: Path, card: ModelCard) -> None:
    """Compare the model's files with its card, without loading them."""
    folder = workspace / "models" / card.name / str(card.version)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path}: missing")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise ModelError(f"{path}: not the file its card describes (sha256 differs)")
    for golden in card.golden:
        read_golden(folder / golden.file)


def list_models(workspace: Path) -> list[str]:
    """Return "name/version" of every model in a workspace, versions in order."""
    cards = (workspace / "models").glob(f"*/*/{CARD}")
    found = [(p.parts[-3], int(p.parts[-2])) for p in cards if p.parts[-2].isdecimal()]
    return [f"{name}/{version}" for name, version in sorted(found)]


def newest(workspace: Path, name: str) -> str:
    """Return "name/3" of a name alone, its newest version; a full name stays as it is."""
    if "/" in name:
        return name
    found = [model for model in list_models(workspace) if model.startswith(f"{name}/")]
    if not found:
        there = ", ".join(list_models(workspace)) or "none"
        raise ModelError(f"no model {name!r} in {workspace / 'models'}; there are: {there}")
    return found[-1]
