"""The benchmark of runtimes, on networks so small that only its form counts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from station import openvino_runtime

SCRIPT = Path(__file__).with_name("small_bench.py")


def bench(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def test_without_openvino_its_entries_are_null() -> None:
    row = bench("--without-openvino")
    for name in ("fp32_ratio", "bf16_ratio", "backbone_ratio", "embedded_ms"):
        assert 0.0 < row[name] < float("inf")
    names = ("openvino_fp32_ratio", "openvino_bf16_ratio", "openvino_int8_ratio")
    assert [row[name] for name in (*names, "embedded_int8_ms")] == [None] * 4
    assert row["max_score_difference"] < 1e-4
    assert row["fp32_ratio"] == pytest.approx(row["authors_ms"] / row["fp32_ms"], rel=0.02)
    assert row["weights"] in {"generated", "pretrained"}


@pytest.mark.skipif(not openvino_runtime.installed(), reason="needs station[openvino]")
def test_openvino_is_measured_beside_torch() -> None:
    row = bench()
    for name in ("openvino_fp32_ratio", "openvino_bf16_ratio", "openvino_int8_ratio"):
        assert 0.0 < row[name] < float("inf")
    assert row["embedded_int8_ms"] > 0.0
    assert row["max_score_difference"] < 1e-4
    assert isinstance(row["verdict_flips"], int)
