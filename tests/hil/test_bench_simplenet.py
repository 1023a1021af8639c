"""The benchmark of runtimes, on networks so small that only its form counts."""

import json

import pytest

from station import openvino_runtime
from station.learn.bench_simplenet import Setting, bench_simplenet

SMALL = Setting("resnet18", 64, features=48, hidden=16, embedded="resnet18", embedded_side=64)


def test_without_openvino_its_entries_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_runtime, "installed", lambda: False)
    row = bench_simplenet(1, SMALL)
    for name in ("fp32_ratio", "bf16_ratio", "backbone_ratio", "embedded_ms"):
        assert 0.0 < row[name] < float("inf")
    names = ("openvino_fp32_ratio", "openvino_bf16_ratio", "openvino_int8_ratio")
    assert [row[name] for name in (*names, "embedded_int8_ms")] == [None] * 4
    assert row["max_score_difference"] < 1e-4
    assert row["fp32_ratio"] == pytest.approx(row["authors_ms"] / row["fp32_ms"], rel=0.02)
    assert row["weights"] in {"generated", "pretrained"}
    assert json.loads(json.dumps(row)) == row


@pytest.mark.skipif(not openvino_runtime.installed(), reason="needs station[openvino]")
def test_openvino_is_measured_beside_torch() -> None:
    row = bench_simplenet(1, SMALL)
    for name in ("openvino_fp32_ratio", "openvino_bf16_ratio", "openvino_int8_ratio"):
        assert 0.0 < row[name] < float("inf")
    assert row["embedded_int8_ms"] > 0.0
    assert row["max_score_difference"] < 1e-4
    assert isinstance(row["verdict_flips"], int)
