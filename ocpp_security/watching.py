"""What `inventory watch` tells of: expiry, cliffs, drift and findings, each thing once, as alerts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from chargepki.ocpp_security.drift import find_drift
from chargepki.ocpp_security.estate_findings import estate_findings
from chargepki.pki.checking import FindingGroup, RangeJudge, Tally, judge_ranges, list_ranges
from chargepki.pki.errors import printable
from chargepki.pki.findings import Severity
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.event_records import AlertDeliveryRecord, AlertRecord, AlertState, DeliveryState
from chargepki.pki.inventory.filter_fields import FIELDS, Step
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import And, Compare, Filter, Not
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor
from chargepki.pki.lint.settings import LintSettings
from chargepki.pki.questions import CliffRule, expiry_timeline, valid_at

__all__ = ["WatchKind", "WatchRule", "raise_watch_alerts", "watch_alerts"]

MOST_AT_ONCE: Final = 100
"""So many alerts a rule raises at one look; the rest waits for the next, so that a storm drowns nobody."""
_EXAMPLES: Final = 5
_SEVERITIES: Final = (Severity.ERROR, Severity.WARNING, Severity.NOTICE)


class WatchKind(StrEnum):
    """What a rule looks for."""

    EXPIRY = "expiry"
    """Certificates that end soon: one alert for those of one CA and profile on one day, at each of its spans."""
    CLIFF = "cliff"
    """Many of one profile that end at one time."""
    DRIFT = "drift"
    """A root about which a station and the inventory do not agree."""
    FINDING = "finding"
    """What `inventory check` finds about everything together; with `certificates` about each: one alert for all that
    break a rule, and another when certificates that were recorded later break it."""


@dataclass(frozen=True, slots=True)
class WatchRule:
    """One ``[[alerts.watch]]``."""

    name: str
    kind: WatchKind
    targets: tuple[str, ...]
    within: tuple[timedelta, ...] = (timedelta(days=30), timedelta(days=7))
    """For expiry: how long before; each span tells once more."""
    where: str = ""
    """Only certificates that this filter asks for; empty for all."""
    severity: Severity = Severity.WARNING
    """For findings: this one and worse."""
    certificates: bool = False
    """For findings: judge every certificate too, which takes as long as `inventory check` in one process."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One thing to tell: what it is, for the memory, and in words."""

    subject: str
    summary: str
    details: dict[str, object]
    station: str = ""


def watch_alerts(reads: Reads, rule: WatchRule, settings: LintSettings, now: datetime) -> Iterator[AlertRecord]:
    """Yield an alert for each thing that *rule* finds at *now*, told before or not; its id tells.

    Args:
        settings: of the linter, for findings about certificates.

    Raises:
        FilterError: the filter of the rule cannot be read.
    """
    wanted = parse_filter(rule.where, now=now) if rule.where else And(())
    found: dict[WatchKind, Callable[[], Iterable[_Told]]] = {
        WatchKind.EXPIRY: lambda: _expiry(reads, rule, wanted, now),
        WatchKind.CLIFF: lambda: _cliffs(reads, wanted, now),
        WatchKind.DRIFT: lambda: _drift(reads),
        WatchKind.FINDING: lambda: _findings(reads, rule, wanted, settings, now),
    }
    for told in found[rule.kind]():
        digest = _digest(rule, told.subject)
        yield AlertRecord(
            id=_alert_id(digest),
            rule=rule.name,
            scope=told.station,
            # Of events it is the number of a change; here it keeps two things of one rule apart.
            cause=int(digest[:15], 16),
            summary=printable(told.summary)[:500],
            details={"kind": rule.kind.value, "subject": told.subject, **told.details},
            state=AlertState.OPEN,
            raised_at=now,
        )


def _digest(rule: WatchRule, subject: str) -> str:
    return hashlib.sha256(f"watch\0{rule.name}\0{subject}".encode()).hexdigest()


def _alert_id(digest: str) -> str:
    return f"al-{digest[:16]}"


def raise_watch_alerts(
    inventory: Inventory, rule: WatchRule, settings: LintSettings, actor: Actor, now: datetime
) -> tuple[list[AlertRecord], bool]:
    """Raise the alerts of *rule* that were never raised, with their deliveries, in one transaction.

    Returns:
        the alerts, at most `MOST_AT_ONCE`, and whether more wait for the next time.
    """
    news = (each for each in watch_alerts(inventory, rule, settings, now) if inventory.find_alert(each.id) is None)
    chosen = list(islice(news, MOST_AT_ONCE + 1))
    first = chosen[:MOST_AT_ONCE]

    def work(tx: Transaction) -> list[AlertRecord]:
        raised = []
        for alert in first:
            # Another watch may have raised it since.
            if tx.find_alert(alert.id) is not None:
                continue
            tx.add_alert(alert)
            for target in dict.fromkeys(rule.targets):
                tx.put_alert_delivery(AlertDeliveryRecord(alert.id, target, DeliveryState.PENDING, 0, now))
            tx.audit(actor, "alert.raise", alert.id, now=now, details={"rule": alert.rule, "summary": alert.summary})
            raised.append(alert)
        return raised

    return (inventory.write(work) if first else []), len(chosen) > MOST_AT_ONCE


