"""Every certificate of a CA that the inventory holds, whoever's it is, and which of them signed which."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
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
from chargepki.pki.inventory.records import FOREIGN, CaRecord, CaState
from chargepki.pki.profiles import list_profiles

__all__ = [
    "AuthorityCertificate",
    "Provenance",
    "Signers",
    "has_signed",
    "issuers_of_imported",
    "list_authorities",
]

_LONGEST_NAME: Final = 120
# basicConstraints with cA TRUE, as DER has it (RFC 5280 4.2.1.9): a sieve before whole certificates are read.
_CA_TRUE: Final = re.compile(rb"\x06\x03\x55\x1d\x13(?:\x01\x01\xff)?\x04.\x30.\x01\x01\xff", re.DOTALL)


class Provenance(StrEnum):
    """How the inventory came to a certificate of a CA."""

    CA = "ca"
    """A CA of ours, whoever signed it."""
    ISSUED = "issued"
    """Issued by a CA of ours to a CA: a cross certificate, or a sub-CA of somebody else."""
    TRUST_ROOT = "trust-root"
    """Somebody wanted it on a station, or it signed such a one."""
    IMPORTED = "imported"
    """Found somewhere and imported; it is trusted for nothing."""
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
    is_revoked: bool = False

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


def list_authorities(reads: Reads, *, revoked: bool = False) -> tuple[AuthorityCertificate, ...]:
    """Return every certificate of a CA in the inventory that can be read, each once, by label.

    There are few of them, unless very many were imported that signed themselves: tools make such ones as certificates
    of CAs. Withdrawn ones are left out, and unless *revoked* is true, revoked ones.
    """
    found: dict[str, AuthorityCertificate] = {}
    for label, provenance, der, ca, is_revoked in _certificates(reads):
        sha256 = hashlib.sha256(der).hexdigest()
        if sha256 in found or (is_revoked and not revoked):
            continue
        try:
            view = view_certificate(der)
        except DerError:
            continue
        named = label or f"{names.text(view.subject)[:_LONGEST_NAME]} ({sha256[:12]})"
        found[sha256] = AuthorityCertificate(named, provenance, der, sha256, ca, view, is_revoked)
    return tuple(sorted(found.values(), key=lambda each: (each.label, each.sha256)))


def _certificates(reads: Reads) -> Iterator[tuple[str, Provenance, bytes, str | None, bool]]:
    """Yield label (or nothing), provenance, DER, CA and whether it is revoked; the best source of each comes first."""
    profiles = tuple([profile.id for profile in list_profiles() if profile.is_ca])
    wanted = And((OneOf(FIELDS["profile"], profiles), OneOf(FIELDS["state"], ("issued", "revoked"))))
    issued = [
        (name, bytes(der), state == "revoked")
        for page in reads.scan_certificates(wanted, ("id", "state", "der"))
        for name, state, der in page
        if der is not None
    ]
    # A CA's own record does not tell whether its certificate was revoked.
    gone = {der for _, der, is_revoked in issued if is_revoked}
    for ca in reads.list_cas():
        if ca.certificate_der is not None:
            yield ca.id, Provenance.CA, ca.certificate_der, ca.id, ca.certificate_der in gone
    for name, der, is_revoked in issued:
        yield name, Provenance.ISSUED, der, None, is_revoked
    for name, der, is_revoked in _imported(reads):
        yield name, Provenance.IMPORTED, der, None, is_revoked
    for root in reads.list_trust_roots():
        yield "", Provenance.TRUST_ROOT, root.der, None, False
        if root.issuer_der is not None:
            yield "", Provenance.TRUST_ROOT, root.issuer_der, None, False
    for role in reads.list_role_roots():
        if role.state is RoleRootState.TRUSTED:
            yield "", Provenance.ROLE_ROOT, role.der, None, False


def _imported(reads: Reads) -> Iterator[tuple[str, bytes, bool]]:
    """Yield id, DER and whether it is revoked of the imported certificates that look like those of CAs."""
    issuers = {ca.id: ca.subject_der for ca in reads.list_cas(foreign=True) if ca.state is CaState.FOREIGN}
    if not issuers:
        return
    imported = Compare(FIELDS["profile"], "=", FOREIGN)
    for page in reads.scan_certificates(imported, ("id", "ca", "state", "subject_der", "der")):
        for name, ca, state, subject, der in page:
            # A root of version 1 has no extensions, but its own name as issuer.
            if der is not None and (_CA_TRUE.search(der) is not None or bytes(subject) == issuers.get(ca)):
                yield name, bytes(der), state == "revoked"


class Signers:
    """Finds who signed a certificate among certificates of CAs, however many there are.

    Args:
        authorities: of `list_authorities`.
    """

    def __init__(self, authorities: Sequence[AuthorityCertificate]) -> None:
        self._named: dict[Hashable, dict[bytes, list[AuthorityCertificate]]] = {}
        self._hinted: dict[tuple[Hashable, bytes | None], list[AuthorityCertificate]] = {}
        for each in authorities:
            name = names.folded_or_itself(each.view.subject)
            self._named.setdefault(name, {}).setdefault(each.view.key.der, []).append(each)
            self._hinted.setdefault((name, each.view.known.subject_key_id), []).append(each)

    def of(self, certificate: CertificateView) -> tuple[AuthorityCertificate, ...]:
        """Return the certificates of the key that signed *certificate*, under its issuer's name, in their order.

        Keys whose identifier the certificate names are tried first: there may be thousands of one name.
        """
        name = names.folded_or_itself(certificate.issuer)
        keys_of_name = self._named.get(name, {})
        hint = certificate.known.authority_key_id
        hinted = self._hinted.get((name, hint.key_id), ()) if hint is not None and hint.key_id is not None else ()
        for key in dict.fromkeys([*(each.view.key.der for each in hinted), *keys_of_name]):
            if any(has_signed(each.view, certificate) for each in keys_of_name[key]):
                return tuple(keys_of_name[key])
        return ()


def issuers_of_imported(
    reads: Reads, authorities: Sequence[AuthorityCertificate], *, only: Callable[[str], bool] | None = None
) -> Iterator[tuple[CaRecord, AuthorityCertificate | None]]:
    """Yield each issuer of imported certificates with the certificate whose key it has; ``None`` where nobody knows it.

    Imported certificates are kept by name and key identifier of their issuer: one of them stands for all.

    Args:
        only: says of an issuer's id whether it is asked for.
    """
    signers = Signers(authorities)
    for ca in reads.list_cas(foreign=True):
        if ca.state is not CaState.FOREIGN or (only is not None and not only(ca.id)):
            continue
        sample = next(
            (der for page in reads.scan_certificates(Compare(FIELDS["ca"], "=", ca.id), ("id", "der"), size=1)
             for _, der in page if der is not None),
            None,
        )  # fmt: skip
        try:
            view = None if sample is None else view_certificate(bytes(sample))
        except DerError:
            view = None
        if view is not None:
            yield ca, next(iter(signers.of(view)), None)


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
