"""A prepared OCSP response as it leaves the inventory, and how the status that it states is written down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki.inventory.codec import RowKind, encode_time
from chargepki.pki.inventory.records import CertificateState

__all__ = ["OCSP_RESPONSE", "OcspResponseRecord", "OcspSubject", "status_text"]


@dataclass(frozen=True, slots=True)
class OcspResponseRecord:
    """One signed answer about one certificate; the newest replaces the one before."""

    certificate: str
    """Id of the certificate that it is about."""
    hash: str
    """Hash of its CertID: ``sha1`` or ``sha256``."""
    ca: str
    """Id of the CA generation that issued the certificate."""
    status: str
    """What it states, see `status_text`."""
    signer: str
    """Id of the delegated signer's certificate; empty when the CA itself signed."""
    this_update: datetime
    next_update: datetime
    refresh_at: datetime
    """From when on it is to be replaced."""
    der: bytes


@dataclass(frozen=True, slots=True)
class OcspSubject:
    """What a responder needs to know of one certificate."""

    id: str
    ca: str
    serial: str
    state: CertificateState
    revoked_at: datetime | None
    revocation_reason: str | None
    not_after: datetime

    @property
    def status(self) -> str:
        """The text that a response about it must state; empty while there is nothing to state."""
        return status_text(self.state, self.revoked_at, self.revocation_reason)


def status_text(state: CertificateState, revoked_at: datetime | None, reason: str | None) -> str:
    """Return ``good``, ``revoked TIME REASON``, or an empty text for a serial that was never issued.

    >>> status_text(CertificateState.ISSUED, None, None)
    'good'
    """
    if state is CertificateState.ISSUED:
        return "good"
    if state is CertificateState.REVOKED and revoked_at is not None:
        return f"revoked {encode_time(revoked_at)} {reason or 'unspecified'}"
    return ""


OCSP_RESPONSE: Final = RowKind("ocsp_response", OcspResponseRecord, key=("certificate", "hash"))
