"""The simulated camera and lamp: which point of the table each pixel sees, in which light."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from station.geometry import Matrix, Pose
from station.sim.truth import TrueCamera, Truth
from station.sim.weave import (
    LOBE,
    OPAQUE,
    TILT_SCALE,
    Bytes,
    Layer,
    table,
)

_STEP = 8  # lens and light change slowly: both are computed for every eighth pixel
_TABLE_PX_PER_M = 2000.0
_TABLE_PX = 1024
_ALBEDO_OF_GREY = 112.0  # a sheet's albedo and mirrored light together, in the lamp's mean light
_ELECTRONS_PER_GREY = 40.0  # a full well of about 10 000
_READ_GREY = 0.35
_PAD = 64
_TRANSPARENT = np.clip(255 - np.arange(256) * 255 / OPAQUE, 0, 255).astype(np.uint8)


class Sight(NamedTuple):
    """What falls on the sensor: for each pixel, or coarsely where it changes slowly."""

    x: Layer  # place in the sheet's texture, per pixel
    y: Layer
    table_x: Layer  # place on the table top, per pixel
    table_y: Layer
    light: Layer  # lamp, vignetting; coarse
    half_x: Layer  # slope that mirrors the lamp into the lens; coarse
    half_y: Layer
    texture_px: float  # texture pixels per picture pixel


class Optics:
    """Turns a pose into a sight, and a sight into a picture."""

    def __init__(self, truth: Truth, size: tuple[int, int] | None, seed: int) -> None:
        camera = truth.camera
        self.size = size or (camera.width_px, camera.height_px)
        self._truth = truth
        self._camera = camera.resized(*self.size)
        self._hand_eye = Pose.of(camera.hand_eye)
        self._rays, self._vignette = _lens(self._camera)
        # one table for every seed: it is the cell's, and training has seen it
        self._table = table(np.random.default_rng(9), _TABLE_PX)
        rng = np.random.default_rng([seed, 9])
        width, height = self.size
        self._noise = rng.standard_normal((height + _PAD, width + _PAD), np.float32)
        self._shots = int(rng.integers(_PAD * _PAD))
        centre = np.array(truth.sheet.centre)
        self._light_at_centre = float(self._irradiance(centre[None, :])[0])

    def sight(self, tool: Pose, texture: Matrix) -> Sight:
        """Look at the sheet's plane; `texture` takes its base coordinates to texture pixels."""
        eye = (tool @ self._hand_eye).matrix()
        centre = eye[:3, 3]
        rays = self._rays @ eye[:3, :3].T
        middle = self._truth.sheet.centre
        height = middle[2] - centre[2]
        down = np.minimum(rays[..., 2], -1e-3)  # what looks above the horizon sees far away
        far = (height / down)[..., None]
        points = centre + rays * far
        to_eye = -rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        to_lamp = np.array(self._truth.lamp.place) - points
        to_lamp /= np.linalg.norm(to_lamp, axis=-1, keepdims=True)
        half = to_eye + to_lamp
        lit = self._irradiance(points) / self._light_at_centre
        lit[(rays[..., 2] > -1e-3) | (height >= 0)] = 0.0
        flat = np.dstack([points[..., :2], np.ones(lit.shape)]) @ texture.T
        scale = float(np.hypot(*texture[:2, 0]))  # texture pixels per metre
        return Sight(
            self._fine(flat[..., 0]),
            self._fine(flat[..., 1]),
            # the table's tile is centred below the sheet: beside it, reflecting costs time
            self._fine((points[..., 0] - middle[0]) * _TABLE_PX_PER_M + _TABLE_PX / 2),
            self._fine((points[..., 1] - middle[1]) * _TABLE_PX_PER_M + _TABLE_PX / 2),
            (lit * self._vignette).astype(np.float32),
            (half[..., 0] / half[..., 2]).astype(np.float32),
            (half[..., 1] / half[..., 2]).astype(np.float32),
            abs(height) / self._camera.fx_px * scale,
        )

    def shade(self, sight: Sight, layers: Bytes) -> Layer:
        """Return the picture of a cloth's `layers`, in grey levels, with the table around it."""
        seen = cv2.remap(layers, sight.x, sight.y, cv2.INTER_LINEAR)
        albedo, tilt, gloss, along = cv2.split(seen)
        slope = self._fine(sight.half_y)
        slope += cv2.multiply(
            along, self._fine(sight.half_x - sight.half_y), scale=1 / 255, dtype=cv2.CV_32F
        )
        slope += cv2.addWeighted(tilt, 1 / TILT_SCALE, tilt, 0, -128 / TILT_SCALE, dtype=cv2.CV_32F)
        np.multiply(slope, slope, out=slope)
        slope *= np.float32(-1 / LOBE**2)
        lit = np.asarray(cv2.multiply(gloss, cv2.exp(slope), dtype=cv2.CV_32F), np.float32)
        lit += albedo
        if int(albedo.min()) < OPAQUE:
            open_to_table = cv2.LUT(albedo, _TRANSPARENT)
            lit += cv2.multiply(
                open_to_table, self.see_table(sight), scale=1 / 255, dtype=cv2.CV_32F
            )
        lit *= self._fine(sight.light)
        return lit

    def see_table(self, sight: Sight) -> Bytes:
        """Return the table top, as if nothing lay on it."""
        seen = cv2.remap(
            self._table,
            sight.table_x,
            sight.table_y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        return np.asarray(seen, np.uint8)

    def light(self, sight: Sight) -> Layer:
        """Return how strongly each pixel is lit."""
        return self._fine(sight.light)

    def expose(self, image: Layer, exposure_us: float, gain_db: float) -> Bytes:
        """Integrate `image`, amplify, add shot and read noise that never repeats; clip to bytes."""
        lamp = self._truth.lamp
        gain = 10 ** (gain_db / 20)
        level = lamp.mean_grey / _ALBEDO_OF_GREY * exposure_us / lamp.exposure_us * gain
        grey = image * np.float32(level)
        self._shots += 1
        # a stride without common factors visits every offset of the noise before one comes again
        top, left = divmod(self._shots * 2531 % (_PAD * _PAD), _PAD)
        width, height = self.size
        noise = self._noise[top : top + height, left : left + width]
        if image.ndim == 3:
            noise = noise[..., None]
        deviation = grey * np.float32(gain / _ELECTRONS_PER_GREY)
        deviation += np.float32((_READ_GREY * gain) ** 2)
        np.sqrt(deviation, out=deviation)
        deviation *= noise
        grey += deviation
        # rounds, and stops at 255
        return np.asarray(cv2.convertScaleAbs(np.maximum(grey, 0, out=grey)), np.uint8)

    def _irradiance(self, points: Matrix) -> Matrix:
        """Light from everywhere, and from the lamp by distance and slant."""
        lamp = self._truth.lamp
        away = np.array(lamp.place) - points
        distance = np.linalg.norm(away, axis=-1)
        direct = away[..., 2] * lamp.place[2] ** 2 / distance**3
        return np.asarray(lamp.ambient + (1 - lamp.ambient) * direct, np.float64)

    def _fine(self, coarse: Matrix | Layer) -> Layer:
        """Interpolate from every eighth pixel to all of them."""
        width, height = self.size
        rows, columns = coarse.shape
        full = cv2.resize(coarse.astype(np.float32, copy=False), (columns * _STEP, rows * _STEP))
        return np.ascontiguousarray(full[_STEP : _STEP + height, _STEP : _STEP + width])


def _lens(camera: TrueCamera) -> tuple[Matrix, Matrix]:
    """Return the rays of every eighth pixel, one beyond each edge, and the lens's fall-off."""
    columns = (np.arange(-(-camera.width_px // _STEP) + 2) - 0.5) * _STEP - 0.5
    rows = (np.arange(-(-camera.height_px // _STEP) + 2) - 0.5) * _STEP - 0.5
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1)
    matrix = np.array(
        [
            [camera.fx_px, 0, camera.cx_px],
            [0, camera.fy_px, camera.cy_px],
            [0, 0, 1],
        ]
    )
    distortion = np.array([camera.k1, camera.k2, 0, 0])
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 40, 1e-10)
    flat = cv2.undistortPointsIter(
        pixels.reshape(-1, 1, 2), matrix, distortion, np.eye(3), np.eye(3), criteria
    ).reshape(pixels.shape)
    rays = np.dstack([flat, np.ones(pixels.shape[:2])]).astype(np.float64)
    slant = 1 + 1.6 * np.sum(flat**2, axis=-1)  # stronger than cos^4: a cheap lens, wide open
    return rays, np.asarray(1 / slant**2, np.float64)
