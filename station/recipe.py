"""A recipe says what to photograph of one product and how to judge it: recipes/*.yaml."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import dist
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from station.errors import ConfigError
from station.geometry import Pose
from station.kinematics import JOINT_LIMIT_RAD, Joints
from station.strict import Strict, form, parse, read, what_it_is


def _numbers(count: int) -> Callable[[Any], list[float]]:
    def check(value: Any) -> list[float]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{count} numbers expected, not {value!r}")
        for number in value:
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{number!r} is not a number")
        if len(value) != count:
            raise ValueError(f"{len(value)} numbers, not {count}")
        return [float(number) for number in value]

    return check


def _within_reason(pose: Pose) -> Pose:
    """Refuse numbers no arm can mean: degrees for radians, millimetres for metres."""
    if not math.dist(pose[:3], (0, 0, 0)) <= FARTHEST_M:
        raise ValueError(f"more than {FARTHEST_M:g} m away; positions are in metres")
    if not math.dist(pose[3:], (0, 0, 0)) <= 2 * math.pi + 1e-6:
        raise ValueError("a rotation vector longer than one turn; angles are in radians")
    return pose


def _near(point: tuple[float, ...]) -> tuple[float, ...]:
    if not max(map(abs, point)) <= FARTHEST_M:
        raise ValueError(f"more than {FARTHEST_M:g} m away; lengths are in metres")
    return point


def _schema(count: int, meaning: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "number"},
            "minItems": count,
            "maxItems": count,
            "description": meaning,
        }
    )


PoseField = Annotated[
    Pose,
    PlainValidator(lambda value: _within_reason(Pose.of(_numbers(6)(value)))),
    PlainSerializer(list),
    _schema(6, "x y z in metres, rotation vector in radians"),
]
JointsField = Annotated[
    Joints,
    PlainValidator(lambda value: Joints.of(_numbers(6)(value))),
    PlainSerializer(list),
    _schema(6, "six joint angles in radians, base to wrist 3"),
]
Vector = Annotated[
    tuple[float, float, float],
    PlainValidator(lambda value: _near(tuple(_numbers(3)(value)))),
    PlainSerializer(list),
    _schema(3, "x y z in metres"),
]
Name = Annotated[
    str, form(r"^[a-z0-9][a-z0-9-]*$", "lower-case letters, digits and -"), Field(max_length=40)
]
_RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MODEL_PATTERN = r"^[a-z0-9][a-z0-9_-]*/[1-9][0-9]*$"
ModelName = Annotated[str, form(MODEL_PATTERN, "a model's name and number, such as glassfiber/1,")]

FARTHEST_M = 3.0
SLOWEST_M_S = 0.001  # slower than this a way takes minutes and looks like a standstill

WIDEST_PLACE = 0.25  # of a picture: beyond, shots would agree on nearly anything

SetupScore = Literal["highest", "lowest", "consensus"]

# On a scale where 0 is a good sheet and 1 a plainly spoilt one: beyond it, a slip of the pen.
HIGHEST_THRESHOLD = 10.0
MIN_MODEL_PIXELS = 3  # a defect smaller than this many model pixels is easily lost


class Setup(Strict):
    """One place above the sheet, shot once per offset."""

    name: Name
    pose: PoseField | None = None
    joints_rad: JointsField | None = None
    offsets_m: tuple[Vector, ...] | None = Field(default=None, min_length=1, max_length=9)

    @model_validator(mode="after")
    def _needs_a_place(self) -> Self:
        if self.pose is None and self.joints_rad is None:
            raise ValueError("a setup needs pose or joints_rad")
        # Measured angles of a record may pass the limit by a hair, taught ones may not.
        if self.joints_rad is not None and max(map(abs, self.joints_rad)) > JOINT_LIMIT_RAD:
            raise ValueError("joints_rad: a joint turned more than once round; write radians")
        return self

    def place(self, forward: Callable[[Joints], Pose]) -> Pose:
        """Return the tool's pose; where both are given, the pose counts."""
        if self.pose is not None:
            return self.pose
        if self.joints_rad is not None:
            return forward(self.joints_rad)
        raise ValueError(f"setup {self.name} has no place")


def _names_differ(setups: tuple[Setup, ...]) -> tuple[Setup, ...]:
    names = [setup.name for setup in setups]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two setups are named {name!r}")
    return setups


class Retention(Strict):
    """Which pictures of accepted sheets may go; everything else of every sheet stays."""

    thin_accepts_after_days: float = Field(gt=0)
    keep_every: int = Field(default=20, ge=1, description="of these accepts one in so many stays")
    exported_first: bool = Field(
        default=True, description="only sheets that `station export --mark` has written"
    )


