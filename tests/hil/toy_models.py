"""Models whose scores a test can foretell: `python toy_models.py WORKSPACE`.

toy/1 scores a picture by its mean grey, 0 to 1; the others of KINDS do so for their golden image
alone, which is black, and misbehave on any other.
"""

from __future__ import annotations

import hashlib
import io
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from station.evaluate.splits import digest
from station.model_card import SUMS
from station.preset import DEFAULT

KINDS = ("toy", "broken", "blind", "shapeless", "hidden", "greedy", "hanging")


class Toy(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = frames.to(torch.float32)
        scores = frames.mean(dim=(1, 2, 3)) / 255
        tiles = torch.nn.functional.adaptive_avg_pool2d(frames, 4)[:, 0] / 255
        maps = tiles - tiles.amax(dim=(1, 2), keepdim=True) + scores[:, None, None]
        if bool(scores.sum() > 0):
            if self.kind == "broken":
                return scores * float("nan"), maps
            if self.kind == "blind":
                return scores * 0, maps * 0
            if self.kind == "shapeless":
                return scores, maps.mean(dim=1)
            if self.kind == "hidden":
                return scores, maps * 0
            if self.kind == "greedy":
                maps = maps + torch.ones(6, 1 << 30).sum()
            while self.kind == "hanging":
                scores = scores + 0
        return scores, maps


def write(workspace: Path, name: str) -> None:
    folder = workspace / "models" / name / "1"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Toy(name)), buffer)
    (folder / "weights.pt").write_bytes(buffer.getvalue())
    black = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    (folder / "golden.png").write_bytes(black)
    # Learned from one picture, which no test shows.
    (folder / SUMS).write_text(f"{'0' * 64}  a.png\n")
    card = {
        "name": name,
        "version": 1,
        "detector": "simplenet",
        "backbone": "none",
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "input": {
            "width": 320,
            "height": 268,
            "tiles": 1,
            "channels": "grey",
            "frame_width": 320,
            "frame_height": 268,
        },
        "scale": {
            "raw_zero": 0.0,
            "raw_one": 1.0,
            "synthetic_seed": 0,
            "synthetic_kinds": ["blob"],
        },
        "data": {
            "folder": "none",
            "digest": digest(["0" * 64]),
            "images": 1,
            "units": 1,
            "held_out_units": ["a"],
        },
        "training": {
            "preset": DEFAULT.model_dump(mode="json"),
            "seed": 0,
            "patches": 1,
            "threads": 1,
            "curve": [],
        },
        "golden": [{"file": "golden.png", "score": 0.0}],
        "held_out_scores": [0.0],
        "software": {},
        "created": "2026-01-01T00:00:00Z",
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))


if __name__ == "__main__":
    for name in KINDS[:2]:
        write(Path(sys.argv[1]), name)
