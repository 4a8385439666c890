"""``chargepki lint``: check certificates and CRLs against the standards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, command, pass_state
from chargepki.pki.errors import printable

if TYPE_CHECKING:
    from chargepki.pki.profiles.base import Profile

__all__ = ["lint"]

_MAX_BYTES = 64 << 20


@command("lint", verdict=True, example="chargepki lint leaf.pem --profile iso15118-2/secc")
@click.argument("files", nargs=-1, metavar="FILE…")
@click.option("--profile", "profile_id", metavar="ID", help="Profile to hold certificates against; guessed otherwise.")
@click.option("--list-rules", is_flag=True, help="List every rule with its severity and clause.")
@pass_state
def lint(state: GlobalState, files: tuple[str, ...], profile_id: str | None, list_rules: bool) -> None:
    """Judge the certificates and CRLs in FILE (PEM or DER), rule by rule.

    Exit 1 when any finding is an error. A PEM file may hold several objects.
    """
    from chargepki.cli.output import counted
    from chargepki.pki.findings import Severity

    if list_rules:
        _list_rules(state)
        return
    if not files:
        raise click.UsageError("pass at least one FILE, or --list-rules")
    reports = [report for file in files for report in _judge_file(file, profile_id)]
    findings = [finding for report in reports for finding in report["findings"]]
    if state.output.is_json_lines:
        for report in reports:
            state.output.document("chargepki/lint-report", report)
    elif state.output.is_json:
        state.output.document("chargepki/lint-report-list", {"reports": reports})
    else:
        _print_findings(state, reports)
    errors = sum(1 for finding in findings if finding["severity"] == Severity.ERROR)
    sums = (counted(len(reports), "object"), counted(len(findings), "finding"), counted(errors, "error"))
    state.output.say(", ".join(sums))
    if errors:
        raise click.exceptions.Exit(1)


def _judge_file(file: str, profile_id: str | None) -> list[dict[str, Any]]:
    from chargepki.pki import files as io
    from chargepki.pki.der import pem_blocks
    from chargepki.pki.errors import InputError

    data = io.read_limited(file, _MAX_BYTES, "file")
    if not data:
        raise InputError(f"{file} is empty", why="it should hold a certificate or a CRL", fix="check the path")
    if b"-----BEGIN" in data:
        objects = [(block.label, block.der) for block in pem_blocks(data, max_bytes=_MAX_BYTES)]
    else:
        objects = [("X509 CRL" if _looks_like_crl(data) else "CERTIFICATE", data)]
    reports: list[dict[str, Any]] = []
    for position, (label, der) in enumerate(objects):
        name = file if len(objects) == 1 else f"{file}#{position + 1}"
        try:
            reports.append(_judge_object(name, label, der, profile_id))
        except InputError as error:
            raise InputError(f"{name}: {error.what}", why=error.why, fix=error.fix) from error
    if not reports:
        raise InputError(f"{file} holds no certificate or CRL", fix="pass PEM or DER")
    return reports


def _judge_object(name: str, label: str, der: bytes, profile_id: str | None) -> dict[str, Any]:
    from chargepki.pki.certificate_view import view_certificate
    from chargepki.pki.errors import InputError
    from chargepki.pki.lint import guess_profile, lint_certificate, lint_crl
    from chargepki.pki.profiles import get_profile

    if label == "X509 CRL":
        return {"object": name, "kind": "crl", **lint_crl(der).to_json()}
    if label not in ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"):
        raise InputError(
            f"a {label!r} block is no certificate or CRL",
            why="lint judges certificates and CRLs",
            fix="judge a CSR with: chargepki csr check",
        )
    profile: Profile | None
    if profile_id:
        profile, reason = get_profile(profile_id), "given"
    else:
        profile, reason = guess_profile(view_certificate(der))
    report = lint_certificate(der, profile=profile).to_json()
    return {"object": name, "kind": "certificate", "profile_reason": reason, **report}


def _looks_like_crl(der: bytes) -> bool:
    from chargepki.pki.crl import parse_crl
    from chargepki.pki.errors import InputError

    try:
        parse_crl(der)
    except InputError:
        return False
    return True


def _print_findings(state: GlobalState, reports: list[dict[str, Any]]) -> None:
    for report in reports:
        profile = report.get("profile") or "no profile"
        reason = f" ({report['profile_reason']})" if report.get("profile_reason") else ""
        state.output.text(printable(f"{report['object']}: {report['kind']}, {profile}{reason}"))
        for finding in report["findings"]:
            where = f" [{finding['where']}]" if finding["where"] else ""
            state.output.text(printable(f"  {finding['severity']}: {finding['message']}{where}"))
            state.output.text(f"    rule {finding['rule']}, {finding['clause']}")
            if finding["hint"]:
                state.output.text(f"    cure: {finding['hint']}")


def _list_rules(state: GlobalState) -> None:
    from chargepki.pki.lint import list_rules as all_rules

    rows = [
        {"id": rule.id, "severity": rule.severity, "title": rule.title, "clause": rule.clause, "hint": rule.hint}
        for rule in all_rules()
    ]
    state.output.rows("chargepki/lint-rule-list", ("id", "severity", "title", "clause"), rows, key="rules")
