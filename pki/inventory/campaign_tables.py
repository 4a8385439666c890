"""The tables of campaigns."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index
from sqlmodel import SQLModel

from chargepki.pki.inventory.tables import Whole, Words, WordsKey, WordsOrNull

__all__ = ["CampaignRow", "CampaignStationRow"]


class CampaignRow(SQLModel, table=True):
    """One campaign (`CampaignRecord`)."""

    __tablename__ = "campaign"
    __table_args__ = (
        CheckConstraint(
            "state IN ('running', 'paused', 'stopped', 'cancelling', 'cancelled', 'done')", name="ck_campaign_state"
        ),
    )

    id: WordsKey
    kind: Words
    parameters: Words
    pace: Words
    state: Words
    requester: Words
    created_at: Words
    ends_at: Words
    changed_at: Words
    wave: Whole
    wave_began_at: Words
    why: WordsOrNull


class CampaignStationRow(SQLModel, table=True):
    """One station of a campaign (`CampaignStationRecord`)."""

    __tablename__ = "campaign_station"
    __table_args__ = (
        CheckConstraint(
            "state IN ('waiting', 'running', 'done', 'failed', 'unreached', 'skipped', 'cancelled')",
            name="ck_campaign_station_state",
        ),
        ForeignKeyConstraint(["campaign"], ["campaign.id"], name="fk_campaign_station_campaign"),
        ForeignKeyConstraint(["station"], ["station.id"], name="fk_campaign_station_station"),
        ForeignKeyConstraint(["operation"], ["operation.id"], name="fk_campaign_station_operation"),
        Index("ix_campaign_station_turn", "campaign", "state", "wave", "delay_ms", "position"),
        Index("ix_campaign_station_position", "campaign", "position", unique=True),
        Index("ix_campaign_station_operation", "operation"),
    )

    campaign: WordsKey
    station: WordsKey
    position: Whole
    wave: Whole
    delay_ms: Whole
    state: Words
    round: Whole
    not_before: WordsOrNull
    began_at: WordsOrNull
    ended_at: WordsOrNull
    operation: WordsOrNull
    outcome: WordsOrNull
