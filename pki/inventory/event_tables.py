"""Tables of event series, alerts, their outbox, and requested logs."""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from chargepki.pki.inventory.tables import WHOLE, Whole, WholeKey, Words, WordsKey, WordsOrNull

__all__ = ["AlertCursorRow", "AlertDeliveryRow", "AlertRow", "EventSeriesRow", "RequestedLogRow"]


class EventSeriesRow(SQLModel, table=True):
    """Occurrences of one security event (`EventSeriesRecord`); not audited: its first occurrence is."""

    __tablename__ = "event_series"
    __table_args__ = (
        ForeignKeyConstraint(["event"], ["security_event.id"], name="fk_event_series_event"),
        Index("ix_event_series_changed", "changed", unique=True),
        Index("ix_event_series_received", "last_received_at"),
    )

    event: WholeKey
    count: Whole
    last_at: Words
    last_received_at: Words
    recent: Words
    changed: Whole


class AlertRow(SQLModel, table=True):
    """One alert (`AlertRecord`)."""

    __tablename__ = "alert"
    __table_args__ = (
        UniqueConstraint("rule", "scope", "cause", name="uq_alert_cause"),
        Index("ix_alert_rule", "rule", "scope", "raised_at"),
    )

    id: WordsKey
    rule: Words
    scope: Words
    cause: Whole
    summary: Words
    details: Words
    state: Words
    raised_at: Words
    acknowledged_at: WordsOrNull
    acknowledged_by: WordsOrNull
    note: WordsOrNull


class AlertDeliveryRow(SQLModel, table=True):
    """One alert on its way to one target (`AlertDeliveryRecord`); not audited."""

    __tablename__ = "alert_delivery"
    __table_args__ = (
        ForeignKeyConstraint(["alert"], ["alert.id"], name="fk_alert_delivery_alert"),
        Index("ix_alert_delivery_state", "state", "next_at"),
    )

    alert: WordsKey
    target: WordsKey
    state: Words
    attempts: Whole
    next_at: Words
    done_at: WordsOrNull
    error: WordsOrNull


class AlertCursorRow(SQLModel, table=True):
    """Up to which change of the series the rules have been applied; not audited."""

    __tablename__ = "alert_cursor"

    name: WordsKey
    position: Whole


class RequestedLogRow(SQLModel, table=True):
    """A log that a station was asked for (`RequestedLogRecord`)."""

    __tablename__ = "requested_log"
    __table_args__ = (
        ForeignKeyConstraint(["station"], ["station.id"], name="fk_requested_log_station"),
        UniqueConstraint("station", "request_id", name="uq_requested_log_request"),
        Index("ix_requested_log_token", "token_sha256", unique=True),
    )

    id: WordsKey
    station: Words
    request_id: Whole
    log_type: Words
    token_sha256: Words
    max_bytes: Whole
    state: Words
    created_at: Words
    expires_at: Words
    filename: WordsOrNull
    status: WordsOrNull
    status_at: WordsOrNull
    received_at: WordsOrNull
    size: Annotated[int | None, Field(sa_type=WHOLE)]
    sha256: WordsOrNull
    file: WordsOrNull
