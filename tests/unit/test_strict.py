"""Files a person writes: each mistake ends in one line that names file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from station.errors import ConfigError
from station.strict import DEPTH_LIMIT, SIZE_LIMIT_BYTES, Strict, parse, read

FILE = Path("a.yaml")


class Inner(Strict):
    size_mm: float
    count: int = 1


class Outer(Strict):
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()
    flag: bool = False
    sizes_mm: tuple[float, ...] = Field(default=(), max_length=3)
    free: Any = None


GOOD = "name: a\ninner: {size_mm: 1}\n"


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE, Outer)
    message = str(caught.value)
    assert message.startswith("a.yaml"), message
    assert "\n" not in message
    return message


def test_a_whole_number_is_taken_for_a_float() -> None:
    assert parse(GOOD, FILE, Outer).inner.size_mm == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: a\ninner:\n  size_mm: 1\n  cuont: 2\n",
            "a.yaml:4: inner.cuont: unknown key; did you mean count?",
        ),
        ("name: a\n", "a.yaml:1: inner: missing"),
        ("name: a\ninner:\n  count: 1\n", "a.yaml:2: inner.size_mm: missing"),
        (GOOD + "many:\n  - {size_mm: 1}\n  - {size_mm: x}\n", "a.yaml:5: many[1].size_mm: "),
        (GOOD + "name: b\n", "a.yaml:3: name: given twice"),
        (GOOD + '"name": b\n', "a.yaml:3: name: given twice"),
        ("name: a\ninner:\n  size_mm: 1\n  size_mm: 2\n", "a.yaml:4: inner.size_mm: given twice"),
        ("name: a\ninner: {size_mm: .nan}\n", "a.yaml:2: inner.size_mm: .nan is not a finite"),
        ("name: a\ninner: {size_mm: -.inf}\n", "a.yaml:2: inner.size_mm: -.inf is not a finite"),
        ("name: a\ninner: {size_mm: 1e999}\n", "a.yaml:2: inner.size_mm: 1e999 is too large"),
        (f"name: a\ninner: {{size_mm: {'9' * 5000}}}\n", "a.yaml:2: inner.size_mm: 9999"),
        (f"name: a\ninner: {{size_mm: 0x{'f' * 5000}}}\n", "a.yaml:2: inner.size_mm: 0xff"),
        ("name: a\ninner: {size_mm: '1'}\n", "a.yaml:2: inner.size_mm: "),
        ("name: a\ninner: {size_mm: true}\n", "a.yaml:2: inner.size_mm: "),
        ("name: a\ninner: {size_mm: 1, count: 1.5}\n", "a.yaml:2: inner.count: "),
        ("name: 5\ninner: {size_mm: 1}\n", "a.yaml:1: name: "),
        (GOOD + "flag: yes\n", "a.yaml:3: flag: "),
        (GOOD + "sizes_mm: [1, 2, 3, 4]\n", "a.yaml:3: sizes_mm: "),
        (GOOD + "free: &x 1\n", "a.yaml:3: anchors and aliases are not allowed"),
        (GOOD + "free: *x\n", "a.yaml:3: found undefined alias"),
        (GOOD + "<<: {flag: true}\n", "a.yaml:3: <<: unknown key"),
        (GOOD + "free: !!python/name:os.system x\n", "a.yaml:3: free: tags such as"),
        (GOOD + "? [1]\n: 2\n", "a.yaml:3: a key must be plain text"),
        (GOOD + '"\\e[2J\\n": 1\n', "a.yaml:3: \\x1b[2J\\n: unknown key"),
        (GOOD + "---\nname: b\n", "a.yaml:3: "),
        (GOOD + "\tflag: true\n", "a.yaml:3: found character"),
        (GOOD + "free: [\n", "a.yaml:4: "),
        (GOOD + "free: " + "[" * 40 + "]" * 40 + "\n", "a.yaml:3: free[0]"),
        (GOOD + "free: " + "[" * 1000, "a.yaml:3: nested too deeply"),
        (GOOD + 'free: "\\Uffffffff"\n', "a.yaml: an escape names no character"),
        (GOOD + "free: \0\n", "a.yaml: special characters are not allowed"),
        ("", "a.yaml: empty"),
        ("# nothing\n", "a.yaml: empty"),
        ("- 1\n", "a.yaml:1: a mapping of keys is expected here"),
        ("just text", "a.yaml:1: a mapping of keys is expected here"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_several_mistakes_are_counted() -> None:
    assert "(and 1 more)" in problem("name: 1\ninner: {size_mm: x}\n")


def test_nesting_just_below_the_limit_is_read() -> None:
    deep = DEPTH_LIMIT - 1
    assert parse(GOOD + "free: " + "[" * deep + "]" * deep, FILE, Outer).free is not None


def test_a_message_stays_readable_however_long_the_value() -> None:
    assert len(problem(f"name: a\ninner: {{size_mm: {'x' * 5000}}}\n")) < 400


def test_a_model_cannot_be_changed_after_it_was_checked() -> None:
    loaded = parse(GOOD, FILE, Outer)
    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "b"  # type: ignore[misc]


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\xfe")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (SIZE_LIMIT_BYTES + 1))
    for path, expected in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a directory"),
        (binary, "not UTF-8 text"),
        (large, "larger than 256 KiB"),
    ):
        with pytest.raises(ConfigError, match=expected) as caught:
            read(path)
        assert str(path) in str(caught.value)


SCALARS = """
1 010 0o17 0x1F -3 +4 1.5 .5 5. 1e-3 1E6 -1.5e+2 true False ~ null yes no on off
1_000 1:30 12:30:45 2026-01-01 '1' 0b101 a-b
"""


@pytest.mark.parametrize("scalar", SCALARS.split())
def test_both_readers_read_the_same_value(scalar: str) -> None:
    """PyYAML reads behind our loader, ruamel.yaml edits: they must not disagree on a value."""
    other = YAML(typ="safe", pure=True).load(f"free: {scalar}\n")["free"]
    ours = parse(GOOD + f"free: {scalar}\n", FILE, Outer).free
    if scalar in {"1_000", "0b101", "2026-01-01"}:  # text to us, as in YAML 1.2's core schema
        assert ours == scalar
    else:
        assert (ours, type(ours)) == (other, type(other))


@pytest.mark.parametrize("name", ["recipes/glassfiber", "calibration/cell", "calibration/sim"])
def test_both_readers_read_the_same_shipped_file(name: str) -> None:
    text = (Path(__file__).parents[2] / f"{name}.yaml").read_text(encoding="utf-8")

    class Anything(Strict):
        free: dict[str, Any]

    indented = "free:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    ours = parse(indented, FILE, Anything).free
    assert ours == YAML(typ="safe", pure=True).load(text)


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_no_text_whatever_ends_in_a_traceback(text: str) -> None:
    for whole in (text, GOOD + text, GOOD + f"free: {text}"):
        try:
            parse(whole, FILE, Outer)
        except ConfigError as error:
            assert str(error).startswith("a.yaml")


@settings(max_examples=50)
@given(st.binary(max_size=40))
def test_no_escape_or_bracket_ends_in_a_traceback(data: bytes) -> None:
    alphabet = "{}[]:,-?|>&*!%@`\"'\\#\n\t 0xuU~.e9"
    text = "".join(alphabet[byte % len(alphabet)] for byte in data)
    try:
        parse(GOOD + "free: " + text, FILE, Outer)
    except ConfigError as error:
        assert str(error).startswith("a.yaml")
