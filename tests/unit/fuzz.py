"""Fuzzing of the files a station reads: `python tests/unit/fuzz.py --cases 10000 --seed 1`.

Each case spoils a real recipe, cell file, model card, manifest or history, as text or as a tree of
values, and runs the commands that read it. Whatever they answer, they end with an exit code and
with lines for a person; an exception that reaches the top is a bug.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import hypothesis
import numpy as np
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from recorded import record, sheet_id

from station.cli import main
from station.records.dataset import Dataset
from station.records.history import HISTORY
from station.records.ledger import open_ledger

ROOT = Path(__file__).parents[2]
SLOWEST_S = 20.0  # of one case; the machine may be busy with other work
CODES = {0, 2, 4, 5}

TOKENS = [
    "\0", "\x07", "\t", "\n", "\r", "\n---\n", "\n...\n", "\N{ZERO WIDTH NO-BREAK SPACE}", "é", "\N{GRINNING FACE}",
    "\N{LINE SEPARATOR}", "\N{RIGHT-TO-LEFT OVERRIDE}", "&a ", "*a", "&a [*a]", "<<: ", "? ", ": ", "- ", "| ",
    "> ", "'", '"', "{", "}", "[", "]", ",", "#", "%YAML 1.1\n", "!!python/object:os.system ", "!!binary ",
    "!!set ", "!!timestamp ", "@", "`", "\\", '"\\Uffffffff"', "[" * 2000, "{a: " * 300, "../", "/",
]  # fmt: skip
SCALARS = [
    "", "~", "null", "true", "no", ".nan", "-.inf", "0", "-0.0", "-1", "1e308", "-1e308", "1e-320", "1e999",
    "9" * 400, "9" * 19, "0x" + "f" * 300, "0o17", "1_000", "12:30:45", "2026-13-45", "x" * 5000, "'1'", "1/2",
    "glassfiber/1", "../../x", "[]", "{}", "[1, 2, 3]", "[[[[]]]]", "\N{FULLWIDTH DIGIT ONE}",
]  # fmt: skip


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, -0.0, 0.5, 1e308, -1e308, 5e-324, 1e-9, 2**31, 2**63, -(2**63) - 1, 10**40,
    float("nan"), float("inf"), "", " ", "x", "x" * 5000, "\0", "a\nb", "é", "\N{GRINNING FACE}", "..", "../x", "/etc/passwd",
    "2026-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00", [], {}, [[]], [None], [0] * 6, [1e308] * 6, [1e200] * 3,
    ["a"] * 200, {"": 1}, {"a": {"b": []}}, deep(15), deep(60), deep(400),
]  # fmt: skip

Spoil = Callable[[str], bytes]


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    keys = (
        tree.keys() if isinstance(tree, dict) else range(len(tree) if isinstance(tree, list) else 0)
    )
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
            if how == "rename":
                parent.pop(last, None) if name != last else None
    return dump(tree).encode("utf-8", "surrogatepass")


class Target(NamedTuple):
    """A file, and the commands that read it."""

    name: str
    file: str
    commands: tuple[str, ...]
    dump: Callable[[Any], str]


SHEET = sheet_id(2)
RECORD = f"data/glassfiber/inspections/2026-01-02/{SHEET}"


def to_yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


TARGETS = [
    Target("recipe", "recipes/glassfiber.yaml", ("check --recipe glassfiber",), to_yaml),
    Target("cell", "calibration/cell.yaml", ("check --recipe glassfiber",), to_yaml),
    Target("card", "models/glassfiber/1/card.yaml", ("check --recipe glassfiber",), to_yaml),
    Target("manifest", f"{RECORD}/manifest.json", ("verify", f"why {SHEET}"), json.dumps),
    Target("history", f"{RECORD}/{HISTORY}", ("verify", f"why {SHEET}"), json.dumps),
]


def make_workspace(folder: Path) -> Path:
    """A workspace with a small model and three records: what a case costs is reading."""
    for name in ("recipes", "calibration"):
        shutil.copytree(ROOT / name, folder / name)
    recipe = folder / "recipes" / "glassfiber.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(
        text[: text.index("  - name: left-back")] + text[text.index("# Three shots") :]
    )
    model = folder / "models" / "glassfiber" / "1"
    model.mkdir(parents=True)
    card = yaml.safe_load((ROOT / "models" / "glassfiber" / "1" / "card.yaml").read_text("utf-8"))
    card["sha256"] = hashlib.sha256(b"small").hexdigest()
    card["golden"] = card["golden"][:1]
    card["held_out_scores"] = card["held_out_scores"][:4]
    card["training"]["curve"] = card["training"]["curve"][:2]
    (model / "card.yaml").write_text(to_yaml(card), encoding="utf-8")
    (model / "weights.pt").write_bytes(b"small")
    cv2.imwrite(str(model / card["golden"][0]["file"]), np.zeros((8, 8), np.uint8))
    with open_ledger(folder, None) as ledger:
        dataset = Dataset(folder, "glassfiber", ledger)
        for number in (1, 2, 3):
            place = record(dataset, number)
            dataset.note(place, "signalled", outcome="accept")
    return folder


def answer(workspace: Path, command: str) -> int:
    """Run a command as a person would; its lines must be lines for a person."""
    out, err = io.StringIO(), io.StringIO()
    started = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*command.split(), "--workspace", str(workspace)])
    assert time.monotonic() - started < SLOWEST_S, "too slow"
    assert code in CODES, code
    told = err.getvalue().splitlines()
    assert len(told) <= 1 or code == 0 or all(len(line) < 2000 for line in told), told
    if code in {2, 4} and not out.getvalue():
        assert len(told) == 1, told
        assert told[0].startswith("station: "), told
    assert "Traceback" not in err.getvalue()
    return code


def fuzz(target: Target, workspace: Path, cases: int, seed: int) -> Counter[int]:
    """Run so many cases; return how often which exit code came."""
    file = workspace / target.file
    whole = file.read_bytes()
    text = whole.decode()
    codes: Counter[int] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
        print_blob=False,
    )
    @given(st.one_of(spoilt_text(text), spoilt_tree(text, target.dump)))
    def case(content: bytes) -> None:
        file.write_bytes(content)
        codes.update([max(answer(workspace, command) for command in target.commands)])

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # From pypylon's import; as an error it ends the process.
            warnings.filterwarnings("ignore", "builtin type", DeprecationWarning)
            case()
    finally:
        file.write_bytes(whole)
    return codes


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[target.name for target in TARGETS])
    args = parser.parse_args()
    targets = [target for target in TARGETS if args.only in {None, target.name}]
    total = 0
    with tempfile.TemporaryDirectory() as place:
        workspace = make_workspace(Path(place, "ws"))
        for target in targets:
            started = time.monotonic()
            codes = fuzz(target, workspace, -(-args.cases // len(targets)), args.seed)
            total += sum(codes.values())
            told = ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items()))
            print(f"{target.name}: {told} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{total} cases, seed {args.seed}: no traceback")


if __name__ == "__main__":
    sys.exit(_main())
