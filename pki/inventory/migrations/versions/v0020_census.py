"""Let the index that a census is taken from hold requester and time of issue on SQLite: it read every certificate."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the larger index first: without either, a census that runs meanwhile would read the whole table."""
    if op.get_bind().dialect.name == "sqlite":
        columns = ["not_after", "state", "profile", "id", "traits", "requester", "issued_at"]
        op.create_index("ix_certificate_census", "certificate", columns)
        op.drop_index("ix_certificate_expiry", table_name="certificate")
