"""The index by which the other certificates of a key are found."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_certificate_key", "certificate", ["spki_sha256", "reserved_at"])
