"""Indexes for counts of a CA's certificates by state, and for the pages of a rare profile."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create the indexes."""
    op.create_index("ix_certificate_ca_state", "certificate", ["ca", "state"])
    op.create_index("ix_certificate_profile", "certificate", ["profile", "id"])
