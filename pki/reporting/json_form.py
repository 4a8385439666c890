"""A report as plain data, the columns of which are in docs/reference/report.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chargepki.pki.reporting.model import (
    AuditPart,
    FindingsPart,
    Hierarchy,
    Report,
    RevocationsPart,
    TimelinePart,
)

__all__ = ["report_json"]


def report_json(report: Report) -> dict[str, Any]:
    """Return everything that a report says, with nothing but JSON's own types; times are RFC 3339 UTC."""
    return {
        "schema": "chargepki/inventory-report",
        "schema_version": 1,
        "at": _instant(report.scope.at),
        "where": report.scope.where,
        "query": report.scope.query,
        "version": report.version,
        "log_id": report.log_id or None,
        "figures": [
            {"name": each.name, "value": each.value, "command": each.command} for each in report.figures
        ],
        "hierarchy": _hierarchy(report.hierarchy),
        "timeline": _timeline(report.timeline),
        "breakdowns": [
            {
                "by": each.by,
                "total": each.total,
                "rows": [{"value": value, "certificates": number} for value, number in each.rows],
                "more_values": each.more_values,
                "more_certificates": each.more_certificates,
                "command": each.command,
            }
            for each in report.breakdowns
        ],
        "findings": _findings(report.findings),
        "revocations": _revocations(report.revocations),
        "audit": _audit(report.audit),
    }  # fmt: skip


def _hierarchy(part: Hierarchy) -> dict[str, Any]:
    return {
        "cas": [
            {
                "number": each.number,
                "name": each.label,
                "subject": each.subject,
                "provenance": each.provenance.value if each.provenance is not None else None,
                "state": each.state.value,
                "profile": each.profile or None,
                "key": each.key or None,
                "key_place": each.key_place or None,
                "not_after": _instant(each.not_after),
                "parents": list(each.parents),
                "issued": [{"profile": profile, "certificates": number} for profile, number in each.leaves],
                "more_issued": each.more_leaves,
            }
            for each in part.nodes
        ],
        "more_cas": part.omitted,
        "commands": list(part.commands),
    }


def _timeline(part: TimelinePart) -> dict[str, Any]:
    return {
        "by": part.span.value,
        "valid": part.valid,
        "columns": [
            {"begin": each.begin.isoformat(), "certificates": each.certificates} for each in part.columns
        ],
        "later": part.later,
        "cliffs": [
            {
                "profile": each.profile,
                "begin": each.begin.isoformat(),
                "end": each.end.isoformat(),
                "certificates": each.certificates,
                "share": round(each.share, 4),
            }
            for each in part.cliffs
        ],
        "more_cliffs": part.more_cliffs,
        "command": part.command,
    }  # fmt: skip


def _findings(part: FindingsPart) -> dict[str, Any]:
    return {
        "source": part.source.value,
        "at": _instant(part.at),
        "certificates": part.certificates,
        "paths": part.paths,
        "counts": dict(part.counts),
        "rules": [
            {
                "rule": each.rule,
                "severity": each.severity.value,
                "count": each.count,
                "clause": each.clause,
                "cure": each.hint,
                "examples": [{"name": example.name, "message": example.message} for example in each.examples],
            }
            for each in part.groups
        ],
        "more_rules": part.more_groups,
        "entries_since": part.entries_since,
        "command": part.command,
    }


def _revocations(part: RevocationsPart) -> dict[str, Any]:
    told = part.summary
    return {
        "revoked": told.revoked,
        "unpublished": told.unpublished,
        "stale_answers": told.stale_answers,
        "not_yet_effective": told.pending,
        "by_reason": [{"reason": reason, "certificates": number} for reason, number in told.by_reason],
        "median_latency_seconds": _seconds(told.median_latency),
        "latency_95_seconds": _seconds(told.latency_95),
        "longest_latency_seconds": _seconds(told.longest_latency),
        "median_effect_seconds": _seconds(told.median_effect),
        "published_within": [{"within": name, "certificates": number} for name, number in part.latencies],
        "shown": [
            {
                "certificate": each.certificate,
                "profile": each.profile,
                "reason": each.reason,
                "revoked_at": _instant(each.revoked_at),
                "publication": each.publication.value,
                "published_at": _instant(each.published_at),
                "effective_at": _instant(each.effective_at),
                "latency_seconds": _seconds(each.latency),
            }
            for each in part.shown
        ],
        "command": part.command,
    }


def _audit(part: AuditPart) -> dict[str, Any]:
    return {
        "verified": part.verified,
        "ok": part.ok,
        "entries": part.entries,
        "rows": part.rows,
        "head": part.head_count,
        "key_id": part.key_id,
        "checkpoint": part.checkpoint,
        "findings": [{"code": each.code.value, "seq": each.seq, "what": each.what} for each in part.findings],
        "more_findings": part.more_findings,
        "reason": part.reason or None,
        "command": part.command,
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())
