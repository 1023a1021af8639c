"""A detector made elsewhere, as a model with a card: a TorchScript file that keeps the contract.

The contract (docs/models.md): uint8 frames (N, C, H, W) in, float32 score (N) and map (N, h, w)
out, where the score is the map's maximum. Everything is tried on real pictures before anything is
written; good images fix the scale.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from station.errors import ConfigError, ModelError
from station.learn.export import from_bytes, to_bytes, torchscript_is_meant, write_model
from station.learn.held_out import score, score_held_out, to_frames, training_data, unit_scores
from station.learn.images import Reader, TrainingImages
from station.learn.train import EXPORT_TOLERANCE, software
from station.model_card import Golden, HeldOutRule, Imported, ModelCard, ModelInput
from station.recipe import HIGHEST, MODEL_PATTERN
from station.records.sheet import Image
from station.torchscript import load_graph

TOLERANCE = 1e-5  # of the map's largest value: what the order of additions may do


class Source(NamedTuple):
    """A graph that is to keep the contract, and where it came from."""

    file: Path
    graph: torch.jit.ScriptModule
    sha256: str  # of the file
    library: str | None = None  # that traced it for us: "anomalib 2.7.0 Padim"


class Rescaled(nn.Module):
    """A graph's map on the station's scale; the score is its maximum by construction."""

    def __init__(self, graph: torch.jit.ScriptModule, height: int, width: int) -> None:
        super().__init__()
        self.graph = graph
        # What the graph does to a frame is not known, so golden images keep the frames' size.
        self.canvas_height, self.canvas_width = height, width
        self.register_buffer("zero", torch.tensor(0.0))
        self.register_buffer("gain", torch.tensor(1.0))
        self.zero: Tensor
        self.gain: Tensor
        self.eval()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return score, the maximum of the map, and map."""
        _, raw = self.graph(frames)
        anomaly_map = (raw - self.zero) * self.gain
        return anomaly_map.flatten(1).amax(1), anomaly_map


def import_model(
    source: Source,
    name: str,
    images: TrainingImages,
    workspace: Path,
    told: Callable[[int, int], None],
) -> ModelCard:
    """Check a graph against the contract, fix its scale by good images, write it as a model."""
    file, graph, sha256, library = source
    if not re.fullmatch(MODEL_PATTERN, f"{name}/1"):
        raise ConfigError(f"model name {name!r}: small letters, digits, _ and - only")
    reader = Reader(images)
    first = reader.read(images.files[0])
    check_contract(file, graph, first)
    height, width = first.shape[:2]
    rescaled = Rescaled(graph, height, width)
    try:
        result = score_held_out([(images, rescaled)], reader.read, 0, told)
    except (RuntimeError, torch.jit.Error) as error:
        raise ModelError(f"{file}: {_last_line(error)}") from error
    rescaled.zero.fill_(result.scale.raw_zero)
    rescaled.gain.fill_(1.0 / (result.scale.raw_one - result.scale.raw_zero))
    with torchscript_is_meant():
        weights = to_bytes(torch.jit.script(rescaled))
    written = from_bytes(weights)
    golden_images = [*result.good_golden, *result.spoilt_golden]
    golden = []
    for i, image in enumerate(golden_images):
        found, before = score(written, image), score(rescaled, image)
        if not abs(found - before) <= EXPORT_TOLERANCE["fp32"]:
            raise ModelError(f"{file}: written, it scores {found:.6f} where it scored {before:.6f}")
        spoilt = i >= len(result.good_golden)
        golden.append(Golden(file=f"golden-{i}.png", score=found, spoilt=spoilt))
    card = ModelCard(
        name=name,
        version=1,
        detector="imported",
        backbone="unknown",
        sha256=hashlib.sha256(weights).hexdigest(),
        input=ModelInput(
            width=width,
            height=height,
            tiles=1,
            channels="grey" if first.ndim == 2 else "color",
            frame_width=width,
            frame_height=height,
        ),
        scale=result.scale,
        data=training_data(images, reader.digest, result),
        imported=Imported(file=file.name, sha256=sha256, library=library),
        golden=tuple(golden),
        held_out_scores=tuple(unit_scores(result, HIGHEST)),
        held_out_rule=HeldOutRule(**HIGHEST._asdict()),
        software=software(),
        created=datetime.now(UTC),
    )
    return write_model(workspace, card, weights, golden_images, reader.sums(images.folder))


def check_contract(file: Path, graph: torch.jit.ScriptModule, image: Image) -> None:
    """Refuse a graph that breaks the tensor contract, with what it breaks."""
    frames = to_frames(image)
    pair = torch.cat([frames, frames // 2])
    scores, maps = _answer(file, graph, pair)
    if scores.dtype != torch.float32 or maps.dtype != torch.float32:
        raise ModelError(f"{file}: score is {scores.dtype} and map {maps.dtype}, not float32")
    if scores.shape != (2,) or maps.dim() != 3 or maps.shape[0] != 2 or maps.numel() == 0:
        raise ModelError(
            f"{file}: for 2 frames the score has the shape {list(scores.shape)} and the map "
            f"{list(maps.shape)}, not [2] and [2, h, w]"
        )
    if not (torch.isfinite(scores).all() and torch.isfinite(maps).all()):
        raise ModelError(f"{file}: score or map of {image.shape[1]}x{image.shape[0]} is not finite")
    near = TOLERANCE * max(1.0, float(maps.abs().max()))
    for i in range(2):
        highest = float(maps[i].max())
        if abs(float(scores[i]) - highest) > near:
            raise ModelError(
                f"{file}: the score is {float(scores[i]):.6g}, the map's maximum {highest:.6g}; "
                "they must be the same"
            )
    again, _ = _answer(file, graph, pair)
    if not torch.equal(again, scores):
        raise ModelError(f"{file}: the same frame scores differently a second time")
    alone, _ = _answer(file, graph, pair[:1])
    if abs(float(alone[0]) - float(scores[0])) > 10 * near:
        raise ModelError(f"{file}: a frame scores otherwise alone than in a batch")
    half = pair[:1, :, : pair.shape[2] // 2, : pair.shape[3] // 2].contiguous()
    _answer(file, graph, half)


def _answer(file: Path, graph: torch.jit.ScriptModule, frames: Tensor) -> tuple[Tensor, Tensor]:
    try:
        with torch.inference_mode():
            found = graph(frames)
    except (RuntimeError, torch.jit.Error) as error:
        said = _last_line(error)
        if re.search(r"cuda|nvidia", said, re.IGNORECASE):
            raise ModelError(f"{file}: made for a GPU; export it on the CPU ({said})") from error
        size = "x".join(map(str, frames.shape))
        raise ModelError(f"{file}: fails on a uint8 frame {size}: {said}") from error
    if not (
        isinstance(found, tuple | list)
        and len(found) == 2
        and all(isinstance(one, Tensor) for one in found)
    ):
        raise ModelError(f"{file}: answers a {type(found).__name__}, not the tensors score and map")
    return found[0], found[1]


def read_graph(file: Path) -> Source:
    """Read a TorchScript file; a pickled checkpoint is told from one."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {(error.strerror or str(error)).lower()}") from error
    if _is_pickled(content):
        raise ModelError(
            f"{file}: a pickled checkpoint, not TorchScript; name its detector with --anomalib, or "
            "have its own library trace it, see docs/compare.md"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    return Source(file, load_graph(file, sha256), sha256)


def _is_pickled(content: bytes) -> bool:
    """Tell what torch.save wrote from what torch.jit.save wrote: only that holds code."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(n.endswith("/data.pkl") for n in names) and not any("/code/" in n for n in names)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
