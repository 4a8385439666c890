"""Saved queries, and the index that questions about expiry need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table and the index."""
    op.create_table(
        "saved_query",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("filter", TEXT, nullable=True),
        sa.Column("saved_by", TEXT, nullable=False),
        sa.Column("saved_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_certificate_expiry", "certificate", ["not_after", "state", "profile", "id"])
