"""Revocation at scale: list shards, deltas, holds and invalidity dates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables of the lists, and give certificates and CAs the columns that choose between them."""
    for table, column in (
        ("ca", sa.Column("crl_shard_size", WHOLE, nullable=True)),
        ("ca", sa.Column("crl_delta_hours", WHOLE, nullable=True)),
        ("certificate", sa.Column("shard", WHOLE, nullable=True)),
        ("certificate", sa.Column("invalidity_date", TEXT, nullable=True)),
        ("crl", sa.Column("shard", WHOLE, nullable=True)),
        ("crl", sa.Column("changes", WHOLE, nullable=True)),
    ):
        op.add_column(table, column)
    op.create_index(
        "ix_certificate_shard",
        "certificate",
        ["ca", "shard"],
        sqlite_where=sa.text("shard IS NOT NULL"),
        postgresql_where=sa.text("shard IS NOT NULL"),
    )
    op.create_index("ix_crl_scope", "crl", ["ca", "shard", "number", "this_update", "next_update", "changes", "sha256"])
    op.create_table(
        "crl_delta",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("base", WHOLE, nullable=False),
        sa.Column("this_update", TEXT, nullable=False),
        sa.Column("next_update", TEXT, nullable=False),
        sa.Column("entries", WHOLE, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("changes", WHOLE, nullable=False),
        sa.UniqueConstraint("ca", "number", name="uq_crl_delta_number"),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_delta_ca"),
    )
    op.create_table(
        "crl_shard",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("base_url", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("opened_at", TEXT, nullable=False),
        sa.UniqueConstraint("ca", "number", name="uq_crl_shard_number"),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_shard_ca"),
    )
    op.create_table(
        "crl_segment",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("shard", WHOLE, nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("count", WHOLE, nullable=False),
        sa.Column("newest", TEXT, nullable=True),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("ca", "shard", "number", name="uq_crl_segment_number"),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_crl_segment_ca"),
    )
    op.create_table(
        "revocation_change",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("ca", TEXT, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("shard", WHOLE, nullable=False),
        sa.Column("certificate", TEXT, nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("ca", "seq", name="uq_revocation_change_seq"),
        sa.ForeignKeyConstraint(["ca"], ["ca.id"], name="fk_revocation_change_ca"),
    )
    op.create_index("ix_revocation_change_shard", "revocation_change", ["ca", "shard", "seq"])
