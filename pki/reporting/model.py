"""What a report says: frozen values of bounded size, however large the inventory is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from chargepki.pki.checking import CheckReport
from chargepki.pki.checking.tally import FindingGroup, tally_of
from chargepki.pki.inventory.audit import AuditFinding, AuditReport
from chargepki.pki.questions import Cliff, CliffRule, Provenance, RevocationEffect, RevocationSummary, Span
from chargepki.pki.reporting.scope import Scope, shell_word

__all__ = [
    "MOST_AUDIT_FINDINGS",
    "MOST_CAS",
    "MOST_REVOCATIONS",
    "MOST_RULES",
    "MOST_VALUES",
    "AuditPart",
    "Breakdown",
    "CaNode",
    "CaState",
    "CheckSource",
    "Column",
    "Figure",
    "FindingsPart",
    "Hierarchy",
    "Report",
    "RevocationsPart",
    "TimelinePart",
    "audit_part",
    "findings_part",
]

MOST_CAS: Final = 60
MOST_VALUES: Final = 8
MOST_RULES: Final = 60
MOST_EXAMPLES: Final = 3
MOST_REVOCATIONS: Final = 15
MOST_AUDIT_FINDINGS: Final = 20
MOST_CLIFFS: Final = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One number."""

    name: str
    label: str
    value: int
    command: str


class CaState(StrEnum):
    """How a certificate of a CA stands."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"
    EXPIRED = "expired"
    FOREIGN = "foreign"
    """Somebody else's: known, and not ours to judge."""
    UNKNOWN = "unknown"
    """It issued certificates that are here, but its own certificate is not."""


@dataclass(frozen=True, slots=True)
class CaNode:
    """A CA: one name with one key, whatever certificates it has."""

    number: int
    """Place in `Hierarchy.nodes`."""
    label: str
    subject: str
    provenance: Provenance | None
    """``None`` where no certificate of it is here."""
    state: CaState
    profile: str
    """Empty where it is not ours."""
    key: str
    """Algorithm and size."""
    key_place: str
    """``file``, ``token`` or ``elsewhere``; empty where it is not ours."""
    not_after: datetime | None
    parents: tuple[int, ...]
    """Those that signed a certificate of it, the first one being where it is shown; empty for a root."""
    depth: int
    leaves: tuple[tuple[str, int], ...]
    """Valid certificates that it issued by profile, most frequent first; none of CAs."""
    more_leaves: int
    """Those of further profiles."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Who signed whom."""

    nodes: tuple[CaNode, ...]
    """Parents before their children; the branch with the most valid certificates first."""
    omitted: int
    """CAs that are not shown."""
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """What expires in one span of a timeline."""

    begin: date
    certificates: int


