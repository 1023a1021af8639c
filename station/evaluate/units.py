"""Score labelled images and group them into what the line judges: sheets, else single images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from station.errors import DatasetError, ModelError
from station.evaluate.examples import Example, sheet_of
from station.evaluate.splits import digest
from station.learn.images import read_image
from station.model import open_model
from station.recipe import HIGHEST, Recipe
from station.sheet_score import ShotScore, recorded, sheet_score


class Unit(NamedTuple):
    """One sheet or image, scored as the line would score it."""

    name: str
    defective: bool
    score: float


class ScoredUnits(NamedTuple):
    """Units with the files that they were scored on."""

    kind: Literal["sheet", "image"]
    units: list[Unit]
    groups: int  # parts that the files' names tell apart: as many as units where these are sheets
    files: int
    digest: str  # sha256 over the files' sorted sha256
    model_sha256: str

    @property
    def good(self) -> list[float]:
        """Scores of the good units."""
        return [unit.score for unit in self.units if not unit.defective]

    @property
    def defective(self) -> list[float]:
        """Scores of the defective units."""
        return [unit.score for unit in self.units if unit.defective]


def score_units(
    workspace: Path,
    model_name: str,
    recipe: Recipe,
    examples: Sequence[Example],
    told: Callable[[str], None],
) -> ScoredUnits:
    """Score every example with the model and the recipe's rule; `told` hears of every file."""
    sheets = all(sheet_of(example.file) is not None for example in examples)
    if sheets:
        check_complete(examples, recipe.shots_per_sheet)
    shots, hashes = [], []
    with open_model(workspace, model_name) as model:
        for example in examples:
            loaded = read_image(example.file)
            try:
                found = model.predict(loaded.image)
            except ModelError as error:
                raise ModelError(f"{example.file}: {error}") from error
            shots.append(ShotScore(example.setup, found.score, recorded(found.anomaly_map)))
            hashes.append(loaded.sha256)
            told(example.file.name)
        model_sha256 = model.card.sha256
    if sheets:
        units = group_sheets(examples, shots, recipe)
    else:
        units = [
            Unit(example.file.name, example.defective, sheet_score([shot], HIGHEST))
            for example, shot in zip(examples, shots, strict=True)
        ]
    groups = len({(not sheets and example.label, example.unit) for example in examples})
    return ScoredUnits(
        "sheet" if sheets else "image", units, groups, len(examples), digest(hashes), model_sha256
    )


def group_sheets(
    examples: Sequence[Example], scored: Sequence[ShotScore], recipe: Recipe
) -> list[Unit]:
    """Make one score of every sheet's shots; a defect in any picture makes the sheet defective."""
    sheets: dict[str, list[tuple[Example, ShotScore]]] = {}
    for example, shot in zip(examples, scored, strict=True):
        sheets.setdefault(str(sheet_of(example.file)), []).append((example, shot))
    return [
        Unit(
            sheet,
            any(example.defective for example, _ in members),
            sheet_score([shot for _, shot in members], recipe.sheet_rule),
        )
        for sheet, members in sorted(sheets.items())
    ]


def check_complete(examples: Sequence[Example], shots: int) -> None:
    """Refuse a sheet that has not the number of pictures that the recipe takes."""
    pictures: dict[str, list[Path]] = {}
    for example in examples:
        pictures.setdefault(str(sheet_of(example.file)), []).append(example.file)
    for sheet, files in pictures.items():
        if len(files) != shots:
            raise DatasetError(
                f"{files[0].parent}: sheet {sheet} has {len(files)} pictures, the recipe takes "
                f"{shots}; on the line it would have no verdict"
            )
