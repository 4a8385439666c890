"""Many simulated stations in one process: who they are, how they are doing, and what went wrong at whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chargepki.ocpp_security.station.misbehaviour import HONEST, Conduct
from chargepki.ocpp_security.station.progress import Milestone, Progress
from chargepki.ocpp_security.station.simulator import StationSimulator
from chargepki.pki.errors import ChargePkiError

__all__ = ["FleetMember", "StationFleet", "StationTally"]

_STOP_SECONDS: Final = 20.0
_MADE_AT_ONCE: Final = 2
_DENIED: Final = 3
"""So often in a row the CSMS may answer 401 before that counts as its last word."""
_TROUBLE: Final = frozenset(
    {
        Milestone.CERTIFICATE_REFUSED,
        Milestone.CONTRACT_REFUSED,
        Milestone.CSR_REFUSED,
        Milestone.REFUSED,
        Milestone.UNREACHABLE,
    }
)
"""What is counted as trouble of a station, by its text."""


@dataclass(frozen=True, slots=True)
class FleetMember:
    """One station of a fleet."""

    identity: str
    url: str
    version: str
    enrol: bool = True
    conduct: Conduct = HONEST


@dataclass(slots=True)
class StationTally:
    """How one station is doing."""

    member: FleetMember
    connected: bool = False
    profile: int | None = None
    reached: Counter[Milestone] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    ended: str | None = None
    """Why it stopped before it was told to; ``None`` while it runs."""
    bug: Exception | None = None
    """An error that is ours, which ended it."""
    _denied: int = 0

    def told(self, event: Progress) -> None:
        """Take one thing that happened to it."""
        self.reached[event.milestone] += 1
        if event.milestone is Milestone.CONNECTED:
            self.connected, self.profile, self._denied = True, event.profile, 0
        elif event.milestone is Milestone.DISCONNECTED:
            self.connected = False
            if event.status not in (None, 1000):
                self.troubles[event.text] += 1
        elif event.milestone in _TROUBLE:
            self.troubles[event.text] += 1
            self._denied += event.status == 401

    def is_hopeless(self, event: Progress) -> bool:
        """Say whether waiting mends nothing any more: a request was refused, or the password several times."""
        return event.milestone is Milestone.CSR_REFUSED or self._denied >= _DENIED


class StationFleet:
    """Runs stations beside each other; what happens to one is counted, and ends no other.

    Args:
        members: who they are.
        build: makes the station of a member, which tells its progress to the function and connects through the gate
            that it is given; called in a thread.
        at_once: how many connect at the same time, so that neither side drowns in handshakes.
        progress: called with every event of every station, after it was counted.
    """

    def __init__(
        self,
        members: Sequence[FleetMember],
        build: Callable[[FleetMember, Callable[[Progress], None], asyncio.Semaphore], StationSimulator],
        *,
        at_once: int = 32,
        progress: Callable[[StationTally, Progress], None] | None = None,
    ) -> None:
        self.tallies = [StationTally(member) for member in members]
        self._build, self._at_once, self._progress = build, at_once, progress
        self._goal: Milestone | None = None
        self._settled = asyncio.Event()
        self._open = {member.identity for member in members}

    async def run(self, *, until: Milestone | None = None, stop: asyncio.Event | None = None) -> bool:
        """Run every station; end when *stop* is set, none is left, or each has reached *until* or never will.

        Returns:
            Whether all have reached *until*.
        """
        self._goal = until
        gate, making = asyncio.Semaphore(self._at_once), asyncio.Semaphore(_MADE_AT_ONCE)
        living = [asyncio.create_task(self._live(tally, gate, making)) for tally in self.tallies]
        ends = [asyncio.create_task(self._settled.wait())]
        if stop is not None:
            ends.append(asyncio.create_task(stop.wait()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*ends, *living):
                task.cancel()
            # Everybody says goodbye at once; who gets no answer is left behind.
            await asyncio.wait(living, timeout=_STOP_SECONDS)
        return until is not None and all(tally.reached[until] for tally in self.tallies)

    async def _live(self, tally: StationTally, gate: asyncio.Semaphore, making: asyncio.Semaphore) -> None:
        try:
            async with making:
                station = await asyncio.to_thread(
                    self._build, tally.member, lambda event: self._told(tally, event), gate
                )
            given_up = await station.run(until=lambda event: self._is_over(tally, event))
            tally.ended = None if given_up is None else given_up.text
        except ChargePkiError as exc:
            tally.ended = str(exc)
        except Exception as exc:  # noqa: BLE001 (a bug at one station is kept for the end, and must not end the others)
            tally.ended, tally.bug = type(exc).__name__, exc
        finally:
            tally.connected = False
        self._settle(tally)

    def _told(self, tally: StationTally, event: Progress) -> None:
        tally.told(event)
        if self._progress is not None:
            self._progress(tally, event)
        if event.milestone is self._goal:
            self._settle(tally)

    def _is_over(self, tally: StationTally, event: Progress) -> bool:
        return self._goal is not None and not tally.reached[self._goal] and tally.is_hopeless(event)

    def _settle(self, tally: StationTally) -> None:
        """Note that this station has reached what is waited for, or has ended."""
        self._open.discard(tally.member.identity)
        if not self._open:
            self._settled.set()

    @property
    def totals(self) -> dict[str, int]:
        """How many there are, are connected, have booted, have a certificate, have ended."""
        return {
            "stations": len(self.tallies),
            "connected": sum(tally.connected for tally in self.tallies),
            "booted": sum(bool(tally.reached[Milestone.BOOTED]) for tally in self.tallies),
            "certified": sum(bool(tally.reached[Milestone.CERTIFICATE_INSTALLED]) for tally in self.tallies),
            "ended": sum(tally.ended is not None for tally in self.tallies),
        }
