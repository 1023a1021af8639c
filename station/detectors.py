"""The detectors by name, each with its presets; what the model card keeps of a training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from station.errors import ConfigError
from station.preset import PRESETS, Preset, changed
from station.strict import Strict


class FeaturePreset(Strict):
    """What detectors that compare features of a frozen backbone have in common."""

    name: str
    backbone: str
    levels: tuple[int, ...] = Field(description="strides of the backbone's levels, finest first")
    pooling: Literal["average", "authors"] = "average"
    input_size: int = Field(ge=64, multiple_of=32, description="long side in pixels")
    crop_from: None = None
    tiles: int = Field(default=1, ge=1, le=8, description="per side; 1 is the whole frame")
    smoothing: float = Field(ge=0, description="deviation of the map's smoothing, in its own cells")
    patches: int = Field(ge=1, description="kept of all training images together, at most")

    @property
    def stride(self) -> int:
        """Pixels of the prepared frame for one cell of the map."""
        return self.levels[0]


class GaussianPreset(FeaturePreset):
    """One Gaussian over all features, or one per place of the grid (PaDiM's idea)."""

    detector: Literal["gaussian"] = "gaussian"
    per_position: bool
    channels: int | None = Field(
        default=None,
        ge=1,
        description="per position: drawn of all channels by the seed; null is all of them",
    )
    shrinkage: float = Field(gt=0, description="added to the variances of standardised features")

    @model_validator(mode="after")
    def _positions_are_the_frames(self) -> Self:
        if self.per_position and self.tiles > 1:
            raise ValueError("tiles: every tile has the same places, so per-position needs 1")
        if self.channels is not None and not self.per_position:
            raise ValueError("channels: drawn only where there is a Gaussian per position")
        return self


class PatchcorePreset(FeaturePreset):
    """A memory of normal features, thinned to a coreset."""

    detector: Literal["patchcore"] = "patchcore"
    coreset: float = Field(gt=0, le=1, description="share of all patches that is kept")
    projected: int = Field(ge=1, description="dimensions in which the coreset is chosen")


class StudentPreset(Strict):
    """What detectors in which a student learns from a teacher have in common."""

    name: str
    input_size: int = Field(ge=128, multiple_of=32, description="long side in pixels")
    crop_from: None = None
    tiles: int = Field(default=1, ge=1, le=8, description="per side; 1 is the whole frame")
    smoothing: float = Field(ge=0, description="deviation of the map's smoothing, in its own cells")
    steps: int = Field(ge=1)
    batch: int = Field(ge=1, description="images a step")
    learning_rate: float = Field(gt=0, description="a tenth of it for the last 5 % of the steps")
    weight_decay: float = Field(ge=0)


class EfficientadPreset(StudentPreset):
    """EfficientAD as published: a patch description network for a teacher."""

    detector: Literal["efficientad-s", "efficientad-m"]
    teacher: str | None = Field(
        default=None,
        description="its name in the store of weights; null: s or m, else one made at first use",
    )

    @property
    def size(self) -> Literal["s", "m"]:
        """The size of its networks."""
        return "s" if self.detector == "efficientad-s" else "m"

    @property
    def stride(self) -> int:
        """Pixels of the prepared frame for one cell of the map."""
        return 4


class LitePreset(StudentPreset):
    """The station's own: the embedded backbone for a teacher, a narrow student."""

    detector: Literal["lite"] = "lite"
    backbone: str
    levels: tuple[int, ...] = Field(description="strides of the backbone's levels, finest first")

    @model_validator(mode="after")
    def _student_has_the_teachers_grid(self) -> Self:
        if self.levels[:1] != (4,):
            raise ValueError("levels: the student's grid is that of stride 4, which must be first")
        return self

    @property
    def stride(self) -> int:
        """Pixels of the prepared frame for one cell of the map."""
        return self.levels[0]


def _kind(value: Any) -> str:
    """Return the detector a preset is for; cards written before there were others do not say."""
    if isinstance(value, dict):
        return str(value.get("detector", "simplenet"))
    return str(getattr(value, "detector", value))


AnyPreset = Annotated[
    Annotated[Preset, Tag("simplenet")]
    | Annotated[GaussianPreset, Tag("gaussian")]
    | Annotated[PatchcorePreset, Tag("patchcore")]
    | Annotated[EfficientadPreset, Tag("efficientad-s")]
    | Annotated[EfficientadPreset, Tag("efficientad-m")]
    | Annotated[LitePreset, Tag("lite")],
    Discriminator(_kind),
]

# Published smoothing is 4 pixels, here in cells of the map.
GAUSSIAN = GaussianPreset(
    name="default",
    backbone="efficientnet_lite0",
    levels=(4, 8, 16),
    input_size=256,
    smoothing=1.0,
    patches=1_000_000,
    per_position=False,
    shrinkage=0.01,
)

PER_POSITION = GaussianPreset(
    name="per-position",
    backbone="efficientnet_lite0",
    levels=(8, 16),
    input_size=256,
    smoothing=0.5,
    patches=1_000_000_000,
    per_position=True,
    channels=100,
    shrinkage=0.01,
)

PATCHCORE = PatchcorePreset(
    name="default",
    backbone="efficientnet_lite0",
    levels=(8, 16),
    input_size=256,
    smoothing=0.5,
    patches=1_000_000,
    coreset=0.01,
    projected=64,
)

EFFICIENTAD_S = EfficientadPreset(
    detector="efficientad-s",
    name="default",
    input_size=256,
    smoothing=0.0,
    steps=70_000,
    batch=1,
    learning_rate=1e-4,
    weight_decay=1e-5,
)

EFFICIENTAD_M = changed(EFFICIENTAD_S, detector="efficientad-m")

LITE = LitePreset(
    name="default",
    backbone="efficientnet_lite0",
    levels=(4, 8, 16),
    input_size=256,
    smoothing=1.5,
    steps=3000,
    batch=4,
    learning_rate=1e-3,
    weight_decay=1e-5,
)

DETECTORS: dict[str, dict[str, AnyPreset]] = {
    "simplenet": {**PRESETS},
    "gaussian": {"default": GAUSSIAN, "per-position": PER_POSITION},
    "patchcore": {"default": PATCHCORE},
    "efficientad-s": {"default": EFFICIENTAD_S},
    "efficientad-m": {"default": EFFICIENTAD_M},
    "lite": {"default": LITE},
}


def preset_of(detector: str, preset: str = "default") -> AnyPreset:
    """Return a detector's preset; an unknown name lists what there is."""
    if detector not in DETECTORS:
        raise ConfigError(f"no detector {detector!r}; there are: {', '.join(DETECTORS)}")
    presets = DETECTORS[detector]
    if preset not in presets:
        raise ConfigError(f"{detector} has no preset {preset!r}; it has: {', '.join(presets)}")
    return presets[preset]
