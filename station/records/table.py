"""The ledger's rows as `station records` and `station export` give them: CSV, Parquet."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sql

from station.errors import ConfigError
from station.records.ledger_schema import UtcTime, sheets, shots

Row = dict[str, Any]


Kind = Literal["sheets", "shots", "shadow"]

BORROWED = ("run", "recipe", "verdict", "outcome", "model", "threshold")  # from the shot's sheet


def columns(kind: Kind) -> list[sql.Column[Any]]:
    """Return the columns of a table; shots carry what is asked of their sheet most."""
    if kind == "sheets":
        return list(sheets.columns)
    of_sheet = [sheets.columns[name] for name in BORROWED]
    if kind == "shots":
        return [*shots.columns, *of_sheet]
    return [
        *(shots.columns[name] for name in ("sheet", "setup", "shot", "score")),
        *of_sheet,
        sql.Column("shadow_score", sql.Float),
        sql.Column("shadow_model", sql.String),
        sql.Column("shadow_sha256", sql.String),
    ]


def of_shots(found: list[Row], of_their_shots: list[Row]) -> list[Row]:
    """Return a row per shot, with its sheet's."""
    by_sheet = {row["sheet"]: row for row in found}
    return [{**by_sheet[shot["sheet"]], **shot} for shot in of_their_shots]


def of_shadow(rows: list[Row], said: list[Row]) -> list[Row]:
    """Return a row per shot and shadow model, beside what was judged by; `rows` are per shot."""
    by_shot = {(row["sheet"], row["setup"], row["shot"]): row for row in rows}
    return [
        {
            **by_shot[key],
            "shadow_score": one["score"],
            "shadow_model": one["model"],
            "shadow_sha256": one["model_sha256"],
        }
        for one in said
        if (key := (one["sheet"], one["setup"], one["shot"])) in by_shot
    ]


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
