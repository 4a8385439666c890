"""Typed reads of campaigns and of the stations in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignStationRecord,
    CampaignStationState,
)
from chargepki.pki.inventory.codec import CAMPAIGN, CAMPAIGN_STATION, decode_time, encode_time

__all__ = ["CampaignReads"]

_PAGE = 500


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class CampaignReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_campaign(self: _Rows, name: str) -> CampaignRecord | None:
        """Return a campaign, or ``None``."""
        rows = self._rows("campaign_get", {"id": name})
        return CAMPAIGN.decode(rows[0]) if rows else None

    def get_campaign(self: _Rows, name: str) -> CampaignRecord:
        """Return a campaign.

        Raises:
            NotFound: there is none.
        """
        rows = self._rows("campaign_get", {"id": name})
        if not rows:
            raise NotFound(f"there is no campaign {name}", fix="list them with: chargepki campaign list")
        return CAMPAIGN.decode(rows[0])

    def list_campaigns(self: _Rows, *, open_only: bool = False) -> tuple[CampaignRecord, ...]:
        """Return campaigns, oldest first; *open_only* leaves out those in which nothing more happens."""
        rows = self._rows("campaigns_open" if open_only else "campaigns_by_age", {})
        return tuple(map(CAMPAIGN.decode, rows))

    def count_campaign_stations(self: _Rows, campaign: str) -> dict[int, dict[CampaignStationState, int]]:
        """Return how many stations of each wave are in each state."""
        found: dict[int, dict[CampaignStationState, int]] = {}
        for wave, state, count in self._rows("campaign_counts", {"campaign": campaign}):
            found.setdefault(int(wave), {})[CampaignStationState(state)] = int(count)
        return found

    def find_campaign_station(self: _Rows, campaign: str, station: str) -> CampaignStationRecord | None:
        """Return where *station* stands in *campaign*, or ``None`` when it is not part of it."""
        rows = self._rows("campaign_station_get", {"campaign": campaign, "station": station})
        return CAMPAIGN_STATION.decode(rows[0]) if rows else None

    def list_campaign_stations(
        self: _Rows, campaign: str, *, state: CampaignStationState | None = None, limit: int | None = None
    ) -> Iterator[CampaignStationRecord]:
        """Return the stations of a campaign in the order of the selection, optionally those of one state."""
        after, left = 0, limit
        name = "campaign_stations" if state is None else "campaign_stations_in_state"
        given: dict[str, object] = {"campaign": campaign} if state is None else {"campaign": campaign, "state": state}
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            rows = self._rows(name, {**given, "after": after, "limit": size})
            for row in rows:
                record = CAMPAIGN_STATION.decode(row)
                after = record.position
                yield record
            if len(rows) < size:
                return
            left = None if left is None else left - len(rows)

    def list_campaign_turn(
        self: _Rows, campaign: CampaignRecord, *, now: datetime, seen_since: datetime, limit: int
    ) -> tuple[CampaignStationRecord, ...]:
        """Return the connected stations whose turn has come, the first ones first.

        Args:
            seen_since: a connection of which nothing was recorded since then is taken for gone.
        """
        elapsed = max(0, int((now - campaign.wave_began_at).total_seconds() * 1000))
        rows = self._rows(
            "campaign_turn",
            {
                "campaign": campaign.id,
                "wave": campaign.wave,
                "delay_ms": elapsed,
                "now": encode_time(now),
                "seen_since": encode_time(seen_since),
                "limit": limit,
            },
        )
        return tuple(map(CAMPAIGN_STATION.decode, rows))

    def list_campaign_ended(self: _Rows, campaign: str) -> tuple[CampaignStationRecord, ...]:
        """Return the running stations whose operation has ended."""
        return tuple(map(CAMPAIGN_STATION.decode, self._rows("campaign_ended", {"campaign": campaign})))

    def has_campaign_connected(self: _Rows, campaign: CampaignRecord, *, seen_since: datetime) -> bool:
        """Say whether a station of the open waves is connected and still waits, whether or not its turn has come."""
        parameters: dict[str, object] = {"campaign": campaign.id, "wave": campaign.wave, "limit": 1}
        return bool(self._rows("campaign_connected", {**parameters, "seen_since": encode_time(seen_since)}))

    def latest_in_campaign(self: _Rows, campaign: str) -> tuple[datetime | None, datetime | None]:
        """Return when the last station began, and when the last one ended."""
        began, ended = self._rows("campaign_latest", {"campaign": campaign})[0]
        return (None if began is None else decode_time(began), None if ended is None else decode_time(ended))

    def count_campaign_begun(self: _Rows, campaign: str, since: datetime) -> int:
        """Count the stations that began after *since*."""
        rows = self._rows("campaign_begun_since", {"campaign": campaign, "since": encode_time(since)})
        return int(rows[0][0])

    def count_campaign_ended(self: _Rows, campaign: str, since: datetime) -> dict[CampaignStationState, int]:
        """Return how many stations ended in each state after *since*."""
        rows = self._rows("campaign_ended_since", {"campaign": campaign, "since": encode_time(since)})
        return {CampaignStationState(state): int(count) for state, count in rows}

    def list_campaigns_of_station(self: _Rows, station: str) -> tuple[CampaignStationRecord, ...]:
        """Return where *station* stands in each campaign that it is part of."""
        return tuple(map(CAMPAIGN_STATION.decode, self._rows("campaigns_of_station", {"station": station})))
