"""The ledger's tables, the same in SQLite and PostgreSQL; station/records/migrations/ makes them.

sheets, shots            an index of the manifests: `station verify --rebuild` makes them anew
shadow_scores            scores of a second model, recorded and never judged by
reviews                  what people said of a sheet, beside the verdict and never over it
alarms, users, audit     what the station and its people did
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
)


class UtcTime(TypeDecorator[datetime]):
    """An aware time; SQLite keeps none of the zone, so UTC goes in and UTC comes out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as UTC."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read back as UTC."""
        del dialect
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


POSE = ("x_m", "y_m", "z_m", "rx_rad", "ry_rad", "rz_rad")

sheets = Table(
    "sheets",
    metadata,
    Column("sheet", String(80), primary_key=True),
    Column("station", String(40), nullable=False),
    Column("boot", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("run", String(60), nullable=False),
    Column("recipe", String(40), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime, nullable=False),
    Column("verdict", String(6), nullable=False),
    # What the lines told; empty while it is not known whether they told anything.
    Column("outcome", String(7)),
    Column("signalled_at", UtcTime),
    Column("score", Float),
    Column("threshold", Float),
    Column("complete", Boolean, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("kind", String(10), nullable=False, server_default="inspection"),
    Column("reasons", JSON, nullable=False),
    Column("model", String(80)),
    Column("model_sha256", String(64)),
    Column("recipe_sha256", String(64), nullable=False),
    Column("cell_sha256", String(64), nullable=False),
    Column("folder", String(250), nullable=False),  # relative to the workspace
    Column("manifest_sha256", String(64), nullable=False),
    Column("previous", String(64)),
    Column("bytes", BigInteger, nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("exported", Boolean, nullable=False),
    Column("thinned", Boolean, nullable=False),
    CheckConstraint("verdict IN ('accept', 'reject', 'none')", name="verdict"),
    CheckConstraint("outcome IN ('accept', 'reject', 'none', 'unknown')", name="outcome"),
    # The lines may tell less than the record says, and never more.
    CheckConstraint("outcome <> 'accept' OR verdict = 'accept'", name="no_accept_unjudged"),
    Index(None, "recipe", "boot", "number"),
    Index(None, "started_at"),
)

shots = Table(
    "shots",
    metadata,
    Column("sheet", String(80), ForeignKey("sheets.sheet", ondelete="CASCADE"), primary_key=True),
    Column("setup", String(40), primary_key=True),
    Column("shot", Integer, primary_key=True),
    Column("file", String(200), nullable=False),
    Column("file_sha256", String(64), nullable=False),
    Column("pixels_sha256", String(64), nullable=False),
    Column("score", Float),
    Column("problem", String),
    Column("exposure_us", Float, nullable=False),
    Column("gain_db", Float, nullable=False),
    Column("frame", Integer, nullable=False),
    Column("taken_at", UtcTime, nullable=False),
    *(Column(name, Float, nullable=False) for name in POSE),
)

# These have no foreign key to sheets: what was said of a sheet outlives a rebuilt index.
shadow_scores = Table(
    "shadow_scores",
    metadata,
    Column("sheet", String(80), primary_key=True),
    Column("setup", String(40), primary_key=True),
    Column("shot", Integer, primary_key=True),
    Column("model", String(80), primary_key=True),
    Column("model_sha256", String(64), nullable=False),
    Column("score", Float),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sheet", String(80), nullable=False, index=True),
    Column("at", UtcTime, nullable=False),
    Column("who", String(60), nullable=False),
    Column("opinion", String(20), nullable=False),
    Column("note", String),
    CheckConstraint("opinion IN ('right', 'false_reject', 'escape', 'unsure')", name="opinion"),
)

users = Table(
    "users",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("role", String(10), nullable=False),
    Column("password_hash", String(300)),
    Column("created_at", UtcTime, nullable=False),
    Column("disabled_at", UtcTime),
    CheckConstraint("role IN ('viewer', 'operator', 'engineer', 'admin')", name="role"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("raised_at", UtcTime, nullable=False, index=True),
    Column("code", String(60), nullable=False),
    Column("text", String, nullable=False),
    Column("priority", String(6), nullable=False),
    Column("sheet", String(80)),
    Column("acknowledged_at", UtcTime),
    Column("acknowledged_by", String(60)),
    Column("cleared_at", UtcTime),
    CheckConstraint("priority IN ('high', 'medium', 'low')", name="priority"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("who", String(60), nullable=False),
    Column("action", String(60), nullable=False),
    Column("what", String),
    Column("why", String),
    Column("accepted", Boolean, nullable=False),
)
