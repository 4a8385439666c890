"""Let the index of a profile's pages hold all that asks which of them expire: each row was looked up for it."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Replace the index."""
    op.drop_index("ix_certificate_profile", table_name="certificate")
    op.create_index("ix_certificate_profile", "certificate", ["profile", "id", "not_after", "state"])
