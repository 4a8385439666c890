"""A finished check for machines: JSON, SARIF 2.1.0, and JUnit XML for build servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from chargepki.pki.checking.tally import FindingGroup, tally_of
from chargepki.pki.errors import printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.engine import LintReport
from chargepki.pki.lint.sarif import sarif_log
from chargepki.pki.lint.session import ObjectReport

__all__ = ["CheckReport"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found."""

    at: datetime
    """Instant at which everything was judged."""
    judged: int
    """Certificates that were linted."""
    paths: int
    """Paths that were validated."""
    findings: tuple[FindingGroup, ...]
    """Errors first, then by rule."""

    @property
    def ok(self) -> bool:
        """Whether nothing is an error."""
        return all(each.severity is not Severity.ERROR for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {
            "at": self.at,
            "ok": self.ok,
            "certificates": self.judged,
            "paths": self.paths,
            **{f"{name}s": number for name, number in tally_of(self.findings).items()},
            "findings": [
                {
                    "rule": each.rule,
                    "severity": each.severity,
                    "clause": each.clause,
                    "hint": each.hint,
                    "count": each.count,
                    "examples": [
                        {"name": example.name, "message": example.message, "where": example.where or None}
                        for example in each.examples
                    ],
                }
                for each in self.findings
            ],
        }

    def to_sarif(self, tool_version: str) -> str:
        """Return a SARIF log; each example is a result, and the inventory is the place of all."""
        reports = []
        for group in self.findings:
            for example in group.examples:
                finding = Finding(group.rule, group.severity, example.message, group.clause, group.hint, example.where)
                report = LintReport("certificate", (finding,), (), None)
                reports.append(ObjectReport(example.name, "inventory", report))
        return sarif_log(reports, tool_version=tool_version)

    def to_junit(self) -> str:
        """Return JUnit XML: each rule that found something is a test, which fails when it is an error.

        There is no standard of it. This keeps to the schema of Ant's reports and to the laxer one of Jenkins' xUnit
        plugin at once, so what does not fail is told as output of the suite: a test may hold nothing but its failure
        there. Both want times of all tests, and a rule has none of its own: 0.
        """
        errors = [each for each in self.findings if each.severity is Severity.ERROR]
        done = f"certificates judged: {self.judged}, paths validated: {self.paths}"
        stamp = self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<testsuites>",
            '<testsuite id="0" package="chargepki" name="inventory check" hostname="localhost" '
            f'timestamp="{stamp}" tests="{len(self.findings) + 1}" failures="{len(errors)}" errors="0" time="0">',
            "<properties/>",
            f'<testcase classname="inventory" name="{done}" time="0"/>',
        ]
        for each in self.findings:
            name = quoteattr(_xml(f"{each.rule}: {each.count}"))
            case = f'<testcase classname="inventory.{each.severity}" name={name} time="0"'
            if each.severity is not Severity.ERROR:
                lines.append(f"{case}/>")
                continue
            body = escape(_xml("\n".join(_lines(each))))
            told = f"<failure type={quoteattr(each.rule)} message={quoteattr(_xml(each.clause))}>{body}</failure>"
            lines.append(f"{case}>{told}</testcase>")
        others = [f"{each.severity} {each.rule}: {each.count}" for each in self.findings if each not in errors]
        rest = [_lines(each) for each in self.findings if each not in errors]
        output = "\n\n".join("\n  ".join([head, *body]) for head, body in zip(others, rest, strict=True))
        lines += [f"<system-out>{escape(_xml(output))}</system-out>", "<system-err/>"]
        return "\n".join([*lines, "</testsuite>", "</testsuites>", ""])


def _lines(group: FindingGroup) -> Sequence[str]:
    shown = [f"{example.name}: {example.message}" for example in group.examples]
    more = group.count - len(shown)
    return [
        f"clause: {group.clause}",
        f"cure: {group.hint}",
        *shown,
        *([f"and {more} more"] if more > 0 else []),
    ]


def _xml(text: str) -> str:
    """Return *text* without what XML 1.0 cannot hold; lines stay."""
    return "\n".join(printable(line) for line in text.split("\n"))
