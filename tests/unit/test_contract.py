"""The words of a contract: what counts support, what is missing, what to beware of."""

from __future__ import annotations

import json

import pytest

from station.evaluate.contract import Contract, claim_words, draw_up, meaning, units_missing, worth
from station.evaluate.threshold import parse_policy
from station.intervals import share, upper_bound

GOOD = [0.1, 0.2, 0.3, 0.4, 0.5]
DEFECTIVE = [0.35, 0.8, 0.9]


def contract(policy: str, defective: list[float], present: float | None = None) -> Contract:
    return draw_up(parse_policy(policy), (GOOD, defective), "sheet", 0.01, present)


def test_the_claim_says_what_the_defects_support_and_how_many_more_it_takes() -> None:
    assert claim_words(share(0, 30), "escape", 0.01, "defective sheet") == (
        "0 escapes of 30 defective sheets: true escape rate at most 9.5 %, 95 % sure; "
        "299 would support 1 %: 269 more defective sheets without an escape"
    )
    enough = claim_words(share(0, 299), "escape", 0.01, "defective sheet")
    assert enough.endswith("95 % sure; that supports 1 %")
    impossible = claim_words(share(0, 3), "escape", 1e-10, "defective sheet")
    assert impossible.endswith("no number of defective sheets would support 1e-08 %")


def test_escapes_already_seen_raise_the_number_that_is_needed() -> None:
    assert units_missing(share(0, 30), 0.01) == 269
    more = units_missing(share(2, 30), 0.01)
    assert more is not None
    assert upper_bound(2, 30 + more) <= 0.01 < upper_bound(2, 29 + more)
    assert "without a further escape" in claim_words(share(2, 30), "escape", 0.01, "sheet")


def test_zero_escape_stands_beside_every_other_policy() -> None:
    found = contract("max-false-reject 0.2", DEFECTIVE, present=0.6)
    assert (found.chosen.threshold, found.chosen.false_rejects) == (0.4001, share(1, 5))
    assert found.chosen.escapes == share(1, 3)
    assert found.zero_escape is not None
    assert (found.zero_escape.threshold, found.zero_escape.false_rejects) == (0.35, share(2, 5))
    assert found.present is not None
    assert found.present.escapes == share(1, 3)
    assert [words.split(":")[0] for words in found.statements] == [
        "1 escape of 3 defective sheets",
        "1 false reject of 5 good sheets",
    ]


def test_good_only_says_what_few_sheets_cannot_promise() -> None:
    found = contract("good-only 0.01", [])
    assert found.zero_escape is None
    assert found.chosen.escapes is None
    assert found.warnings == ["5 good sheets cannot promise 1 %, only 45.1 %"]
    assert found.statements[0].endswith(
        "299 would support 1 %: 294 more good sheets without a false reject"
    )


def test_useless_thresholds_are_called_so() -> None:
    low = draw_up(parse_policy("zero-escape"), (GOOD, [0.0]), "image", 0.01, None)
    assert low.warnings == ["every good image is rejected: the scores do not tell them apart"]
    high = draw_up(parse_policy("max-false-reject 0"), (GOOD, [0.0]), "image", 0.01, None)
    assert high.warnings == ["every defective image is accepted: the scores do not tell them apart"]
    assert "same files" in contract("cost 50:1", DEFECTIVE).warnings[0]


def test_everything_printed_is_in_the_json() -> None:
    row = json.loads(json.dumps(contract("zero-escape", DEFECTIVE, present=0.6).as_dict()))
    assert row["threshold"] == 0.35
    assert row["escapes"]["count"] == 0
    assert row["escapes"]["high"] == pytest.approx(1 - 0.025 ** (1 / 3))
    assert row["false_rejects"]["rate"] == 0.4
    assert row["zero_escape"]["threshold"] == 0.35
    assert row["present"]["threshold"] == 0.6
    assert row["defects_missing"] == 296


def test_a_count_is_shown_with_its_interval() -> None:
    assert worth(share(0, 16)) == "0 of 16 = 0 % (0 % to 20.6 %)"
    assert worth(share(16, 16)) == "16 of 16 = 100 % (79.4 % to 100 %)"
    assert worth(share(1, 10)) == "1 of 10 = 10 % (0.253 % to 44.5 %)"
    assert worth(None) == "unknown: there are none"


@pytest.mark.parametrize(
    "policy", ["zero-escape", "max-false-reject 0.05", "cost 50:1", "good-only 0.01"]
)
def test_every_policy_is_put_in_words(policy: str) -> None:
    assert "sheet" in meaning(parse_policy(policy), "sheet")


def test_a_threshold_beyond_a_spoilt_image_is_doubted() -> None:
    policy = parse_policy("good-only 0.1")
    high, low = (
        draw_up(policy, ([0.1, top], []), "unit", 0.01, None).warnings for top in (3.0, 0.2)
    )
    assert any("is above 1" in text for text in high)
    assert not any("is above 1" in text for text in low)
