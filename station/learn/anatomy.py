"""A loaded network taken apart: stages, shapes, parameters, as they lie in the file that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from station.errors import ModelError
from station.model_card import WEIGHTS, ModelCard
from station.preset import Preset
from station.torchscript import load_graph


class Part(NamedTuple):
    """One step of the network: what goes out of it, channels first, and how much it has learned."""

    shape: tuple[int, ...]
    parameters: int


class Anatomy(NamedTuple):
    """A network taken apart: a stage and its local features per level, then the head."""

    preset: Preset
    frame: tuple[int, ...]
    given: tuple[int, ...]
    stages: list[Part]
    local: list[Part]
    hidden: Part
    raw: Part


def take_apart(workspace: Path, card: ModelCard) -> Anatomy:
    """Send an empty frame through the loaded parts one by one; note shapes and parameters."""
    name = f"{card.name}/{card.version}"
    if card.training is None or not isinstance(card.training.preset, Preset):
        raise ModelError(f"{name}: {card.detector}; only a SimpleNet trained here can be drawn")
    if card.precision == "int8":
        raise ModelError(f"{name}: its int8 network is OpenVINO's; draw an fp32 model instead")
    graph = load_graph(workspace / "models" / name / WEIGHTS, card.sha256)
    given = card.input
    channels = 1 if given.channels == "grey" else 3
    frame = torch.zeros(1, channels, given.frame_height, given.frame_width, dtype=torch.uint8)
    try:
        x = graph.prepare(frame)[:1]
        backbone, head = (part for _, part in graph.network.named_children())
        stages, local = [], []
        with torch.inference_mode():
            prepared = _shape(x)
            for stage, pool in zip(_children(backbone.stages), _children(head.pools), strict=True):
                x = stage(x)
                stages.append(Part(_shape(x), _count(stage)))
                local.append(Part(_shape(pool(x)), _count(pool)))
            raw = _shape(graph.network(torch.zeros(1, *prepared)))
    except (AttributeError, ValueError) as error:
        raise ModelError(f"{name}: its network cannot be taken apart; train it again") from error
    out = _count(head.out)
    learned = _count(head) - out - sum(part.parameters for part in local)
    hidden = Part((head.out.weight.shape[1], *raw[1:]), learned)
    return Anatomy(
        card.training.preset, _shape(frame), prepared, stages, local, hidden, Part(raw, out)
    )


def _children(module: Any) -> list[Any]:
    return [child for _, child in module.named_children()]


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape[1:])


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
