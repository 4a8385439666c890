"""What leaves the inventory about security events beyond the event itself: series, alerts, and requested logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from chargepki.pki.inventory.records import SecurityEventRecord

__all__ = [
    "AlertDeliveryRecord",
    "AlertRecord",
    "AlertState",
    "DeliveryState",
    "EventSeries",
    "EventSeriesRecord",
    "LogRequestState",
    "RequestedLogRecord",
]


@dataclass(frozen=True, slots=True)
class EventSeriesRecord:
    """How often a stored security event has occurred: the first time is the event, the rest is counted here."""

    event: int
    """Number of the security event."""
    count: int
    """All occurrences, the first included."""
    last_at: datetime
    """Time of the last occurrence by the clock of whoever noticed it."""
    last_received_at: datetime
    recent: Mapping[str, int]
    """Occurrences per minute (its start, in seconds since 1970) of the newest minutes."""
    changed: int
    """Grows over all series with every change: the feed of the alerts."""


@dataclass(frozen=True, slots=True)
class EventSeries:
    """A security event with its repetitions."""

    event: SecurityEventRecord
    count: int
    last_at: datetime
    last_received_at: datetime
    recent: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0


class AlertState(StrEnum):
    """Life of an alert."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """One alert: a rule that found its cause."""

    id: str
    rule: str
    scope: str
    """Station that it is about; empty for a rule that counts over all stations."""
    cause: int
    """Change number of the occurrence that made it: an occurrence makes at most one alert of a rule and scope."""
    summary: str
    details: Mapping[str, object]
    """What targets are told; never a secret."""
    state: AlertState
    raised_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    note: str | None = None


class DeliveryState(StrEnum):
    """Life of one delivery of an alert to one target."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up: the target is not configured any more, or refused it for good, or too many attempts failed."""


@dataclass(frozen=True, slots=True)
class AlertDeliveryRecord:
    """One row of the outbox: an alert on its way to a target. Not audited: it changes with every attempt."""

    alert: str
    target: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    """Not to be tried before."""
    done_at: datetime | None = None
    error: str | None = None
    """Why the last attempt failed."""


class LogRequestState(StrEnum):
    """Life of a log that a station was asked for."""

    REQUESTED = "requested"
    """It may be uploaded, once."""
    RECEIVED = "received"
    CLOSED = "closed"
    """Nothing is taken any more: too late, cancelled, or the station could not."""


@dataclass(frozen=True, slots=True)
class RequestedLogRecord:
    """A log that a station was asked for with GetLog, and what came of it."""

    id: str
    """Id of the operation."""
    station: str
    request_id: int
    """``requestId`` of the GetLog and of its status notifications; unique per station."""
    log_type: str
    """``SecurityLog`` or ``DiagnosticsLog``."""
    token_sha256: str
    """Of the secret part of the upload address (lower-case hex)."""
    max_bytes: int
    state: LogRequestState
    created_at: datetime
    expires_at: datetime
    """From when on nothing is taken."""
    filename: str | None = None
    """As the station named it in its answer."""
    status: str | None = None
    """Last LogStatusNotification."""
    status_at: datetime | None = None
    received_at: datetime | None = None
    size: int | None = None
    """In bytes."""
    sha256: str | None = None
    file: str | None = None
    """Name in the folder of received logs."""
