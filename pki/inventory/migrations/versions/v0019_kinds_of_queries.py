"""Saved queries of other kinds than certificates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the column; the queries that there are ask for certificates, which have none."""
    op.add_column("saved_query", sa.Column("kind", TEXT, nullable=True))
