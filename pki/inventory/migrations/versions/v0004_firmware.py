"""Firmware: releases, approvals and what stations run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# A migration states its types itself: it must do the same for ever, whatever the model becomes.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=nullable)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "firmware_release",
        *(_text(name) for name in ("id", "vendor", "model", "hardware", "version")),
        sa.Column("size", WHOLE, nullable=False),
        *(_text(name) for name in ("sha256", "signature", "certificate_pem")),
        sa.Column("root_der", sa.LargeBinary(), nullable=False),
        _text("quirks"),
        _text("location", nullable=True),
        *(_text(name) for name in ("notes", "state", "added_by", "added_at")),
        *(_text(name, nullable=True) for name in ("withdrawn_at", "withdrawn_reason")),
        sa.CheckConstraint("state IN ('proposed', 'approved', 'withdrawn')", name="ck_firmware_release_state"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "firmware_approver",
        _text("id"),
        sa.Column("spki", sa.LargeBinary(), nullable=False),
        _text("spki_sha256"),
        sa.Column("active", sa.Boolean(), nullable=False),
        _text("registered_by"),
        _text("registered_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "firmware_approval",
        _text("release"),
        _text("approver"),
        _text("digest"),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        _text("at"),
        sa.ForeignKeyConstraint(["release"], ["firmware_release.id"], name="fk_firmware_approval_release"),
        sa.ForeignKeyConstraint(["approver"], ["firmware_approver.id"], name="fk_firmware_approval_approver"),
        sa.PrimaryKeyConstraint("release", "approver"),
    )
    op.create_table(
        "station_firmware",
        *(_text(name) for name in ("station", "vendor", "model", "version", "reported_at")),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_firmware_station"),
        sa.PrimaryKeyConstraint("station"),
    )
    op.create_table(
        "firmware_status",
        _text("operation"),
        sa.Column("number", WHOLE, nullable=False),
        *(_text(name) for name in ("status", "at")),
        sa.ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_firmware_status_operation"),
        sa.PrimaryKeyConstraint("operation", "number"),
    )
