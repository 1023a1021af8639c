"""One file under every runtime: the same scores, or a clear refusal."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from station import openvino_runtime
from station.errors import ModelError
from station.learn.export import Detector, InputForm, freeze, to_bytes, torchscript_is_meant
from station.learn.features.backbones import random_backbone
from station.learn.features.local import AveragePool
from station.learn.simplenet.collapse import CollapsedHead
from station.preset import DEFAULT, changed
from station.records.sheet import Precision, RuntimeName
from station.torchscript import Detector as Loaded
from station.torchscript import Runtime, bf16_speedup, has_bf16, has_cuda

openvino_needed = pytest.mark.skipif(
    not openvino_runtime.installed(), reason="needs station[openvino]"
)
gpu_needed = pytest.mark.skipif(not has_cuda(), reason="needs a GPU that torch can use")
RUNTIMES = [
    Runtime("torchscript", "fp32"),
    Runtime("torchscript", "bf16"),
    pytest.param(Runtime("openvino", "fp32"), marks=openvino_needed),
    pytest.param(Runtime("openvino", "bf16"), marks=openvino_needed),
    pytest.param(Runtime("cuda", "fp32"), marks=gpu_needed),
    pytest.param(Runtime("cuda", "bf16"), marks=gpu_needed),
]
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1}
GPU_TOLERANCE = 0.01  # in fp32; of maps that reach 7


def detector(tiles: int = 1) -> Detector:
    backbone = random_backbone("resnet18", (4, 8))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, sum(backbone.channels), generator=generator) / 10
    out = torch.randn(1, 8, generator=generator)
    pools = [AveragePool(count) for count in backbone.channels]
    head = CollapsedHead(pools, weight, torch.zeros(8), out)
    form = InputForm.of_frames(64, 96, changed(DEFAULT, input_size=96, tiles=tiles))
    return Detector(nn.Sequential(backbone, head), form, 1.0)


def frames(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def write(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / "weights.pt"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "tiles"])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Detector, Path, str]:
    net = detector(request.param)
    return net, *write(tmp_path_factory.mktemp("model"), to_bytes(freeze(net)))


@pytest.mark.parametrize("runtime", RUNTIMES, ids="-".join)
def test_every_runtime_scores_like_the_network_in_training(
    saved: tuple[Detector, Path, str], runtime: Runtime
) -> None:
    net, path, sha256 = saved
    loaded = Loaded(path, sha256, runtime, None)
    for shape in [(1, 1, 64, 96), (2, 3, 200, 300), (1, 1, 31, 200)]:
        with torch.inference_mode():
            score, anomaly_map = loaded(frames(*shape))
            expected = net(frames(*shape))
        assert score.dtype == anomaly_map.dtype == torch.float32
        assert torch.equal(score, anomaly_map.flatten(1).amax(1))
        assert expected[1].std() > 0.05
        tolerance = TOLERANCE[runtime.precision]
        if runtime == ("cuda", "fp32"):
            tolerance = GPU_TOLERANCE
        assert torch.allclose(anomaly_map, expected[1], rtol=0.0, atol=tolerance)


@openvino_needed
def test_a_converted_network_is_kept_by_the_hash_of_its_file(
    saved: tuple[Detector, Path, str], tmp_path: Path
) -> None:
    _, path, sha256 = saved
    runtime = Runtime("openvino", "fp32")
    first = Loaded(path, sha256, runtime, tmp_path)(frames(1, 1, 64, 96))[0]
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(sha256)
    files = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert {file.name for file in files} == {"network.xml", "network.bin"}
    assert torch.equal(Loaded(path, sha256, runtime, tmp_path)(frames(1, 1, 64, 96))[0], first)
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == files
    # A folder without a model in it is made anew.
    (kept / "network.xml").unlink()
    assert torch.equal(Loaded(path, sha256, runtime, tmp_path)(frames(1, 1, 64, 96))[0], first)


@openvino_needed
def test_torch_leaves_the_cores_to_openvino(saved: tuple[Detector, Path, str]) -> None:
    _, path, sha256 = saved
    runtimes = (Runtime("torchscript", "fp32"), Runtime("openvino", "fp32"))
    for runtime, threads in zip(runtimes, (2, 1), strict=True):
        Loaded(path, sha256, runtime, None, threads=2)(frames(1, 1, 64, 96))
        assert torch.get_num_threads() == threads


@openvino_needed
def test_a_damaged_kept_network_is_made_anew(
    saved: tuple[Detector, Path, str], tmp_path: Path
) -> None:
    _, path, sha256 = saved
    runtime = Runtime("openvino", "fp32")
    whole = Loaded(path, sha256, runtime, tmp_path)(frames(1, 1, 64, 96))[0]
    (kept,) = tmp_path.iterdir()
    size = (kept / "network.bin").stat().st_size
    (kept / "network.bin").write_bytes(b"")
    assert torch.equal(Loaded(path, sha256, runtime, tmp_path)(frames(1, 1, 64, 96))[0], whole)
    assert (kept / "network.bin").stat().st_size == size


def test_files_of_the_first_release_run_as_they_always_did(tmp_path: Path) -> None:
    net = detector()
    with torchscript_is_meant():
        traced = torch.jit.trace(net, frames(1, 1, 64, 96), check_trace=False)  # type: ignore[no-untyped-call]
        whole = torch.jit.freeze(traced)
    path, sha256 = write(tmp_path, to_bytes(whole))
    loaded = Loaded(path, sha256, Runtime("torchscript", "fp32"), None)
    with torch.inference_mode():
        found, expected = loaded(frames(1, 1, 64, 96)), net(frames(1, 1, 64, 96))
    assert torch.allclose(found[1], expected[1], atol=1e-4)
    with pytest.raises(ModelError, match="cannot be taken out; train the model again"):
        Loaded(path, sha256, Runtime("torchscript", "bf16"), None)


@pytest.mark.parametrize("runtime", ["torchscript", "openvino"])
def test_a_file_without_an_int8_network_is_refused(
    saved: tuple[Detector, Path, str], runtime: RuntimeName
) -> None:
    precision: Precision = "int8"
    with pytest.raises(ModelError, match=f"no int8 network for {runtime}"):
        Loaded(saved[1], saved[2], Runtime(runtime, precision), None)


def test_without_openvino_one_line_says_what_to_install(
    saved: tuple[Detector, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'station\[openvino\]'"):
        Loaded(saved[1], saved[2], Runtime("openvino", "fp32"), None)


def test_without_a_gpu_a_model_for_one_is_refused(
    saved: tuple[Detector, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ModelError, match=r"weights\.pt: runs on a GPU, and torch can use none here"
    ):
        Loaded(saved[1], saved[2], Runtime("cuda", "fp32"), None)


@openvino_needed
def test_openvino_cannot_report_to_its_maker() -> None:
    openvino_runtime.load_openvino()
    assert sys.modules["openvino_telemetry"] is None


def test_bf16_is_looked_up_and_timed() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert has_bf16() == any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    assert 0.001 < bf16_speedup() < 1000
