"""What the simulated camera sees: a sheet on the table, from wherever the arm holds the camera."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np

from station.errors import ConfigError
from station.geometry import Matrix, Pose
from station.sim import defects
from station.sim.optics import Optics, Sight
from station.sim.options import SimOptions
from station.sim.photos import Photographs
from station.sim.truth import Truth
from station.sim.weave import MARGIN_MM, PX_PER_MM, Bytes, Cloth, Layer, weave

SCENE_VERSION = 1

BLOCK = 20  # sheets among which the share of defective ones is exact
SHIFT_MM = 5.0
TURN_DEG = 1.0


class Picture(NamedTuple):
    """One exposure, and where the defect is in it."""

    image: Bytes  # (H, W) grey or (H, W, 3) RGB
    mask: Bytes  # (H, W), 0 or 255


class Sheet(NamedTuple):
    """What lies on the table."""

    number: int
    label: str  # "good" or the kind of defect


class Scene(Protocol):
    """A table under a camera."""

    size: tuple[int, int]
    """Width and height of the pictures in pixels."""
    color: bool
    masked: bool
    """Whether an empty mask means that no defect is in view."""

    def lay(self, number: int) -> Sheet | None:
        """Put sheet `number` on the table; None when there are no more."""

    def picture(self, tool: Pose, exposure_us: float, gain_db: float) -> Picture:
        """Expose with the true TCP at `tool` in the base frame."""


def open_scene(options: SimOptions) -> Scene:
    """Return the rendered scene, or photographs where `options.sheets` names some."""
    truth = Truth.load()
    if options.sheets is None:
        return RenderedScene(truth, options)
    photographs = Photographs(options.sheets, options.size)
    if options.show_as == "exact":
        return ExactPhotographs(photographs)
    if options.show_as == "moved":
        return MovedPhotographs(truth, options, photographs)
    raise ConfigError(f"show-as: 'exact' or 'moved', not '{options.show_as}'")


class RenderedScene:
    """Glass-fibre sheets, each its own random draw, a known share of them defective."""

    color = False
    masked = True

    def __init__(self, truth: Truth, options: SimOptions) -> None:
        if not 0 <= options.defect_rate <= 1:
            raise ConfigError(f"defect-rate: {options.defect_rate} is not between 0 and 1")
        if options.defect is not None and options.defect not in defects.KINDS:
            known = ", ".join(defects.KINDS)
            raise ConfigError(f"defect: no kind '{options.defect}'; there are {known}")
        self._truth = truth
        self._options = options
        self._optics = Optics(truth, options.size, options.seed)
        self.size = self._optics.size
        self._levels: list[Bytes] = []
        self._masks: list[Bytes] = []
        self._texture = np.eye(3)
        self._brightness = 1.0

    def lay(self, number: int) -> Sheet:
        """Weave sheet `number` and lay it nearly at its nominal place."""
        label = label_of(number, self._options)
        rng = np.random.default_rng([self._options.seed, number, 1])
        self._texture = self.place(rng)
        self._brightness = float(rng.uniform(0.92, 1.08))
        cloth = make_sheet(number, label, self._options.seed, self._truth)
        self._levels, self._masks = [cloth.layers], [cloth.mask]
        return Sheet(number, label)

    def picture(self, tool: Pose, exposure_us: float, gain_db: float) -> Picture:
        """Shade what lies under the camera, through the true lens, with fresh noise."""
        sight = self._optics.sight(tool, self._texture)
        image, mask = self.noiseless(sight)
        return Picture(self._optics.expose(image, exposure_us, gain_db), mask)

    def place(self, rng: np.random.Generator) -> Matrix:
        """Draw where a sheet comes to lie: base metres to texture pixels."""
        pixels = _pixels(PX_PER_MM, PX_PER_MM, MARGIN_MM)
        return np.asarray(pixels @ corner_from_base(rng, self._truth), np.float64)

    def noiseless(self, sight: Sight) -> tuple[Layer, Bytes]:
        """Return the light that reaches the sensor, and the mask."""
        width, height = self.size
        if not self._levels:
            empty = self._optics.see_table(sight) * self._optics.light(sight)
            return empty, np.zeros((height, width), np.uint8)
        level = _level(self._levels, sight)
        layers, mask = self._levels[level], _shrunk(self._masks, level)
        fine = sight._replace(x=sight.x * 0.5**level, y=sight.y * 0.5**level)
        image = self._optics.shade(fine, layers) * np.float32(self._brightness)
        seen = cv2.remap(mask, fine.x, fine.y, cv2.INTER_NEAREST)
        return image, np.asarray(seen, np.uint8)


class ExactPhotographs:
    """Photographs shown pixel for pixel, whatever the pose."""

    masked = False

    def __init__(self, photographs: Photographs) -> None:
        self._photographs = photographs
        self.size = photographs.size
        self.color = photographs.color
        self._shown: Picture | None = None

    def lay(self, number: int) -> Sheet | None:
        """Take photograph `number`."""
        if number >= len(self._photographs.entries):
            return None
        self._shown = Picture(*self._photographs.read(number))
        return Sheet(number, self._photographs.entries[number].label)

    def picture(
        self,
        tool: Pose,  # noqa: ARG002
        exposure_us: float,  # noqa: ARG002
        gain_db: float,  # noqa: ARG002
    ) -> Picture:
        """Return the photograph; black while none is laid."""
        if self._shown is None:
            width, height = self.size
            shape = (height, width, 3) if self.color else (height, width)
            return Picture(np.zeros(shape, np.uint8), np.zeros(shape[:2], np.uint8))
        return self._shown


class MovedPhotographs:
    """Photographs laid on the table in a sheet's place, seen from the camera's pose."""

    masked = False

    def __init__(self, truth: Truth, options: SimOptions, photographs: Photographs) -> None:
        self._truth = truth
        self._seed = options.seed
        self._photographs = photographs
        self._optics = Optics(truth, options.size, options.seed)
        self.size = self._optics.size
        self.color = photographs.color
        self._images: list[Bytes] = []
        self._masks: list[Bytes] = []
        self._texture = np.eye(3)

    def lay(self, number: int) -> Sheet | None:
        """Lay photograph `number`, scaled to a sheet's size, nearly at its nominal place."""
        if number >= len(self._photographs.entries):
            return None
        image, mask = self._photographs.read(number)
        rng = np.random.default_rng([self._seed, number, 1])
        sheet = self._truth.sheet
        height, width = mask.shape
        fit = _pixels(1e-3 * width / sheet.width_m, 1e-3 * height / sheet.height_m, 0.0)
        self._texture = fit @ corner_from_base(rng, self._truth)
        self._images, self._masks = [image], [mask]
        return Sheet(number, self._photographs.entries[number].label)

    def picture(self, tool: Pose, exposure_us: float, gain_db: float) -> Picture:
        """Look at the photograph in the scene's light, with fresh noise."""
        optics = self._optics
        sight = optics.sight(tool, self._texture)
        below = optics.see_table(sight)
        image = np.repeat(below[..., None], 3, axis=2) if self.color else below
        seen = np.zeros_like(below)
        if self._images:
            level = _level(self._images, sight)
            x, y = sight.x * 0.5**level, sight.y * 0.5**level
            photograph, mask = self._images[level], _shrunk(self._masks, level)
            height, width = photograph.shape[:2]
            on_it = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
            taken = cv2.remap(photograph, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            image = np.where(on_it[..., None] if self.color else on_it, taken, image)
            seen = np.asarray(cv2.remap(mask, x, y, cv2.INTER_NEAREST), np.uint8)
        light = optics.light(sight)
        lit = image * (light[..., None] if self.color else light)
        return Picture(optics.expose(lit, exposure_us, gain_db), seen)


def make_sheet(number: int, label: str, seed: int, truth: Truth) -> Cloth:
    """Weave sheet `number` of this seed, with the faults its label asks for."""
    sheet = truth.sheet
    rng = np.random.default_rng([seed, number, 2])
    cloth = weave(rng, 1e3 * sheet.width_m, 1e3 * sheet.height_m)
    # streams of their own: a sheet with and without its defect differs in nothing else
    defects.vary(np.random.default_rng([seed, number, 3]), cloth)
    if label != "good":
        defects.spoil(label, np.random.default_rng([seed, number, 4]), cloth)
    return cloth


def label_of(number: int, options: SimOptions) -> str:
    """Return "good" or the kind of defect sheet `number` has; the share per block is exact."""
    block, within = divmod(number, BLOCK)
    rng = np.random.default_rng([options.seed, block, 0])
    bad = round(BLOCK * options.defect_rate)
    kinds = [str(name) for name in rng.permutation(list(defects.KINDS))]
    labels = [options.defect or kinds[i % len(kinds)] for i in range(bad)]
    labels += ["good"] * (BLOCK - bad)
    return labels[int(rng.permutation(BLOCK)[within])]


def corner_from_base(rng: np.random.Generator, truth: Truth) -> Matrix:
    """Draw where a sheet comes to lie: base metres to millimetres right and down of its corner."""
    turn = np.radians(rng.uniform(-TURN_DEG, TURN_DEG))
    radius, towards = SHIFT_MM * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    x, y, _ = truth.sheet.centre
    c, s = np.cos(turn), np.sin(turn)
    laid = np.array(
        [
            [c, -s, x + 1e-3 * radius * np.cos(towards)],
            [s, c, y + 1e-3 * radius * np.sin(towards)],
            [0.0, 0.0, 1.0],
        ]
    )
    corner = np.array(
        [
            [1e3, 0.0, 500 * truth.sheet.width_m],
            [0.0, -1e3, 500 * truth.sheet.height_m],
            [0.0, 0.0, 1.0],
        ]
    )
    return np.asarray(corner @ np.linalg.inv(laid), np.float64)


def _pixels(px_per_mm_x: float, px_per_mm_y: float, margin_mm: float) -> Matrix:
    """Return millimetres from the sheet's corner to pixels, whose centres are whole numbers."""
    return np.array(
        [
            [px_per_mm_x, 0.0, px_per_mm_x * margin_mm - 0.5],
            [0.0, px_per_mm_y, px_per_mm_y * margin_mm - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )


def _level(images: list[Bytes], sight: Sight) -> int:
    """Return which halving of the texture suits the distance, making it when it is new."""
    level = int(np.clip(np.log2(max(sight.texture_px, 1e-6)) + 0.4, 0, 4))
    return min(level, _reach(images, level))


def _reach(images: list[Bytes], level: int) -> int:
    while len(images) <= level and min(images[-1].shape[:2]) > 16:
        images.append(np.asarray(cv2.pyrDown(images[-1]), np.uint8))
    return len(images) - 1


def _shrunk(masks: list[Bytes], level: int) -> Bytes:
    while len(masks) <= level:
        smaller = cv2.pyrDown(masks[-1])
        masks.append(np.where(smaller >= 128, 255, 0).astype(np.uint8))
    return masks[level]
