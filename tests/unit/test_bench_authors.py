"""A checkout of the authors' code beside ours: taken with our weights, or refused in a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from station.bench.authors import NEEDED, authors_model, authors_score
from station.errors import ConfigError
from station.learn.simplenet.reference import ReferenceHead

# Named as in the authors' code, and no more of it than what is handed over and asked for.
CODE = """
import torch

class SimpleNet(torch.nn.Module):
    def __init__(self, device):
        super().__init__()

    def load(self, backbone, target_embed_dimension, dsc_hidden, **others):
        width, hidden = target_embed_dimension, dsc_hidden
        self.backbone = backbone
        self.pre_projection = torch.nn.Module()
        self.pre_projection.layers = torch.nn.Sequential(torch.nn.Linear(width, width))
        norm, bent = torch.nn.BatchNorm1d(hidden), torch.nn.LeakyReLU(0.2)
        block = (torch.nn.Linear(width, hidden), norm, bent)
        self.discriminator = torch.nn.Module()
        self.discriminator.body = torch.nn.Sequential(torch.nn.Sequential(*block))
        self.discriminator.tail = torch.nn.Linear(hidden, 1, bias=False)

    def _predict(self, images):
        rows = self.pre_projection.layers(images.flatten(1))
        scores = -self.discriminator.tail(self.discriminator.body(rows))
        return list(scores[:, 0]), [], []
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    for name in NEEDED:
        (tmp_path / name).write_text(CODE if name == "simplenet.py" else "")
    yield tmp_path
    sys.modules.pop("simplenet", None)


def test_the_authors_code_is_given_our_weights(checkout: Path) -> None:
    head = ReferenceHead(features=12, hidden=5).eval()
    nn.init.uniform_(head.norm.weight)
    network = nn.Linear(1, 1)
    model = authors_model(checkout, network, head, side=2).eval()
    images = torch.rand(1, 3, 2, 2)
    with torch.inference_mode():
        hidden = head.norm(head.hidden(head.projection(images.flatten(1))))
        expected = -head.out(nn.functional.leaky_relu(hidden, 0.2))[:, 0]
        assert authors_score(model, images) == pytest.approx(expected)
    assert model.backbone is not network, "its hooks must not reach ours"
    assert str(checkout) not in sys.path


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkout of SimpleNet: no simplenet\.py"):
        authors_model(tmp_path, nn.Identity(), ReferenceHead(12, 5), side=2)


def test_a_package_that_it_lacks_is_named(checkout: Path) -> None:
    (checkout / "simplenet.py").write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match="its code needs no_such_package"):
        authors_model(checkout, nn.Identity(), ReferenceHead(12, 5), side=2)
