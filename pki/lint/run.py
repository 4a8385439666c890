"""The entry points: decode, choose the rules, judge."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from chargepki.pki.certificate_view import CertificateView, view_certificate, view_tbs
from chargepki.pki.der import DerError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.engine import CertificateContext, LintReport, certificate_rules, collect
from chargepki.pki.profiles.base import Profile

__all__ = ["lint_certificate", "lint_crl", "lint_tbs"]


def lint_certificate(
    der: bytes, *, profile: Profile | None, now: datetime | None = None, issuer_der: bytes | None = None
) -> LintReport:
    """Judge a whole certificate (DER).

    Args:
        profile: what it is meant to be; ``None`` runs only the rules that hold for every certificate.
        now: also judge whether it is valid at this instant; ``None`` leaves that out.
        issuer_der: also judge it against this issuer (DER).

    Raises:
        InputError: *issuer_der* is no certificate. A fault in *der* is a finding (``e_der_strict``), never an error.
    """
    _check_aware(now)
    issuer = None if issuer_der is None else _view_issuer(issuer_der)
    try:
        view = view_certificate(der)
    except DerError as error:
        return _unreadable(error, "certificate", profile)
    return _judge(view, "certificate", profile, now=now, issuer=issuer)


def lint_tbs(tbs: bytes, *, profile: Profile | None, issuer_der: bytes | None = None) -> LintReport:
    """Judge the exact to-be-signed bytes of a certificate, before any signature exists.

    Sizes are judged for the longest signature that the named algorithm can give. For the rest see `lint_certificate`.
    """
    issuer = None if issuer_der is None else _view_issuer(issuer_der)
    try:
        view = view_tbs(tbs)
    except DerError as error:
        return _unreadable(error, "tbs-certificate", profile)
    return _judge(view, "tbs-certificate", profile, now=None, issuer=issuer)


def lint_crl(der: bytes, *, issuer_der: bytes | None = None, now: datetime | None = None) -> LintReport:
    """Judge a certificate revocation list (DER), whole or only its to-be-signed part.

    Raises like `lint_certificate`.
    """
    # Imported late: a command that issues one certificate starts faster without.
    from chargepki.pki.crl_view import read_crl
    from chargepki.pki.lint.crl_rules import CrlContext, choose_crl_rules

    _check_aware(now)
    issuer = None if issuer_der is None else _view_issuer(issuer_der)
    try:
        content = read_crl(der)
    except DerError as error:
        return _unreadable(error, "crl", None)
    checks = choose_crl_rules(
        with_issuer=issuer is not None, with_now=now is not None, with_signature=content.outer_algorithm is not None
    )
    findings = collect(checks, CrlContext(content, issuer, now))
    return LintReport("crl", findings, tuple(entry.id for entry, _ in checks))


@lru_cache(maxsize=32)
def _view_issuer(der: bytes) -> CertificateView:
    # A CA's certificate is the same for everything it issues. Views are values, and one that raises is not remembered.
    return view_certificate(der)


def _judge(
    view: CertificateView, kind: str, profile: Profile | None, *, now: datetime | None, issuer: CertificateView | None
) -> LintReport:
    plan = certificate_rules(
        profile,
        is_ca=view.is_ca,
        with_issuer=issuer is not None,
        with_now=now is not None,
        with_signature=view.der is not None,
    )
    findings = collect(plan.checks, CertificateContext(view, profile, issuer, now))
    return LintReport(kind, findings, plan.ids, None if profile is None else profile.id)


def _unreadable(error: DerError, kind: str, profile: Profile | None) -> LintReport:
    """Report a structure that cannot be followed; no other rule can say anything then."""
    finding = Finding(
        rule="e_der_strict",
        severity=Severity.ERROR,
        message=f"{error.what} (rule {error.rule})",
        clause="X.690; RFC 5280 4.1",
        hint="send the original, unmodified object in DER",
        where=f"offset {error.offset}",
    )
    return LintReport(kind, (finding,), ("e_der_strict",), None if profile is None else profile.id)


def _check_aware(now: datetime | None) -> None:
    if now is not None and now.tzinfo is None:
        raise TypeError("now is a naive datetime; pass an aware one")
