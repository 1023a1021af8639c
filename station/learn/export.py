"""The detector as one graph, any uint8 frame in, score and map out; how a model gets on disk."""

from __future__ import annotations

import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import torch
import yaml
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station.errors import ConfigError, DatasetError
from station.model_card import CARD, SUMS, WEIGHTS, ModelCard, list_models
from station.records.dataset import sync_folder, write_durably
from station.records.sheet import Image
from station.strict import Strict
from station.torchscript import PARTS

COARSEST = 32  # the sides are multiples of it: every backbone halves them without a rest


class View(Protocol):
    """What of a preset decides how the network sees a frame."""

    @property
    def input_size(self) -> int:
        """Long side in pixels."""

    @property
    def tiles(self) -> int:
        """Per side."""

    @property
    def stride(self) -> int:
        """Pixels of the prepared frame for one cell of the map."""

    @property
    def crop_from(self) -> int | None:
        """Short side before the middle is cut out."""


@dataclass(frozen=True)
class InputForm:
    """What the network is given: fixed at training, after the frames it was trained on."""

    height: int
    width: int
    tiles: int  # per side; 1 is the whole frame
    aspect: float  # width / height of the training frames
    stride: int = 4  # of the map: the backbone's finest level
    crop_from: int | None = None  # short side before the middle (height, width) is cut out

    @classmethod
    def of_frames(cls, height: int, width: int, view: View) -> InputForm:
        """Keep the frames' aspect as nearly as the network's strides allow."""
        long_side, stride = view.input_size, view.stride
        if view.crop_from is not None:
            aspect = width / height
            return cls(long_side, long_side, view.tiles, aspect, stride, view.crop_from)
        # Tiles overlap by an eighth of their side, which has to fall on the map's grid.
        multiple = COARSEST if view.tiles == 1 else max(COARSEST, 8 * stride)
        if long_side % multiple:
            raise ConfigError(f"input size {long_side}: with tiles, a multiple of {multiple}")
        short = min(height, width) / max(height, width) * long_side
        short_side = max(multiple, round(short / multiple) * multiple)
        sides = (short_side, long_side) if height <= width else (long_side, short_side)
        return cls(*sides, view.tiles, width / height, stride)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the tiles are cut from."""
        steps = self.tiles - 1
        return self.height + steps * self.height * 7 // 8, self.width + steps * self.width * 7 // 8


class Detector(nn.Module):
    """The tensor contract around a network: uint8 (N, C, H, W) to score (N) and map (N, h, w).

    A frame of another aspect than the training frames' is letterboxed, never cropped; the map
    covers the frame alone, so padding has no score.
    """

    def __init__(self, network: nn.Module, form: InputForm, smoothing: float) -> None:
        super().__init__()
        self.network = network
        self.height, self.width = form.height, form.width
        self.tiles, self.aspect = form.tiles, form.aspect
        self.stride, self.crop_from = form.stride, form.crop_from or 0
        self.canvas_height, self.canvas_width = form.canvas
        kernel = gaussian(smoothing)
        self.reach = len(kernel) // 2
        self.register_buffer("kernel", (kernel[:, None] * kernel)[None, None])
        self.register_buffer("zero", torch.tensor(0.0))
        self.register_buffer("gain", torch.tensor(1.0))
        self.kernel: Tensor
        self.zero: Tensor
        self.gain: Tensor
        self.eval()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return score, the maximum of the map, and map."""
        return self.finish(self.network(self.prepare(frames)), frames.shape[2], frames.shape[3])

    def finish(self, raw: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Turn the network's answer for frames of this size into score and map."""
        frames = raw.shape[0] // (self.tiles * self.tiles)
        whole = self.place(raw, frames, height, width)
        # Dividing by the smoothed ones keeps the border at full weight.
        weights = F.conv2d(torch.ones_like(whole[:1]), self.kernel, padding=self.reach)
        smooth = F.conv2d(whole, self.kernel, padding=self.reach) / weights
        anomaly_map = ((smooth - self.zero) * self.gain)[:, 0]  # (N, h, w)
        return anomaly_map.flatten(1).amax(1), anomaly_map

    def prepare(self, frames: Tensor) -> Tensor:
        """Turn frames into the network's input, (N * tiles * tiles, 3, height, width), 0 to 255."""
        if frames.dim() != 4 or frames.dtype != torch.uint8:
            raise ValueError("frames must be uint8 (N, C, H, W)")
        if frames.shape[1] != 1 and frames.shape[1] != 3:
            raise ValueError("frames must have 1 or 3 channels")
        height, width = self.content(frames.shape[2], frames.shape[3])
        x = F.interpolate(frames.float(), [height, width], mode="bilinear", antialias=True)
        if self.crop_from:
            top, left = (height - self.height) // 2, (width - self.width) // 2
            x = x[:, :, top : top + self.height, left : left + self.width]
        elif height < self.canvas_height or width < self.canvas_width:
            # The frame's own border goes on, so that the padding has no edge to find.
            right, below = self.canvas_width - width, self.canvas_height - height
            x = F.pad(x, [0, right, 0, below], mode="replicate")
        x = x.expand(-1, 3, -1, -1)  # (N, 3, canvas height, canvas width)
        if self.tiles == 1:
            return x
        cuts: list[Tensor] = []
        for row in range(self.tiles):
            for column in range(self.tiles):
                top, left = row * self.height * 7 // 8, column * self.width * 7 // 8
                cuts.append(x[:, :, top : top + self.height, left : left + self.width])
        return torch.cat(cuts)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Return the size a frame of this size is brought to, in multiples of the map's stride.

        To the part of the canvas that it fills, or, where the middle is cut out, to more than that.
        """
        if self.crop_from:
            scale = self.crop_from / min(height, width)
            return int(height * scale + 0.5), int(width * scale + 0.5)
        step = self.stride
        relative = width / height / self.aspect
        rows, columns = float(self.canvas_height), float(self.canvas_width)
        # One per cent is what rounding the frame's sides to pixels may do.
        if relative > 1.01:
            rows = rows / relative
        elif relative < 0.99:
            columns = columns * relative
        rows, columns = rows / step + 0.5, columns / step + 0.5
        return max(1, int(rows)) * step, max(1, int(columns)) * step

    def place(self, raw: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Lay raw maps where they belong on a map of the whole frame, and of nothing else."""
        rows, columns = self.content(height, width)
        rows, columns = rows // self.stride, columns // self.stride
        if self.crop_from:
            # Nothing is known of the border; the lowest value says so without becoming the score.
            whole = raw.flatten(1).amin(1)[:, None, None, None].repeat(1, 1, rows, columns)
            top, left = (rows - raw.shape[2]) // 2, (columns - raw.shape[3]) // 2
            whole[:, :, top : top + raw.shape[2], left : left + raw.shape[3]] = raw
            return whole
        return self.stitch(raw, frames)[:, :, :rows, :columns]

    def stitch(self, raw: Tensor, frames: int) -> Tensor:
        """Lay the tiles' maps (tiles * tiles * N, 1, h, w) back in place; the highest wins."""
        if self.tiles == 1:
            return raw
        step = self.stride
        canvas = [frames, 1, self.canvas_height // step, self.canvas_width // step]
        whole = torch.full(canvas, -torch.inf, device=raw.device)
        height, width = self.height // step, self.width // step
        for i, part in enumerate(torch.split(raw, frames)):
            top, left = (i // self.tiles) * height * 7 // 8, (i % self.tiles) * width * 7 // 8
            place = whole[:, :, top : top + height, left : left + width]
            place.copy_(torch.maximum(place, part))
        return whole


def gaussian(sigma: float) -> Tensor:
    """Return a kernel that adds up to one; sigma 0 changes nothing."""
    if sigma == 0:
        return torch.ones(1)
    reach = int(3 * sigma + 0.5)
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def freeze(detector: Detector) -> torch.jit.ScriptModule:
    """Turn a detector into a graph that needs none of this code.

    Network, what comes before and what after stay apart: another runtime or precision replaces the
    network alone.
    """
    detector.eval()
    example = torch.zeros(1, 3, detector.height, detector.width)
    network = detector.network
    with torch.inference_mode(False), torch.no_grad(), torchscript_is_meant():
        if not isinstance(network, torch.jit.ScriptModule):
            detector.network = torch.jit.trace(  # type: ignore[no-untyped-call]
                network, example, check_trace=False
            )
        frozen: torch.jit.ScriptModule = torch.jit.freeze(
            torch.jit.script(detector), preserved_attrs=list(PARTS)
        )
    detector.network = network
    return frozen


def to_bytes(frozen: torch.jit.ScriptModule, extra: dict[str, bytes] | None = None) -> bytes:
    """Serialise a frozen graph, with files beside it in the same archive."""
    buffer = io.BytesIO()
    with torchscript_is_meant():
        torch.jit.save(frozen, buffer, _extra_files=extra)
    return buffer.getvalue()


def from_bytes(content: bytes) -> torch.jit.ScriptModule:
    """Load what `to_bytes` wrote, as another process would."""
    with torchscript_is_meant():
        graph: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return graph


@contextmanager
def torchscript_is_meant() -> Iterator[None]:
    """Silence torch's advice to use another format; DESIGN.md says why this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", TracerWarning)
        yield


def check_place(workspace: Path) -> None:
    """Find out before a training that its model could not be written."""
    home = workspace / "models"
    made = not home.exists()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise DatasetError(f"{home}: no model can be written there: {error.strerror}") from error
    finally:
        if made:
            with suppress(OSError):
                home.rmdir()


def write_model(
    workspace: Path, card: ModelCard, weights: bytes, golden: list[Image], sums: str
) -> ModelCard:
    """Put a model under the next free number, whole or not at all; return its final card."""
    home = workspace / "models" / card.name
    made = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    try:
        write_durably(folder / WEIGHTS, weights)
        write_durably(folder / SUMS, sums.encode())
        for entry, image in zip(card.golden, golden, strict=True):
            pixels = image if image.ndim == 2 else image[..., ::-1]
            write_durably(folder / entry.file, cv2.imencode(".png", pixels)[1].tobytes())
        while True:
            taken = [m for m in list_models(workspace) if m.startswith(f"{card.name}/")]
            version = max((int(m.partition("/")[2]) for m in taken), default=0) + 1
            card = card.model_copy(update={"version": version})
            write_durably(folder / CARD, card_text(card).encode())
            sync_folder(folder)
            try:
                # Renaming onto a folder with content fails, so two trainings cannot collide.
                folder.rename(home / str(version))
            except OSError:
                if (home / str(version) / CARD).exists():
                    continue
                raise
            (home / str(version)).chmod(0o755)
            sync_folder(home)
            return card
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with suppress(OSError):  # it stays where a model lies in it
                home.rmdir()


def card_text(card: Strict) -> str:
    """Write a card as YAML that the strict reader reads back the same."""
    return yaml.dump(card.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever does not begin like a word: PyYAML leaves 0089 plain, YAML 1.2 reads 89."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text[:1].isalpha() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
