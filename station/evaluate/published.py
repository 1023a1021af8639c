"""Published figures on MVTec AD, as a reference beside one's own: read, never measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from station.strict import Strict

FILE = Path(__file__).with_name("published_mvtec.yaml")
Family = Literal["reconstructs", "synthesises", "embeds"]


class System(Strict):
    """A published method."""

    name: str
    family: Family
    note: str = ""


class Published(Strict):
    """Image and pixel AUROC in percent, per class one pair for each system, in their order."""

    systems: tuple[System, ...]
    figures: dict[str, tuple[tuple[float, float | None], ...]]

    @model_validator(mode="after")
    def _every_system_has_a_pair(self) -> Published:
        for name, pairs in self.figures.items():
            if len(pairs) != len(self.systems):
                raise ValueError(f"figures: {name} has {len(pairs)} pairs")
        return self


def published() -> Published:
    """Read the table; averages stand among the classes under the names they have in print."""
    return Published.load(FILE)
