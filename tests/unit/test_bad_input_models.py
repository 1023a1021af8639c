"""Bad inputs 52 to 67: a model's files, damaged or not what a detector is."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_input import MODEL, Case, Desk, add, check, each, edit, write
from torch import Tensor, nn

from station.errors import ModelError
from station.learn.export import torchscript_is_meant
from station.torchscript import load_graph

WEIGHTS, CARD = f"{MODEL}/weights.pt", f"{MODEL}/card.yaml"
DIFFERS = "weights.pt: not the file its card describes (sha256 differs)"
INSPECT = "inspect --recipe glassfiber --sheets 1"
GOLDEN = "file: golden-0.png"


class WritesAFile(nn.Module):
    """A graph that changes a file of the machine it runs on."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        taken = torch.from_file(self.target, shared=True, size=4, dtype=torch.uint8)
        taken.fill_(65)
        maps = frames.float().mean(1) + taken[0]
        return maps.flatten(1).amax(1), maps


class Payload:
    """What a pickle may hold: a call, made while it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


def script(module: nn.Module) -> bytes:
    stream = io.BytesIO()
    with torchscript_is_meant():
        torch.jit.save(torch.jit.script(module), stream)
    return stream.getvalue()


def cut(desk: Desk) -> None:
    content = desk.path(WEIGHTS).read_bytes()
    desk.write(WEIGHTS, content[: len(content) // 2])


def flip(desk: Desk) -> None:
    content = bytearray(desk.path(WEIGHTS).read_bytes())
    content[len(content) // 3] ^= 4
    desk.write(WEIGHTS, bytes(content))


def twice(desk: Desk) -> None:
    desk.edit(CARD, "sha256: ", "sha256: abc\nsha256: ")


CASES = [
    Case(52, "weights-missing", lambda desk: desk.path(WEIGHTS).unlink(), "weights.pt: missing"),
    Case(52, "card-missing", lambda d: d.path(CARD).unlink(), "no model", 4, INSPECT),
    Case(53, "weights-empty", write(WEIGHTS, b""), DIFFERS),
    Case(53, "card-empty", write(CARD, ""), "card.yaml: empty", 4, INSPECT),
    Case(54, "weights-text", write(WEIGHTS, "hello"), DIFFERS),
    Case(54, "golden-text", write(f"{MODEL}/golden-0.png", "hello"), "missing or unreadable"),
    Case(55, "weights-cut-short", cut, DIFFERS),
    Case(56, "one-bit-flipped", flip, DIFFERS),
    Case(67, "sha256-twice", twice, "sha256: given twice", 4, INSPECT),
    Case(67, "unknown-hash", add(CARD, "md5: 0\n"), "md5: unknown key", 4, INSPECT),
    Case(67, "golden-outside", edit(CARD, GOLDEN, "file: ../0.png"), "golden[0].file", 4, INSPECT),
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


@each(CASES)
def test_bad_input(case: Case, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, desk, capsys)


def pickled(content: object) -> Callable[[Path], bytes]:
    def make(target: Path) -> bytes:
        made = Payload(target) if content is Payload else content
        stream = io.BytesIO()
        torch.save(made, stream)
        return stream.getvalue()

    return make


def zip_of_pickle(target: Path) -> bytes:
    """Dress a pickle up as a graph's archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(Payload(target)))
        archive.writestr("weights/constants.pkl", pickle.dumps(Payload(target)))
        archive.writestr("weights/version", "3")
    return stream.getvalue()


NO_GRAPH = "no TorchScript file"
# Files that are what their card says, so that only what is in them can be refused.
FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "053-empty": (lambda _: b"", NO_GRAPH),
    "054-text": (lambda _: b"hello", NO_GRAPH),
    "055-cut-short": (lambda _: script(WritesAFile(""))[:700], NO_GRAPH),
    "057-pickle": (pickled(Payload), NO_GRAPH),
    "057-pickle-in-an-archive": (zip_of_pickle, NO_GRAPH),
    "058-graph-that-writes-files": (
        lambda target: script(WritesAFile(str(target))),
        r"its graph reads or writes files \(aten::from_file\)",
    ),
    "059-state-dict": (pickled({"weight": torch.zeros(1)}), NO_GRAPH),
}


@pytest.mark.parametrize(("make", "says"), FILES.values(), ids=FILES)
def test_a_file_that_matches_its_card_and_is_no_detector_runs_nothing(
    tmp_path: Path, make: Callable[[Path], bytes], says: str
) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "weights.pt"
    path.write_bytes(make(target))
    with pytest.raises(ModelError, match=rf"weights\.pt: {says}"):
        load_graph(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not target.exists()
