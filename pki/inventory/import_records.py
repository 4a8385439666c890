"""Certificates that others issued: where each was found, and how it came to be here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["ForeignRevocation", "FoundCertificate", "ImportRunRecord", "ImportTally", "ProvenanceRecord"]


@dataclass(frozen=True, slots=True)
class ImportRunRecord:
    """One call of an import that added something."""

    id: str
    source: str
    """What was named: a folder, a file, ``tls://HOST:PORT``."""
    command: str
    imported_by: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ProvenanceRecord:
    """A place where a certificate was found; one has as many as it has places. The first finding is kept."""

    certificate: str
    """Id of a `CertificateRecord`, imported or ours."""
    place: str
    """File, and the path inside of it behind an exclamation mark for each archive."""
    run: str
    """Id of the `ImportRunRecord`."""
    file_sha256: str
    """Of the file, or of the answer of the endpoint; lower-case hex."""
    role: str | None = None
    """What the layout of the folder says the certificate is for, such as ``v2g-root``."""


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate on its way in."""

    der: bytes
    sha256: str
    serial: str
    """Lower-case hex without leading zeros."""
    issuer_der: bytes
    authority_key_id: bytes
    """Empty where the certificate names none."""
    subject_der: bytes
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    place: str
    file_sha256: str
    role: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignRevocation:
    """What the CA of somebody else says of a certificate: a fact to be kept, not one of ours to publish."""

    serial: str
    revoked_at: datetime
    reason: str
    """RFC 5280's name."""
    invalidity_date: datetime | None = None
    sha256: str | None = None
    """Of the certificate, where the database holds it."""
    not_after: datetime | None = None
    """Of the certificate, where the database names it in place of the certificate."""
    within: str = ""
    """Beginning of the places that the database speaks of."""


@dataclass(slots=True)
class ImportTally:
    """What an import did; added up over its pieces."""

    added: int = 0
    known: int = 0
    """Imported before."""
    ours: int = 0
    """Issued here; only the place is noted."""
    places: int = 0
    """Places that were not on record yet."""
    revoked: int = 0
    """Revocations that were not on record yet."""

    def add(self, other: ImportTally) -> None:
        """Add up."""
        self.added += other.added
        self.known += other.known
        self.ours += other.ours
        self.places += other.places
        self.revoked += other.revoked
