"""The diagnosis for people."""

from __future__ import annotations

from collections.abc import Iterable

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted, rfc3339
from chargepki.pki.doctor import Chain, ChainReport, Diagnosis, Node, ObjectDiagnosis, Opinion
from chargepki.pki.errors import printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.reading import as_text

__all__ = ["print_diagnosis"]

_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTICE: 2}


def print_diagnosis(state: GlobalState, diagnosis: Diagnosis) -> None:
    """Write chains first, then what is wrong with files and objects.

    Notices, and what the linter merely warns of in a single object, come with ``--verbose``.
    """
    printer = _Printer(state)
    for number, report in enumerate(diagnosis.chains, start=1):
        printer.chain(number, report)
    for file in diagnosis.files:
        if file.note or printer.shown(file.findings):
            printer.heading(f"{file.name}: {file.reads_as}{f', {file.note}' if file.note else ''}")
            printer.findings(file.findings)
    in_chains = {id(node) for report in diagnosis.chains for node in report.chain.path}
    told: set[int] = set()
    for each in diagnosis.objects:
        if id(each.node) in told:
            continue  # a copy of a certificate: the first tells where it lies again
        if each.node is not None:
            told.add(id(each.node))
        if each.node is None or id(each.node) not in in_chains or each.findings:
            printer.object(each)
    printer.findings(diagnosis.together, "all certificates together")
    for name, reason in diagnosis.skipped:
        state.output.reason(printable(f"skipped {as_text(name)}: {as_text(reason)}"))


class _Printer:
    def __init__(self, state: GlobalState) -> None:
        self._state = state

    def _write(self, line: str) -> None:
        self._state.output.text(printable(as_text(line)))

    def heading(self, line: str) -> None:
        """Write a line of its own."""
        self._write(line)

    def shown(self, findings: Iterable[Finding], *, worst: bool = False) -> list[Finding]:
        """Return what is shown of *findings*, errors first; *worst*: errors alone."""
        wanted = {Severity.ERROR} if worst else {Severity.ERROR, Severity.WARNING}
        found = [each for each in findings if self._state.verbose or each.severity in wanted]
        return sorted(found, key=lambda each: _RANK[each.severity])

    def findings(self, findings: Iterable[Finding], title: str = "", *, worst: bool = False) -> None:
        """Write what is wrong, each with clause and cure."""
        shown = self.shown(findings, worst=worst)
        if shown and title:
            self._write(title)
        for finding in shown:
            self._finding(finding, "  ")

    def _finding(self, finding: Finding, margin: str) -> None:
        self._write(f"{margin}{finding.severity}: {finding.message}")
        self._write(f"{margin}  rule {finding.rule}, {finding.clause}")
        if finding.hint:
            self._write(f"{margin}  cure: {finding.hint}")

    def chain(self, number: int, report: ChainReport) -> None:
        """Write one chain: its certificates, its key, what is to be sent, who objects."""
        chain = report.chain
        leaf = chain.leaf
        what = leaf.profile.id if leaf.profile is not None else "no profile"
        self._write(f"chain {number}: {leaf.subject or '(empty subject)'}, {what} ({leaf.reason})")
        for node in chain.path:
            again = f"; also in {', '.join(node.names[1:])}" if len(node.names) > 1 else ""
            self._write(f"  {_place(chain, node):<6} {node.name}: {node.subject}, until {_until(node)}{again}")
        if chain.gap is not None:
            self._write(f"  missing: {chain.gap.issuer}")
        if report.keys:
            self._write(f"  its key: {', '.join(report.keys)}")
        if report.requests:
            self._write(f"  its request: {', '.join(report.requests)}")
        if not leaf.view.is_ca:
            self._write(f"  to be sent, in this order: {', '.join(node.name for node in chain.to_send)}")
        for opinion in report.opinions:
            self._opinion(opinion)
        self.findings(report.findings)

    def _opinion(self, opinion: Opinion) -> None:
        trust = f", if it trusts {opinion.trusts}" if opinion.trusts else ""
        if opinion.accepts:
            self._write(f"  {opinion.party} ({opinion.purpose}): accepts{trust}")
            return
        self._write(f"  {opinion.party} ({opinion.purpose}): objects")
        for objection in opinion.objections:
            self._write(f"    {objection.message} ({objection.clause})")
            if objection.hint:
                self._write(f"    cure: {objection.hint}")

    def object(self, each: ObjectDiagnosis) -> None:
        """Write what an object is, and what is wrong with it."""
        parts = [each.kind, *([each.profile] if each.profile else []), *([each.says] if each.says else [])]
        self._write(f"{each.name}: {', '.join(parts)}{f' ({each.reason})' if each.reason else ''}")
        if each.fits:
            self._write(f"  fits {', '.join(each.fits)}")
        if each.copies:
            self._write(f"  also in {', '.join(each.copies)}")
        self.findings(each.findings, worst=True)
        hidden = len(each.findings) - len(self.shown(each.findings, worst=True))
        if hidden:
            self._write(f"  {counted(hidden, 'warning or notice', 'warnings and notices')} (-v tells them)")


def _place(chain: Chain, node: Node) -> str:
    if node is chain.root:
        return "root"
    return "sub-CA" if node.view.is_ca else "leaf"


def _until(node: Node) -> str:
    value = node.view.not_after.value
    return "an unreadable time" if value is None else rfc3339(value)
