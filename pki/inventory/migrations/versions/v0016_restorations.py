"""Restorations from backups, each with the number above which its CRLs go on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "restoration",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("restored_at", TEXT, nullable=False),
        sa.Column("restored_by", TEXT, nullable=False),
        sa.Column("backup", TEXT, nullable=False),
        sa.Column("backed_up_at", TEXT, nullable=False),
        sa.Column("log_count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("crl_floor", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
