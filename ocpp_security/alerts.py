"""Alert rules over security events: what they match, when they fire, and what their targets are told (pure)."""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from chargepki.ocpp_security.events import find_event, spellings
from chargepki.pki.errors import printable
from chargepki.pki.inventory.event_records import AlertRecord, AlertState, EventSeries

if TYPE_CHECKING:
    from chargepki.ocpp_security.watching import WatchRule

__all__ = [
    "AlertPlan",
    "AlertRule",
    "Criticality",
    "ExecTarget",
    "LogTarget",
    "Target",
    "WebhookTarget",
    "back_off",
    "document_of",
    "evaluate",
    "matches",
    "scope_of",
    "sign_body",
    "trial_alert",
]

MAX_WINDOW = timedelta(hours=1)
"""Longest window: repetitions are counted by the minute for that long."""
SIGNATURE_HEADER = "Chargepki-Signature"
MAX_ATTEMPTS = 20
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(hours=1)


class Criticality(StrEnum):
    """Which events a rule looks at."""

    ANY = "any"
    CRITICAL = "critical"
    NON_CRITICAL = "non-critical"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One ``[[alerts.rule]]``."""

    name: str
    targets: tuple[str, ...]
    """Names of targets."""
    events: tuple[str, ...] = ("*",)
    """Types of events; ``*`` and ``?`` stand for any text and any letter. A standard name means every spelling."""
    criticality: Criticality = Criticality.ANY
    source: str = ""
    """``station`` or ``csms``; empty for both."""
    stations: tuple[str, ...] = ("*",)
    """Identities, with ``*`` and ``?``; what no station proved to be is matched by ``*`` alone."""
    threshold: int = 1
    """Occurrences within `window` that make the rule fire."""
    window: timedelta = timedelta(minutes=10)
    per_station: bool = True
    """Whether occurrences are counted for each station; otherwise for all together."""
    cool_down: timedelta = timedelta(minutes=15)
    """After an alert the same rule is silent about the same station (or all) for so long."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A line in the log of the process."""

    name: str
    level: str = "error"


@dataclass(frozen=True, slots=True)
class ExecTarget:
    """A program with fixed arguments, run without a shell; it gets the alert as JSON on its standard input."""

    name: str
    command: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An HTTP endpoint of the operator's own choice; redirects are not followed."""

    name: str
    url: str
    secret_file: str = ""
    """Absolute path of a file (0600) with the key that signs each body; or the environment variable below."""
    secret_env: str = ""
    timeout: timedelta = timedelta(seconds=10)


Target = LogTarget | ExecTarget | WebhookTarget


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """All rules and targets of a configuration."""

    rules: tuple[AlertRule, ...] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    watches: tuple[WatchRule, ...] = ()
    """What `inventory watch` looks for."""


def matches(rule: AlertRule, series: EventSeries) -> bool:
    """Say whether *rule* looks at an event."""
    event = series.event
    wanted = rule.criticality
    if wanted is not Criticality.ANY and event.critical != (wanted is Criticality.CRITICAL):
        return False
    if rule.source and event.source != rule.source:
        return False
    if not any(fnmatch.fnmatchcase(event.station or "", pattern) for pattern in rule.stations):
        return False
    standard = find_event(event.type)
    names = spellings(standard) if standard is not None else (event.type,)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in rule.events)


def evaluate(
    rules: Sequence[AlertRule],
    changed: Sequence[EventSeries],
    recent: Sequence[EventSeries],
    last_alerts: Mapping[tuple[str, str], datetime],
    now: datetime,
) -> list[AlertRecord]:
    """Return the alerts that *changed* events make.

    Args:
        changed: events that occurred since the last evaluation, in order.
        recent: every event that occurred within the longest window, those of *changed* included.
        last_alerts: when (rule, scope) was alerted last.
    """
    raised: list[AlertRecord] = []
    for rule in rules:
        news = [series for series in changed if matches(rule, series)]
        if not news:
            continue
        by_scope: dict[str, list[EventSeries]] = {}
        for series in recent:
            if matches(rule, series):
                by_scope.setdefault(scope_of(rule, series), []).append(series)
        told = {scope: at for (name, scope), at in last_alerts.items() if name == rule.name}
        for series in news:
            scope, at = scope_of(rule, series), series.last_received_at
            if scope in told and at < told[scope] + rule.cool_down:
                continue
            count = _occurrences(rule, by_scope.get(scope, ()), at)
            if count >= rule.threshold:
                told[scope] = max(now, at)
                raised.append(_alert(rule, scope, series, count, now))
    return raised


