"""Typed writes on security events and their repetitions, on alerts and their outbox, and on requested logs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from chargepki.pki.errors import Conflict, printable
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.event_records import (
    AlertDeliveryRecord,
    AlertRecord,
    AlertState,
    DeliveryState,
    EventSeries,
    EventSeriesRecord,
    LogRequestState,
    RequestedLogRecord,
)
from chargepki.pki.inventory.reads_events import decode_series
from chargepki.pki.inventory.records import SecurityEventRecord
from chargepki.pki.inventory.writes import Writes

__all__ = ["EventWrites", "LogChanges"]

_MINUTES_KEPT = 64


class LogChanges(TypedDict, total=False):
    """Fields of a `RequestedLogRecord` that may change."""

    state: LogRequestState
    filename: str | None
    status: str | None
    status_at: datetime | None
    received_at: datetime | None
    size: int | None
    sha256: str | None
    file: str | None


class EventWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    # -- events -------------------------------------------------------------------------------------------------

    def add_security_event(
        self,
        *,
        station: str | None,
        source: str,
        type: str,  # the wire's word for it
        critical: bool,
        tech_info: str,
        at: datetime,
        received_at: datetime,
        times: int = 1,
    ) -> SecurityEventRecord:
        """Store a security event and return it with its number.

        Args:
            source: ``station`` or ``csms``.
            tech_info: the station's text; control characters are escaped, so that no event is lost to them.
            times: how often it has occurred already.
        """
        rows = self._rows("security_event_last", {})
        record = SecurityEventRecord(
            id=int(rows[0][0] or 0) + 1,
            station=station,
            source=source,
            type=printable(type),
            critical=critical,
            tech_info=printable(tech_info),
            at=at,
            received_at=received_at,
        )
        self._add(codec.SECURITY_EVENT, record, "the security event")
        self._put_series(EventSeries(record, 0, at, received_at), at, received_at, times)
        return record

    def repeat_security_event(
        self, series: EventSeries, *, at: datetime, received_at: datetime, times: int = 1
    ) -> None:
        """Count that a stored event has occurred again; not audited, as its first occurrence is."""
        self._put_series(series, at, received_at, times)

    def find_event_alike(
        self, *, station: str | None, source: str, type: str, tech_info: str, since: datetime
    ) -> EventSeries | None:
        """Return the newest event that says the same and was recorded at *since* or later."""
        parameters = {"source": source, "type": printable(type), "tech_info": printable(tech_info)}
        return self._newest_event("event_alike", station, since, parameters)

    def find_event_of_type(self, *, station: str | None, source: str, type: str, since: datetime) -> EventSeries | None:
        """Return the newest event of a type, whatever else it says, that was recorded at *since* or later."""
        return self._newest_event("event_of_type", station, since, {"source": source, "type": printable(type)})

    def count_events(self, *, station: str | None, since: datetime) -> int:
        """Count the events about a station (or about nobody known) that were recorded at *since* or later."""
        name, parameters = _about("event_room", station, {"since": encode_time(since)})
        return int(self._rows(name, parameters)[0][0])

    def _newest_event(
        self, name: str, station: str | None, since: datetime, parameters: Mapping[str, object]
    ) -> EventSeries | None:
        rows = self._rows(*_about(name, station, {**parameters, "since": encode_time(since)}))
        return decode_series(rows[0]) if rows else None

    def _put_series(self, series: EventSeries, at: datetime, received_at: datetime, times: int) -> None:
        minute = str(int(received_at.timestamp()) // 60 * 60)
        recent = {**series.recent, minute: series.recent.get(minute, 0) + times}
        for oldest in sorted(recent, key=int)[:-_MINUTES_KEPT]:
            del recent[oldest]
        record = EventSeriesRecord(
            event=series.event.id,
            count=series.count + times,
            last_at=max(series.last_at, at),
            last_received_at=max(series.last_received_at, received_at),
            recent=recent,
            changed=self.last_event_change() + 1,
        )
        self._rows("event_series_put", codec.EVENT_SERIES.encode(record))

    # -- alerts -------------------------------------------------------------------------------------------------

    def add_alert(self, record: AlertRecord) -> None:
        """Store a new alert.

        Raises:
            Conflict: its id is taken.
        """
        self._add(codec.ALERT, record, "the alert")

    def acknowledge_alert(self, alert: str, *, by: str, now: datetime, note: str | None = None) -> AlertRecord:
        """Record who has taken notice of an alert, and return it.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(codec.ALERT, "alert", id=alert)
        changes = {
            "state": AlertState.ACKNOWLEDGED,
            "acknowledged_at": now,
            "acknowledged_by": by,
            "note": None if note is None else printable(note),
        }
        return self._change(codec.ALERT, before, changes)

    def set_alert_position(self, name: str, position: int) -> None:
        """Record up to which change the rules of *name* have been applied; not audited."""
        self._rows("alert_cursor_put", {"name": name, "position": position})

    def put_alert_delivery(self, record: AlertDeliveryRecord) -> None:
        """Store a delivery in place of what was known of it; not audited."""
        self._rows("alert_delivery_put", codec.ALERT_DELIVERY.encode(record))

    def take_alert_delivery(
        self, record: AlertDeliveryRecord, *, now: datetime, lease: timedelta
    ) -> AlertDeliveryRecord | None:
        """Count an attempt and keep others off for *lease*; ``None`` when somebody else was faster."""
        parameters = {
            "alert": record.alert,
            "target": record.target,
            "attempts": record.attempts,
            "now": encode_time(now),
            "until": encode_time(now + lease),
        }
        rows = self._rows("alert_delivery_take", parameters)
        return codec.ALERT_DELIVERY.decode(rows[0]) if rows else None

    def finish_alert_delivery(
        self,
        record: AlertDeliveryRecord,
        state: DeliveryState,
        *,
        now: datetime,
        next_at: datetime | None = None,
        error: str | None = None,
    ) -> None:
        """Record the outcome of an attempt; one that another attempt has overtaken changes nothing."""
        rows = self._rows("alert_delivery_get", {"alert": record.alert, "target": record.target})
        if not rows or codec.ALERT_DELIVERY.decode(rows[0]).attempts != record.attempts:
            return
        self.put_alert_delivery(
            AlertDeliveryRecord(
                alert=record.alert,
                target=record.target,
                state=state,
                attempts=record.attempts,
                next_at=next_at or now,
                done_at=None if state is DeliveryState.PENDING else now,
                error=None if error is None else printable(error)[:500],
            )
        )

    # -- requested logs -----------------------------------------------------------------------------------------

    def next_log_request(self, station: str) -> int:
        """Return a ``requestId`` that was never used with a station."""
        return int(self._rows("requested_log_last_request", {"station": station})[0][0] or 0) + 1

    def add_requested_log(self, record: RequestedLogRecord) -> None:
        """Store a log request.

        Raises:
            Conflict: its id is taken.
        """
        self._add(codec.REQUESTED_LOG, record, "the requested log")

    def update_requested_log(self, log: str, **changes: Unpack[LogChanges]) -> RequestedLogRecord:
        """Change a log request and return it.

        Raises:
            NotFound: there is none.
            Conflict: it was received already and is to be received again.
        """
        before = self._stored(codec.REQUESTED_LOG, "requested log", id=log)
        if changes.get("state") is LogRequestState.RECEIVED and before["state"] != LogRequestState.REQUESTED:
            raise Conflict(f"the log {log} is {before['state']!s} already")
        return self._change(codec.REQUESTED_LOG, before, changes)


def _about(name: str, station: str | None, parameters: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    if station is None:
        return f"{name}_of_nobody", dict(parameters)
    return name, {**parameters, "station": station}
