"""Every certificate of a CA that the inventory holds, whoever's it is, and which of them signed which."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from chargepki.pki import keys, names
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.contract_records import RoleRootState
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, OneOf
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.profiles import list_profiles

__all__ = ["AuthorityCertificate", "Provenance", "has_signed", "list_authorities"]

_LONGEST_NAME: Final = 120


class Provenance(StrEnum):
    """How the inventory came to a certificate of a CA."""

    CA = "ca"
    """A CA of ours, whoever signed it."""
    ISSUED = "issued"
    """Issued by a CA of ours to a CA: a cross certificate, or a sub-CA of somebody else."""
    TRUST_ROOT = "trust-root"
    """Somebody wanted it on a station, or it signed such a one."""
    ROLE_ROOT = "role-root"
    """Vehicles of others are judged by it."""


@dataclass(frozen=True, slots=True)
class AuthorityCertificate:
    """One certificate of a CA."""

    label: str
    """Id of a CA generation or of a certificate; else the subject and the begin of the digest."""
    provenance: Provenance
    der: bytes = field(repr=False)
    sha256: str
    ca: str | None
    """Id of the CA generation of ours that it belongs to."""
    view: CertificateView = field(repr=False, compare=False)

    @property
    def is_root(self) -> bool:
        """Whether it was signed with its own key."""
        return self.view.is_self_issued and has_signed(self.view, self.view)

    @property
    def not_before(self) -> datetime | None:
        """First valid second; ``None`` where it cannot be read."""
        return self.view.not_before.value

    @property
    def not_after(self) -> datetime | None:
        """Last valid second; ``None`` where it cannot be read."""
        return self.view.not_after.value


def list_authorities(reads: Reads) -> tuple[AuthorityCertificate, ...]:
    """Return every certificate of a CA in the inventory that can be read, each once, by label. There are few of them.

    Revoked and withdrawn ones are left out.
    """
    found: dict[str, AuthorityCertificate] = {}
    for label, provenance, der, ca in _certificates(reads):
        sha256 = hashlib.sha256(der).hexdigest()
        if sha256 in found:
            continue
        try:
            view = view_certificate(der)
        except DerError:
            continue
        named = label or f"{names.text(view.subject)[:_LONGEST_NAME]} ({sha256[:12]})"
        found[sha256] = AuthorityCertificate(named, provenance, der, sha256, ca, view)
    return tuple(sorted(found.values(), key=lambda each: (each.label, each.sha256)))


def _certificates(reads: Reads) -> Iterator[tuple[str, Provenance, bytes, str | None]]:
    """Yield label (or nothing), provenance, DER and CA; of several sources of one certificate the best comes first."""
    profiles = tuple([profile.id for profile in list_profiles() if profile.is_ca])
    # With the ids of all CA certificates that are not revoked: a CA's own record does not tell.
    good = And((OneOf(FIELDS["profile"], profiles), Compare(FIELDS["state"], "=", "issued")))
    issued = [(name, bytes(der)) for page in reads.scan_certificates(good, ("id", "der")) for name, der in page if der]
    revoked = And((OneOf(FIELDS["profile"], profiles), Compare(FIELDS["state"], "=", "revoked")))
    gone = {bytes(der) for page in reads.scan_certificates(revoked, ("id", "der")) for _, der in page if der}
    for ca in reads.list_cas():
        if ca.certificate_der is not None and ca.certificate_der not in gone:
            yield ca.id, Provenance.CA, ca.certificate_der, ca.id
    for name, der in issued:
        yield name, Provenance.ISSUED, der, None
    for root in reads.list_trust_roots():
        yield "", Provenance.TRUST_ROOT, root.der, None
        if root.issuer_der is not None:
            yield "", Provenance.TRUST_ROOT, root.issuer_der, None
    for role in reads.list_role_roots():
        if role.state is RoleRootState.TRUSTED:
            yield "", Provenance.ROLE_ROOT, role.der, None


def has_signed(issuer: CertificateView, certificate: CertificateView) -> bool:
    """Return whether the key of *issuer*, under its name, signed *certificate*; validity is not looked at.

    A signature of an algorithm that nothing of ours verifies any more (SHA-1) counts when the key identifiers agree.
    """
    if not _same(issuer.subject, certificate.issuer):
        return False
    signature, algorithm = certificate.signature, certificate.signature_algorithm
    if signature is None or certificate.outer_algorithm != algorithm:
        return False
    try:
        return keys.verify(_key(issuer.key.der), signature, certificate.tbs, algorithm)
    except InputError:
        named = certificate.known.authority_key_id
        return named is not None and named.key_id is not None and named.key_id == issuer.known.subject_key_id


def _same(one: bytes, other: bytes) -> bool:
    try:
        return names.same(one, other)
    except InputError:
        return False


@lru_cache(maxsize=256)
def _key(spki: bytes) -> keys.PublicKey:
    return keys.load_public_key(spki)