def scope_of(rule: AlertRule, series: EventSeries) -> str:
    """Return what an alert of *rule* about an event would be about: its station, or everything."""
    return (series.event.station or "") if rule.per_station else ""


def _occurrences(rule: AlertRule, found: Iterable[EventSeries], at: datetime) -> int:
    """Count occurrences in the window that ends at *at*; repetitions to the minute."""
    begin, end = (at - rule.window).timestamp(), at.timestamp()
    total = 0
    for series in found:
        if not series.recent:
            total += begin < series.event.received_at.timestamp() <= end
        # A minute counts when any of it lies in the window: too many by some seconds rather than one too few.
        minutes = ((int(minute), count) for minute, count in series.recent.items())
        total += sum(count for minute, count in minutes if begin < minute + 60 and minute <= end)
    return total


def _alert(rule: AlertRule, scope: str, series: EventSeries, count: int, now: datetime) -> AlertRecord:
    event = series.event
    who = event.station or "a peer that proved no identity"
    times = f", {count} times within {int(rule.window.total_seconds())} s" if rule.threshold > 1 else ""
    # The same cause gives the same id, in whichever process: it is stored, and told, once.
    identity = f"{rule.name}\0{scope}\0{event.id}\0{series.changed}"
    return AlertRecord(
        id=f"al-{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
        rule=rule.name,
        scope=scope,
        cause=series.changed,
        summary=printable(f"{who}: {event.type}{times}"),
        details={
            "event": event.id,
            "type": event.type,
            "critical": event.critical,
            "source": event.source,
            "station": event.station,
            "tech_info": event.tech_info,
            "count": count,
            "at": series.last_at.isoformat(),
            "received_at": series.last_received_at.isoformat(),
        },
        state=AlertState.OPEN,
        raised_at=now,
    )


def trial_alert(now: datetime) -> AlertRecord:
    """Return an alert that only says that it is a test; it is stored nowhere."""
    return AlertRecord(
        id="al-test",
        rule="test",
        scope="",
        cause=0,
        summary="This is a test of alert delivery; nothing has happened.",
        details={"test": True},
        state=AlertState.OPEN,
        raised_at=now,
    )


def document_of(alert: AlertRecord) -> bytes:
    """Return what targets are told, as JSON; the ``id`` stays the same however often it is delivered."""
    document = {
        "schema": "chargepki/alert",
        "schema_version": 1,
        "id": alert.id,
        "rule": alert.rule,
        "station": alert.scope or alert.details.get("station"),
        "summary": alert.summary,
        "raised_at": alert.raised_at.isoformat().replace("+00:00", "Z"),
        "details": dict(alert.details),
    }
    return orjson.dumps(document)


def sign_body(secret: bytes, body: bytes, at: datetime) -> str:
    """Return the value of the signature header: the time, and HMAC-SHA256 over ``TIME.BODY``.

    The receiver computes the same, compares in constant time, and refuses what is older than some minutes.

    >>> from datetime import UTC
    >>> sign_body(b"k", b"{}", datetime(2026, 3, 1, tzinfo=UTC))[:22]
    't=1772323200,v1=cef63f'
    """
    stamp = str(int(at.timestamp()))
    digest = hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def back_off(attempts: int) -> timedelta:
    """Return how long to wait after *attempts* failed ones: doubling from 5 s to an hour.

    >>> [int(back_off(number).total_seconds()) for number in (1, 2, 3, 12)]
    [5, 10, 20, 3600]
    """
    return min(_FIRST_WAIT * int(2 ** min(attempts - 1, 16)), _LONGEST_WAIT)
