"""Campaigns: one kind of operation for many stations, and where each of the stations stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["CampaignRecord", "CampaignState", "CampaignStationRecord", "CampaignStationState"]


class CampaignState(StrEnum):
    """Life of a campaign."""

    RUNNING = "running"
    PAUSED = "paused"
    """By a person; nothing new begins, what has begun goes on."""
    STOPPED = "stopped"
    """By its own stop condition; otherwise like `PAUSED`."""
    CANCELLING = "cancelling"
    """What has not begun is withdrawn; what was sent already is waited for."""
    CANCELLED = "cancelled"
    DONE = "done"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen, unless stations are tried again."""
        return self in (CampaignState.CANCELLED, CampaignState.DONE)


class CampaignStationState(StrEnum):
    """Where a station stands in a campaign."""

    WAITING = "waiting"
    RUNNING = "running"
    """Its operation exists."""
    DONE = "done"
    FAILED = "failed"
    UNREACHED = "unreached"
    """It was never asked: it did not connect in time."""
    SKIPPED = "skipped"
    """A precondition is not met, and waiting would not help."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the campaign is done with the station."""
        return self not in (CampaignStationState.WAITING, CampaignStationState.RUNNING)


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """One campaign."""

    id: str
    """Its name."""
    kind: str
    """Kind of the operations, for example ``trigger-renewal``."""
    parameters: Mapping[str, Any]
    """What all stations have in common; never a secret."""
    pace: Mapping[str, Any]
    """Rate, waves, stop condition …, as `campaigns.Pace` writes them."""
    state: CampaignState
    requester: str
    created_at: datetime
    ends_at: datetime
    """What has not begun by then is given up."""
    changed_at: datetime
    """When `state` last changed."""
    wave: int
    """The wave that is open, from 1 on; those before it are open too, for stations that come late."""
    wave_began_at: datetime
    why: str | None = None
    """Why it was stopped, paused or cancelled."""


@dataclass(frozen=True, slots=True)
class CampaignStationRecord:
    """One station of a campaign."""

    campaign: str
    station: str
    position: int
    """From 1 on, in the order of the selection."""
    wave: int
    delay_ms: int
    """How long after the beginning of its wave its turn comes, in milliseconds: the jitter."""
    state: CampaignStationState
    round: int
    """1, and one more each time that it is tried again."""
    not_before: datetime | None = None
    """When a precondition is looked at again."""
    began_at: datetime | None = None
    ended_at: datetime | None = None
    operation: str | None = None
    """Id of the operation of this round."""
    outcome: Mapping[str, Any] | None = None
    """How it ended, or what it waits for."""
