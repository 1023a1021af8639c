"""The model's child process: loads the graph and scores what lies in shared memory.

The file holds one graph for all runtimes. Fitting a frame to the network and turning the network's
answer into score and map stay TorchScript in fp32; the network between them runs as the card says.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name torch's users know

from station import openvino_runtime
from station.errors import ModelError
from station.records.sheet import Precision, RuntimeName

# About half the time of one on two free cores; docs/decisions/0027 has what other work costs them.
THREADS = 2
CPU = torch.device("cpu")
# RLIMIT_AS counts what torch only reserves; the data segment is what it really writes to. CUDA maps
# more for itself: with 4 GB it ran out of memory, with 8 not.
DATA_LIMIT_BYTES = {"torchscript": 4 << 30, "openvino": 4 << 30, "cuda": 16 << 30}
SCORE_TOLERANCE = 1e-5  # of the map's maximum: what the order of additions may do
# What of the graph can be called by itself, and the network's input.
PARTS = ("network", "prepare", "finish", "height", "width", "tiles")
# Beside the graph, in the same file, where the network is int8: OpenVINO's own form of it.
INT8_FILES = ("network.xml", "network.bin")
# A graph is a program: these would let it touch the disk, and no detector needs them.
FILE_OPERATORS = {"aten::from_file", "aten::save"}

Network = Callable[[Tensor], Tensor]  # (M, 3, height, width), 0 to 255, to (M, 1, h, w)


class Runtime(NamedTuple):
    """What runs the network, and in which precision."""

    name: RuntimeName
    precision: Precision


class Scorer:
    """Answers score(); built and called by `station.worker`."""

    def __init__(
        self,
        weights: str,
        sha256: str,
        runtime: RuntimeName,
        precision: Precision,
        cache: str,
        threads: int | None,
        niceness: int,
    ) -> None:
        _limit_memory(DATA_LIMIT_BYTES[runtime])
        wanted = Runtime(runtime, precision)
        self._detector = Detector(Path(weights), sha256, wanted, Path(cache), threads or THREADS)
        self._block: SharedMemory | None = None
        os.nice(niceness)  # only now: somebody waits for the start

    def bf16(self) -> tuple[bool, float]:
        """Tell whether the processor has bf16 instructions, and how many times faster it is."""
        return has_bf16(), bf16_speedup()

    def score(self, block: str, shape: tuple[int, ...]) -> tuple[float, NDArray[np.float32]]:
        """Score the image of this shape at the start of the named shared memory."""
        if self._block is None or self._block.name != block:
            if self._block is not None:
                self._block.close()
            self._block = SharedMemory(block)
        image: NDArray[np.uint8] = np.ndarray(shape, np.uint8, self._block.buf).copy()
        pixels = torch.from_numpy(image)
        frames = pixels[None, None] if image.ndim == 2 else pixels.permute(2, 0, 1)[None]
        try:
            with torch.inference_mode():
                scores, maps = self._detector(frames)
        except (RuntimeError, ValueError, TypeError, MemoryError, torch.jit.Error) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"failed: {said[-1]}") from error
        return checked(scores, maps)


class Detector:
    """A model's file as its card wants it run: uint8 (N, C, H, W) to score (N), map (N, h, w).

    What a runtime compiles from the file is kept in `cache`, if one is given.
    """

    def __init__(
        self, path: Path, sha256: str, runtime: Runtime, cache: Path | None, threads: int = THREADS
    ) -> None:
        int8: dict[str, bytes] = dict.fromkeys(INT8_FILES, b"")
        self._device = torch.device("cuda") if runtime.name == "cuda" else CPU
        if runtime.name == "cuda":
            _prepare_cuda(path)
        self._graph = load_graph(path, sha256, int8, self._device)
        # After each step torch's threads keep a core busy for milliseconds, in case another step
        # follows; OpenVINO's would have to wait for it.
        self._torch_threads = 1 if runtime.name == "openvino" else threads
        self._network: Network | None = None
        if runtime.precision == "int8":
            if runtime.name != "openvino" or not all(int8.values()):
                raise ModelError(f"{path}: no int8 network for {runtime.name} in it")
            self._network = openvino_network(openvino_runtime.from_bytes(int8), runtime, threads)
        elif hasattr(self._graph, "network"):
            if runtime.name == "openvino":
                self._network = _compiled(self._graph, sha256, cache, runtime, threads)
            else:
                self._network = torch_network(self._graph.network, bf16=runtime.precision == "bf16")
        elif runtime.precision != "fp32" or runtime.name == "openvino":
            # A file in one piece can only run as it is.
            raise ModelError(f"{path}: its network cannot be taken out; train the model again")

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return score, the maximum of the map, and map."""
        torch.set_num_threads(self._torch_threads)
        frames = frames.to(self._device)
        if self._network is None:
            scores, maps = self._graph(frames)
        else:
            raw = self._network(self._graph.prepare(frames))
            scores, maps = self._graph.finish(raw, frames.shape[2], frames.shape[3])
        return scores.cpu(), maps.cpu()


