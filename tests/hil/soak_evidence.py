"""What a soak is held against: the sheets it was shown, and the lines its journal saw rise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from station.records.dataset import after_of, read_image, read_record
from station.records.sheet import pixels_sha256

THRESHOLD = 0.5
ACCEPT, REJECT = 0, 1  # lines of the cell file

Event = dict[str, Any]


def write_sheets(folder: Path, sheets: int, seed: int) -> list[float]:
    """Make a picture of each sheet; return their means, 0 to 1: the toy model's scores."""
    folder.mkdir()
    draw = np.random.default_rng(seed)
    means = []
    for number in range(sheets):
        image = np.full((480, 640), draw.integers(40, 215), np.uint8)
        image[:8, :64] = draw.integers(0, 256, (8, 64))  # no two are the same
        cv2.imwrite(str(folder / f"{number:06d}.png"), image)
        means.append(float(image.mean()) / 255)
    return means


def check(
    folders: list[Path],
    events: list[Event],
    means: list[float],
    photographs: Path,
    by_hand: Container[int],
) -> Counter[str]:
    """Hold records against journal: one outcome per sheet, in order; no accept without record.

    `means` are the sheets' scores, `by_hand` those that a person took away. Returns how many
    sheets were told what, and how many have which outcome.
    """
    numbers = {pixels_sha256(read_image(path)): int(path.stem) for path in photographs.iterdir()}
    told = {e["sheet"]: e for e in events if e["event"] == "sorted"}
    sorted_in_order = [e["sheet"] for e in events if e["event"] == "sorted"]
    assert sorted_in_order == sorted(set(sorted_in_order)), "a sheet was told twice"
    found: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    lines = risen(events)
    for number, folder in enumerate(folders):
        record = read_record(folder)
        manifest, outcome = record.manifest, after_of(record).outcome
        run, _, count = manifest.sheet.rpartition("-")
        expected[run] += 1
        assert int(count) == expected[run], f"{manifest.sheet}: the one before it is missing"
        of = {numbers[capture.pixels_sha256] for capture in manifest.captures}
        assert of <= {number}, f"{manifest.sheet}: of sheet {of}, not {number}"
        right = {"accept": {ACCEPT}, "reject": {REJECT}}.get(str(manifest.verdict), set())
        if outcome == "unknown":  # killed about when the line rose
            assert lines[number] <= right, f"{manifest.sheet}: lines {lines[number]}"
        elif outcome == manifest.verdict:
            assert lines[number] == right, f"{manifest.sheet}: {outcome}, lines {lines[number]}"
        else:  # told to nobody, or taken back before busy fell
            assert outcome == "none", f"{manifest.sheet}: {manifest.verdict}, told {outcome}"
            assert _told(told.get(number)) in ("none", "by_hand"), f"{manifest.sheet}: {told}"
        line = told.get(number)
        if line is None:  # nothing was told of it: taken away by hand, or still there at the end
            assert number in by_hand or number == len(folders) - 1, f"{number} was never told"
            assert number == len(folders) - 1 or manifest.verdict == "none", manifest
        elif line["accept"] or line["reject"]:
            verdict = "accept" if line["accept"] else "reject"
            assert (manifest.verdict, outcome, manifest.complete) == (verdict, verdict, True)
            # A model that failed, be it after the first shot, rejects good sheets too.
            scored = all(capture.score is not None for capture in manifest.captures)
            good = means[number] < THRESHOLD and scored
            assert good == bool(line["accept"]), manifest
        found[f"told_{_told(line)}"] += 1
        found[f"outcome_{outcome}"] += 1
    laid = sum(event["event"] == "sheet" for event in events)
    assert laid - len(folders) in (0, 1), f"{laid} sheets, {len(folders)} records"
    return found


def risen(events: list[Event]) -> defaultdict[int, set[int]]:
    """Return which of the lines accept and reject rose while each sheet lay there."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    there = -1
    for event in events:
        if event["event"] == "sheet":
            there = event["sheet"]
        elif event["event"] == "output" and event["value"] and event["line"] in (ACCEPT, REJECT):
            found[there].add(event["line"])
    return found


def _told(line: Event | None) -> str:
    if line is None:
        return "by_hand"
    return "accept" if line["accept"] else "reject" if line["reject"] else "none"
