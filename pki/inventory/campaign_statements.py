"""The statements on campaigns, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, bindparam, func, or_, select
from sqlalchemy.sql.base import Executable

__all__ = ["campaign_statements"]


def campaign_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    item, presence, campaign = tables["campaign_station"], tables["presence"], tables["campaign"]
    operation = tables["operation"]
    mine = item.c.campaign == bindparam("campaign")
    page = (
        record("campaign_station")
        .where(mine, item.c.position > bindparam("after"))
        .order_by(item.c.position)
        .limit(bindparam("limit"))
    )
    connected = (
        record("campaign_station")
        .select_from(item.join(presence, presence.c.station == item.c.station))
        .where(
            mine,
            item.c.state == "waiting",
            item.c.wave <= bindparam("wave"),
            presence.c.connected.is_(True),
            presence.c.last_seen_at > bindparam("seen_since"),
        )
        .order_by(item.c.wave, item.c.delay_ms, item.c.position)
        .limit(bindparam("limit"))
    )
    return {
        "campaigns_open": record("campaign")
        .where(campaign.c.state != "cancelled", campaign.c.state != "done")
        .order_by(campaign.c.created_at, campaign.c.id),
        "campaigns_by_age": record("campaign").order_by(campaign.c.created_at, campaign.c.id),
        "campaign_counts": select(item.c.wave, item.c.state, func.count())
        .where(mine)
        .group_by(item.c.wave, item.c.state)
        .order_by(item.c.wave, item.c.state),
        "campaign_stations": page,
        "campaign_stations_in_state": page.where(item.c.state == bindparam("state")),
        "campaign_connected": connected,
        "campaign_turn": connected.where(
            item.c.delay_ms <= bindparam("delay_ms"),
            or_(item.c.not_before.is_(None), item.c.not_before <= bindparam("now")),
        ),
        "campaign_ended": record("campaign_station")
        .select_from(item.join(operation, operation.c.id == item.c.operation))
        .where(mine, item.c.state == "running", operation.c.state != "queued")
        .order_by(item.c.position),
        "campaign_latest": select(func.max(item.c.began_at), func.max(item.c.ended_at)).where(mine),
        "campaign_begun_since": select(func.count()).where(mine, item.c.began_at > bindparam("since")),
        "campaign_ended_since": select(item.c.state, func.count())
        .where(mine, item.c.ended_at > bindparam("since"))
        .group_by(item.c.state)
        .order_by(item.c.state),
        "campaigns_of_station": record("campaign_station")
        .where(item.c.station == bindparam("station"))
        .order_by(item.c.campaign),
    }
