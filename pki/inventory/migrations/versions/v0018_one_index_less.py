"""Take the small index of what expires from SQLite, which chose it where a larger one holds all that is asked for."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Drop the index there; PostgreSQL, which knows how the values lie, keeps it."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_certificate_issued", table_name="certificate")
