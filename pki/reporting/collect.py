"""Ask an inventory everything that a report says."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from typing import Final

from chargepki.pki.inventory.filters import And, Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions import (
    Census,
    CliffRule,
    ExpiryTimeline,
    Publication,
    RevocationEffect,
    Span,
    expiry_timeline,
    revocation_effects,
    summarise_revocations,
    take_census,
    take_trait_censuses,
)
from chargepki.pki.reporting.hierarchy import read_hierarchy
from chargepki.pki.reporting.model import (
    MOST_CLIFFS,
    MOST_REVOCATIONS,
    MOST_VALUES,
    AuditPart,
    Breakdown,
    Column,
    Figure,
    FindingsPart,
    Report,
    RevocationsPart,
    TimelinePart,
)
from chargepki.pki.reporting.scope import Scope

__all__ = ["collect_report"]

_MONTHS: Final = 24
_WEEKS: Final = 16
_TITLES: Final = {
    "key": "Key algorithm",
    "signature": "Signature algorithm",
    "profile": "Profile",
    "country": "Country",
    "organization": "Operator or vendor",
    "ca": "Issuing CA",
}
_OPEN_OPERATIONS: Final = "chargepki station operations --where \"state in ('queued', 'running', 'outcome-unknown')\""
_FIGURES: Final = (
    ("certificates", "certificates in all", None),
    ("valid", "valid", "state = 'issued' and not_after >= now"),
    ("expiring", "expire within 30 days", "state = 'issued' and not_after >= now and not_after < now + 30d"),
    ("expired", "expired", "state = 'issued' and not_after < now"),
    ("revoked", "revoked", "state = 'revoked'"),
    ("imported", "imported", "origin = 'imported'"),
)
_LATENCIES: Final = (
    ("1 min", timedelta(minutes=1)),
    ("10 min", timedelta(minutes=10)),
    ("1 h", timedelta(hours=1)),
    ("6 h", timedelta(hours=6)),
    ("1 d", timedelta(days=1)),
    ("7 d", timedelta(days=7)),
)
_WAITING: Final = (Publication.UNPUBLISHED, Publication.STALE_ANSWER)

ReadFilter = Callable[[str], Filter]


def collect_report(
    reads: Reads,
    scope: Scope,
    wanted: Filter,
    read_filter: ReadFilter,
    *,
    findings: FindingsPart,
    audit: AuditPart,
    version: str,
) -> Report:
    """Ask everything anew but findings and audit log.

    Args:
        wanted: the certificates of *scope*.
        read_filter: reads a filter whose `now` is the instant of *scope*.
    """
    head = reads.audit_head()
    return Report(
        scope=scope,
        version=version,
        log_id=head.log_id if head is not None else "",
        figures=tuple(_figures(reads, scope, wanted, read_filter)),
        hierarchy=read_hierarchy(reads, scope, wanted),
        timeline=_timeline(reads, scope, wanted),
        breakdowns=tuple(_breakdowns(reads, scope, wanted)),
        findings=findings,
        revocations=_revocations(reads, scope, wanted),
        audit=audit,
    )


def _figures(reads: Reads, scope: Scope, wanted: Filter, read_filter: ReadFilter) -> Iterator[Figure]:
    for name, label, asked in _FIGURES:
        chosen = wanted if asked is None else And((wanted, read_filter(asked)))
        yield Figure(name, label, reads.count_matching(chosen), scope.command("cert count", where=asked))
    if scope.is_everything:
        yield Figure("cas", "CAs of ours", len(tuple(reads.list_cas())), "chargepki ca list")
        totals = reads.count_all()
        yield Figure("stations", "stations on record", totals.stations, "chargepki station list")
        yield Figure("operations", "operations on stations", totals.operations, "chargepki station operations")
        yield Figure("open_operations", "of them open", totals.open_operations, _OPEN_OPERATIONS)
        yield Figure("security_events", "security events", totals.security_events, "chargepki station events --all")
        yield Figure("firmware_releases", "firmware releases", totals.firmware_releases, "chargepki firmware list")
        yield Figure("open_alerts", "open alerts", totals.open_alerts, "chargepki alerts list --state open")


def _timeline(reads: Reads, scope: Scope, wanted: Filter) -> TimelinePart:
    found = expiry_timeline(reads, scope.at, wanted=wanted, span=Span.MONTH, rule=CliffRule())
    begins = _begins(scope, Span.MONTH, _MONTHS)
    # What ends within some weeks altogether would be two or three columns.
    if found.valid and sum(each.certificates for each in found.buckets[:4]) == found.valid:
        weeks = _begins(scope, Span.WEEK, _WEEKS)
        by_week = expiry_timeline(reads, scope.at, wanted=wanted, span=Span.WEEK, rule=CliffRule())
        if by_week.buckets and by_week.buckets[-1].begin <= weeks[-1]:
            found, begins = by_week, weeks
    counts = {each.begin: each.certificates for each in found.buckets}
    columns = tuple([Column(begin, counts.get(begin, 0)) for begin in begins])
    return TimelinePart(
        span=found.span,
        valid=found.valid,
        columns=columns,
        later=found.valid - sum(each.certificates for each in columns),
        cliffs=found.cliffs[:MOST_CLIFFS],
        more_cliffs=max(0, len(found.cliffs) - MOST_CLIFFS),
        rule=found.rule,
        command=scope.command(_timeline_words(found)),
    )


def _timeline_words(found: ExpiryTimeline) -> str:
    return f"inventory timeline --by {found.span}"


def _begins(scope: Scope, span: Span, count: int) -> list[date]:
    """Return the first days of *count* spans from that of the report's instant on."""
    begin = span.begin(scope.at.astimezone(UTC).date())
    found = []
    for _ in range(count):
        found.append(begin)
        # 32 days lie in the next month from wherever a month begins.
        begin = span.begin(begin + timedelta(days=7 if span is Span.WEEK else 32))
    return found


