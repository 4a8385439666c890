"""Campaigns: one kind of operation for many stations, in waves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "campaign",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("parameters", TEXT, nullable=False),
        sa.Column("pace", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("requester", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("ends_at", TEXT, nullable=False),
        sa.Column("changed_at", TEXT, nullable=False),
        sa.Column("wave", WHOLE, nullable=False),
        sa.Column("wave_began_at", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'stopped', 'cancelling', 'cancelled', 'done')", name="ck_campaign_state"
        ),
    )
    op.create_table(
        "campaign_station",
        sa.Column("campaign", TEXT, nullable=False),
        sa.Column("station", TEXT, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("wave", WHOLE, nullable=False),
        sa.Column("delay_ms", WHOLE, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("round", WHOLE, nullable=False),
        sa.Column("not_before", TEXT, nullable=True),
        sa.Column("began_at", TEXT, nullable=True),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("operation", TEXT, nullable=True),
        sa.Column("outcome", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("campaign", "station"),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'done', 'failed', 'unreached', 'skipped', 'cancelled')",
            name="ck_campaign_station_state",
        ),
        sa.ForeignKeyConstraint(["campaign"], ["campaign.id"], name="fk_campaign_station_campaign"),
        sa.ForeignKeyConstraint(["station"], ["station.id"], name="fk_campaign_station_station"),
        sa.ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_campaign_station_operation"),
    )
    turn = ["campaign", "state", "wave", "delay_ms", "position"]
    op.create_index("ix_campaign_station_turn", "campaign_station", turn)
    op.create_index("ix_campaign_station_position", "campaign_station", ["campaign", "position"], unique=True)
    op.create_index("ix_campaign_station_operation", "campaign_station", ["operation"])
