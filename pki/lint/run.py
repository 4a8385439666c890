"""The entry points: decode, choose the rules, judge."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from chargepki.pki.certificate_view import CertificateView, view_certificate, view_tbs
from chargepki.pki.der import DerError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.engine import (
    CERTIFICATES,
    NO_DATA,
    CertificateContext,
    LintData,
    LintReport,
    available_data,
    judge,
    tokens_of,
)
from chargepki.pki.profiles.base import Profile

__all__ = ["check_aware", "judge_view", "lint_certificate", "lint_crl", "lint_tbs", "unreadable", "view_issuer"]


def lint_certificate(
    der: bytes,
    *,
    profile: Profile | None,
    now: datetime | None = None,
    issuer_der: bytes | None = None,
    data: LintData = NO_DATA,
) -> LintReport:
    """Judge a whole certificate (DER).

    Args:
        profile: what it is meant to be; ``None`` runs only the rules that hold for every certificate.
        now: also judge whether it is valid at this instant; ``None`` leaves that out.
        issuer_der: also judge it against this issuer (DER).
        data: what some rules compare it with; without its datum a rule is reported as not evaluated.

    Raises:
        InputError: *issuer_der* is no certificate. A fault in *der* is a finding (``e_der_strict``), never an error.
    """
    check_aware(now)
    issuer = None if issuer_der is None else view_issuer(issuer_der)
    try:
        view = view_certificate(der)
    except DerError as error:
        return unreadable(error, "certificate", profile)
    return judge_view(view, "certificate", profile, now=now, issuer=issuer, data=data)


def lint_tbs(
    tbs: bytes, *, profile: Profile | None, issuer_der: bytes | None = None, data: LintData = NO_DATA
) -> LintReport:
    """Judge the exact to-be-signed bytes of a certificate, before any signature exists.

    Sizes are judged for the longest signature that the named algorithm can give. For the rest see `lint_certificate`.
    """
    issuer = None if issuer_der is None else view_issuer(issuer_der)
    try:
        view = view_tbs(tbs)
    except DerError as error:
        return unreadable(error, "tbs-certificate", profile)
    return judge_view(view, "tbs-certificate", profile, now=None, issuer=issuer, data=data)


def lint_crl(
    der: bytes, *, issuer_der: bytes | None = None, now: datetime | None = None, entries_judged: bool = False
) -> LintReport:
    """Judge a certificate revocation list (DER), whole or only its to-be-signed part.

    Args:
        entries_judged: the entries are runs that `crl_entry.encode_entry` wrote, each serial once and none revoked
            after thisUpdate: they break no rule, and are not decoded again.

    Raises like `lint_certificate`.
    """
    # Imported late: a command that issues one certificate starts faster without.
    from chargepki.pki.crl_view import read_crl
    from chargepki.pki.lint.crl_rules import CrlContext, choose_crl_rules

    check_aware(now)
    issuer = None if issuer_der is None else view_issuer(issuer_der)
    try:
        content = read_crl(der, skip_entries=entries_judged)
    except DerError as error:
        return unreadable(error, "crl", None)
    plan = choose_crl_rules(
        with_issuer=issuer is not None, with_now=now is not None, with_signature=content.outer_algorithm is not None
    )
    return judge(plan, CrlContext(content, issuer, now), "crl")


@lru_cache(maxsize=32)
def view_issuer(der: bytes) -> CertificateView:
    """Read an issuer's certificate, once for everything that it issues."""
    # A CA's certificate is the same for everything it issues. Views are values, and one that raises is not remembered.
    return view_certificate(der)


def judge_view(
    view: CertificateView,
    kind: str,
    profile: Profile | None,
    *,
    now: datetime | None = None,
    issuer: CertificateView | None = None,
    data: LintData = NO_DATA,
) -> LintReport:
    """Judge a certificate that has been read already; *kind* is ``certificate`` or ``tbs-certificate``."""
    standard = None if profile is None else profile.standard
    available = available_data(data, issuer=issuer is not None, now=now is not None, signature=view.der is not None)
    plan = CERTIFICATES.plan(standard, tokens_of(profile, is_ca=view.is_ca), available)
    context = CertificateContext(view, profile, issuer, now, data)
    return judge(plan, context, kind, None if profile is None else profile.id)


def unreadable(error: DerError, kind: str, profile: Profile | None = None) -> LintReport:
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


def check_aware(now: datetime | None) -> None:
    """Refuse a naive time with TypeError."""
    if now is not None and now.tzinfo is None:
        raise TypeError("now is a naive datetime; pass an aware one")
