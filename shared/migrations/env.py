"""Runs a service's migrations over the connection that `shared.sql` opened."""

from alembic import context

context.configure(**context.config.attributes)
with context.begin_transaction():
    context.run_migrations()
