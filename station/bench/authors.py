"""The code of SimpleNet's authors, from a checkout outside this project, as one more variant.

It is imported as it is and runs in this process, so name only a checkout you trust.
"""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from station.errors import ConfigError
from station.learn.simplenet.reference import ReferenceHead

NEEDED = ("simplenet.py", "common.py", "metrics.py", "utils.py")


def authors_model(checkout: Path, network: nn.Module, head: ReferenceHead, side: int) -> Any:
    """Return the authors' model of a residual network, with the weights of this head.

    Raises ConfigError where the folder is no checkout of theirs, or its code lacks a package.
    """
    if missing := [name for name in NEEDED if not (checkout / name).is_file()]:
        raise ConfigError(f"--authors {checkout}: no checkout of SimpleNet: no {missing[0]}")
    module = _imported(checkout)
    model = module.SimpleNet(torch.device("cpu"))
    model.load(
        backbone=copy.deepcopy(network),  # it hangs hooks on it
        layers_to_extract_from=["layer2", "layer3"],
        device=torch.device("cpu"),
        input_shape=(3, side, side),
        pretrain_embed_dimension=head.features,
        target_embed_dimension=head.features,
        patchsize=3,
        meta_epochs=40,
        gan_epochs=4,
        dsc_layers=2,
        dsc_hidden=head.hidden.out_features,
        pre_proj=1,
    )
    model.pre_projection.layers[0].load_state_dict(head.projection.state_dict())
    linear, norm, _ = model.discriminator.body[0]
    linear.load_state_dict(head.hidden.state_dict())
    norm.load_state_dict(head.norm.state_dict())
    model.discriminator.tail.load_state_dict(head.out.state_dict())
    return model


def authors_score(model: Any, normalised: Tensor) -> Tensor:
    """Score (1, 3, H, W) as their test loop does, with its map."""
    scores, _, _ = model._predict(normalised)  # noqa: SLF001 - what their loop over files calls
    return torch.tensor([float(score) for score in scores])


def _imported(checkout: Path) -> Any:
    sys.path.insert(0, str(checkout))  # its files import each other by their bare names
    try:
        return importlib.import_module("simplenet")
    except ImportError as error:
        raise ConfigError(
            f"--authors {checkout}: its code needs {error.name}: install it beside the station"
        ) from error
    finally:
        sys.path.remove(str(checkout))
