"""Bad inputs 64 and 65: a model that asks for more than there is, in its own process."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_models
import yaml

from station.errors import ModelError
from station.learn.export import torchscript_is_meant
from station.model import open_model

FRAME = np.zeros((8, 8), np.uint8)
DEADLINE_S = 2.0


class Greedy(torch.nn.Module):
    """Answers a black frame; a white one asks for 50 GB, a grey one never ends."""

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = frames.to(torch.float32).mean(dim=1) / 255
        mean = float(maps.mean())
        if mean > 0.9:
            maps = torch.ones(50, 1 << 28)[:1, None]
        while mean > 0.4:
            mean = mean * 1.0
        return maps.flatten(1).amax(1), maps


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    toy_models.write(tmp_path, "toy")
    folder = tmp_path / "models" / "toy" / "1"
    stream = io.BytesIO()
    with torchscript_is_meant():
        torch.jit.save(torch.jit.script(Greedy()), stream)
    (folder / "weights.pt").write_bytes(stream.getvalue())
    card = yaml.safe_load((folder / "card.yaml").read_text())
    card["sha256"] = hashlib.sha256(stream.getvalue()).hexdigest()
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return tmp_path


@pytest.mark.bad_input("064-never-returns", "065-50-gigabytes")
def test_a_model_that_asks_for_too_much_ends_without_the_station(workspace: Path) -> None:
    with open_model(workspace, "toy/1", DEADLINE_S) as model:
        with pytest.raises(ModelError, match=r"model toy/1: .*memory"):
            model.predict(FRAME + 255)
        assert model.predict(FRAME).score == 0, "and goes on"
        started = time.monotonic()
        with pytest.raises(ModelError, match=r"no answer to score within 2\.\d s"):
            model.predict(FRAME + 150)
        assert time.monotonic() - started < 2 * DEADLINE_S
