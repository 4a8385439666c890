"""Alembic's entry point: migrate over the connection that `migrate` hands in, inside its transaction."""

from __future__ import annotations

from alembic import context

# The model is needed by a developer's comparison only, which hands it in; loading it here would double the time that
# the first command on a new machine takes.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("target_metadata"),
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