def torch_network(network: torch.jit.ScriptModule, *, bf16: bool = False) -> Network:
    """Freeze a traced network the way it runs fastest; bf16 changes it for good."""
    if bf16:
        network = network.to(torch.bfloat16)
    # Channels last takes half the time of torch's own order here.
    with _torchscript_is_meant():
        frozen = torch.jit.freeze(network.to(memory_format=torch.channels_last).eval())

    def run(images: Tensor) -> Tensor:
        result: Tensor = frozen(images.bfloat16()).float() if bf16 else frozen(images)
        return result

    return run


def openvino_network(model: object, runtime: Runtime, threads: int) -> Network:
    """Compile an OpenVINO model, or the file of one, for one image at a time."""
    compiled = openvino_runtime.compile_model(model, runtime.precision, threads)

    def run(images: Tensor) -> Tensor:
        answers = [compiled(image.contiguous().numpy())[0] for image in torch.split(images, 1)]
        return torch.from_numpy(np.concatenate(answers))

    return run


def _compiled(
    graph: torch.jit.ScriptModule, sha256: str, cache: Path | None, runtime: Runtime, threads: int
) -> Network:
    """Compile the graph's network; what was kept and can no longer be compiled is made anew."""

    def converted() -> object:
        shape = (1, 3, graph.height, graph.width)
        return openvino_runtime.convert(graph.network, [shape])

    if cache is None:
        return openvino_network(converted(), runtime, threads)
    folder = cache / f"{sha256}-{openvino_runtime.version()}"
    try:
        kept = openvino_runtime.cached(folder, converted)
        return openvino_network(kept, runtime, threads)
    except ModelError:
        shutil.rmtree(folder, ignore_errors=True)
    return openvino_network(openvino_runtime.cached(folder, converted), runtime, threads)


def has_cuda() -> bool:
    """Tell whether torch can use a GPU here."""
    found: bool = torch.cuda.is_available()
    return found


def _prepare_cuda(path: Path) -> None:
    """Refuse a computer without a GPU; have fp32 computed as such, not as TF32's ten bits."""
    if not has_cuda():
        raise ModelError(f"{path}: runs on a GPU, and torch can use none here")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def has_bf16() -> bool:
    """Look for bf16 instructions among what the processor says of itself."""
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def bf16_speedup() -> float:
    """Time one convolution in fp32 and in bf16; where bf16 is emulated, the ratio is below one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other would be what is measured
    try:
        return _convolution_s(torch.float32) / _convolution_s(torch.bfloat16)
    finally:
        torch.set_num_threads(before)


def _convolution_s(dtype: torch.dtype) -> float:
    """Return the shortest time of a typical layer: the one that nothing else disturbed."""
    images, weight = torch.ones(1, 128, 32, 32), torch.ones(128, 128, 3, 3)
    layout = torch.channels_last
    images, weight = (t.to(dtype, memory_format=layout) for t in (images, weight))
    times = []
    with torch.inference_mode():
        for _ in range(9):
            started = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            times.append(time.perf_counter() - started)
    return min(times)


def load_graph(
    path: Path,
    sha256: str,
    extra: dict[str, bytes] | None = None,
    device: torch.device = CPU,
) -> torch.jit.ScriptModule:
    """Read the file once; load from the very bytes whose hash was compared.

    `extra` names files beside the graph and gets their content where they are there.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ModelError(f"{path}: sha256 is {digest[:12]}…, its card says {sha256[:12]}…")
    try:
        with _torchscript_is_meant():
            graph: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(content), map_location=device, _extra_files=extra
            )
    except RuntimeError as error:
        raise ModelError(f"{path}: no TorchScript file") from error
    operators: list[str] = torch.jit.export_opnames(graph)  # type: ignore[no-untyped-call]
    if found := FILE_OPERATORS.intersection(operators):
        raise ModelError(f"{path}: its graph reads or writes files ({', '.join(sorted(found))})")
    return graph.eval()


@contextmanager
def _torchscript_is_meant() -> Iterator[None]:
    """Silence torch's advice to use another format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def checked(scores: object, maps: object) -> tuple[float, NDArray[np.float32]]:
    """Return score and map of one picture; refuse what breaks the contract (docs/models.md)."""
    scores, maps = _part(scores, "score", 1), _part(maps, "map", 3)
    score, highest = float(scores[0]), float(maps.max())
    # Sheets are judged by maps too: a map that does not hold the score would hide a defect.
    if abs(score - highest) > SCORE_TOLERANCE * max(1.0, abs(highest)):
        raise ModelError(f"its score is {score:.6g}, the maximum of its map {highest:.6g}")
    return score, maps[0].numpy()


def _part(answer: object, what: str, dimensions: int) -> Tensor:
    if not isinstance(answer, Tensor):
        raise ModelError(f"answered no {what}")
    shape = tuple(answer.shape)
    if len(shape) != dimensions or shape[0] != 1 or 0 in shape or answer.dtype != torch.float32:
        raise ModelError(f"answered a {what} of {answer.dtype}, shape {shape}")
    return answer


def _limit_memory(limit: int) -> None:
    """Bound what it may write to; where memory runs out all the same, it is the first to go."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if hard == resource.RLIM_INFINITY else min(hard, limit)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