def _breakdowns(reads: Reads, scope: Scope, wanted: Filter) -> Iterator[Breakdown]:
    found = take_trait_censuses(reads, scope.at, wanted=wanted)
    for by in ("key", "profile", "country", "organization", "signature", "ca"):
        yield _breakdown(found.get(by) or take_census(reads, scope.at, by, wanted=wanted), scope)


def _breakdown(census: Census, scope: Scope) -> Breakdown:
    # One more takes no more room than the line that says that there is one more.
    most = MOST_VALUES if len(census.rows) > MOST_VALUES + 1 else MOST_VALUES + 1
    shown = census.rows[:most]
    return Breakdown(
        by=census.by,
        title=_TITLES[census.by],
        total=census.total,
        rows=tuple([(each.value, each.certificates) for each in shown]),
        more_values=len(census.rows) - len(shown),
        more_certificates=census.total - sum(each.certificates for each in shown),
        command=scope.command(f"inventory census --by {census.by}"),
    )


def _revocations(reads: Reads, scope: Scope, wanted: Filter) -> RevocationsPart:
    counts = dict.fromkeys((*(name for name, _ in _LATENCIES), "longer", "not yet", "needless"), 0)
    kept: list[tuple[bool, float, str, RevocationEffect]] = []

    def seen(effects: Iterator[RevocationEffect]) -> Iterator[RevocationEffect]:
        for each in effects:
            counts[_latency(each)] += 1
            is_waiting = each.publication in _WAITING
            # Of what waits the earliest, of the others the latest: the heap lets go of its smallest.
            at = each.revoked_at.timestamp()
            item = (is_waiting, -at if is_waiting else at, each.certificate, each)
            if len(kept) < MOST_REVOCATIONS:
                heapq.heappush(kept, item)
            else:
                heapq.heappushpop(kept, item)
            yield each

    effects = revocation_effects(reads, scope.at, wanted=None if scope.is_everything else wanted)
    summary = summarise_revocations(seen(effects), scope.at)
    return RevocationsPart(
        summary=summary,
        latencies=tuple([(name, number) for name, number in counts.items()]),
        shown=tuple([item[-1] for item in sorted(kept, key=lambda each: each[:3], reverse=True)]),
        command=scope.command("inventory revocations"),
        unpublished_command=scope.command("inventory revocations --unpublished"),
    )


def _latency(effect: RevocationEffect) -> str:
    if effect.latency is None:
        return "needless" if effect.publication is Publication.NEEDLESS else "not yet"
    return next((name for name, most in _LATENCIES if effect.latency <= most), "longer")
