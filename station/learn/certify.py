"""`station convert`: a model under another runtime or precision, if its golden images allow it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from station.errors import ModelError
from station.golden import read_golden
from station.learn.export import write_model
from station.model import open_model, start_model
from station.model_card import SUMS, WEIGHTS, Golden, ModelCard, check_files, load_card
from station.records.sheet import Image, Precision, RuntimeName

FP32_DIFFERENCE = 1e-4  # on one processor; fp32 differs by the order of additions alone
# Of the gap between good and spoilt golden images, at both ends: no threshold belongs there.
GAP_MARGIN = 0.1


class Certified(NamedTuple):
    """The new model and how far its golden images score from the parent's."""

    card: ModelCard
    difference: float


def convert(
    workspace: Path,
    name: str,
    runtime: RuntimeName,
    precision: Precision,
    threshold: float | None = None,
) -> Certified:
    """Write the same weights under the next number, to be run otherwise.

    Refused unless the golden images score alike: in fp32 to 1e-4, in bf16 and on a GPU with the
    same verdicts at the threshold; without one, at any in the middle four fifths of the gap between
    good and spoilt.
    """
    parent = load_card(workspace, name)
    if precision == "int8":
        raise ModelError(
            "int8 is another model: its backbone is quantised first, then the head is trained on "
            "that backbone's features; see docs/runtimes.md"
        )
    if parent.precision != "fp32":
        raise ModelError(f"{name} is {parent.precision}; only an fp32 model can be exported")
    if (runtime, precision) == (parent.runtime, parent.precision):
        raise ModelError(f"{name} already runs through {runtime} in {precision}")
    check_files(workspace, parent)
    folder = workspace / "models" / name
    images = [read_golden(folder / golden.file) for golden in parent.golden]
    with open_model(workspace, name) as model:
        before = [model.predict(image).score for image in images]
    wanted = parent.model_copy(update={"runtime": runtime, "precision": precision, "parent": name})
    after = _scores(workspace, folder, wanted, images)
    golden = tuple(
        entry.model_copy(update={"score": score})
        for entry, score in zip(parent.golden, after, strict=True)
    )
    compare(wanted, before, golden, threshold)
    card = wanted.model_copy(update={"golden": golden, "created": datetime.now(UTC)})
    sums = (folder / SUMS).read_text(encoding="utf-8")
    written = write_model(workspace, card, (folder / WEIGHTS).read_bytes(), images, sums)
    return Certified(written, _difference(before, after))


def _scores(
    workspace: Path, folder: Path, wanted: ModelCard, images: Sequence[Image]
) -> list[float]:
    with start_model(workspace, folder, wanted) as model:
        if wanted.precision == "bf16" and not model.bf16()[0]:
            raise ModelError(
                "this processor has no bf16 instructions (avx512_bf16, amx_bf16): emulated, bf16 "
                "is slower than fp32"
            )
        return [model.predict(image).score for image in images]


def compare(
    wanted: ModelCard, before: Sequence[float], golden: Sequence[Golden], threshold: float | None
) -> None:
    """Refuse what would change a verdict; `before` are the parent's scores, in golden's order."""
    named = f"{wanted.runtime} {wanted.precision} of {wanted.parent}"
    # A GPU was seen to score up to 0.0025 apart from the processor in fp32.
    rounding = wanted.precision == "fp32" and wanted.runtime != "cuda"
    if rounding:
        thresholds = []
    elif threshold is not None:
        thresholds = [threshold]
    else:
        thresholds = _ends_of_gap(named, before, golden)
    for entry, old in zip(golden, before, strict=True):
        says = f"{named}: {entry.file} scores {entry.score:.5f}, before {old:.5f}"
        if rounding and abs(entry.score - old) > FP32_DIFFERENCE:
            raise ModelError(f"{says}; at most {FP32_DIFFERENCE:g} apart is allowed")
        for limit in thresholds:
            if (entry.score < limit) != (old < limit):
                raise ModelError(f"{says}: another verdict at threshold {limit:g}")


def _ends_of_gap(named: str, before: Sequence[float], golden: Sequence[Golden]) -> list[float]:
    """Return the lowest and highest threshold that may be meant; what holds at both holds between.

    Good images lie below both and spoilt ones above, so a flip between them is one at an end.
    """
    good = [score for score, entry in zip(before, golden, strict=True) if entry.spoilt is False]
    spoilt = [score for score, entry in zip(before, golden, strict=True) if entry.spoilt]
    if not good or not spoilt:
        raise ModelError(
            f"{named}: the card does not say which golden images are good and which spoilt; "
            "give --recipe, whose threshold tells"
        )
    low, high = max(good), min(spoilt)
    if low >= high:
        raise ModelError(
            f"{named}: good golden images score up to {low:.3f}, spoilt ones from {high:.3f}: no "
            "threshold is between them; give --recipe, whose threshold tells"
        )
    margin = GAP_MARGIN * (high - low)
    return [low + margin, high - margin]


def _difference(before: Sequence[float], after: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(before, after, strict=True))
