"""Reference sheets: what a recipe's known sheets were judged as, and the lock a wrong answer sets.

run/reference/<recipe>.json   the last check. Production needs one that is complete, right, of this
                              recipe, cell file and model, and not too old; without the file it is
                              locked, as it is after a wrong answer until an engineer releases it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, ValidationError

from station.errors import DatasetError, ProductionLocked
from station.recipe import LoadedRecipe
from station.records.dataset import sync_folder, write_durably
from station.records.sheet import Verdict
from station.strict import Strict

HOUR = timedelta(hours=1)


class Basis(Strict):
    """What a check holds for: with other files it says nothing."""

    recipe_sha256: str
    cell_sha256: str
    model_sha256: str


class Answer(Strict):
    """What one known sheet was judged as."""

    name: str
    expect: Literal["accept", "reject"]
    verdict: Verdict
    score: float | None
    sheet: str

    @property
    def right(self) -> bool:
        """Tell whether it was judged as it had to be."""
        return self.verdict == self.expect


class Release(Strict):
    """An engineer's decision after a wrong answer."""

    at: AwareDatetime
    who: str
    why: str


class Check(Strict):
    """One check of a recipe's reference sheets, as far as it has come."""

    at: AwareDatetime
    basis: Basis
    wanted: int
    answers: tuple[Answer, ...] = ()
    release: Release | None = None

    @property
    def wrong(self) -> tuple[Answer, ...]:
        """The sheets that were judged wrongly."""
        return tuple(answer for answer in self.answers if not answer.right)

    @property
    def locks(self) -> bool:
        """Tell whether an engineer has to decide first."""
        return bool(self.wrong) and self.release is None

    @property
    def passed(self) -> bool:
        """Tell whether every sheet was judged, and rightly."""
        return len(self.answers) == self.wanted and not self.wrong

    def answered(self, answer: Answer) -> Self:
        """Return the check with one more answer."""
        return self.model_copy(update={"answers": (*self.answers, answer)})


def read(workspace: Path, recipe: str) -> Check | None:
    """Read a recipe's last check."""
    path = _path(workspace, recipe)
    try:
        return Check.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ProductionLocked(
            f"{path}: damaged; an engineer decides: `{_release(recipe)}`"
        ) from error


def write(workspace: Path, recipe: str, check: Check) -> None:
    """Keep a check durably: a wrong answer outlives whatever comes next."""
    path = _path(workspace, recipe)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, check.model_dump_json(indent=1).encode())
        sync_folder(path.parent)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error


def why_locked(
    workspace: Path, recipe: LoadedRecipe, basis: Basis, now: datetime
) -> ProductionLocked | None:
    """Say why production may not go on, and what to do; None where it may."""
    try:
        check = read(workspace, recipe.name)
        check_release(recipe.name, check)
    except ProductionLocked as locked:
        return locked
    reference = recipe.recipe.reference
    if reference is None:
        return None
    problem = _problem(check, basis, timedelta(hours=reference.valid_h), now)
    if problem is None:
        return None
    return ProductionLocked(
        f"recipe {recipe.name}: {problem}; next: `station reference --recipe {recipe.name}`"
    )


def check_release(recipe: str, check: Check | None) -> None:
    """Raise where a sheet was judged wrongly and no engineer has decided since."""
    if check is not None and check.locks:
        first = check.wrong[0]
        raise ProductionLocked(
            f"recipe {recipe}: locked, reference sheet {first.name} must be judged {first.expect} "
            f"and was judged {first.verdict} ({first.sheet}); find out why, then an engineer "
            f"decides: `{_release(recipe)}`"
        )


def release(workspace: Path, recipe: str, decision: Release) -> Check | None:
    """Note an engineer's decision; the sheets have to be judged again all the same."""
    try:
        check = read(workspace, recipe)
    except ProductionLocked:  # damaged: nobody can say any more what it said
        _path(workspace, recipe).unlink()
        return None
    if check is None or not check.locks:
        raise ProductionLocked(f"recipe {recipe}: no wrong answer has locked it")
    released = check.model_copy(update={"release": decision})
    write(workspace, recipe, released)
    return released


def _problem(check: Check | None, basis: Basis, valid: timedelta, now: datetime) -> str | None:
    if check is None:
        return "its reference sheets were not judged yet"
    if check.release is not None:
        return f"{check.release.who} released it, its reference sheets have to be judged again"
    if not check.passed:
        return "its reference sheets were not all judged"
    for name, was in check.basis.model_dump().items():
        if was != getattr(basis, name):
            what = {"cell": "cell file"}.get(name.partition("_")[0], name.partition("_")[0])
            return f"the {what} has changed since its reference sheets were judged"
    hours, allowed = ((now - check.at) / HOUR, valid / HOUR)
    if hours < 0:
        judged = f"{check.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"its reference sheets were judged at {judged}, later than the computer's clock now "
            "says: set the clock, or judge them again"
        )
    if hours > allowed:
        return f"its reference sheets were judged {hours:.1f} h ago, {allowed:g} h are allowed"
    return None


def _path(workspace: Path, recipe: str) -> Path:
    return workspace / "run" / "reference" / f"{recipe}.json"


def _release(recipe: str) -> str:
    return f"station reference --recipe {recipe} --release --why TEXT"
