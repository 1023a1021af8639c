"""What is true of the simulated cell and unknown to the station: lens, hand-eye, lamp."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from station.errors import ConfigError

Six = tuple[float, float, float, float, float, float]
Three = tuple[float, float, float]


class _True(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrueCamera(_True):
    """A pinhole with two radial terms, and where it sits in the TCP's frame."""

    width_px: PositiveInt
    height_px: PositiveInt
    fx_px: PositiveFloat
    fy_px: PositiveFloat
    cx_px: float
    cy_px: float
    k1: float
    k2: float
    hand_eye: Six

    def resized(self, width_px: int, height_px: int) -> Self:
        """Return the same lens and sensor read out with other pixels."""
        across, down = width_px / self.width_px, height_px / self.height_px
        return self.model_copy(
            update={
                "width_px": width_px,
                "height_px": height_px,
                "fx_px": self.fx_px * across,
                "fy_px": self.fy_px * down,
                # pixel centres are whole numbers, so the sensor's corner lies at -0.5
                "cx_px": (self.cx_px + 0.5) * across - 0.5,
                "cy_px": (self.cy_px + 0.5) * down - 0.5,
            }
        )


class TrueSheet(_True):
    """Nominal size and place of a sheet; each one is laid a little beside it."""

    width_m: PositiveFloat
    height_m: PositiveFloat
    centre: Three


class TrueLamp(_True):
    """The light, and the exposure that suits it."""

    place: Three
    ambient: float
    exposure_us: PositiveFloat
    mean_grey: PositiveFloat


class Truth(_True):
    """The whole file."""

    tcp: Six
    payload_kg: PositiveFloat
    camera: TrueCamera
    sheet: TrueSheet
    lamp: TrueLamp

    @classmethod
    def load(cls, path: Path | None = None) -> Truth:
        """Read `path`, or the file beside this module."""
        path = path or Path(__file__).with_name("truth.yaml")
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"{path}: {error}") from error
