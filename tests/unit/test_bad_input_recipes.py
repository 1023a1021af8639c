"""Bad inputs 1 to 29: recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import MODEL, RECIPE, Case, Desk, add, check, each, edit, write

from station.cli import main

PLACE = "pose: [-0.064, -0.505, 0.29, 3.14159265, 0, 0]"
SETUP = f"  - name: left-front\n    {PLACE}\n"
WHERE = "recipes/glassfiber.yaml"


def threshold(value: str) -> Callable[[Desk], object]:
    """Set the threshold, judged by the highest shot of a setup."""

    def spoil(desk: Desk) -> None:
        desk.edit(RECIPE, "threshold: 0.03 ", f"threshold: {value} ")
        desk.edit(RECIPE, "setup_score: consensus", "setup_score: highest")

    return spoil


def setups(count: int) -> Callable[[Desk], object]:
    more = "".join(f"  - name: more-{i}\n    {PLACE}\n" for i in range(count - 4))
    return edit(RECIPE, SETUP, SETUP + more)


def again_as(encoding: str) -> Callable[[Desk], object]:
    """Save the recipe in another encoding, with an umlaut in its description."""

    def spoil(desk: Desk) -> None:
        text = desk.path(RECIPE).read_text(encoding="utf-8")
        desk.path(RECIPE).write_bytes(text.replace("woven", "wöven").encode(encoding))

    return spoil


def link_out(desk: Desk) -> None:
    outside = desk.folder.parent / "outside.yaml"
    outside.write_bytes(desk.path(RECIPE).read_bytes())
    desk.path(RECIPE).unlink()
    desk.path(RECIPE).symlink_to(outside)


def flip_a_bit(desk: Desk) -> None:
    path = desk.path(f"{MODEL}/weights.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def same(_: Desk) -> None:
    """Leave everything as it is: what is asked for is wrong."""


ALIASES = "description: &a x\nretention: [*a, *a]\n"
BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcd", "bcde", strict=True)
)


def in_its_place(desk: Desk) -> None:
    desk.path(RECIPE).unlink()
    desk.path(RECIPE).mkdir()


CASES = [
    Case(1, "missing", lambda desk: desk.path(RECIPE).unlink(), "no recipe 'glassfiber' in"),
    Case(1, "a-folder", in_its_place, f"{WHERE}: a folder, not a recipe's file"),
    Case(2, "empty", write(RECIPE, ""), f"{WHERE}: empty"),
    Case(2, "comments-only", write(RECIPE, "# a\n"), f"{WHERE}: empty"),
    Case(3, "a-list", write(RECIPE, "- 1\n"), f"{WHERE}:1: a mapping of keys is expected"),
    Case(3, "plain-text", write(RECIPE, "hello"), f"{WHERE}:1: a mapping of keys is expected"),
    Case(4, "nul-byte", add(RECIPE, "x: \0\n"), "special characters are not allowed"),
    Case(4, "control-character", add(RECIPE, "x: \x07\n"), "special characters are not allowed"),
    Case(5, "utf-16", again_as("utf-16"), f"{WHERE}: not UTF-8 text"),
    Case(5, "byte-order-mark", again_as("utf-8-sig"), f"{WHERE}: begins with a byte-order mark"),
    Case(5, "latin-1", again_as("latin-1"), f"{WHERE}: not UTF-8 text"),
    Case(6, "tab", edit(RECIPE, "  - name", "\t- name"), f"{WHERE}:8: found character"),
    Case(7, "key-twice", add(RECIPE, "gain_db: 1\n"), ": gain_db: given twice"),
    Case(8, "unknown-key", edit(RECIPE, "threshold:", "treshold:"), "did you mean threshold?"),
    Case(9, "python-object", add(RECIPE, "x: !!python/name:os.system x\n"), "x: tags such as"),
    Case(10, "aliases", add(RECIPE, ALIASES), "anchors and aliases are not allowed"),
    Case(10, "alias-bomb", write(RECIPE, BOMB), f"{WHERE}:1: anchors and aliases are not allowed"),
    Case(11, "deep-list", add(RECIPE, f"x: {'[' * 3000}"), ": nested too deeply"),
    Case(11, "deep-blocks", add(RECIPE, f"x: {'[' * 30}{']' * 30}"), "]: nested too deeply"),
    Case(12, "too-large", add(RECIPE, "#" * (256 << 10)), f"{WHERE}: larger than 256 KiB"),
    Case(13, "nan", threshold(".nan"), "threshold: .nan is not a finite number"),
    Case(13, "infinite", threshold(".inf"), "threshold: .inf is not a finite number"),
    Case(13, "negative", threshold("-0.1"), "threshold: -0.1 would reject at least half"),
    Case(13, "zero", threshold("0"), "threshold: 0 would reject at least half"),
    Case(13, "in-quotes", threshold('"0.5"'), "threshold: a number is expected, not"),
    Case(13, "true", threshold("true"), "threshold: a number is expected, not true"),
    Case(13, "words", threshold("1e-3x"), "threshold: a number is expected, not '1e"),
    Case(13, "null", threshold("null"), "a model is named but no threshold"),
    Case(14, "no-setups", write(RECIPE, "setups: []\n"), "setups"),
    Case(14, "too-many-setups", setups(101), f"{WHERE}:6: setups: a list of 101, at most 100"),
    Case(14, "setup-twice", edit(RECIPE, "left-back", "left-front"), "two setups are named"),
    Case(15, "five-numbers", edit(RECIPE, ", 0, 0]\n", ", 0]\n"), "pose: 5 numbers, not 6"),
    Case(15, "seven-numbers", edit(RECIPE, ", 0, 0]\n", ", 0, 0, 0]\n"), "pose: 7 numbers, not 6"),
    Case(15, "huge-number", edit(RECIPE, "[-0.064, ", "[1e300, "), "positions are in metres"),
    Case(16, "sheet-in-mm", edit(RECIPE, "[0.24, 0.20]", "[240, 200]"), "lengths are in metres"),
    Case(16, "millimetres", edit(RECIPE, "-0.064, -0.505", "-64, -505"), "positions are in metres"),
    Case(16, "offset-in-mm", edit(RECIPE, "- [0.003,", "- [30,"), "lengths are in metres"),
    Case(17, "degrees", edit(RECIPE, "3.14159265", "180"), "angles are in radians"),
    Case(
        17,
        "joints-in-degrees",
        edit(RECIPE, PLACE, "joints_rad: [-90, -80, -100, -90, 90, 0]"),
        "write radians",
    ),
    Case(
        18,
        "outside-workspace",
        edit(RECIPE, "-0.064, -0.3", "-0.364, -0.3"),
        "would leave the workspace",
    ),
    Case(19, "too-low", edit(RECIPE, "0.29,", "0.12,"), "mm is not within 100 to 700"),
    Case(
        20,
        "too-fast",
        edit(RECIPE, "travel_speed_m_s: 0.25", "travel_speed_m_s: 4"),
        "a number up to 3 is needed, not 4",
    ),
    Case(
        20,
        "faster-than-the-cell",
        edit(RECIPE, "travel_speed_m_s: 0.25", "travel_speed_m_s: 0.9"),
        "travel_speed_m_s: 0.9 is above the cell's 0.25; the arm goes no faster",
        0,
    ),
    Case(20, "no-acceleration", edit(RECIPE, "on_m_s2: 0.8", "on_m_s2: 0"), "acceleration_m_s2: "),
    Case(21, "no-exposure", edit(RECIPE, "exposure_us: 8000", "exposure_us: 0"), "exposure_us: "),
    Case(
        21, "long-exposure", edit(RECIPE, "exposure_us: 8000", "exposure_us: 1e9"), "exposure_us: "
    ),
    Case(
        24,
        "no-such-model",
        edit(RECIPE, "model: glassfiber/1", "model: glassfiber/9"),
        "no model 'glassfiber/9'",
    ),
    Case(
        24,
        "no-such-model-to-inspect",
        edit(RECIPE, "model: glassfiber/1", "model: glassfiber/9"),
        "no model 'glassfiber/9'",
        4,
        "inspect --recipe glassfiber --sheets 1",
    ),
    Case(25, "weights-changed", flip_a_bit, "not the file its card describes (sha256 differs)"),
    Case(26, "from-the-future", add(RECIPE, "schema: 2\n"), "schema: unknown key"),
    Case(28, "link-out-of-the-workspace", link_out, "a link that leads out of the workspace"),
]

NAMES = {
    "parent": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "nul": "a\0b",
    "device": "CON",
    "full-width": "\N{FULLWIDTH LATIN SMALL LETTER G}lass",
    "newline": "glassfiber\n",
    "65-characters": "a" * 65,
    "empty": "",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=[f"023-{name}" for name in NAMES])
def test_bad_name(name: str, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    before = desk.content()
    for command in (["use", name], ["check", "--recipe", name]):
        assert main([*command, "--workspace", str(desk.folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(": lower-case letters, digits, - and _ only")
    assert desk.content() == before


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


@each(CASES)
def test_bad_input(case: Case, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    check(case, desk, capsys)
