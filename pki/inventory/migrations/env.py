"""Alembic's entry point: migrate over the connection that `migrate` hands in, inside its transaction."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from chargepki.pki.inventory import tables

assert tables.CaRow.metadata is SQLModel.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
