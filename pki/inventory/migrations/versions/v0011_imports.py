"""Imported certificates: how they came here, and where they were found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "import_run",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("command", TEXT, nullable=False),
        sa.Column("imported_by", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "provenance",
        sa.Column("certificate", TEXT, nullable=False),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("file_sha256", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("certificate", "place"),
        sa.ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_provenance_certificate"),
        sa.ForeignKeyConstraint(["run"], ["import_run.id"], name="fk_provenance_run"),
    )
