"""Vehicle certificates of ISO 15118-20."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "vehicle_certificate",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("evccid", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("sub_cas", sa.LargeBinary(), nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("not_after", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("added_by", TEXT, nullable=False),
        sa.Column("added_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("state IN ('active', 'removed')", name="ck_vehicle_certificate_state"),
    )
    op.create_index("ix_vehicle_certificate_evccid", "vehicle_certificate", ["evccid"])
