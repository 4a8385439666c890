"""Typed reads on security events with their repetitions, on alerts and their outbox, and on requested logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.event_records import (
    AlertDeliveryRecord,
    AlertRecord,
    AlertState,
    EventSeries,
    RequestedLogRecord,
)

__all__ = ["EventReads", "decode_series"]

_EVER = datetime(1, 1, 1, tzinfo=UTC)
_BEYOND = 2**62
_PAGE = 1000


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class EventReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    # -- events -------------------------------------------------------------------------------------------------

    def list_event_series(
        self: _Rows,
        *,
        station: str | None = None,
        type: str | None = None,  # the wire's word for it
        source: str | None = None,
        since: datetime | None = None,
        critical: bool | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> tuple[EventSeries, ...]:
        """Return the newest security events that pass every filter, newest first.

        Args:
            since: received at this instant or later, the last repetition counts.
            before: only numbers below this one (for paging).
        """
        parameters: dict[str, object] = {
            "station": station or "",
            "type": type or "",
            "source": source or "",
            "since": encode_time(since or _EVER),
            "critical": critical if critical is not None else True,
            "or_critical": critical if critical is not None else False,
            "before": _BEYOND if before is None else before,
            "limit": limit,
        }
        return tuple(decode_series(row) for row in self._rows("events_newest", parameters))

    def list_all_events(
        self,
        *,
        station: str | None = None,
        type: str | None = None,  # the wire's word for it
        source: str | None = None,
        since: datetime | None = None,
        critical: bool | None = None,
        before: int | None = None,
    ) -> Iterator[EventSeries]:
        """List the security events that pass every filter, newest first.

        Args:
            before: only numbers below this one (for paging).
        """
        while True:
            page = self.list_event_series(  # type: ignore[misc]  # Reads, which this is mixed into, has _rows
                station=station, type=type, source=source, since=since, critical=critical, before=before, limit=_PAGE
            )
            yield from page
            if len(page) < _PAGE:
                return
            before = page[-1].event.id

    def list_changed_events(self: _Rows, *, after: int, limit: int = 500) -> tuple[EventSeries, ...]:
        """Return the events that occurred, again or for the first time, after change number *after*, in that order."""
        return tuple(decode_series(row) for row in self._rows("events_changed", {"after": after, "limit": limit}))

    def list_recent_events(self: _Rows, *, since: datetime, limit: int = 20_000) -> tuple[EventSeries, ...]:
        """Return the events that occurred last at *since* or later, by number."""
        return tuple(
            decode_series(row) for row in self._rows("events_recent", {"since": encode_time(since), "limit": limit})
        )

    # -- alerts -------------------------------------------------------------------------------------------------

    def find_alert(self: _Rows, alert: str) -> AlertRecord | None:
        """Return an alert by its id."""
        rows = self._rows("alert_get", {"id": alert})
        return codec.ALERT.decode(rows[0]) if rows else None

    def list_alerts(
        self: _Rows,
        *,
        state: AlertState | None = None,
        scope: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> tuple[AlertRecord, ...]:
        """Return the newest alerts that pass every filter, newest first."""
        parameters = {
            "state": state.value if state is not None else "",
            "scope": scope or "",
            "since": encode_time(since or _EVER),
            "limit": limit,
        }
        return tuple(codec.ALERT.decode(row) for row in self._rows("alerts_newest", parameters))

    def last_alert_at(self: _Rows, rule: str, scope: str) -> datetime | None:
        """Return when the newest alert of a rule about a scope was raised."""
        rows = self._rows("alert_latest", {"rule": rule, "scope": scope})
        return codec.decode_time(rows[0][0]) if rows and rows[0][0] is not None else None

    def alert_position(self: _Rows, name: str) -> int | None:
        """Return up to which change the rules of *name* have been applied; ``None`` before the first time."""
        rows = self._rows("alert_cursor_get", {"name": name})
        return int(rows[0][0]) if rows else None

    def last_event_change(self: _Rows) -> int:
        """Return the number of the newest change of any event; 0 before the first."""
        return int(self._rows("event_series_last", {})[0][0] or 0)

    def list_alert_deliveries(self: _Rows, alert: str) -> tuple[AlertDeliveryRecord, ...]:
        """Return the deliveries of an alert by target."""
        return tuple(codec.ALERT_DELIVERY.decode(row) for row in self._rows("alert_deliveries_of", {"alert": alert}))

    def list_due_deliveries(self: _Rows, now: datetime, *, limit: int = 100) -> tuple[AlertDeliveryRecord, ...]:
        """Return pending deliveries that may be tried at *now*, longest waiting first."""
        rows = self._rows("alert_deliveries_due", {"now": encode_time(now), "limit": limit})
        return tuple(codec.ALERT_DELIVERY.decode(row) for row in rows)

    # -- requested logs -----------------------------------------------------------------------------------------

    def find_requested_log(self: _Rows, log: str) -> RequestedLogRecord | None:
        """Return a requested log by its id."""
        rows = self._rows("requested_log_get", {"id": log})
        return codec.REQUESTED_LOG.decode(rows[0]) if rows else None

    def get_requested_log(self, log: str) -> RequestedLogRecord:
        """Return a requested log by its id.

        Raises:
            NotFound: there is none.
        """
        record = self.find_requested_log(log)  # type: ignore[misc]  # Reads, which this is mixed into, has _rows
        if record is None:
            raise NotFound(f"there is no requested log {log}", fix="list them with: chargepki station logs")
        return record

    def find_requested_log_by_token(self: _Rows, token_sha256: str) -> RequestedLogRecord | None:
        """Return the requested log whose upload address has this digest (lower-case hex)."""
        rows = self._rows("requested_log_by_token", {"token_sha256": token_sha256})
        return codec.REQUESTED_LOG.decode(rows[0]) if rows else None

    def find_requested_log_by_request(self: _Rows, station: str, request_id: int) -> RequestedLogRecord | None:
        """Return the log that a station was asked for under *request_id*."""
        rows = self._rows("requested_log_by_request", {"station": station, "request_id": request_id})
        return codec.REQUESTED_LOG.decode(rows[0]) if rows else None

    def list_requested_logs(
        self: _Rows, *, station: str | None = None, limit: int = 100
    ) -> tuple[RequestedLogRecord, ...]:
        """Return requested logs, newest first."""
        rows = self._rows("requested_logs_newest", {"station": station or "", "limit": limit})
        return tuple(codec.REQUESTED_LOG.decode(row) for row in rows)

    def list_open_log_requests(self: _Rows, station: str) -> tuple[RequestedLogRecord, ...]:
        """Return what a station may still upload, oldest request first."""
        rows = self._rows("requested_logs_open_of", {"station": station})
        return tuple(codec.REQUESTED_LOG.decode(row) for row in rows)


def decode_series(row: Sequence[Any]) -> EventSeries:
    """Return the event of a row joined with its series."""
    width = len(codec.SECURITY_EVENT.columns)
    event = codec.SECURITY_EVENT.decode(row[:width])
    count, last_at, last_received_at, recent, changed = row[width:]
    if count is None:  # stored by a release that did not count
        return EventSeries(event, 1, event.at, event.received_at)
    return EventSeries(
        event,
        int(count),
        codec.decode_time(last_at),
        codec.decode_time(last_received_at),
        codec.load_json(recent),
        int(changed),
    )