class PictureLimits(Strict):
    """Which pictures are taken again, and in the end judged by nobody; `station snap` measures."""

    darkest_mean: float | None = Field(
        default=None, ge=0, le=255, description="grey value; a lower mean is too dark"
    )
    saturated_share: float | None = Field(
        default=None, ge=0, le=1, description="of pixels at full scale; more is overexposed"
    )
    least_sharpness: float | None = Field(
        default=None,
        ge=0,
        description="in percent, as `station snap` tells it; less is out of focus",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.darkest_mean is self.saturated_share is self.least_sharpness is None:
            raise ValueError("names no limit: darkest_mean, saturated_share or least_sharpness")
        return self


class ReferenceSheet(Strict):
    """A sheet whose verdict is known."""

    name: Name
    expect: Literal["accept", "reject"]


class Reference(Strict):
    """Known sheets that have to be judged rightly before production."""

    sheets: tuple[ReferenceSheet, ...] = Field(min_length=2, max_length=20)
    valid_h: float = Field(default=12, gt=0, le=24 * 366, description="how long a check holds")

    @model_validator(mode="after")
    def _shows_both(self) -> Self:
        names = [sheet.name for sheet in self.sheets]
        if len(set(names)) != len(names):
            raise ValueError("two reference sheets have the same name")
        if {sheet.expect for sheet in self.sheets} != {"accept", "reject"}:
            raise ValueError("at least one sheet to accept and one to reject are needed")
        return self


class Shot(NamedTuple):
    """One trigger: where the tool goes, how it gets there, how the camera is set."""

    setup: str
    number: int
    pose: Pose
    approach: Pose
    exposure_us: float
    gain_db: float


class SheetRule(NamedTuple):
    """How a sheet's score is made of its shots."""

    setup_score: SetupScore
    same_place: float = 0.0
    """Share of a picture's width that a place moves between shots; used by consensus alone."""


HIGHEST = SheetRule("highest")  # assumes nothing


class Leg(NamedTuple):
    """One straight line of a cycle, with the name a refusal gives it."""

    name: str
    pose: Pose
    speed_m_s: float


def travel(previous: Shot, shot: Shot) -> tuple[Pose, Pose]:
    """Return the way between two setups: retreat, then travel at approach height."""
    return previous.approach, shot.approach


class Recipe(Strict):
    """One product, checked whole before anything moves."""

    description: str = ""
    sheet_size_m: Annotated[
        tuple[float, float],
        PlainValidator(lambda value: _positive(_numbers(2)(value))),
        PlainSerializer(list),
        _schema(2, "width and height of the sheet in metres"),
    ]
    setups: Annotated[tuple[Setup, ...], AfterValidator(_names_differ)] = Field(
        min_length=1, max_length=100
    )
    offsets_m: tuple[Vector, ...] = Field(
        default=((0.0, 0.0, 0.0), (0.003, 0.0, 0.0), (0.0, 0.003, 0.0)),
        min_length=1,
        max_length=9,
    )
    working_distance_m: float = Field(gt=0, le=2, description="camera to sheet surface")
    approach_height_m: float = Field(ge=0, le=0.5)
    travel_speed_m_s: float = Field(ge=SLOWEST_M_S, le=3)
    shot_speed_m_s: float = Field(ge=SLOWEST_M_S, le=3)
    acceleration_m_s2: float = Field(ge=0.01, le=10)
    settle_s: float = Field(ge=0, le=5)
    exposure_us: float = Field(gt=0, le=10_000_000)
    gain_db: float = Field(ge=0, le=48)
    picture_limits: PictureLimits | None = Field(
        default=None, description="without it every whole picture is judged"
    )
    model: ModelName | None = None
    model_input: Literal["whole", "tiles"] = "whole"
    setup_score: SetupScore = Field(
        default="highest",
        description="the highest shot of a setup, the lowest, or what all shots show at one place",
    )
    view_width_m: float | None = Field(
        default=None,
        gt=0,
        le=FARTHEST_M,
        description="of sheet across one picture, in metres; consensus needs it",
    )
    threshold: float | None = None
    shadow_model: ModelName | None = Field(
        default=None, description="scored beside `model`, never judged by"
    )
    smallest_defect_mm: float = Field(gt=0)
    retention: Retention | None = Field(default=None, description="without it nothing is deleted")
    reference: Reference | None = Field(
        default=None, description="without it production needs no reference check"
    )

    @model_validator(mode="after")
    def _threshold_is_on_the_scale(self) -> Self:
        # Zero is the median good sheet by its highest shot; the other rules score lower.
        if self.setup_score == "highest" and self.threshold is not None and self.threshold <= 0:
            raise ValueError(
                f"threshold: {self.threshold:g} would reject at least half of all good sheets; "
                "a number above zero is needed"
            )
        if self.threshold is not None and self.threshold > HIGHEST_THRESHOLD:
            raise ValueError(
                f"threshold: {self.threshold:g} would accept nearly anything: a good sheet scores "
                f"about 0, a plainly spoilt one about 1; at most {HIGHEST_THRESHOLD:g}"
            )
        return self

    @model_validator(mode="after")
    def _consensus_needs_a_width(self) -> Self:
        if self.setup_score == "consensus" and self.view_width_m is None:
            raise ValueError("setup_score: consensus needs view_width_m")
        if self.sheet_rule.same_place > WIDEST_PLACE:
            raise ValueError("view_width_m: too small for offsets_m, or not in metres")
        return self

    @property
    def sheet_rule(self) -> SheetRule:
        """How a sheet's score is made of its shots."""
        if self.view_width_m is None or self.setup_score != "consensus":
            return SheetRule(self.setup_score)
        spread_m = 0.0
        for offsets in [self.offsets_m, *(s.offsets_m for s in self.setups if s.offsets_m)]:
            centre = [fmean(axis) for axis in zip(*offsets, strict=True)]
            spread_m = max(spread_m, *(dist(offset, centre) for offset in offsets))
        return SheetRule(self.setup_score, spread_m / self.view_width_m)

    def shots(self, forward: Callable[[Joints], Pose]) -> list[Shot]:
        """List every trigger in order; `forward` turns taught joint angles into the tool's pose."""
        shots = []
        for setup in self.setups:
            place = setup.place(forward)
            for number, offset in enumerate(setup.offsets_m or self.offsets_m, start=1):
                pose = place @ Pose(*offset, 0.0, 0.0, 0.0)
                approach = place.raised(self.approach_height_m)
                shots.append(
                    Shot(setup.name, number, pose, approach, self.exposure_us, self.gain_db)
                )
        return shots

    def route(self, shots: list[Shot]) -> Iterator[Leg]:
        """Yield every line of a cycle as the loop travels it, back to above the first setup."""
        yield Leg("to the first setup", shots[0].approach, self.travel_speed_m_s)
        for previous, shot in pairwise([shots[0], *shots]):
            name = f"to {shot.setup} shot {shot.number}"
            if previous.setup != shot.setup:
                for pose in travel(previous, shot):
                    yield Leg(name, pose, self.travel_speed_m_s)
            yield Leg(name, shot.pose, self.shot_speed_m_s)
        for pose in travel(shots[-1], shots[0]):
            yield Leg("back", pose, self.travel_speed_m_s)

    @property
    def shots_per_sheet(self) -> int:
        """Number of triggers one sheet needs."""
        return sum(len(setup.offsets_m or self.offsets_m) for setup in self.setups)


class LoadedRecipe(NamedTuple):
    """A recipe together with its name and the text it was read from."""

    name: str
    recipe: Recipe
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def doubt_about(threshold: float | None) -> str | None:
    """Say what is odd about a threshold that is allowed."""
    if threshold is None or threshold <= 1:
        return None
    return (
        f"threshold: {threshold:g} is above 1, what a typical spoilt image scores: most plain "
        "defects would be accepted"
    )


def load_recipe(workspace: Path, name: str) -> LoadedRecipe:
    """Read recipes/<name>.yaml; without it the error lists what there is."""
    if not _RECIPE_NAME.fullmatch(name):  # it names folders under data/ too
        raise ConfigError(f"recipe {name[:60]!r}: lower-case letters, digits, - and _ only")
    folder = workspace / "recipes"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path}: {what_it_is(path)}, not a recipe's file")
        found = ", ".join(list_recipes(workspace)) or "none"
        raise ConfigError(f"no recipe {name!r} in {folder}; there are: {found}")
    if not path.resolve().is_relative_to(workspace.resolve()):
        raise ConfigError(f"{path}: a link that leads out of the workspace; copy the file here")
    text = read(path)
    return LoadedRecipe(name, parse(text, path, Recipe), text)


def list_recipes(workspace: Path) -> list[str]:
    """Return the names of the recipes in a workspace."""
    return sorted(path.stem for path in (workspace / "recipes").glob("[!.]*.yaml"))


def _positive(values: Sequence[float]) -> tuple[float, ...]:
    for value in values:
        if value <= 0:
            raise ValueError(f"{value} is not above zero")
        if value > FARTHEST_M:
            raise ValueError(f"{value:g} is more than {FARTHEST_M:g} m; lengths are in metres")
    return tuple(values)
