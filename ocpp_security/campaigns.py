"""Campaigns: one operation for many stations, in waves; the pure plan and the step function that says what to do next.

How to add a kind of campaign: write a `campaign_kinds.CampaignKind` for a kind of operation (which stations it suits,
what each operation's parameters are, what proves that it worked) and register it in `campaign_kinds.KINDS`. Nothing
here, in `campaign_store` or in the command line knows one kind from another.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.campaign_records import (
    CampaignRecord,
    CampaignState,
    CampaignStationRecord,
    CampaignStationState,
)

__all__ = [
    "Begin",
    "CampaignStep",
    "CampaignView",
    "Complete",
    "GiveUp",
    "OpenWave",
    "Pace",
    "Settle",
    "Settlement",
    "Stop",
    "Withdraw",
    "check_campaign_name",
    "next_campaign_steps",
    "operation_id_of",
    "plan_stations",
]

BATCH: Final = 100
"""Stations that are begun or given up in one transaction at most."""
_BURST_SECONDS: Final = 2.0
"""How much of the rate may be caught up at once after the leader was busy or has changed."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a campaign goes, and when it stops by itself.

    Raises:
        InputError: a value that makes no sense.
    """

    per_minute: int | None = None
    """Stations begun within any minute at most; ``None`` for no limit."""
    max_in_flight: int = 50
    """Stations that are worked on at the same time at most."""
    jitter_seconds: int = 0
    """Each station's turn comes at a random instant of this time from the beginning of its wave on."""
    waves: tuple[int, ...] = ()
    """Sizes of the first waves; all other stations are one more wave."""
    between_waves_seconds: int = 0
    """How long a wave is observed after its last station before the next one is opened."""
    stop_percent: int | None = 20
    """Share of failures among the stations that succeeded or failed, since the campaign was last begun or resumed, at
    which nothing more begins; ``None``: never."""
    stop_after: int = 5
    """Number of such stations from which on the share counts."""
    deadline_seconds: int = 3600
    """Time that each operation has from its beginning on."""

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, int | None, int, int], ...] = (
            ("the rate", self.per_minute, 1, 100_000),
            ("the number in flight", self.max_in_flight, 1, 100_000),
            ("the jitter in seconds", self.jitter_seconds, 0, 30 * 86_400),
            ("the time between waves in seconds", self.between_waves_seconds, 0, 365 * 86_400),
            ("the share of failures in percent", self.stop_percent, 1, 100),
            ("the number before the share of failures counts", self.stop_after, 1, 1_000_000),
            ("the deadline in seconds", self.deadline_seconds, 1, 365 * 86_400),
            *(("the size of a wave", size, 1, 10_000_000) for size in self.waves),
        )
        for what, value, least, most in bounds:
            if value is not None and not least <= value <= most:
                raise InputError(f"{what} is {value}", why=f"it must lie between {least} and {most}")

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {**asdict(self), "waves": list(self.waves)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Pace:
        """Read what `to_json` made."""
        return cls(**{**stored, "waves": tuple(stored["waves"])})


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the operation of a station ended, as its kind of campaign judges it."""

    state: CampaignStationState
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CampaignView:
    """Everything that the next steps depend on."""

    campaign: CampaignRecord
    pace: Pace
    counts: Mapping[int, Mapping[CampaignStationState, int]]
    """Stations by wave and state."""
    judged: Mapping[CampaignStationState, int] = field(default_factory=dict)
    """Stations by state that ended since the campaign was begun, resumed or tried again: what happened before that has
    been looked at by whoever let it go on."""
    ended: Sequence[tuple[CampaignStationRecord, Settlement]] = ()
    """Running stations whose operation has been settled."""
    turn: Sequence[CampaignStationRecord] = ()
    """Connected stations whose turn has come, the first ones first."""
    has_connected: bool = False
    """Whether a connected station of the open waves still waits, be its turn now or later."""
    last_began_at: datetime | None = None
    last_ended_at: datetime | None = None
    begun_last_minute: int = 0
    waiting: Sequence[CampaignStationRecord] = ()
    """Some of those that wait, connected or not; needed when they are to be given up."""
    unsent: Sequence[CampaignStationRecord] = field(default=())
    """Running stations to which nothing was sent yet; needed when the campaign is cancelled."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Look at the preconditions of these stations, and create the operation of each that meets them."""

    stations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Record how the operation of a station ended."""

    station: str
    settlement: Settlement


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the wait of these stations."""

    stations: tuple[str, ...]
    state: CampaignStationState
    """UNREACHED or CANCELLED."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """End the operations of these stations, if nothing was sent and nobody is about to."""

    stations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenWave:
    """Let the stations of the next wave begin too."""

    wave: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Begin nothing more until a person has looked."""

    why: str


@dataclass(frozen=True, slots=True)
class Complete:
    """End the campaign."""

    state: CampaignState


CampaignStep = Begin | Settle | GiveUp | Withdraw | OpenWave | Stop | Complete


def next_campaign_steps(view: CampaignView, now: datetime) -> tuple[CampaignStep, ...]:
    """Say what to do now, in this order; empty when there is nothing to do.

    Pure: whoever leads goes on where the last leader stopped, from what is on record alone.

    Raises:
        TypeError: *now* is naive.
    """
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
    settled: tuple[CampaignStep, ...] = tuple(Settle(record.station, how) for record, how in view.ended)
    if settled:
        # What they say about failures must count before anything else is begun.
        return settled
    waiting = _count(view, CampaignStationState.WAITING)
    running = _count(view, CampaignStationState.RUNNING)
    match view.campaign.state:
        case CampaignState.CANCELLING:
            return _cancel(view, waiting, running)
        case CampaignState.RUNNING:
            return _go_on(view, waiting, running, now)
        case _:
            return ()


def _count(view: CampaignView, state: CampaignStationState, *, up_to: int | None = None) -> int:
    return sum(states.get(state, 0) for wave, states in view.counts.items() if up_to is None or wave <= up_to)


def _cancel(view: CampaignView, waiting: int, running: int) -> tuple[CampaignStep, ...]:
    if not waiting and not running:
        return (Complete(CampaignState.CANCELLED),)
    steps: list[CampaignStep] = []
    if view.waiting:
        steps.append(GiveUp(tuple(item.station for item in view.waiting), CampaignStationState.CANCELLED))
    if view.unsent:
        steps.append(Withdraw(tuple(item.station for item in view.unsent)))
    return tuple(steps)


def _go_on(view: CampaignView, waiting: int, running: int, now: datetime) -> tuple[CampaignStep, ...]:
    if not waiting and not running:
        return (Complete(CampaignState.DONE),)
    if now >= view.campaign.ends_at:
        if view.waiting:
            return (GiveUp(tuple(item.station for item in view.waiting), CampaignStationState.UNREACHED),)
        return ()
    why = _stop_condition(view)
    if why is not None and waiting:
        return (Stop(why),)
    wave = _next_wave(view, now)
    if wave is not None:
        return (OpenWave(wave),)
    room = min(view.pace.max_in_flight - running, _allowance(view, now), BATCH)
    chosen = tuple(item.station for item in view.turn[: max(0, room)])
    return (Begin(chosen),) if chosen else ()


def _stop_condition(view: CampaignView) -> str | None:
    """Return why the campaign stops by itself, if it does."""
    failed = view.judged.get(CampaignStationState.FAILED, 0)
    judged = failed + view.judged.get(CampaignStationState.DONE, 0)
    share = view.pace.stop_percent
    if share is None or not failed or judged < view.pace.stop_after or failed * 100 < share * judged:
        return None
    return f"{failed} of {judged} stations failed, which reaches {share} %"


def _next_wave(view: CampaignView, now: datetime) -> int | None:
    """Return the wave to open: the one before is over when nobody runs, and those who wait are not connected.

    One of its stations must have been asked, though: a wave whose stations are all offline has shown nothing yet.
    """
    current = view.campaign.wave
    later = sorted(
        wave for wave, states in view.counts.items() if wave > current and states.get(CampaignStationState.WAITING, 0)
    )
    if not later or view.has_connected or _count(view, CampaignStationState.RUNNING, up_to=current):
        return None
    states = view.counts.get(current, {})
    was_asked = any(states.get(state, 0) for state in (CampaignStationState.DONE, CampaignStationState.FAILED))
    if not was_asked and states.get(CampaignStationState.WAITING, 0):
        return None
    since = max(filter(None, (view.last_ended_at, view.campaign.wave_began_at)))
    if now < since + timedelta(seconds=view.pace.between_waves_seconds):
        return None
    return later[0]


def _allowance(view: CampaignView, now: datetime) -> int:
    """Return how many stations the rate lets begin now."""
    rate = view.pace.per_minute
    if rate is None:
        return BATCH
    left = rate - view.begun_last_minute
    if view.last_began_at is None:
        return min(1, left)
    spacing = _MINUTE.total_seconds() / rate
    elapsed = (now - view.last_began_at).total_seconds()
    return min(left, math.floor(elapsed / spacing), max(1, math.ceil(_BURST_SECONDS / spacing)))


def check_campaign_name(name: str) -> None:
    """Refuse a name that commands and logs could not carry.

    Raises:
        InputError: it is none.
    """
    if not _NAME.match(name):
        raise InputError(
            f"{printable(name)[:80]!r} is no name of a campaign",
            why="it has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit",
        )


def plan_stations(
    campaign: str, stations: Sequence[str], pace: Pace, draw: Callable[[], float]
) -> tuple[CampaignStationRecord, ...]:
    """Return the stations of a new campaign, each with its wave and the instant of its turn in it.

    Args:
        stations: in the order in which their turns come where there is no jitter; each once.
        draw: gives random numbers in [0, 1).

    Raises:
        InputError: no station, or one of them twice.
    """
    if not stations:
        raise InputError("the campaign has no station", fix="choose stations: --station, --stations-file or --all")
    twice = (
        sorted({item for item in stations if stations.count(item) > 1}) if len(set(stations)) < len(stations) else []
    )
    if twice:
        raise InputError(f"station {twice[0]} is chosen twice")
    ends, total = [], 0
    for size in pace.waves:
        total += size
        ends.append(total)
    return tuple(
        CampaignStationRecord(
            campaign=campaign,
            station=station,
            position=position,
            wave=1 + sum(position > end for end in ends),
            delay_ms=math.floor(draw() * pace.jitter_seconds * 1000),
            state=CampaignStationState.WAITING,
            round=1,
        )
        for position, station in enumerate(stations, start=1)
    )


def operation_id_of(record: CampaignStationRecord) -> str:
    """Return the id of the operation that this round of the station has: there can be no second one.

    >>> from chargepki.pki.inventory.campaign_records import CampaignStationState as S
    >>> operation_id_of(CampaignStationRecord("roll", "CS-1", 1, 1, 0, S.WAITING, 1))
    'op-001dba4034c4b1e3'
    """
    name = f"{record.campaign}\n{record.station}\n{record.round}"
    return f"op-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
