"""Roots: those that we know, those that we installed on stations, and what stations list."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "trust_root",
        _text("id"),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("issuer_der", sa.LargeBinary(), nullable=True),
        *(_text(name) for name in ("subject", "added_by", "added_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "station_root",
        *(_text(name) for name in ("station", "use", "certificate", "state", "operation", "changed_at")),
        sa.CheckConstraint("state IN ('installed', 'deleted')", name="ck_station_root_state"),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_root_station"),
        sa.PrimaryKeyConstraint("station", "use", "certificate"),
    )
    op.create_table(
        "station_root_report",
        *(_text(name) for name in ("station", "use", "listed", "reported_at")),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_station_root_report_station"),
        sa.PrimaryKeyConstraint("station", "use"),
    )
