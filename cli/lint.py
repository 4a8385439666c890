"""``chargepki lint``: judge certificates, requests, CRLs, OCSP responses, chains, folders and TLS endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, command, pass_state
from chargepki.cli.values import INSTANT
from chargepki.pki.errors import printable

if TYPE_CHECKING:
    from chargepki.pki.lint.session import ObjectReport

__all__ = ["lint"]


@command("lint", verdict=True, example="chargepki lint leaf.pem --profile iso15118-2/secc")
@click.argument("files", nargs=-1, metavar="FILE|FOLDER|tls://HOST:PORT…")
@click.option("--profile", "profile_id", metavar="ID", help="Profile to hold leaves against; guessed otherwise.")
@click.option(
    "--issuer", "issuers", metavar="FILE", multiple=True, help="Issuers' certificates, not judged; repeatable."
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["bundle", "store", "set"]),
    help="What the certificates of a file are: what a peer is sent, trust anchors, or neither; told otherwise.",
)
@click.option("--at", "at", type=INSTANT, metavar="TIME", help="Instant at which validity is judged; now otherwise.")
@click.option("--weak-keys", metavar="FILE", help="List of weak keys (the guide describes the format).")
@click.option("--serial-number", metavar="TEXT", help="The charging station's serial number, to compare the CN with.")
@click.option("--organization", metavar="TEXT", help="The charging station operator, to compare O with.")
@click.option("--no-unverified", is_flag=True, help="Leave out rules whose demand no public text settles.")
@click.option("--deep", is_flag=True, help="Ask pkilint for a second opinion (needs the extra 'lint').")
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]), help="What to print; text otherwise.")
@click.option("--list-rules", is_flag=True, help="List every rule with its severity and clause.")
@pass_state
def lint(
    state: GlobalState,
    /,
    files: tuple[str, ...],
    form: str | None,
    list_rules: bool,
    at: datetime | None,
    **options: Any,
) -> None:
    """Judge the objects in FILE, rule by rule: PEM or DER, several in one file, whole folders, a live TLS endpoint.

    Exit 1 when any finding is an error. A rule that needs data that was not given is reported as not evaluated.
    Severities and data can be set in the table [lint] of chargepki.toml.
    """
    if form == "json":
        state.json = True
    if list_rules:
        _list_rules(state)
        return
    if not files:
        raise click.UsageError("pass at least one FILE, FOLDER or tls://HOST:PORT, or --list-rules")
    from datetime import UTC

    from chargepki.cli.linting import Request, judge

    run = judge(state, Request(files=files, now=at or datetime.now(UTC), **options))
    if form == "sarif":
        from importlib.metadata import version

        from chargepki.pki.lint.sarif import sarif_log

        state.output.text(sarif_log(run.reports, tool_version=version("chargepki")))
    elif state.output.is_json_lines:
        for report in run.reports:
            state.output.document("chargepki/lint-report", report.to_json())
    elif state.output.is_json:
        content = {"reports": [report.to_json() for report in run.reports], "skipped": run.skipped}
        state.output.document("chargepki/lint-report-list", content)
    else:
        _print(state, run.reports)
    _summarise(state, run.reports, run.skipped)


def _summarise(state: GlobalState, reports: list[ObjectReport], skipped: list[dict[str, str]]) -> None:
    from chargepki.cli.output import counted

    findings = [finding for each in reports for finding in each.report.findings]
    errors = sum(len(each.report.errors) for each in reports)
    unjudged = sum(len(each.report.not_evaluated) for each in reports)
    for each in skipped:
        state.output.reason(printable(f"skipped {each['file']}: {each['reason']}"))
    parts = [counted(len(reports), "object"), counted(len(findings), "finding"), counted(errors, "error")]
    if unjudged:
        parts.append(f"{counted(unjudged, 'rule')} not evaluated{'' if state.verbose else ' (-v tells why)'}")
    if skipped:
        parts.append(f"{counted(len(skipped), 'file')} skipped")
    state.output.say(", ".join(parts))
    if errors:
        raise click.exceptions.Exit(1)


def _print(state: GlobalState, reports: list[ObjectReport]) -> None:
    def write(line: str) -> None:
        state.output.text(printable(line))

    for each in reports:
        report = each.report
        subject = report.profile_id or ("no profile" if report.kind.endswith(("certificate", "csr")) else "")
        told = each.profile_reason or each.note
        reason = f" ({told})" if told else ""
        write(f"{each.name}: {report.kind}{f', {subject}' if subject else ''}{reason}")
        for override in report.overrides:
            severity = "off" if override.severity is None else override.severity.value
            write(f"  override: {override.rule} is {severity}, by default {override.default.value}")
            write(f"    set in {override.source}")
        for finding in report.findings:
            where = f" [{finding.where}]" if finding.where else ""
            write(f"  {finding.severity}: {finding.message}{where}")
            write(f"    rule {finding.rule}, {finding.clause}")
            if finding.hint:
                write(f"    cure: {finding.hint}")
        if state.verbose:
            for unjudged in report.not_evaluated:
                write(f"  not evaluated: {unjudged.rule}, {unjudged.reason}")


def _list_rules(state: GlobalState) -> None:
    from chargepki.pki.lint import all_rules

    rows = [
        {
            "id": rule.id,
            "severity": rule.severity,
            "judges": rule.subject,
            "title": rule.title,
            "clause": rule.clause,
            "hint": rule.hint,
            "standards": sorted(standard.value for standard in rule.standards),
            "applies": sorted(rule.applies),
            "unverified": rule.unverified or None,
        }
        for rule in all_rules()
    ]
    columns = ("id", "severity", "judges", "title", "clause")
    state.output.rows("chargepki/lint-rule-list", columns, rows, key="rules")
