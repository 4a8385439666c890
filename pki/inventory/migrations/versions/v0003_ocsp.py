"""OCSP: prepared responses. (Leadership of background work is a row of the lease table.)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table of prepared responses."""
    op.create_table(
        "ocsp_response",
        sa.Column("certificate", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("signer", TEXT, nullable=False),
        sa.Column("this_update", TEXT, nullable=False),
        sa.Column("next_update", TEXT, nullable=False),
        sa.Column("refresh_at", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_ocsp_response_certificate"),
        sa.PrimaryKeyConstraint("certificate", "hash"),
    )
    op.create_index("ix_ocsp_response_signer", "ocsp_response", ["signer"], unique=False)
    op.create_index("ix_ocsp_response_this_update", "ocsp_response", ["this_update"], unique=False)
    op.create_index("ix_ocsp_response_next_update", "ocsp_response", ["next_update"], unique=False)
