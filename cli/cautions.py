"""What linter and request policy have to say of certificates that were made all the same: warnings and their cures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chargepki.cli.globals import GlobalState
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CertificateRecord
from chargepki.pki.lint import lint_certificate
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Presence, Profile
from chargepki.pki.profiles.common import adapt_to_issuer

__all__ = ["ca_warnings", "certificate_warnings", "policy_notices", "tell_warnings"]

_Row = dict[str, Any]


def certificate_warnings(inventory: Inventory, record: CertificateRecord) -> list[_Row]:
    """Return the warnings of linter and request policy about a certificate, as the objects that ``--json`` prints."""
    issuer = inventory.get_ca(record.ca)
    return [*_judge(record.der, get_profile(record.profile), issuer), *policy_notices(record)]


def policy_notices(record: CertificateRecord) -> list[_Row]:
    """Return what the rules that look at earlier certificates remarked on when *record* was reserved."""
    return [
        {"rule": each["rule"], "message": each["message"], "clause": each["clause"], "hint": each["fix"]}
        for each in record.verdict.get("record", ())
        if not isinstance(each, str) and each["outcome"] == "notice"
    ]


def ca_warnings(inventory: Inventory, record: CaRecord) -> list[_Row]:
    """Return the linter's warnings about a CA's certificate, as the objects that ``--json`` prints."""
    return _judge(
        record.certificate_der,
        get_profile(record.profile),
        inventory.get_ca(record.issuer) if record.issuer else None,
    )


def tell_warnings(state: GlobalState, warnings: Iterable[_Row]) -> None:
    """Tell a person about *warnings*: each rule once, with its cure, and about how many it holds likewise."""
    by_rule: dict[str, list[str]] = {}
    cures: dict[str, str] = {}
    for warning in warnings:
        said = by_rule.setdefault(warning["rule"], [])
        cures[warning["rule"]] = warning["hint"]
        if warning["message"] not in said:
            said.append(warning["message"])
    for rule, messages in by_rule.items():
        more = f" (and {len(messages) - 1} more of the kind)" if len(messages) > 1 else ""
        state.output.say(f"warning: {messages[0]}{more}")
        if cures[rule]:
            state.output.say(f"cure: {cures[rule]}")


def _judge(der: bytes | None, profile: Profile, issuer: CaRecord | None) -> list[_Row]:
    if der is None:
        return []
    issuer_der = issuer.certificate_der if issuer else None
    if issuer is not None and issuer_der is not None:
        profile = _adapted(profile, issuer, issuer_der)
    report = lint_certificate(der, profile=profile, issuer_der=issuer_der)
    found = [_row(item) for item in report.findings if item.severity is Severity.WARNING]
    missing = _without_pointers(der, profile)
    return [*found, *([missing] if missing else [])]


def _adapted(profile: Profile, issuer: CaRecord, issuer_der: bytes) -> Profile:
    from cryptography import x509

    from chargepki.pki.keys import algorithm_of

    key = x509.load_der_x509_certificate(issuer_der).public_key()
    return adapt_to_issuer(profile, get_profile(issuer.profile), algorithm_of(key))


def _without_pointers(der: bytes, profile: Profile) -> _Row | None:
    """Return the warning that nobody can look up whether the certificate is revoked."""
    wanted = {profile.pointers.ocsp, profile.pointers.crl}
    if not wanted & {Presence.REQUIRED, Presence.RECOMMENDED} or _has_pointer(der):
        return None
    return {
        "rule": "w_no_revocation_pointer",
        "message": "the certificate says nowhere where its revocation can be looked up",
        "clause": profile.pointers.clause,
        "hint": "pass --public-url http://HOST when CA and certificate are made, see docs/guides/public-url.md",
    }


def _has_pointer(der: bytes) -> bool:
    from chargepki.pki.certificate_view import view_certificate
    from chargepki.pki.oids import EXTENSIONS

    pointers = {EXTENSIONS["cRLDistributionPoints"], EXTENSIONS["authorityInfoAccess"]}
    return any(extension.oid in pointers for extension in view_certificate(der).extensions)


def _row(finding: Finding) -> _Row:
    return {"rule": finding.rule, "message": finding.message, "clause": finding.clause, "hint": finding.hint}
