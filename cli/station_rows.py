"""Stations, presence, operations and events as the objects that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.event_records import EventSeries
from chargepki.pki.inventory.firmware_records import StationFirmwareRecord
from chargepki.pki.inventory.records import OperationRecord, PresenceRecord, StationRecord
from chargepki.pki.inventory.terms_records import StationTermsRecord

__all__ = ["attempt_rows", "event_row", "operation_row", "station_row", "station_rows"]

_STALE = timedelta(minutes=15)
"""A connection of which nothing was recorded for three heartbeat intervals is gone: its process was killed."""


def station_row(
    station: StationRecord,
    presence: PresenceRecord | None,
    *,
    terms: StationTermsRecord | None = None,
    firmware: StationFirmwareRecord | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Return what is known of a station; never a password hash, only whether there is one.

    It counts as connected only while its CSMS process goes on recording that it is: for 15 minutes after the last word.

    Args:
        terms: its exceptions, where they are to be shown.
        firmware: what it said of itself when it booted.
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
        "vendor": firmware.vendor if firmware else None,
        "model": firmware.model if firmware else None,
        "firmware_version": firmware.version if firmware else None,
        **exceptions,
    }


def station_rows(inventory: Inventory, *, after: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of all stations, or of those behind the identity *after*, by identity."""
    presence = {item.station: item for item in inventory.list_presence()}
    firmware = {item.station: item for item in inventory.list_station_firmware()}
    for item in inventory.list_stations(after=after):
        yield station_row(item, presence.get(item.id), firmware=firmware.get(item.id))


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


def attempt_rows(inventory: Inventory, operation: str) -> list[dict[str, Any]]:
    """Return what was sent for an operation, first to last, and what the station answered."""
    return [
        {
            "number": each.number,
            "action": each.action,
            "sent_at": each.sent_at,
            "answered_at": each.answered_at,
            "answer": each.answer,
        }
        for each in inventory.list_attempts(operation)
    ]


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
