"""Certificates whose issuer is not in the inventory: nobody here can say what they rest on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from chargepki.pki import names
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import Compare
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions.authorities import (
    AuthorityCertificate,
    Provenance,
    has_signed,
    issuers_of_imported,
    list_authorities,
)

__all__ = ["Orphan", "find_orphans"]


@dataclass(frozen=True, slots=True)
class Orphan:
    """A certificate of a CA, or all imported certificates of one issuer, whose issuer nobody here knows."""

    certificate: str
    """Label of the CA's certificate; of imported ones the name of their issuer, as the field `ca` of filters."""
    provenance: Provenance
    subject: str
    """Empty for all imported certificates of one issuer."""
    issuer: str
    sha256: str
    """Empty likewise."""
    certificates: int
    """How many it stands for."""


def find_orphans(reads: Reads) -> tuple[Orphan, ...]:
    """Return what has no issuer in the inventory, by label.

    An issuer is known when a certificate of its name is there whose key verifies the signature: names alone prove
    nothing. One that has expired, or was revoked, is an issuer still.
    """
    authorities = list_authorities(reads, revoked=True)
    by_subject: dict[Hashable, list[AuthorityCertificate]] = {}
    for each in authorities:
        by_subject.setdefault(_folded(each.view.subject), []).append(each)
    found = []
    for each in authorities:
        if each.provenance is Provenance.IMPORTED:
            continue  # counted with all that its issuer has issued
        candidates = by_subject.get(_folded(each.view.issuer), [])
        if not any(has_signed(other.view, each.view) for other in candidates):
            texts = names.text(each.view.subject), names.text(each.view.issuer)
            found.append(Orphan(each.label, each.provenance, *texts, each.sha256, 1))
    for ca, issuer in issuers_of_imported(reads, authorities):
        if issuer is None:
            number = reads.count_matching(Compare(FIELDS["ca"], "=", ca.id))
            found.append(Orphan(ca.id, Provenance.IMPORTED, "", ca.subject, "", number))
    return tuple(found)


def _folded(name: bytes) -> Hashable:
    """Return what equal names share; for octets that are no name, themselves."""
    try:
        return names.folded(name)
    except InputError:
        return name
