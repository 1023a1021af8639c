"""Named splits that cannot leak: train learns, calibrate scales, select chooses, test reports.

train      train/good, what the detector learns from
calibrate  the units of train/good that training held out: they fix the scale
select     half of test/: thresholds and settings are chosen on it
report     the other half of test/: published figures come from it, nothing is chosen on it
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from station.errors import DatasetError, ModelError
from station.evaluate.duplicates import find_copy, look_at
from station.evaluate.examples import GOOD, Example, sheet_of
from station.model_card import SUMS, load_card

SELECT, REPORT = "select", "report"


def file_sha256(file: Path) -> str:
    """Hash a file's bytes."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(f"{file}: {(error.strerror or str(error)).lower()}") from error


def digest(hashes: Collection[str]) -> str:
    """Name a set of files: the sha256 over their sorted sha256, as in a model's card."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def halves(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Split every class of test images in two, by hash alone: the same files, the same halves.

    All pictures of one of the station's sheets fall on the same side, in the class of its defect.
    The odd one goes to `report`.
    """
    units: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        sheet = sheet_of(example.file)
        key = file_sha256(example.file) if sheet is None else _text_sha256(sheet)
        units[key].append(example)
    classes: dict[str, list[str]] = defaultdict(list)
    for key in sorted(units):
        classes[_label(units[key])].append(key)
    first = {key for keys in classes.values() for key in keys[: len(keys) // 2]}
    sides = {key: SELECT if key in first else REPORT for key in units}
    found: dict[str, list[Example]] = {SELECT: [], REPORT: []}
    place = {example.file: sides[key] for key, members in units.items() for example in members}
    for example in examples:
        found[place[example.file]].append(example)
    return found


def check_disjoint(
    first: Sequence[Path],
    second: Sequence[Path],
    names: tuple[str, str],
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Refuse a sheet or picture in both splits, be it the same file or nearly the same picture.

    `told` hears of every file that was read.
    """
    sheets = {sheet_of(file): file for file in first}
    for file in second:
        sheet = sheet_of(file)
        if sheet is not None and sheet in sheets:
            raise DatasetError(
                f"{file} ({names[1]}) and {sheets[sheet]} ({names[0]}) show the same sheet; "
                "keep a sheet together"
            )
    looks = []
    for file in (*first, *second):
        looks.append(look_at(file))
        told(file.name)
    copy = find_copy(looks[len(first) :], looks[: len(first)])
    if copy is not None:
        look, other, how = copy
        raise DatasetError(
            f"{look.file} ({names[1]}) is {how} {other.file} ({names[0]}); "
            "keep it in one of the two"
        )


def check_unseen(workspace: Path, model: str, files: Sequence[Path]) -> None:
    """Refuse a file that the model "name/3" learned from, and a list of these that is not whole."""
    listed = workspace / "models" / model / SUMS
    try:
        lines = listed.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ModelError(f"{listed}: {(error.strerror or str(error)).lower()}") from error
    learned = {line.partition(" ")[0] for line in lines}
    if digest(learned) != load_card(workspace, model).data.digest:
        raise ModelError(f"{listed}: not the images that the card's digest names")
    for file in files:
        if file_sha256(file) in learned:
            raise DatasetError(f"{file}: {model} was trained on it; take it out of the test tree")


def _label(examples: Sequence[Example]) -> str:
    """Return the class of a unit: a defect in any picture outweighs good."""
    labels = sorted({example.label for example in examples if example.defective})
    content_twice = sheet_of(examples[0].file) is None
    if content_twice and len({example.label for example in examples}) > 1:
        first, second = examples[0], next(e for e in examples if e.label != examples[0].label)
        raise DatasetError(f"{second.file}: the same file as {first.file}, under another label")
    return labels[0] if labels else GOOD


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
