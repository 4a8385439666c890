"""A report as comma-separated values: one row for each number, with the command that asks for it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from chargepki.pki.reporting.json_form import report_json
from chargepki.pki.reporting.model import Report
from chargepki.pki.spreadsheets import quoted_cell

__all__ = ["COLUMNS", "report_csv"]

COLUMNS: Final = ("section", "item", "measure", "value", "command")

_Row = tuple[str, str, str, object, str]


def report_csv(report: Report) -> str:
    """Return a report as CSV (RFC 4180); a cell that a spreadsheet would run begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for row in _rows(report):
        writer.writerow([quoted_cell("" if cell is None else str(cell)) for cell in row])
    return buffer.getvalue()


def _rows(report: Report) -> Iterator[_Row]:
    content = report_json(report)
    for name in ("at", "where", "query", "version", "log_id"):
        yield "report", "", name, content[name], ""
    for figure in content["figures"]:
        yield "figures", "", figure["name"], figure["value"], figure["command"]
    yield from _hierarchy(report)
    part = content["timeline"]
    for column in part["columns"]:
        yield "timeline", column["begin"], f"expire in this {part['by']}", column["certificates"], part["command"]
    yield "timeline", "later", "expire", part["later"], part["command"]
    for cliff in part["cliffs"]:
        span = f"{cliff['begin']}/{cliff['end']}"
        yield "cliffs", f"{cliff['profile']} {span}", "expire", cliff["certificates"], part["command"]
    yield "cliffs", "", "more", part["more_cliffs"], part["command"]
    for each in report.breakdowns:
        for value, number in each.rows:
            yield f"by {each.by}", "" if value is None else value, "certificates", number, each.command
        yield f"by {each.by}", "", "more values", each.more_values, each.command
        yield f"by {each.by}", "", "certificates of more values", each.more_certificates, each.command
    yield from _findings(report)
    yield from _revocations(report)
    audit = content["audit"]
    for name in ("verified", "ok", "entries", "rows", "head", "key_id", "checkpoint", "more_findings", "reason"):
        yield "audit", "", name, audit[name], audit["command"]
    for found in audit["findings"]:
        yield "audit", found["code"], "finding", found["what"], audit["command"]


def _hierarchy(report: Report) -> Iterator[_Row]:
    cas, census = report.hierarchy.commands
    for node in report.hierarchy.nodes:
        yield "hierarchy", node.label, "state", node.state.value, cas
        signers = "; ".join(report.hierarchy.nodes[number].label for number in node.parents)
        yield "hierarchy", node.label, "signed by", signers, cas
        for profile, number in node.leaves:
            yield "hierarchy", node.label, f"valid {profile}", number, census
        if node.more_leaves:
            yield "hierarchy", node.label, "valid of more profiles", node.more_leaves, census
    yield "hierarchy", "", "more CAs", report.hierarchy.omitted, cas


def _findings(report: Report) -> Iterator[_Row]:
    part = report.findings
    yield "findings", "", "source", part.source.value, part.command
    for severity, number in part.counts.items():
        yield "findings", "", severity, number, part.command
    for group in part.groups:
        yield "findings", group.rule, group.severity.value, group.count, part.command
    yield "findings", "", "more rules", part.more_groups, part.command


def _revocations(report: Report) -> Iterator[_Row]:
    content = report_json(report)["revocations"]
    command = content["command"]
    for name, value in content.items():
        if isinstance(value, int) or value is None:
            yield "revocations", "", name, value, command
    for each in content["by_reason"]:
        yield "revocations", each["reason"], "revoked", each["certificates"], command
    for each in content["published_within"]:
        yield "revocations", each["within"], "published within", each["certificates"], command
    for each in content["shown"]:
        for name in ("reason", "revoked_at", "publication", "published_at", "effective_at", "latency_seconds"):
            yield "revocations", each["certificate"], name, each[name], command
