"""Security events in the inventory: each once, its repetitions counted, and a flood folded before it fills the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from chargepki.ocpp_security import redact
from chargepki.ocpp_security.events import MAX_TECH_INFO, MAX_TYPE
from chargepki.pki.errors import printable
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import Actor

__all__ = ["FLOOD", "Occurrence", "record_event"]

SERIES_WINDOW = timedelta(hours=1)
"""What says the same within this time after its first occurrence is counted there; then a new event is stored."""
MAX_EVENTS = 500
"""Events that are stored about one station within `SERIES_WINDOW`; what comes beyond is counted by type, and types
beyond by one event of ours. It holds what a station queued in a long time offline."""
FLOOD = "SecurityEventsFlood"
"""Our own event that counts what a station reports beyond all measure."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened, as it is recorded."""

    station: str | None
    """``None``: the peer proved no identity."""
    source: str
    """``station`` or ``csms``: who says so."""
    type: str
    critical: bool
    tech_info: str
    at: datetime
    """By the clock of whoever noticed it."""
    received_at: datetime
    times: int = 1
    """How often, when repetitions were held back."""


def record_event(tx: Transaction, occurrence: Occurrence, actor: Actor, action: str) -> bool:
    """Store *occurrence*, audited, or count it where the same was stored before; say whether it is a new event.

    Neither its type nor its text holds a password in an address, an assignment or a private key afterwards.

    Args:
        action: of the audit entry, ``security-event.report`` or ``security-event.raise``.

    Clause: A04.FR.03 (every notification is taken); A00.FR.316 (a series is one event).
    """
    kind = printable(redact.scrub(occurrence.type, ()))[:MAX_TYPE]
    tech_info = printable(redact.scrub(occurrence.tech_info, ()))[:MAX_TECH_INFO]
    since = occurrence.received_at - SERIES_WINDOW
    same = {"station": occurrence.station, "source": occurrence.source, "type": kind}
    again = tx.find_event_alike(**same, tech_info=tech_info, since=since)  # type: ignore[arg-type]  # all are texts
    critical = occurrence.critical
    if again is None and tx.count_events(station=occurrence.station, since=since) >= MAX_EVENTS:
        again = tx.find_event_of_type(**same, since=since)  # type: ignore[arg-type]  # all are texts
        if again is None:
            same["source"], kind, tech_info = "csms", FLOOD, "more security events than are stored one by one"
            again = tx.find_event_of_type(station=occurrence.station, source="csms", type=FLOOD, since=since)
            critical = True
    if again is not None:
        tx.repeat_security_event(again, at=occurrence.at, received_at=occurrence.received_at, times=occurrence.times)
        return False
    tx.add_security_event(
        station=occurrence.station,
        source=str(same["source"]),
        type=kind,
        critical=critical,
        tech_info=tech_info,
        at=occurrence.at,
        received_at=occurrence.received_at,
        times=occurrence.times,
    )
    subject = occurrence.station or "unknown station"
    tx.audit(actor, action, subject, now=occurrence.received_at, details={"type": kind})
    return True
