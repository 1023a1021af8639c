"""Checkpoints of anomalib, with random weights: `pip install 'station[anomalib]'` runs these."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from station.errors import ConfigError, ModelError
from station.learn.from_anomalib import read_checkpoint

FRAME = np.random.default_rng(0).integers(0, 256, (160, 192), np.uint8)
INSTALLED = importlib.util.find_spec("anomalib") is not None
# The libraries warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
needs_anomalib = pytest.mark.skipif(not INSTALLED, reason="needs the extra station[anomalib]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    models, lightning = (importlib.import_module(name) for name in ("anomalib.models", "lightning"))
    torch.manual_seed(0)
    detector = models.ReverseDistillation(backbone="resnet18", pre_trained=False).eval()
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(detector)
    path = tmp_path_factory.mktemp("anomalib") / "model.ckpt"
    trainer.save_checkpoint(path)
    return detector, path


@needs_anomalib
def test_a_traced_checkpoint_answers_as_the_library_does(checkpoint: tuple[Any, Path]) -> None:
    detector, path = checkpoint
    source = read_checkpoint(path, "ReverseDistillation", FRAME)
    assert str(source.library).endswith(" ReverseDistillation")
    for count in (1, 3):
        frames = torch.randint(0, 256, (count, 1, 160, 192), dtype=torch.uint8)
        with torch.no_grad():
            scores, maps = source.graph(frames)
            as_trained = detector.pre_processor.transform(frames.expand(-1, 3, -1, -1) / 255)
            wanted = detector.model(as_trained).anomaly_map[:, 0]
        torch.testing.assert_close(maps, wanted, rtol=0, atol=1e-4 * float(wanted.max()))
        assert torch.equal(scores, maps.flatten(1).amax(1))


@needs_anomalib
@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("Patchcore", ModelError, "no checkpoint of anomalib's Patchcore"),
        ("Folder", ConfigError, "no detector of anomalib"),
        ("reverse_distillation", ConfigError, "no detector of anomalib"),
    ],
)
def test_another_detector_is_refused(
    checkpoint: tuple[Any, Path], kind: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_checkpoint(checkpoint[1], kind, FRAME)


@needs_anomalib
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Runs()}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="no checkpoint"):
        read_checkpoint(tmp_path / "model.ckpt", "Padim", FRAME)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.ckpt: no such file"):
        read_checkpoint(tmp_path / "none.ckpt", "Padim", FRAME)


@pytest.mark.skipif(INSTALLED, reason="anomalib is installed")
def test_without_the_library_its_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'station\[anomalib\]'"):
        read_checkpoint(tmp_path / "model.ckpt", "Padim", FRAME)
