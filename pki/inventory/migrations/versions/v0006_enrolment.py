"""Enrolment over EST: accounts, requests that wait for an approval; and which CA signs for a single station."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create both tables, and add the column."""
    op.add_column("station_terms", sa.Column("issue", TEXT, nullable=True))
    op.create_table(
        "est_account",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("labels", TEXT, nullable=False),
        sa.Column("common_names", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=True),
        sa.Column("certificate_sha256", TEXT, nullable=True),
        sa.Column("certificate_der", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_est_account_certificate", "est_account", ["certificate_sha256"])
    op.create_table(
        "est_request",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("account", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("decided_at", TEXT, nullable=True),
        sa.Column("decided_by", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
