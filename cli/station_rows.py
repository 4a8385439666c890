"""Stations, presence, operations and events as the objects that ``--json`` prints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chargepki.pki.inventory.event_records import EventSeries
from chargepki.pki.inventory.records import OperationRecord, PresenceRecord, StationRecord
from chargepki.pki.inventory.terms_records import StationTermsRecord

__all__ = ["event_row", "operation_row", "station_row"]

_STALE = timedelta(minutes=15)
"""A connection of which nothing was recorded for three heartbeat intervals is gone: its process was killed."""


def station_row(
    station: StationRecord,
    presence: PresenceRecord | None,
    *,
    terms: StationTermsRecord | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Return what is known of a station; never a password hash, only whether there is one.

    It counts as connected only while its CSMS process goes on recording that it is: for 15 minutes after the last word.

    Args:
        terms: its exceptions, where they are to be shown.
        now: the present unless given.
    """
    alive = presence is not None and (now or datetime.now(UTC)) - presence.last_seen_at < _STALE
    connected = presence is not None and presence.connected and alive
    exceptions: dict[str, Any] = {}
    if terms is not None:
        from chargepki.cli.station_terms import deviations

        exceptions["deviations"] = list(deviations(terms))
        exceptions["issue"] = dict(terms.issue) if terms.issue else None
    return {
        "id": station.id,
        "serial_number": station.serial_number,
        "organization": station.organization,
        "security_profile": station.security_profile,
        "state": station.state,
        "has_password": station.password_hash is not None,
        "password_changed_at": station.password_changed_at,
        "created_at": station.created_at,
        "connected": connected,
        "protocol": presence.protocol if presence else None,
        "connected_profile": presence.security_profile if presence and connected else None,
        "certificate": presence.certificate if presence else None,
        "last_seen_at": presence.last_seen_at if presence else None,
        **exceptions,
    }


def operation_row(operation: OperationRecord) -> dict[str, Any]:
    """Return an operation without its sealed part."""
    return {
        "id": operation.id,
        "kind": operation.kind,
        "station": operation.station,
        "state": operation.state,
        "parameters": operation.parameters,
        "requester": operation.requester,
        "created_at": operation.created_at,
        "deadline": operation.deadline,
        "outcome": operation.outcome,
    }


def event_row(series: EventSeries) -> dict[str, Any]:
    """Return a security event with how often it occurred."""
    event = series.event
    return {
        "id": event.id,
        "at": event.at,
        "received_at": event.received_at,
        "station": event.station,
        "source": event.source,
        "type": event.type,
        "critical": event.critical,
        "tech_info": event.tech_info,
        "count": series.count,
        "last_at": series.last_at,
        "last_received_at": series.last_received_at,
    }
