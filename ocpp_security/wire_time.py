"""Instants as OCPP messages carry them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["wire_time"]


def wire_time(moment: datetime) -> str:
    """Return *moment* as OCPP writes it: UTC, milliseconds, ``Z``.

    Raises:
        TypeError: *moment* is naive.

    >>> wire_time(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00.000Z'
    """
    if moment.tzinfo is None:
        raise TypeError("an aware datetime is required")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