def _expiry(reads: Reads, rule: WatchRule, wanted: Filter, now: datetime) -> Iterator[_Told]:
    # A certificate that has a successor on its station may end in peace.
    needed = And((wanted, Not(Compare(FIELDS["delivery"], "=", "superseded"))))
    spans = sorted(rule.within)
    soon = And((valid_at(now, needed), Compare(FIELDS["not_after"], "<=", now + spans[-1])))
    by = (FIELDS["not_after"], FIELDS["ca"], FIELDS["profile"])
    for (day, ca, profile), number in reads.count_groups(soon, by, step=Step.DAY):
        left = date.fromisoformat(str(day)) - now.date()
        span = next((each for each in spans if left <= each), spans[-1])
        begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
        on_day = (
            Compare(FIELDS["not_after"], ">=", begin),
            Compare(FIELDS["not_after"], "<", begin + timedelta(days=1)),
        )
        same = And((soon, *on_day, Compare(FIELDS["ca"], "=", str(ca)), Compare(FIELDS["profile"], "=", str(profile))))
        yield _Told(
            f"expiry/{span.total_seconds():.0f}/{ca}/{profile}/{day}",
            f"{number} {profile} of {ca} expire on {day}",
            {
                "day": day,
                "ca": ca,
                "profile": profile,
                "certificates": number,
                "within_days": span.days,
                "examples": [each.id for each in reads.find_certificates(same, limit=_EXAMPLES)],
            },
        )


def _cliffs(reads: Reads, wanted: Filter, now: datetime) -> Iterator[_Told]:
    for cliff in expiry_timeline(reads, now, wanted=wanted, rule=CliffRule()).cliffs:
        begin, end = cliff.begin.isoformat(), cliff.end.isoformat()
        yield _Told(
            f"cliff/{cliff.profile}/{begin}",
            f"{cliff.certificates} {cliff.profile}, {cliff.share:.0%} of them, expire from {begin} to {end}",
            {"profile": cliff.profile, "begin": begin, "end": end, "certificates": cliff.certificates},
        )


def _drift(reads: Reads) -> Iterator[_Told]:
    for each in find_drift(reads):
        status = each.status
        which = status.sha256 or ",".join((status.hash_data or {}).values())
        yield _Told(
            f"drift/{each.station}/{status.use}/{status.finding}/{which}",
            f"{each.station}: root for {status.use} is {status.finding}: {status.label or 'nobody knows it'}",
            {"use": status.use, "finding": status.finding.value, "certificate": status.label, "sha256": status.sha256},
            station=each.station,
        )


def _findings(reads: Reads, rule: WatchRule, wanted: Filter, settings: LintSettings, now: datetime) -> Iterator[_Told]:
    told = _SEVERITIES[: _SEVERITIES.index(rule.severity) + 1]
    for name, finding in estate_findings(reads, now, wanted=wanted, rule=CliffRule()):
        if finding.severity in told:
            yield _Told(
                f"finding/{finding.rule}/{name}",
                f"{finding.severity}: {name}: {finding.message}",
                {"rule": finding.rule, "about": name, "clause": finding.clause, "cure": finding.hint},
            )
    if not rule.certificates:
        return
    newer: dict[datetime, dict[tuple[str, Severity], FindingGroup]] = {}
    for group in _judged(reads, wanted, settings, now):
        if group.severity not in told:
            continue
        # One alert for all that break a rule; once that was told, for those alone that were recorded since.
        fresh: FindingGroup | None = group
        since, subject = None, f"finding/{group.rule}"
        while (known := reads.find_alert(_alert_id(_digest(rule, subject)))) is not None:
            since, subject = known.raised_at, f"finding/{group.rule}/{known.raised_at.isoformat()}"
        if since is not None:
            if since not in newer:
                later = And((Compare(FIELDS["reserved_at"], ">", since), wanted))
                newer[since] = {(each.rule, each.severity): each for each in _judged(reads, later, settings, now)}
            fresh = newer[since].get((group.rule, group.severity))
        if fresh is not None:
            yield _told_of(fresh, subject, since)


def _judged(reads: Reads, wanted: Filter, settings: LintSettings, now: datetime) -> Sequence[FindingGroup]:
    tally = Tally(_EXAMPLES)
    ranges = list_ranges(reads, wanted, after=None)
    for _, result in judge_ranges(lambda: RangeJudge(reads, settings, now, wanted, _EXAMPLES), ranges, 1):
        tally.merge(result.findings)
    return tally.groups()


def _told_of(group: FindingGroup, subject: str, since: datetime | None) -> _Told:
    # A certificate may break a rule at several places, and each is counted.
    names = list(dict.fromkeys(each.name for each in group.examples))
    times = "once" if group.count == 1 else f"{group.count} times"
    new = "" if since is None else f" recorded since {since:%Y-%m-%d %H:%M} UTC"
    return _Told(
        subject,
        f"{group.severity}: {group.rule} is broken {times} by certificates{new}, {names[0]} first",
        {
            "rule": group.rule,
            "count": group.count,
            "examples": names,
            "clause": group.clause,
            "cure": group.hint,
        },
    )
