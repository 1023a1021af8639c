"""SimpleNet's presets: all that decides what a training gives, but for the images and the seed."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from station.errors import ConfigError
from station.strict import Strict, dotted, first_problem


class PatchBatches(Strict):
    """Every step draws that many patches from all images."""

    kind: Literal["patches"] = "patches"
    size: int = Field(ge=2)
    steps: int = Field(ge=1, description="per meta-epoch")


class ImageBatches(Strict):
    """Every step takes all patches of that many images; an epoch takes every image once."""

    kind: Literal["images"] = "images"
    size: int = Field(ge=1)
    epochs: int = Field(ge=1, description="per meta-epoch")


class LearnedAdaptor(Strict):
    """A linear projection trained with the discriminator, by AdamW."""

    kind: Literal["learned"] = "learned"
    learning_rate: float
    weight_decay: float


class WhiteningAdaptor(Strict):
    """Standardise every channel, then take principal components to deviation ** (1 - strength)."""

    kind: Literal["whitening"] = "whitening"
    strength: float = Field(ge=0, le=1)


class Preset(Strict):
    """A configuration of SimpleNet; the model card keeps it whole."""

    detector: Literal["simplenet"] = "simplenet"  # older cards do not say it
    name: str
    backbone: str
    levels: tuple[int, ...] = Field(description="strides of the backbone's levels, finest first")
    pooling: Literal["average", "authors"]
    input_size: int = Field(ge=64, multiple_of=32, description="long side in pixels")
    crop_from: int | None = Field(
        default=None,
        description="bring the short side to this, then keep the middle square of input_size",
    )
    tiles: int = Field(default=1, ge=1, le=8, description="per side; 1 is the whole frame")
    adaptor: Annotated[LearnedAdaptor | WhiteningAdaptor, Field(discriminator="kind")]
    hidden: int
    members: int = Field(ge=1, description="heads trained apart and averaged")
    noise: tuple[float, ...] = Field(description="deviations; every patch gets one of them")
    strewn: float = Field(
        default=0.0,
        ge=0,
        description="weight of places in synthetic defects, beside the noisy ones; 0: as published",
    )
    margin: float
    meta_epochs: int = Field(ge=1)
    batches: Annotated[PatchBatches | ImageBatches, Field(discriminator="kind")]
    learning_rate: float
    weight_decay: float
    smoothing: float = Field(ge=0, description="deviation of the map's smoothing, in its own cells")
    patches: int = Field(ge=1, description="kept of all training images together, at most")

    @model_validator(mode="after")
    def _crop_is_whole(self) -> Self:
        if self.crop_from is not None and (self.tiles > 1 or self.input_size > self.crop_from):
            raise ValueError(
                f"preset {self.name} cuts {self.input_size} pixels out of {self.crop_from}: it "
                f"takes no tiles and no input above {self.crop_from} pixels"
            )
        return self

    @property
    def stride(self) -> int:
        """Pixels of the prepared frame for one cell of the map."""
        return self.levels[0]


# As published, and as its authors' code runs it. The one difference: the score is the maximum of
# the map that is handed out, so that map is not smoothed (theirs is, after the score is taken).
PAPER = Preset(
    name="paper",
    backbone="wide_resnet50_2",
    levels=(8, 16),
    pooling="authors",
    input_size=288,
    crop_from=329,
    adaptor=LearnedAdaptor(learning_rate=1e-4, weight_decay=1e-2),
    hidden=1024,
    members=1,
    noise=(0.015,),
    margin=0.5,
    meta_epochs=40,
    batches=ImageBatches(size=8, epochs=4),
    learning_rate=2e-4,
    weight_decay=1e-5,
    smoothing=0.0,
    patches=1_000_000_000,
)

# Chosen on captured sheets and on the select halves of other sets: docs/decisions/0012-presets.md.
DEFAULT = Preset(
    name="default",
    backbone="efficientnet_lite0",
    levels=(4, 8, 16),
    pooling="average",
    input_size=256,
    adaptor=WhiteningAdaptor(strength=0.5),
    hidden=128,
    members=3,
    noise=(0.15, 0.3, 0.6, 1.2, 2.4),
    strewn=1.0,
    margin=0.5,
    meta_epochs=15,
    batches=PatchBatches(size=2048, steps=80),
    learning_rate=1e-3,
    weight_decay=1e-5,
    smoothing=1.5,
    patches=1_000_000,
)

PRESETS = {preset.name: preset for preset in (DEFAULT, PAPER)}


PresetT = TypeVar("PresetT", bound=Strict)


def changed(preset: PresetT, **changes: object) -> PresetT:
    """Return a preset with some fields replaced; a wrong value raises ConfigError."""
    kind = type(preset)
    try:
        return kind.model_validate({**preset.model_dump(), **changes})
    except ValidationError as error:
        at, problem = first_problem(error, kind)
        if not at:  # of the preset as a whole
            raise ConfigError(problem) from error
        if at[0] not in kind.model_fields:
            problem = "this detector has no such setting"
        raise ConfigError(f"--{dotted(at).replace('_', '-')}: {problem}") from error
