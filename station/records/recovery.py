"""At a start: bring the ledger in line with the records of a recipe, and say what was found."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import structlog

from station.errors import DatasetError
from station.records.dataset import Dataset, after_of, read_record
from station.records.ledger import Ledger, Row, SheetId
from station.records.verify import check_record

NEWEST = 3  # a power cut damages what was written last

log = structlog.get_logger()


def recover(dataset: Dataset, ledger: Ledger, station: str) -> None:
    """Index records without a row, flag rows without a record, close outcomes left open."""
    folders = {folder.name: folder for folder in dataset.folders()}
    stations = {SheetId.of(sheet).station for sheet in folders} | {station}
    rows = {row["sheet"]: row for row in ledger.rows(dataset.root.name, stations=stations)}
    for sheet, folder in folders.items():
        if sheet not in rows:
            _adopt(folder, ledger)
    for sheet in rows.keys() - folders.keys():
        text = f"{rows[sheet]['folder']} is gone; restore it from the backup"
        log.error("ledger.record_missing", sheet=sheet, problem=text)
        ledger.alarm("record_missing", text, sheet)
    for sheet, folder in folders.items():
        if sheet not in rows or rows[sheet]["outcome"] is None:
            _close(folder, dataset, ledger)
    for folder in list(folders.values())[-NEWEST:]:
        _agree(folder, dataset, rows.get(folder.name))
        for problem in check_record(folder).problems:
            log.error("record.damaged", sheet=folder.name, problem=problem)
            ledger.alarm("record_damaged", problem, folder.name)


def _adopt(folder: Path, ledger: Ledger) -> None:
    try:
        record = read_record(folder)
        ledger.record(record.manifest, record.sha256, folder, after_of(record))
    except DatasetError as error:
        log.error("record.damaged", sheet=folder.name, problem=str(error))
        ledger.alarm("record_damaged", str(error), folder.name)
    else:
        log.warning("ledger.row_adopted", sheet=folder.name)


def _agree(folder: Path, dataset: Dataset, row: Row | None) -> None:
    """Bring a row's outcome in line: `capture` notes what was taken back and opens no ledger."""
    with suppress(DatasetError):  # told as damage
        record = read_record(folder)
        told = row["outcome"] if row is not None else None
        if after_of(record).outcome == "none" and told not in (None, "none"):
            dataset.reindex(record)
            log.warning("ledger.outcome_corrected", sheet=folder.name, was=told, outcome="none")


def _close(folder: Path, dataset: Dataset, ledger: Ledger) -> None:
    """Nobody can say any more whether the process that judged this sheet still set the line."""
    try:
        record = read_record(folder)
    except DatasetError:
        return  # told already
    if after_of(record).outcome is not None:
        dataset.reindex(record)
        return
    why = "the process ended before it could say whether the line rose"
    try:
        dataset.note(folder, "signalled", outcome="unknown", why=why)
    except DatasetError as error:  # one record that cannot be written stops no other sheet
        log.error("record.damaged", sheet=folder.name, problem=str(error))
        ledger.alarm("record_damaged", str(error), folder.name)
        return
    log.warning("sheet.outcome_unknown", sheet=folder.name, verdict=record.manifest.verdict)
