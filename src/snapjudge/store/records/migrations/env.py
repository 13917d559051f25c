"""Run by alembic: the steps are taken on the connection that `database` has opened."""

from alembic import context

from snapjudge.store.records.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
