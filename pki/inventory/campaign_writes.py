"""Typed writes on campaigns and the stations in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from chargepki.pki.errors import StateError
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationRecord,
    CampaignStationState,
)
from chargepki.pki.inventory.codec import CAMPAIGN, CAMPAIGN_STATION
from chargepki.pki.inventory.writes import Writes

__all__ = ["CampaignChanges", "CampaignStationChanges", "CampaignWrites"]


class CampaignChanges(TypedDict, total=False):
    """Fields of a `CampaignRecord` that may change."""

    pace: Mapping[str, Any]
    state: CampaignState
    ends_at: datetime
    changed_at: datetime
    wave: int
    wave_began_at: datetime
    why: str | None


class CampaignStationChanges(TypedDict, total=False):
    """Fields of a `CampaignStationRecord` that may change."""

    state: CampaignStationState
    round: int
    not_before: datetime | None
    began_at: datetime | None
    ended_at: datetime | None
    operation: str | None
    outcome: Mapping[str, Any] | None


class CampaignWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def add_campaign(self, record: CampaignRecord) -> None:
        """Store a new campaign.

        Raises:
            Conflict: its name is taken.
        """
        self._add(CAMPAIGN, record, "the campaign")

    def add_campaign_station(self, record: CampaignStationRecord) -> None:
        """Store a station of a campaign.

        Raises:
            Conflict: it is part of it already.
        """
        self._add(CAMPAIGN_STATION, record, "the station of the campaign")

    def change_campaign(self, name: str, **changes: Unpack[CampaignChanges]) -> CampaignRecord:
        """Change a campaign and return it.

        Raises:
            NotFound: there is none.
        """
        return self._change(CAMPAIGN, self._stored(CAMPAIGN, "campaign", id=name), changes)

    def change_campaign_station(
        self,
        campaign: str,
        station: str,
        *,
        expected: CampaignStationState,
        **changes: Unpack[CampaignStationChanges],
    ) -> CampaignStationRecord:
        """Change where *station* stands in *campaign* and return it.

        Args:
            expected: the state that it must be in: nothing is done to a station twice.

        Raises:
            NotFound: the station is not part of it.
            StateError: it is in another state.
        """
        before = self._stored(CAMPAIGN_STATION, "campaign with that station", campaign=campaign, station=station)
        state = CAMPAIGN_STATION.decode([before[name] for name in CAMPAIGN_STATION.columns]).state
        if state is not expected:
            raise StateError(f"station {station} is {state.value} in campaign {campaign}, not {expected.value}")
        return self._change(CAMPAIGN_STATION, before, changes)
