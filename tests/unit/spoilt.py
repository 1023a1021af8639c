"""Ways to spoil a file, as text and as a tree of values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

TOKENS = [
    "\0", "\x07", "\t", "\n", "\r", "\n---\n", "\n...\n", "\N{ZERO WIDTH NO-BREAK SPACE}", "é",
    "\N{GRINNING FACE}", "\N{LINE SEPARATOR}", "\N{RIGHT-TO-LEFT OVERRIDE}", "&a ", "*a",
    "&a [*a]", "<<: ", "? ", ": ", "- ", "| ", "> ", "'", '"', "{", "}", "[", "]", ",", "#",
    "%YAML 1.1\n", "!!python/object:os.system ", "!!binary ", "!!set ", "!!timestamp ", "@",
    "`", "\\", '"\\Uffffffff"', "[" * 2000, "{a: " * 300, "../", "/",
]  # fmt: skip
SCALARS = [
    "", "~", "null", "true", "no", ".nan", "-.inf", "0", "-0.0", "-1", "1e308", "-1e308",
    "1e-320", "1e999", "9" * 400, "9" * 19, "0x" + "f" * 300, "0o17", "1_000", "12:30:45",
    "2026-13-45", "x" * 5000, "'1'", "1/2", "glassfiber/1", "../../x", "[]", "{}", "[1, 2, 3]",
    "[[[[]]]]", "\N{FULLWIDTH DIGIT ONE}",
]  # fmt: skip


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, -0.0, 0.5, 1e308, -1e308, 5e-324, 1e-9, 2**31, 2**63,
    -(2**63) - 1, 10**40, float("nan"), float("inf"), "", " ", "x", "x" * 5000, "\0", "a\nb",
    "é", "\N{GRINNING FACE}", "..", "../x", "/etc/passwd", "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00", [], {}, [[]], [None], [0] * 6,
    [1e308] * 6, [1e200] * 3, ["a"] * 200, {"": 1}, {"a": {"b": []}}, deep(15), deep(60),
    deep(400),
]  # fmt: skip


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    keys: Any = range(len(tree)) if isinstance(tree, list) else ()
    if isinstance(tree, dict):
        keys = tree
    for key in keys:
        found += _places(tree[key], (*at, key))
    return found


@st.composite
def spoilt_text(draw: st.DrawFn, text: str) -> bytes:
    """Change a few characters, words or lines of a text."""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["insert", "delete", "double", "value", "cut", "swap", "text"]))
        if how == "insert":
            text = text[:start] + draw(st.sampled_from(TOKENS)) + text[start:]
        elif how == "delete":
            text = text[:start] + text[end:]
        elif how == "double":
            text = text[:end] + text[start:]
        elif how == "value":
            colon = text.find(": ", start)
            line = text.find("\n", colon)
            if colon >= 0:
                text = f"{text[: colon + 2]}{draw(st.sampled_from(SCALARS))}{text[line:]}"
        elif how == "cut":
            text = text[:start]
        elif how == "swap":
            lines = text.splitlines(keepends=True)
            one, other = (draw(st.integers(0, max(0, len(lines) - 1))) for _ in range(2))
            if lines:
                lines[one], lines[other] = lines[other], lines[one]
            text = "".join(lines)
        else:
            text = text[:start] + draw(st.text(max_size=10)) + text[end:]
    data = text.encode("utf-8", "surrogatepass")
    if data and draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data


@st.composite
def spoilt_tree(draw: st.DrawFn, text: str, dump: Callable[[Any], str]) -> bytes:
    """Change values, keys and shapes of what a text says."""
    tree = yaml.safe_load(text)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        places = _places(tree)
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        parent = tree
        for key in above:
            parent = parent[key]
        how = draw(
            st.sampled_from(["value", "value", "value", "delete", "rename", "add", "wrap", "many"])
        )
        if how == "value":
            parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif how == "delete":
            del parent[last]
        elif how == "wrap":
            parent[last] = draw(st.sampled_from([[parent[last]], {"a": parent[last]}]))
        elif how == "many" and isinstance(parent, list):
            parent += [
                copy.deepcopy(parent[last]) for _ in range(draw(st.sampled_from([1, 9, 300])))
            ]
        elif isinstance(parent, dict):
            name = draw(st.sampled_from(["x", "", "schema", "é", "a" * 200, "1", "name"]))
            parent[name] = parent[last]
            if how == "rename" and name != last:
                del parent[last]
    return dump(tree).encode("utf-8", "surrogatepass")


def spoilt(text: str, dump: Callable[[Any], str]) -> st.SearchStrategy[bytes]:
    """Spoil a text in either way; `dump` writes a tree in the text's own form."""
    return st.one_of(spoilt_text(text), spoilt_tree(text, dump))
