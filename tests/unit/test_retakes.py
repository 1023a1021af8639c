"""A picture that is no use is taken again while the arm stands still, a bounded number of times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from production_bench import Bench

from station.errors import DeviceError, DeviceLost, DeviceTimeout, IncompleteFrame
from station.states import State

DAMAGED = IncompleteFrame("camera", "damaged picture", "check the cable")
LATE = DeviceTimeout("camera", "sent no picture")
LOST = DeviceLost("camera", "was removed", "check its power")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def failing(bench: Bench, *errors: DeviceError) -> list[int]:
    """Have the second shot's tries fail; return where the arm's moves are counted at each try."""
    left: Iterator[DeviceError | None] = iter([None, *errors])
    moves: list[int] = []

    def trigger() -> None:
        moves.append(len(bench.arm.moves))
        error = next(left, None)
        if error is not None:
            raise error

    bench.camera.on_trigger = trigger
    return moves


def test_two_bad_pictures_are_taken_again_and_told_in_the_record(bench: Bench) -> None:
    moves = failing(bench, DAMAGED, LATE)
    bench.production.run_once(1)
    (manifest,) = bench.told
    assert manifest.verdict == "accept"
    assert [capture.retaken for capture in manifest.captures] == [
        (),
        ("damaged picture", "sent no picture"),
    ]
    assert len(set(moves[1:])) == 1, "the arm stood still"


def test_a_third_bad_picture_leaves_no_verdict(bench: Bench) -> None:
    moves = failing(bench, DAMAGED, LATE, DAMAGED)
    with pytest.raises(IncompleteFrame, match="damaged picture; 3 tries; check the cable"):
        bench.production.run_once(1)
    (manifest,) = bench.told
    assert (manifest.verdict, len(manifest.captures)) == ("none", 1)
    assert len(moves) == 4
    assert len(bench.arm.moves) == moves[-1], "and the arm does not move any more"
    assert bench.line.accepted == 0
    assert bench.machine.state is State.ABORTED


def test_a_lost_camera_is_not_asked_again(bench: Bench) -> None:
    moves = failing(bench, LOST)
    with pytest.raises(DeviceLost, match="was removed; check its power"):
        bench.production.run_once(1)
    assert len(moves) == 2
    assert bench.told[0].reasons == ("camera: was removed; check its power",)
