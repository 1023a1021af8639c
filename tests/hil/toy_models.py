"""Models whose scores a test can foretell: `python toy_models.py WORKSPACE`.

toy/1 scores a picture by its mean grey, 0 to 1; broken/1 answers NaN to all but its golden image.
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

from station.preset import DEFAULT


class Toy(torch.nn.Module):
    def __init__(self, answers_nan: bool) -> None:
        super().__init__()
        self.answers_nan = answers_nan

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = frames.to(torch.float32).mean(dim=(1, 2, 3)) / 255
        if self.answers_nan:
            scores = torch.where(scores > 0, scores * float("nan"), scores)
        return scores, scores[:, None, None].repeat(1, 4, 4)


def write(workspace: Path, name: str, answers_nan: bool) -> None:
    folder = workspace / "models" / name / "1"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Toy(answers_nan)), buffer)
    (folder / "weights.pt").write_bytes(buffer.getvalue())
    black = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    (folder / "golden.png").write_bytes(black)
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
            "digest": "0" * 64,
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
    write(Path(sys.argv[1]), "toy", False)
    write(Path(sys.argv[1]), "broken", True)
