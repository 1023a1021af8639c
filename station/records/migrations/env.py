"""Runs the migrations over the connection that `station.records.database` hands over."""

from alembic import context

from station.records.ledger_schema import metadata

connection = context.config.attributes["connection"]
# SQLite cannot change a column in place: alembic copies the table instead.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
