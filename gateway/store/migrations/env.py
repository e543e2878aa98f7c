"""Alembic's entry: runs migrations on the connection that `engine.migrate` hands over."""

from alembic import context

from gateway.store import webhooks  # noqa: F401 - its tables join the metadata
from gateway.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
