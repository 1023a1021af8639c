"""`station bench efficientad` on small pictures: its form, and that both ways compute the same."""

from station.bench.efficientad import Setting, bench_efficientad
from station.torchscript import has_bf16


def test_both_ways_give_the_same_scores_and_losses() -> None:
    found = bench_efficientad(1, Setting("s", 128, compared=3))
    assert found["max_score_difference"] < 1e-4
    assert found["train_fp32_loss_difference"] < 1e-4
    assert found["compared_steps"] == 3
    for name in ("bf16_ratio", "bf16_verdict_flips", "train_bf16_ratio"):
        assert (found[name] is None) == (not has_bf16()), name
    assert found["fp32_ratio"] > 0
    assert found["train_fp32_ratio"] > 0
