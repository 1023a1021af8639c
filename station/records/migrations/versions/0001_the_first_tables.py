"""The first tables: sheets and shots, shadow scores, reviews, alarms, users, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this schema."""
    op.create_table(
        "alarms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.String(length=60), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("priority", sa.String(length=6), nullable=False),
        sa.Column("sheet", sa.String(length=80)),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.String(length=60)),
        sa.Column("cleared_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("priority IN ('high', 'medium', 'low')", name="ck_alarms_priority"),
        sa.PrimaryKeyConstraint("id", name="pk_alarms"),
    )
    op.create_index("ix_alarms_raised_at", "alarms", ["raised_at"])

    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=60), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("what", sa.String()),
        sa.Column("why", sa.String()),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])

    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sheet", sa.String(length=80), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=60), nullable=False),
        sa.Column("opinion", sa.String(length=20), nullable=False),
        sa.Column("note", sa.String()),
        sa.CheckConstraint(
            "opinion IN ('right', 'false_reject', 'escape', 'unsure')", name="ck_reviews_opinion"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
    )
    op.create_index("ix_reviews_sheet", "reviews", ["sheet"])

    op.create_table(
        "shadow_scores",
        sa.Column("sheet", sa.String(length=80), nullable=False),
        sa.Column("setup", sa.String(length=40), nullable=False),
        sa.Column("shot", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=80), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Float()),
        sa.PrimaryKeyConstraint("sheet", "setup", "shot", "model", name="pk_shadow_scores"),
    )
    op.create_table(
        "sheets",
        sa.Column("sheet", sa.String(length=80), nullable=False),
        sa.Column("station", sa.String(length=40), nullable=False),
        sa.Column("boot", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(length=60), nullable=False),
        sa.Column("recipe", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(length=6), nullable=False),
        sa.Column("outcome", sa.String(length=7)),
        sa.Column("signalled_at", sa.DateTime(timezone=True)),
        sa.Column("score", sa.Float()),
        sa.Column("threshold", sa.Float()),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(length=80)),
        sa.Column("model_sha256", sa.String(length=64)),
        sa.Column("recipe_sha256", sa.String(length=64), nullable=False),
        sa.Column("cell_sha256", sa.String(length=64), nullable=False),
        sa.Column("folder", sa.String(length=250), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("previous", sa.String(length=64)),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("exported", sa.Boolean(), nullable=False),
        sa.Column("thinned", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "outcome <> 'accept' OR verdict = 'accept'", name="ck_sheets_no_accept_unjudged"
        ),
        sa.CheckConstraint(
            "outcome IN ('accept', 'reject', 'none', 'unknown')", name="ck_sheets_outcome"
        ),
        sa.CheckConstraint("verdict IN ('accept', 'reject', 'none')", name="ck_sheets_verdict"),
        sa.PrimaryKeyConstraint("sheet", name="pk_sheets"),
    )
    op.create_index("ix_sheets_recipe_boot_number", "sheets", ["recipe", "boot", "number"])
    op.create_index("ix_sheets_started_at", "sheets", ["started_at"])

    op.create_table(
        "users",
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("password_hash", sa.String(length=300)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "role IN ('viewer', 'operator', 'engineer', 'admin')", name="ck_users_role"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "shots",
        sa.Column("sheet", sa.String(length=80), nullable=False),
        sa.Column("setup", sa.String(length=40), nullable=False),
        sa.Column("shot", sa.Integer(), nullable=False),
        sa.Column("file", sa.String(length=200), nullable=False),
        sa.Column("file_sha256", sa.String(length=64), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Float()),
        sa.Column("problem", sa.String()),
        sa.Column("exposure_us", sa.Float(), nullable=False),
        sa.Column("gain_db", sa.Float(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("x_m", sa.Float(), nullable=False),
        sa.Column("y_m", sa.Float(), nullable=False),
        sa.Column("z_m", sa.Float(), nullable=False),
        sa.Column("rx_rad", sa.Float(), nullable=False),
        sa.Column("ry_rad", sa.Float(), nullable=False),
        sa.Column("rz_rad", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sheet"], ["sheets.sheet"], name="fk_shots_sheets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sheet", "setup", "shot", name="pk_shots"),
    )
