"""`station records`: the ledger's rows as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any

import sqlalchemy as sql

from station.errors import ConfigError
from station.records.ledger_schema import UtcTime, sheets, shots

Row = dict[str, Any]


def columns(*, of_shots: bool) -> list[sql.Column[Any]]:
    """Return the columns of an export; shots carry what is asked of their sheet most."""
    if not of_shots:
        return list(sheets.columns)
    borrowed = ("run", "recipe", "verdict", "outcome", "model", "threshold")
    return [*shots.columns, *(sheets.columns[name] for name in borrowed)]


def to_csv(rows: list[Row], wanted: list[sql.Column[Any]]) -> bytes:
    """Write rows as CSV, times in ISO 8601."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [column.name for column in wanted]
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return stream.getvalue().encode()


def to_parquet(rows: list[Row], wanted: list[sql.Column[Any]]) -> bytes:
    """Write rows as Parquet; a column has its type even where it holds nothing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError("Parquet needs `pip install station[parquet]`; or take --csv") from error
    types: list[tuple[type[Any], Any]] = [
        (UtcTime, pyarrow.timestamp("us", "UTC")),
        (sql.Boolean, pyarrow.bool_()),
        (sql.Integer, pyarrow.int64()),
        (sql.Float, pyarrow.float64()),
        (sql.JSON, pyarrow.list_(pyarrow.string())),
        (sql.String, pyarrow.string()),
    ]
    schema = pyarrow.schema(
        [
            (column.name, next(arrow for kind, arrow in types if isinstance(column.type, kind)))
            for column in wanted
        ]
    )
    names = [column.name for column in wanted]
    table = pyarrow.Table.from_pylist([{n: row[n] for n in names} for row in rows], schema)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return f"'{value}"  # a spreadsheet would run it as a formula
    return value
