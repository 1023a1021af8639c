"""A second model: its scores are kept, nobody waits for it, and no verdict depends on it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from recorded import RECIPE, sheet_id, told

from station import workspace as template
from station.cli import main
from station.errors import DatasetError, ModelError
from station.records.dataset import Dataset, read_record
from station.records.ledger import Ledger, Row, open_ledger
from station.records.sheet import Image, Manifest, Prediction
from station.shadow import Shadow, shadowing

MODEL = "other/2"


class MeanGrey:
    """Scores a picture by its mean once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.asked = 0

    def predict(self, image: Image) -> Prediction:
        self.asked += 1
        assert self.may.wait(10)
        return Prediction(float(image.mean()), np.zeros((1, 1), np.float32))


class Failing:
    def predict(self, image: Image) -> Prediction:
        raise ModelError(f"model {MODEL}: cannot score {image.shape}")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    template.init(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(workspace: Path) -> Iterator[Ledger]:
    with open_ledger(workspace) as ledger:
        yield ledger


@pytest.fixture
def sheets(workspace: Path, ledger: Ledger) -> list[tuple[Manifest, Path]]:
    dataset = Dataset(workspace, RECIPE, ledger)
    folders = [told(dataset, number) for number in range(1, 5)]
    return [(read_record(folder).manifest, folder) for folder in folders]


def finish(shadow: Shadow) -> None:
    shadow.finish(threading.Event())


def test_a_sheet_is_scored_from_its_record_and_shown_beside_what_judged_it(
    workspace: Path,
    ledger: Ledger,
    sheets: list[tuple[Manifest, Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shadowing(MeanGrey(), MODEL, "4" * 64, ledger.shadow) as shadow:
        for _ in range(2):  # offered twice, it is kept once
            shadow.offer(*sheets[0])
            finish(shadow)
    capsys.readouterr()
    assert main(["records", "--workspace", str(workspace), "--shadow", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["sheet"], row["shot"]) for row in rows] == [(sheet_id(1), n) for n in (1, 2, 3)]
    for row, capture in zip(rows, sheets[0][0].captures, strict=True):
        assert (row["score"], row["verdict"]) == (capture.score, "accept")
        assert (row["model"], row["shadow_model"]) == ("glassfiber/1", MODEL)
        assert row["shadow_sha256"] == "4" * 64
        assert 0 < row["shadow_score"] < 255
    assert len({row["shadow_score"] for row in rows}) == 3


def test_while_it_is_busy_sheets_are_skipped_and_nobody_waits(
    ledger: Ledger, sheets: list[tuple[Manifest, Path]]
) -> None:
    model = MeanGrey()
    model.may.clear()
    with shadowing(model, MODEL, "4" * 64, ledger.shadow) as shadow:
        shadow.offer(*sheets[0])
        end = time.monotonic() + 10
        while not model.asked:
            assert time.monotonic() < end
            time.sleep(0.002)
        asked = time.monotonic()
        for sheet in sheets[1:]:
            shadow.offer(*sheet)
        assert time.monotonic() - asked < 0.1
        model.may.set()
        finish(shadow)
    wanted = [manifest.sheet for manifest, _ in sheets]
    scored = sorted({row["sheet"] for row in ledger.shadow_rows(wanted)})
    assert scored == [sheet_id(1), sheet_id(2)], "one in work, one waiting"


def test_a_sheet_that_is_not_scored_whole_is_not_kept(
    ledger: Ledger, sheets: list[tuple[Manifest, Path]]
) -> None:
    model = MeanGrey()
    model.may.clear()
    shadow = Shadow(model, MODEL, "4" * 64, ledger.shadow)
    shadow.offer(*sheets[0])
    stopped = threading.Event()
    stopped.set()
    asked = time.monotonic()
    shadow.finish(stopped)
    assert time.monotonic() - asked < 0.5, "asked to stop, it does not wait"
    threading.Timer(0.1, model.may.set).start()
    shadow.close()
    assert ledger.shadow_rows([sheet_id(1)]) == []


def test_a_shadow_that_fails_ends_alone(
    ledger: Ledger, sheets: list[tuple[Manifest, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    with shadowing(Failing(), MODEL, "4" * 64, ledger.shadow) as shadow:
        for sheet in sheets:
            shadow.offer(*sheet)
            finish(shadow)
    told = capsys.readouterr()
    assert (told.out + told.err).count("shadow.ended") == 1
    assert ledger.shadow_rows([sheet_id(1)]) == []


def test_a_ledger_that_refuses_its_scores_is_no_fault_of_the_sheet(
    sheets: list[tuple[Manifest, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(rows: Sequence[Row]) -> None:
        raise DatasetError(f"ledger.db: database is locked ({len(rows)} rows)")

    with shadowing(MeanGrey(), MODEL, "4" * 64, refuse) as shadow:
        shadow.offer(*sheets[0])
        finish(shadow)
    told = capsys.readouterr()
    assert "shadow.unrecorded" in told.out + told.err
