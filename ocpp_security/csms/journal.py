"""What an operator gets to know: one log line with cause and cure, and a security event, never a flood of either."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.ocpp_security.events import SecurityEvent, is_critical
from chargepki.ocpp_security.throttle import RepeatFilter, WindowCounter
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import UnavailableError, printable
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor

__all__ = ["Incident", "SecurityJournal"]

_log = logging.getLogger("chargepki.csms")
_REPEAT_WINDOW = timedelta(minutes=1)
_FLUSH_SECONDS = 2.0
"""How long a repetition waits at most before it is counted in the inventory, with all others of these seconds."""
_MAX_PENDING_WRITES = 256
_MAX_HELD = 4096
"""Series whose repetitions are counted; those of older ones are in the metrics alone."""
_MAX_CLAIMED = 64
"""Characters of a claimed identity that count and are shown; a request line may hold eight thousand."""
_MAX_UNPROVEN_PER_HOST = 60
_MAX_UNPROVEN = 600
"""Incidents within a minute about peers that proved nothing: who makes up identities must not fill log and disk."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something about one peer that security people want to know."""

    code: str
    """Stable short name, for example ``certificate-revoked``; repeats of one code by one peer are held back."""
    cause: str
    cure: str = ""
    event: SecurityEvent | str | None = None
    """Standard event if one fits, else a name of our own; ``None`` is logged only."""
    variant: str = ""
    """Tells incidents of one code apart that are no repetition of each other, from a bounded set (a clause, say)."""
    alert: bool = False
    """Recorded as critical whatever the catalogue says."""


class SecurityJournal:
    """Logs and records incidents; the first of a series at once, then one a minute with the number held back."""

    def __init__(self, inventory: Inventory, offload: Offload, clock: Callable[[], datetime], actor: Actor) -> None:
        self._actor = actor
        self._inventory, self._offload, self._clock = inventory, offload, clock
        self._filter = RepeatFilter(_REPEAT_WINDOW)
        self._per_host = WindowCounter(_REPEAT_WINDOW, _MAX_UNPROVEN_PER_HOST)
        self._unproven = WindowCounter(_REPEAT_WINDOW, _MAX_UNPROVEN)
        self._suppressed = RepeatFilter(_REPEAT_WINDOW)
        self._writes: set[asyncio.Task[None]] = set()
        self._held: dict[tuple[str, str, str], tuple[Incident, str | None, str, int]] = {}
        self._recorded: dict[tuple[str, str, str], str] = {}
        self._flushing: asyncio.TimerHandle | None = None

    def note(self, incident: Incident, *, station: str | None, peer: str, claimed: str = "") -> bool:
        """Log and record *incident*; return False when it was held back as a repetition.

        Args:
            station: identity in the inventory, or ``None`` when the peer proved none.
            claimed: identity that the peer claimed, shown but never stored as if it were proven.
        """
        now = self._clock()
        host = peer.rpartition(":")[0]
        proven = station is not None and not claimed
        claimed = claimed[:_MAX_CLAIMED]
        who = station or (f"{printable(claimed)[:_MAX_CLAIMED]} (claimed)" if claimed else "unknown station")
        # Without the port, which differs each time: the same incident must be the same text.
        tech_info = f"{who} {host}: [{incident.code}] {printable(incident.cause)}"
        key = (f"{incident.code} {incident.variant}", station or claimed, host)
        held_back = self._filter.admit(key, now)
        if held_back is None:
            self._hold(key, incident, station)
            return False
        if not (proven or self._has_room(host, now)):
            self._recorded.pop(key, None)
            return False
        times = self._held.pop(key, (incident, station, tech_info, 0))[3] + 1
        repeats = f" ({held_back} more like it held back)" if held_back else ""
        cure = f"; to fix: {incident.cure}" if incident.cure else ""
        level = logging.ERROR if incident.alert else logging.WARNING
        _log.log(level, "%s from %s: [%s] %s%s%s", who, peer, incident.code, printable(incident.cause), cure, repeats)
        # A flood from many addresses is logged; the database is not where it may pile up, nor may it keep out what is
        # recorded about stations that proved who they are.
        room = _MAX_PENDING_WRITES if proven else _MAX_PENDING_WRITES // 2
        if incident.event is not None and len(self._writes) < room:
            self._record(incident, station, tech_info, now, times)
            self._recorded[key] = tech_info
            if len(self._recorded) > _MAX_HELD:
                self._recorded.pop(next(iter(self._recorded)))
        return True

    def _hold(self, key: tuple[str, str, str], incident: Incident, station: str | None) -> None:
        """Count a repetition, and store the count in a while: a burst that ends must reach the rules about alerts."""
        # Of what found no room the repetitions find none either.
        if incident.event is None or key not in self._recorded:
            return
        times = self._held[key][3] if key in self._held else 0
        # In the words of the first: repetitions are one series, whatever differs in the details.
        self._held[key] = (incident, station, self._recorded[key], times + 1)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        held, self._held = self._held, {}
        now = self._clock()
        for incident, station, tech_info, times in held.values():
            if len(self._writes) < _MAX_PENDING_WRITES:
                self._record(incident, station, tech_info, now, times)

    def _has_room(self, host: str, now: datetime) -> bool:
        """Count an incident about a peer that proved nothing; false when there were too many within a minute."""
        if not (self._per_host.reached(host, now) or self._unproven.reached("all", now)):
            self._per_host.add(host, now)
            self._unproven.add("all", now)
            return True
        where = host if self._per_host.reached(host, now) else "many addresses"
        more = self._suppressed.admit(where, now)
        if more is not None:
            so_far = f" ({more} since the last such line)" if more else ""
            _log.warning("refused peers at %s are no longer reported one by one for a minute%s", where, so_far)
        return False

    def _record(self, incident: Incident, station: str | None, tech_info: str, now: datetime, times: int) -> None:
        event = incident.event
        critical = incident.alert or (isinstance(event, SecurityEvent) and is_critical(OcppVersion.V21, event))
        actor = self._actor

        occurrence = Occurrence(station, "csms", str(event), critical, tech_info, now, now, times)

        def work(tx: Transaction) -> None:
            record_event(tx, occurrence, actor, "security-event.raise")

        task = asyncio.get_running_loop().create_task(self._write(work))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, work: Callable[[Transaction], None]) -> None:
        try:
            await self._offload.run(self._inventory.write, work)
        except UnavailableError as exc:
            _log.error("a security event could not be stored: %s", exc)

    async def drain(self) -> None:
        """Wait until everything noted so far is stored."""
        self._flush()
        while self._writes:
            await asyncio.wait(set(self._writes))