@dataclass(frozen=True, slots=True)
class TimelinePart:
    """What expires when."""

    span: Span
    valid: int
    columns: tuple[Column, ...]
    """One for each span, empty ones too."""
    later: int
    """What expires behind the last of them."""
    cliffs: tuple[Cliff, ...]
    more_cliffs: int
    rule: CliffRule
    command: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Valid certificates counted by one thing."""

    by: str
    title: str
    total: int
    rows: tuple[tuple[str | None, int], ...]
    """Most frequent first; ``None`` stands for those that lack it."""
    more_values: int
    more_certificates: int
    command: str


class CheckSource(StrEnum):
    """Where findings come from."""

    RUN = "run"
    """Everything was judged for this report."""
    LAST = "last"
    """The last `inventory check` of everything, as it was kept."""
    QUESTIONS = "questions"
    """No certificate was judged by itself; the questions about everything were asked."""


@dataclass(frozen=True, slots=True)
class FindingsPart:
    """What a check found."""

    source: CheckSource
    at: datetime
    certificates: int
    """How many were judged."""
    paths: int
    counts: Mapping[str, int]
    """By severity, all of them."""
    groups: tuple[FindingGroup, ...]
    """Errors first; each with its first examples."""
    more_groups: int
    entries_since: int | None
    """Audit entries that were written since; ``None`` for a check that was made for this report."""
    command: str


@dataclass(frozen=True, slots=True)
class RevocationsPart:
    """Whether revocations took effect."""

    summary: RevocationSummary
    latencies: tuple[tuple[str, int], ...]
    """How many were published within which time."""
    shown: tuple[RevocationEffect, ...]
    """What nobody can know of first, then the latest."""
    command: str
    unpublished_command: str


@dataclass(frozen=True, slots=True)
class AuditPart:
    """Whether the log and the rows agree."""

    verified: bool
    """Whether the log was looked at: that takes the public log key."""
    entries: int
    rows: int
    head_count: int | None
    key_id: str | None
    checkpoint: str
    """``not tested``, ``agreed`` or ``contradicted``."""
    findings: tuple[AuditFinding, ...]
    more_findings: int
    reason: str
    """Why it was not verified."""
    command: str

    @property
    def ok(self) -> bool:
        """Whether it was verified and nothing was found."""
        return self.verified and not self.findings


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report says."""

    scope: Scope
    version: str
    """Of the program."""
    log_id: str
    """Of the inventory's audit log; empty where it has none."""
    figures: tuple[Figure, ...]
    hierarchy: Hierarchy
    timeline: TimelinePart
    breakdowns: tuple[Breakdown, ...]
    findings: FindingsPart
    revocations: RevocationsPart
    audit: AuditPart


def findings_part(
    check: CheckReport, scope: Scope, *, source: CheckSource = CheckSource.RUN, entries_since: int | None = None
) -> FindingsPart:
    """Return what of a check belongs into a report."""
    groups = [
        FindingGroup(
            *(each.rule, each.severity, each.clause, each.hint, each.count),
            examples=each.examples[:MOST_EXAMPLES],
        )
        for each in check.findings[:MOST_RULES]
    ]
    return FindingsPart(
        source=source,
        at=check.at,
        certificates=check.judged,
        paths=check.paths,
        counts=tally_of(check.findings),
        groups=tuple(groups),
        more_groups=max(0, len(check.findings) - MOST_RULES),
        entries_since=entries_since,
        command=replace(scope, at=check.at).command("inventory check"),
    )


def audit_part(
    report: AuditReport | None, *, checkpoint: str | None = None, log_key: str | None = None, reason: str = ""
) -> AuditPart:
    """Return the verdict on the log.

    Args:
        report: ``None`` where the log could not be verified, for *reason*.
        checkpoint: the file that the log was held against.
        log_key: the file of the public log key, unless it was that of the workspace.
    """
    given = (("--checkpoint", checkpoint), ("--log-key", log_key))
    command = " ".join(
        ["chargepki audit verify", *(f"{name} {shell_word(file)}" for name, file in given if file is not None)]
    )
    if report is None:
        return AuditPart(False, 0, 0, None, None, "not tested", (), 0, reason, command)
    contradicts = any(each.code.value.startswith("checkpoint-") for each in report.findings)
    tested = "not tested" if checkpoint is None else "contradicted" if contradicts else "agreed"
    shown = report.findings[:MOST_AUDIT_FINDINGS]
    return AuditPart(
        verified=True,
        entries=report.entries,
        rows=report.rows,
        head_count=report.head.count if report.head else None,
        key_id=report.head.key_id if report.head else None,
        checkpoint=tested,
        findings=shown,
        more_findings=len(report.findings) - len(shown) + report.omitted,
        reason="",
        command=command,
    )


def span_text(span: timedelta | None) -> str:
    """Return a duration for a person: two units at most.

    >>> span_text(timedelta(seconds=42)), span_text(timedelta(hours=26)), span_text(None)
    ('42 s', '1 d 2 h', '–')
    """
    if span is None:
        return "–"
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "under 1 s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        if seconds >= size:
            parts.append(f"{seconds // size} {name}")
            seconds %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)
