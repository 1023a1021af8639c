"""Fuzzing of the files a station reads: `python tests/unit/fuzz.py --cases 10000 --seed 1`.

Each case spoils a real recipe, cell file, model card, manifest or history, as text or as a tree of
values, and runs the commands that read it. Whatever they answer, they end with an exit code and
with lines for a person; an exception that reaches the top is a bug.
"""

from __future__ import annotations

import argparse
import contextlib
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
from recorded import record, sheet_id
from spoilt import spoilt

from station.cell import check_drivers
from station.cli import main
from station.config import load_cell
from station.errors import StationError
from station.model_card import load_card
from station.recipe import load_recipe
from station.records.dataset import Dataset, read_record
from station.records.history import HISTORY
from station.records.ledger import open_ledger

ROOT = Path(__file__).parents[2]
SLOWEST_S = 20.0  # of one case; the machine may be busy with other work
CODES = {0, 2, 4, 5}


class Target(NamedTuple):
    """A file, and the commands that read it."""

    name: str
    file: str
    load: Callable[[Path], object]
    commands: tuple[str, ...]
    dump: Callable[[Any], str]


SHEET = sheet_id(2)
RECORD = f"data/glassfiber/inspections/2026-01-02/{SHEET}"


def to_yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


TARGETS = [
    Target(
        "recipe",
        "recipes/glassfiber.yaml",
        lambda workspace: load_recipe(workspace, "glassfiber"),
        ("check --recipe glassfiber",),
        to_yaml,
    ),
    Target(
        "cell",
        "calibration/cell.yaml",
        lambda workspace: check_drivers(load_cell(workspace / "calibration/cell.yaml"), workspace),
        ("check --recipe glassfiber",),
        to_yaml,
    ),
    Target(
        "card",
        "models/glassfiber/1/card.yaml",
        lambda workspace: load_card(workspace, "glassfiber/1"),
        ("check --recipe glassfiber",),
        to_yaml,
    ),
    Target(
        "manifest",
        f"{RECORD}/manifest.json",
        lambda workspace: read_record(workspace / RECORD),
        ("verify", f"why {SHEET}"),
        json.dumps,
    ),
    Target(
        "history",
        f"{RECORD}/{HISTORY}",
        lambda workspace: read_record(workspace / RECORD),
        ("verify", f"why {SHEET}"),
        json.dumps,
    ),
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


def load(target: Target, workspace: Path) -> int | None:
    """Read the file; return the exit code of its refusal, None where there is none."""
    started = time.monotonic()
    try:
        target.load(workspace)
    except StationError as error:
        told = str(error)
        assert told.isprintable(), told
        assert 0 < len(told) < 2000, told
        return error.exit_code
    finally:
        assert time.monotonic() - started < SLOWEST_S, "too slow"
    return None


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
    @given(spoilt(text, target.dump))
    def case(content: bytes) -> None:
        file.write_bytes(content)
        refused = load(target, workspace)
        # What the loader refuses, a command only passes on: one of ten is enough.
        if refused is None or len(content) % 10 == 0:
            codes.update([max(answer(workspace, command) for command in target.commands)])
        else:
            codes.update([refused])

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
            took_s = time.monotonic() - started
            sys.stdout.write(f"{target.name}: {told} ({took_s:.0f} s)\n")
            sys.stdout.flush()
    sys.stdout.write(f"{total} cases, seed {args.seed}: no traceback\n")


if __name__ == "__main__":
    _main()
