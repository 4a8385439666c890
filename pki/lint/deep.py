"""A second opinion on certificates from pkilint, which judges them against RFC 5280 alone (extra ``lint``)."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from chargepki.pki.errors import UnavailableError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.engine import Unjudged

if TYPE_CHECKING:
    from chargepki.pki.lint.session import ObjectReport

__all__ = ["QUARREL", "check_available", "with_second_opinion"]

QUARREL: Final = "pkix.name_domain_components_invalid_domain_name"
"""pkilint reads domainComponents as a domain name (RFC 2247), in which ``CPO`` alone is none."""

_SEVERITY: Final = {
    "FATAL": Severity.ERROR,
    "ERROR": Severity.ERROR,
    "WARNING": Severity.WARNING,
    "NOTICE": Severity.NOTICE,
}
_EXPLAINED: Final = (
    "pkilint takes domainComponents for a domain name (RFC 2247); ISO 15118 uses the attribute as a label of the role "
    "(V2G, CPO, CSO, CPS, MO, OEM), and EVs demand it. Keep it: for this certificate ISO 15118 decides"
)
_LABELS: Final = ("V2G", "CPO", "CSO", "CPS", "MO", "OEM")


def check_available() -> None:
    """Refuse when pkilint is not installed.

    Raises:
        UnavailableError: it is not.
    """
    try:
        importlib.import_module("pkilint")
    except ImportError as error:
        raise UnavailableError(
            "pkilint is not installed",
            why="the second opinion of --deep is an optional extra",
            fix="install it with: pip install 'chargepki[lint]'",
        ) from error


def with_second_opinion(found: ObjectReport) -> ObjectReport:
    """Return *found* with pkilint's findings appended, when it is the report about a certificate."""
    if found.report.kind != "certificate":
        return found
    findings, failure = _ask(found.der)
    report = replace(found.report, findings=(*found.report.findings, *findings))
    if failure:
        report = replace(report, not_evaluated=(*report.not_evaluated, Unjudged("pkilint", failure)))
    return replace(found, report=report)


def _ask(der: bytes) -> tuple[list[Finding], str]:
    """Return pkilint's findings, or why it came to none."""
    loader = importlib.import_module("pkilint.loader")
    try:
        document = loader.load_certificate(der, "certificate")
        results = _validator().validate(document.root)
    except Exception as error:  # noqa: BLE001  # a second opinion must not stop the first, and it raises what it likes
        return [], f"pkilint gave up: {type(error).__name__}"
    findings = []
    for result in results:
        for described in result.finding_descriptions:
            severity = _SEVERITY.get(described.finding.severity.name)
            if severity is not None:  # INFO and DEBUG say how something was done, not that it is wrong
                findings.append(_finding(described, severity, str(result.node.path)))
    return findings, ""


def _finding(described: Any, severity: Severity, where: str) -> Finding:
    code = described.finding.code
    message = described.message or code
    if code == QUARREL and any(f'"{label}"' in message for label in _LABELS):
        return Finding(f"pkilint:{code}", Severity.NOTICE, message, "RFC 2247 (as pkilint reads it)", _EXPLAINED, where)
    return Finding(
        f"pkilint:{code}", severity, message, "RFC 5280 (as pkilint reads it)", "see pkilint's own documentation", where
    )


@cache
def _validator() -> Any:
    certificate, name, extension = (
        importlib.import_module(f"pkilint.pkix.{part}") for part in ("certificate", "name", "extension")
    )
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
        ],
    )
