"""Read a certificate's bytes once into slices and values, tolerantly, so that rules judge and not exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["CertificateView", "DerProblem", "ExtensionView", "TimeView", "view_certificate", "view_tbs"]


@dataclass(frozen=True, slots=True)
class DerProblem:
    """One violation of DER that did not stop the reading."""

    offset: int
    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class ExtensionView:
    """One extension as it stands in the bytes."""

    oid: str
    critical: bool
    value: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class TimeView:
    """A Time: its tag, its bytes, and the instant if they make sense."""

    tag: int
    text: bytes
    value: datetime | None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate or its to-be-signed part."""

    tbs: bytes


def view_certificate(der: bytes) -> CertificateView:
    """Read a whole certificate."""
    return CertificateView(der)


def view_tbs(tbs: bytes) -> CertificateView:
    """Read a TBSCertificate."""
    return CertificateView(tbs)
