"""What is given about revocations, how it is to be used, and what it says about a certificate: plain values.

Apart from `revocation`, which reads lists and responses: who has none to show does not load what decodes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

__all__ = ["CertificateStatus", "Revocation", "RevocationMode", "Status"]


class RevocationMode(StrEnum):
    """How much must be known, with the names of the command line."""

    OFF = "off"
    IF_PRESENT = "if-present"
    """Revoked and stale refuse; a certificate about which there is no evidence passes."""
    REQUIRE = "require"
    """Every certificate below the anchor must be known to be good."""


class Status(StrEnum):
    """What the evidence says about one certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """No list or response that may answer for it covers it."""
    STALE = "stale"
    """Only evidence from another time covers it."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """The evidence, and how it is to be used."""

    mode: RevocationMode = RevocationMode.OFF
    crls: tuple[bytes, ...] = ()
    """DER; complete and delta lists, any order."""
    ocsp_responses: tuple[bytes, ...] = ()
    """DER."""
    allow_indirect: bool = False
    """Believe lists whose issuer is not the certificate's, where the certificate names it (RFC 5280 5.2.5)."""
    nonce: bytes | None = None
    """The nonce of our request: responses without it are not used."""
    max_age: timedelta | None = None
    """Greatest age of evidence, also of one without nextUpdate, which is stale otherwise."""
    skew: timedelta = timedelta(minutes=5)
    """How far thisUpdate may lie in the future."""


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """The status of one certificate, and where it comes from."""

    certificate: str
    status: Status
    source: str = ""
    revoked_at: datetime | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    """Evidence that was not used, and why."""

    def to_json(self) -> dict[str, Any]:
        """Return every field."""
        return {
            "certificate": self.certificate,
            "status": self.status,
            "source": self.source,
            "revoked_at": self.revoked_at,
            "reason": self.reason,
            "notes": list(self.notes),
        }
