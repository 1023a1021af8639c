"""OpenVINO: compiles a network for this processor; an optional extra of the station."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from station.errors import ModelError
from station.records.sheet import Precision

Array = NDArray[np.float32]
Compiled = Callable[[Array], list[Array]]

# What int8 leaves over is computed in fp32: the same on processors with and without bf16.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_NETWORK = "network.xml"


def installed() -> bool:
    """Tell whether the extra is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))


def load_openvino() -> Any:
    """Import OpenVINO, or say what to install."""
    if "openvino_telemetry" not in sys.modules:
        # It would report every conversion to its maker; a production line calls nobody.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise ModelError(
            "this model runs through OpenVINO, which is not installed: "
            "pip install 'station[openvino]'"
        ) from error


def convert(network: object, shapes: Sequence[Sequence[int]]) -> Any:
    """Turn a traced torch network into an OpenVINO model for float32 inputs of these shapes."""
    openvino = load_openvino()
    inputs = [(openvino.PartialShape(list(shape)), openvino.Type.f32) for shape in shapes]
    try:
        return openvino.convert_model(network, input=inputs)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot convert this network: {_first(error)}") from error


def compile_model(model: Any, precision: Precision, threads: int) -> Compiled:
    """Compile a model, or the file of one, for this processor."""
    openvino = load_openvino()
    try:
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot compile this network: {_first(error)}") from error
    request = compiled.create_infer_request()

    def run(images: Array) -> list[Array]:
        request.infer([images], share_inputs=True)
        return [np.array(output.data) for output in request.output_tensors]

    return run


def cached(folder: Path, make: Callable[[], Any]) -> Path:
    """Return the model file kept in this folder; the first time, make and keep it."""
    path = folder / _NETWORK
    if path.is_file():
        return path
    shutil.rmtree(folder, ignore_errors=True)  # no model in it: something half deleted
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as place:
        new = Path(place) / "new"
        save(make(), new)
        try:
            new.rename(folder)
        except OSError:
            if not path.is_file():  # else another process was faster
                raise
    return path


def save(model: Any, folder: Path) -> None:
    """Write a model as network.xml and network.bin, in full precision."""
    folder.mkdir(parents=True, exist_ok=True)
    load_openvino().save_model(model, str(folder / _NETWORK), compress_to_fp16=False)
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())


def to_bytes(model: Any) -> dict[str, bytes]:
    """Return what `save` would write, by file name."""
    with tempfile.TemporaryDirectory() as place:
        save(model, Path(place))
        return {file.name: file.read_bytes() for file in sorted(Path(place).iterdir())}


def from_bytes(files: dict[str, bytes]) -> Any:
    """Read a model back from what `to_bytes` returned."""
    openvino = load_openvino()
    weights = np.frombuffer(files["network.bin"], np.uint8)
    return openvino.Core().read_model(files[_NETWORK], openvino.Tensor(weights))


def version() -> str:
    """Return the release of OpenVINO that is installed."""
    text: str = load_openvino().get_version()
    return text.partition("-")[0]


def _first(error: RuntimeError) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
