"""The entry points: decode, choose the rules, judge."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.certificate_view import CertificateView
from chargepki.pki.lint.engine import LintReport
from chargepki.pki.profiles.base import Profile

__all__ = ["guess_profile", "lint_certificate", "lint_crl", "lint_tbs"]


def lint_certificate(
    der: bytes, *, profile: Profile | None, now: datetime | None = None, issuer_der: bytes | None = None
) -> LintReport:
    """Judge a whole certificate (DER)."""
    return LintReport(kind="certificate", findings=(), rules_run=(), profile_id=profile.id if profile else None)


def lint_tbs(tbs: bytes, *, profile: Profile | None, issuer_der: bytes | None = None) -> LintReport:
    """Judge the exact to-be-signed bytes of a certificate, before any signature exists."""
    return LintReport(kind="tbs-certificate", findings=(), rules_run=(), profile_id=profile.id if profile else None)


def lint_crl(der: bytes, *, issuer_der: bytes | None = None, now: datetime | None = None) -> LintReport:
    """Judge a certificate revocation list (DER)."""
    return LintReport(kind="crl", findings=(), rules_run=())


def guess_profile(view: CertificateView) -> tuple[Profile | None, str]:
    """Guess the profile of a certificate from its own fields; the second value says why."""
    return None, "nothing in the certificate names its profile"
