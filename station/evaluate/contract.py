"""What a threshold promises, in words and figures: the contract that `station threshold` states."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from station.evaluate.threshold import ZERO_ESCAPE, Policy, Reading, choose, read
from station.intervals import Share, units_needed, upper_bound
from station.recipe import doubt_about


class Contract(NamedTuple):
    """A chosen threshold beside the two readings that it is to be compared with."""

    policy: Policy
    unit: str  # "sheet", "image" or "unit"
    claim: float  # the escape rate that somebody would like to claim
    chosen: Reading
    zero_escape: Reading | None  # None without defects
    present: Reading | None  # of the recipe's threshold; None where it has none

    @property
    def statements(self) -> list[str]:
        """What the counts support, and how many more units would support the claims wanted."""
        said = []
        if self.chosen.escapes is not None:
            said.append(
                claim_words(self.chosen.escapes, "escape", self.claim, f"defective {self.unit}")
            )
        if self.chosen.false_rejects is not None and self.policy.limit:
            limit, unit = self.policy.limit, f"good {self.unit}"
            said.append(claim_words(self.chosen.false_rejects, "false reject", limit, unit))
        return said

    @property
    def warnings(self) -> list[str]:
        """What a person must know before using the threshold."""
        said = [doubt] if (doubt := doubt_about(self.chosen.threshold)) else []
        rejects, escapes = self.chosen.false_rejects, self.chosen.escapes
        if rejects is not None and rejects.count == rejects.total:
            said.append(f"every good {self.unit} is rejected: the scores do not tell them apart")
        if escapes is not None and escapes.count == escapes.total:
            said.append(
                f"every defective {self.unit} is accepted: the scores do not tell them apart"
            )
        if rejects is not None and self.policy.name == "good-only":
            bound = upper_bound(rejects.count, rejects.total)
            if bound > self.policy.limit:
                said.append(
                    f"{counted(rejects.total, f'good {self.unit}')} cannot promise "
                    f"{percent(self.policy.limit)}, only {percent(bound)}"
                )
        if self.policy.name == "cost":
            said.append("chosen and counted on the same files: expect somewhat more of both errors")
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return everything for `--json`."""
        escapes = self.chosen.escapes
        return {
            "policy": str(self.policy),
            "meaning": meaning(self.policy, self.unit),
            **_as_dict(self.chosen),
            "claim": self.claim,
            "defects_missing": None if escapes is None else units_missing(escapes, self.claim),
            "zero_escape": None if self.zero_escape is None else _as_dict(self.zero_escape),
            "present": None if self.present is None else _as_dict(self.present),
            "statements": self.statements,
            "warnings": self.warnings,
        }


def draw_up(
    policy: Policy,
    scores: tuple[list[float], list[float]],
    unit: str,
    claim: float,
    present: float | None,
) -> Contract:
    """Choose a threshold on the scores of good and of defective units, and say what it is worth."""
    good, defective = scores
    return Contract(
        policy,
        unit,
        claim,
        choose(policy, good, defective),
        choose(ZERO_ESCAPE, good, defective) if defective else None,
        None if present is None else read(present, good, defective),
    )


def meaning(policy: Policy, unit: str) -> str:
    """Say in words what the policy asks for."""
    if policy.name == "zero-escape":
        return f"asks for the highest threshold at which no defective {unit} of these is accepted"
    if policy.name == "max-false-reject":
        most = percent(policy.limit)
        return f"asks for the lowest threshold that rejects at most {most} of these good {unit}s"
    if policy.name == "cost":
        escape, reject = policy.costs
        return (
            f"asks for the least cost on these {unit}s, an escape counting {escape:g} and "
            f"a false reject {reject:g}; of equals the lower threshold"
        )
    return (
        f"asks for the lowest threshold of which the good {unit}s show that it rejects "
        f"at most {percent(policy.limit)} of all good {unit}s, 95 % sure"
    )


def claim_words(found: Share, event: str, claim: float, unit: str) -> str:
    """Say what a count supports, and how many more units would support `claim`."""
    bound = upper_bound(found.count, found.total)
    said = (
        f"{counted(found.count, event)} of {counted(found.total, unit)}: "
        f"true {event.replace(' ', '-')} rate at most {percent(bound)}, 95 % sure"
    )
    if bound <= claim:
        return f"{said}; that supports {percent(claim)}"
    missing = units_missing(found, claim)
    if missing is None:
        return f"{said}; no number of {unit}s would support {percent(claim)}"
    total = found.total + missing
    further = "further " if found.count else ""
    article = "a" if further or event != "escape" else "an"
    return (
        f"{said}; {total} would support {percent(claim)}: {counted(missing, f'more {unit}')} "
        f"without {article} {further}{event}"
    )


def units_missing(found: Share, claim: float) -> int | None:
    """Return how many more units, none of them counted, would support `claim`; None: too many."""
    needed = units_needed(found.count, claim)
    return None if needed is None else max(0, needed - found.total)


def percent(value: float) -> str:
    """Write a share for people."""
    return f"{100 * value:.3g} %"


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def worth(found: Share | None) -> str:
    """Write a count with its interval for a table."""
    if found is None or found.value is None:
        return "unknown: there are none"
    share = f"{found.count} of {found.total} = {percent(found.value)}"
    return f"{share} ({percent(found.low)} to {percent(found.high)})"


def _as_dict(reading: Reading) -> dict[str, Any]:
    row: dict[str, Any] = {"threshold": reading.threshold}
    for name in ("escapes", "false_rejects"):
        found: Share | None = getattr(reading, name)
        row[name] = None if found is None else {**asdict(found), "rate": found.value}
    return row
