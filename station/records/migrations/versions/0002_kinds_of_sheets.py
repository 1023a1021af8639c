"""What a sheet was judged for: production, a reference check, a repeatability study."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables up to this schema."""
    op.add_column(
        "sheets",
        sa.Column("kind", sa.String(length=10), nullable=False, server_default="inspection"),
    )
