"""Every schema the ledger ever had, as alembic revisions; a released one is never changed."""
