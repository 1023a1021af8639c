"""An int8 backbone: quantised first, then a head is trained on what it gives.

Int8 features differ from fp32 ones, so a head that was trained on those does not fit them. They are
a good basis all the same, if the head is trained on them, through the same runtime that will run.
NNCF quantises on some training images: weights per channel, biases corrected.

    backbone = quantised_backbone(load_backbone(name), images)
    ...train heads on backbone(images), as with any backbone...
    detector = Detector(Int8Network(backbone, head), form, smoothing)
    weights = int8_file(detector)  # one TorchScript file with OpenVINO's network in it
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from station import openvino_runtime
from station.errors import ModelError
from station.learn.export import Detector, freeze, to_bytes, torchscript_is_meant
from station.learn.features.backbones import Backbone
from station.torchscript import THREADS, Runtime, openvino_network


class QuantisedBackbone(nn.Module):
    """A backbone's levels as int8 gives them; called like the backbone itself."""

    def __init__(self, backbone: Backbone, model: Any, threads: int) -> None:
        super().__init__()
        self.name = backbone.name
        self.strides, self.channels = backbone.strides, backbone.channels
        self.model = model
        self._run = openvino_runtime.compile_model(model, "int8", threads)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the levels, finest first, of (N, 3, height, width) with values of 0 to 255."""
        answers = [self._run(image.contiguous().numpy()) for image in torch.split(images, 1)]
        return [torch.from_numpy(np.concatenate(level)) for level in zip(*answers, strict=True)]


class Int8Network(nn.Module):
    """Quantised backbone and head as one OpenVINO model; the head stays fp32."""

    def __init__(
        self, backbone: QuantisedBackbone, head: nn.Module, threads: int = THREADS
    ) -> None:
        super().__init__()
        self.head = head
        self.model = _join(backbone.model, head)
        self._run = openvino_network(self.model, Runtime("openvino", "int8"), threads)

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw anomaly map."""
        return self._run(images)


class NotTorch(nn.Module):
    """Stands in the graph where the network is int8: torch cannot run it."""

    def forward(self, images: Tensor) -> Tensor:
        """Refuse."""
        raise RuntimeError("this model's network is int8 and runs through OpenVINO only")
        return images


def quantised_backbone(
    backbone: Backbone, images: Sequence[Tensor], threads: int = THREADS
) -> QuantisedBackbone:
    """Quantise a backbone on training images, each (1, 3, height, width) as the network sees it."""
    if not images:
        raise ModelError("no image to calibrate the int8 backbone on")
    nncf = _load_nncf()
    example = images[0]
    with torchscript_is_meant():
        traced = torch.jit.trace(backbone, example, check_trace=False)  # type: ignore[no-untyped-call]
    model = openvino_runtime.convert(traced, [example.shape])
    # NNCF prints its progress; stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        quantised = nncf.quantize(
            model,
            nncf.Dataset([image.numpy() for image in images]),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=False,
        )
    return QuantisedBackbone(backbone, quantised, threads)


def int8_file(detector: Detector) -> bytes:
    """Serialise a detector around an Int8Network as one TorchScript file."""
    network = detector.network
    if not isinstance(network, Int8Network):
        raise TypeError("the detector's network is not int8")
    try:
        with torchscript_is_meant():
            detector.network = torch.jit.script(NotTorch())
        return to_bytes(freeze(detector), openvino_runtime.to_bytes(network.model))
    finally:
        detector.network = network


def _join(model: Any, head: nn.Module) -> Any:
    """Put the head behind a backbone's outputs."""
    openvino = openvino_runtime.load_openvino()
    whole = model.clone()
    shapes = [tuple(output.shape) for output in whole.outputs]
    levels = [torch.zeros(shape) for shape in shapes]
    with torchscript_is_meant():
        traced = torch.jit.trace(head, (levels,), check_trace=False)  # type: ignore[no-untyped-call]
    tail = openvino_runtime.convert(traced, shapes)
    for parameter, result in zip(tail.get_parameters(), whole.get_results(), strict=True):
        parameter.output(0).replace(result.input_value(0))
    return openvino.Model(tail.get_results(), whole.get_parameters(), "network")


def _load_nncf() -> Any:
    openvino_runtime.load_openvino()
    try:
        nncf = importlib.import_module("nncf")
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise
        raise ModelError(
            "int8 needs NNCF, which is not installed: pip install 'station[openvino]'"
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
