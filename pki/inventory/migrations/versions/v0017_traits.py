"""Keep what very many certificates have in common in a column of their own, and index what expires by the least."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from chargepki.pki.inventory.backfill import add_traits, fill_traits

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Fill the column and make the indexes."""
    connection = op.get_bind()
    add_traits(connection)
    op.drop_index("ix_certificate_expiry", table_name="certificate")
    after = fill_traits(connection)
    while after is not None:
        after = fill_traits(connection, after=after)
    op.create_index("ix_certificate_expiry", "certificate", ["not_after", "state", "profile", "id", "traits"])
    op.create_index(
        "ix_certificate_issued",
        "certificate",
        ["not_after"],
        sqlite_where=sa.text("state = 'issued'"),
        postgresql_where=sa.text("state = 'issued'"),
    )
