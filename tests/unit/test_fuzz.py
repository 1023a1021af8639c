"""A small share of what `python tests/unit/fuzz.py` runs: no file ends a command in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import TARGETS, Target, fuzz, make_workspace

CASES = 12
SEED = 20261126


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("fuzz") / "ws")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_spoilt_file_ends_in_a_traceback(target: Target, workspace: Path) -> None:
    codes = fuzz(target, workspace, CASES, SEED)
    assert sum(codes.values()) >= CASES
    assert max(codes) > 0, "some of them are refused"
