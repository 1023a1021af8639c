"""The pages: every link leads somewhere, the index names them all, commands are those there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from station.cli import _COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]+)?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown sites make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), f"{target}: no such page"
        if anchor:
            assert anchor[1:] in anchors(other), f"{target}{anchor}: no such heading"


def test_the_index_names_every_page_and_decision() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = {(DOCS / target).resolve() for target, _ in LINK.findall(index) if target}
    assert set(DOCS.rglob("*.md")) - linked == {DOCS / "index.md"}


def test_the_readme_lists_every_command() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The commands")[2]
    rows = re.findall(r"^\| (`station.*?) \|", table, re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`(?:station )?([a-z]+)", row)}
    assert told == set(_COMMANDS)
