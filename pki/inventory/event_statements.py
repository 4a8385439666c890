"""Statements on event series, alerts, their outbox, and requested logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import BindParameter, Select, Table, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import Executable

from chargepki.pki.inventory import codec

__all__ = ["event_statements"]


def _param(name: str) -> BindParameter[object]:
    return bindparam(name)


def _put(table: Table, dialect: str) -> Executable:
    make: Callable[[Table], postgresql.Insert | sqlite.Insert] = (
        postgresql.insert if dialect == "postgresql" else sqlite.insert
    )
    statement = make(table).values({column.name: _param(column.name) for column in table.c})
    keys = [column.name for column in table.primary_key]
    changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    stored: Executable = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    return stored


def event_statements(tables: Mapping[str, Table], dialect: str) -> dict[str, Executable]:
    """Return the statements by name; *tables* by their names."""
    event, series = tables["security_event"], tables["event_series"]
    columns = [event.c[name] for name in codec.SECURITY_EVENT.columns]
    extra = [series.c.count, series.c.last_at, series.c.last_received_at, series.c.recent, series.c.changed]
    joined = event.outerjoin(series, series.c.event == event.c.id)
    whole: Select[tuple[object, ...]] = select(*columns, *extra).select_from(joined)
    # A filter that is not wanted is given as the empty text, which no stored value equals.
    wanted = [
        or_(_param(name) == "", column == _param(name))
        for name, column in (("station", event.c.station), ("type", event.c.type), ("source", event.c.source))
    ]
    recorded = event.c.received_at >= _param("since")
    stations = {"": event.c.station == _param("station"), "_of_nobody": event.c.station.is_(None)}
    received = func.coalesce(series.c.last_received_at, event.c.received_at)
    same = [event.c.source == _param("source"), event.c.type == _param("type")]
    found: dict[str, Executable] = {}
    # An index finds what a station said in the last hours, however much it has said in years.
    for suffix, station in stations.items():
        latest = whole.where(station, recorded, *same).order_by(event.c.id.desc()).limit(1)
        found[f"event_of_type{suffix}"] = latest
        found[f"event_alike{suffix}"] = latest.where(event.c.tech_info == _param("tech_info"))
        found[f"event_room{suffix}"] = select(func.count()).where(station, recorded)
    return found | {
        "event_series_put": _put(series, dialect),
        "event_series_last": select(func.max(series.c.changed)),
        "event_series_of": select(*(series.c[name] for name in codec.EVENT_SERIES.columns)).where(
            series.c.event == _param("event")
        ),
        "events_newest": whole.where(
            *wanted,
            received >= _param("since"),
            event.c.id < _param("before"),
            event.c.critical.in_([_param("critical"), _param("or_critical")]),
        )
        .order_by(event.c.id.desc())
        .limit(_param("limit")),
        "events_changed": whole.where(series.c.changed > _param("after"))
        .order_by(series.c.changed)
        .limit(_param("limit")),
        "events_recent": whole.where(series.c.last_received_at >= _param("since"))
        .order_by(event.c.id)
        .limit(_param("limit")),
        **_alerts(tables, dialect),
        **_logs(tables),
    }


def _alerts(tables: Mapping[str, Table], dialect: str) -> dict[str, Executable]:
    alert, delivery, cursor = tables["alert"], tables["alert_delivery"], tables["alert_cursor"]
    alerts = select(*(alert.c[name] for name in codec.ALERT.columns))
    deliveries = select(*(delivery.c[name] for name in codec.ALERT_DELIVERY.columns))
    return {
        "alert_latest": select(func.max(alert.c.raised_at)).where(
            alert.c.rule == _param("rule"), alert.c.scope == _param("scope")
        ),
        "alerts_newest": alerts.where(
            or_(_param("state") == "", alert.c.state == _param("state")),
            or_(_param("scope") == "", alert.c.scope == _param("scope")),
            alert.c.raised_at >= _param("since"),
        )
        .order_by(alert.c.raised_at.desc(), alert.c.id.desc())
        .limit(_param("limit")),
        "alert_cursor_get": select(cursor.c.position).where(cursor.c.name == _param("name")),
        "alert_cursor_put": _put(cursor, dialect),
        "alert_delivery_put": _put(delivery, dialect),
        "alert_delivery_get": deliveries.where(
            delivery.c.alert == _param("alert"), delivery.c.target == _param("target")
        ),
        "alert_deliveries_of": deliveries.where(delivery.c.alert == _param("alert")).order_by(delivery.c.target),
        "alert_deliveries_due": deliveries.where(delivery.c.state == "pending", delivery.c.next_at <= _param("now"))
        .order_by(delivery.c.next_at, delivery.c.alert, delivery.c.target)
        .limit(_param("limit")),
        # Taken before it is tried: whoever else looks meanwhile finds it not due.
        "alert_delivery_take": update(delivery)
        .where(
            delivery.c.alert == _param("alert"),
            delivery.c.target == _param("target"),
            delivery.c.state == "pending",
            delivery.c.attempts == _param("attempts"),
            delivery.c.next_at <= _param("now"),
        )
        .values({"next_at": _param("until"), "attempts": delivery.c.attempts + 1})
        .returning(*(delivery.c[name] for name in codec.ALERT_DELIVERY.columns)),
    }


def _logs(tables: Mapping[str, Table]) -> dict[str, Executable]:
    log = tables["requested_log"]
    logs = select(*(log.c[name] for name in codec.REQUESTED_LOG.columns))
    return {
        "requested_log_by_token": logs.where(log.c.token_sha256 == _param("token_sha256")),
        "requested_log_by_request": logs.where(
            log.c.station == _param("station"), log.c.request_id == _param("request_id")
        ),
        "requested_log_last_request": select(func.max(log.c.request_id)).where(log.c.station == _param("station")),
        "requested_logs_newest": logs.where(or_(_param("station") == "", log.c.station == _param("station")))
        .order_by(log.c.created_at.desc(), log.c.id)
        .limit(_param("limit")),
        "requested_logs_open_of": logs.where(log.c.station == _param("station"), log.c.state == "requested").order_by(
            log.c.request_id
        ),
    }
