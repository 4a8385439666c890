"""What the linter says of a CA that is to be taken over, and of everything that it issued."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cryptography import x509

from chargepki.pki.adopting.estate import CaEstate
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint import lint_certificate
from chargepki.pki.lint.guess import guess_profile
from chargepki.pki.profiles.base import Profile

__all__ = ["EstateVerdict", "judge_estate"]


@dataclass(frozen=True, slots=True)
class EstateVerdict:
    """Errors and warnings of the linter."""

    ca: tuple[Finding, ...]
    """About the CA's certificate under the profile that it is to have."""
    issued: tuple[tuple[str, str, int], ...]
    """About what it issued: rule, severity and how many certificates break it, the most frequent first."""
    pointers: tuple[str, ...]
    """Where its certificates say that its revocation lists are: relying parties go on looking there."""


def judge_estate(estate: CaEstate, profile: Profile) -> EstateVerdict:
    """Judge the CA under *profile*, and each certificate under the profile that it looks like."""
    own = lint_certificate(estate.facts.der, profile=profile)
    counts: Counter[tuple[str, str]] = Counter()
    pointers: Counter[str] = Counter()
    for each in estate.issued:
        pointers.update(_list_urls(each.der))
        report = lint_certificate(each.der, profile=_guess(each.der), issuer_der=estate.facts.der)
        counts.update({(item.rule, item.severity.value) for item in report.findings if _matters(item)})
    return EstateVerdict(
        tuple(item for item in own.findings if _matters(item)),
        tuple((rule, severity, number) for (rule, severity), number in counts.most_common()),
        tuple(url for url, _ in pointers.most_common(20)),
    )


def _matters(item: Finding) -> bool:
    return item.severity in (Severity.ERROR, Severity.WARNING)


def _guess(der: bytes) -> Profile | None:
    try:
        return guess_profile(view_certificate(der))[0]
    except DerError:
        return None


def _list_urls(der: bytes) -> set[str]:
    try:
        points = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return set()
    return {
        name.value
        for point in points.value
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    }
