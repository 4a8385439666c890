"""Contracts, the vehicles that they are for, and what was provisioned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "role_root",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("use", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("manufacturers", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("added_by", TEXT, nullable=False),
        sa.Column("added_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("state IN ('trusted', 'withdrawn')", name="ck_role_root_state"),
    )
    op.create_table(
        "provisioning_certificate",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("vehicle", TEXT, nullable=False),
        sa.Column("standard", TEXT, nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("sub_cas", sa.LargeBinary(), nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("not_after", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("added_by", TEXT, nullable=False),
        sa.Column("added_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("state IN ('active', 'removed')", name="ck_provisioning_certificate_state"),
    )
    op.create_index("ix_provisioning_certificate_vehicle", "provisioning_certificate", ["vehicle"])
    op.create_table(
        "contract",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("emaid", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("ends_at", TEXT, nullable=True),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("ended_reason", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("state IN ('active', 'ended')", name="ck_contract_state"),
    )
    op.create_table(
        "contract_offer",
        sa.Column("contract", TEXT, nullable=False),
        sa.Column("vehicle", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("priority", WHOLE, nullable=False),
        sa.Column("offered_by", TEXT, nullable=False),
        sa.Column("offered_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("contract", "vehicle"),
        sa.CheckConstraint("state IN ('offered', 'withdrawn')", name="ck_contract_offer_state"),
        sa.ForeignKeyConstraint(["contract"], ["contract.id"], name="fk_contract_offer_contract"),
    )
    op.create_index("ix_contract_offer_vehicle", "contract_offer", ["vehicle"])
    op.create_table(
        "provisioning",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("standard", TEXT, nullable=False),
        sa.Column("contract", TEXT, nullable=False),
        sa.Column("vehicle", TEXT, nullable=True),
        sa.Column("station", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("began_at", TEXT, nullable=False),
        sa.Column("told_at", TEXT, nullable=True),
        sa.Column("round", WHOLE, nullable=False),
        sa.Column("certificate", TEXT, nullable=True),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("state IN ('begun', 'answered', 'void')", name="ck_provisioning_state"),
        sa.ForeignKeyConstraint(["contract"], ["contract.id"], name="fk_provisioning_contract"),
        sa.ForeignKeyConstraint(["certificate"], ["certificate.id"], name="fk_provisioning_certificate"),
    )
    op.create_index("ix_provisioning_request", "provisioning", ["request"])
    op.create_index("ix_provisioning_contract", "provisioning", ["contract"])
    op.create_index("ix_provisioning_certificate", "provisioning", ["certificate"])
