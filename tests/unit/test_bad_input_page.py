"""`docs/bad-input.md` and the tests that prove it name the same numbers and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from bad_input import Case
from test_bad_input_cells import CASES as CELLS
from test_bad_input_models import CASES as MODELS
from test_bad_input_recipes import CASES as RECIPES
from test_bad_input_trees import CASES as TREES

ROOT = Path(__file__).parents[2]
CASES: list[Case] = [*RECIPES, *CELLS, *TREES, *MODELS]


def rows() -> dict[int, str]:
    """Return the exit codes of every number on the page."""
    text = (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d+) \| .* \| .* \| ([\d, ]*)\|$", text, re.MULTILINE)
    return {int(number): codes for number, codes in found}


def proved() -> set[int]:
    """Return the numbers that stand in the ids of tests."""
    found = {case.number for case in CASES}
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        ids = re.findall(r'"(\d{3})-[^"]', path.read_text(encoding="utf-8"))
        found |= {int(number) for number in ids}
    return found


def test_every_number_of_the_page_is_proved_and_every_proof_is_on_the_page() -> None:
    assert set(rows()) == proved()


def test_the_page_names_the_exit_codes() -> None:
    told = rows()
    for case in CASES:
        assert str(case.code) in told[case.number].replace(",", " ").split(), case
