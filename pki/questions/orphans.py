"""Certificates of CAs whose issuer is not in the inventory: nobody here can say what they rest on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from chargepki.pki import names
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions.authorities import AuthorityCertificate, Provenance, has_signed, list_authorities

__all__ = ["Orphan", "find_orphans"]


@dataclass(frozen=True, slots=True)
class Orphan:
    """A certificate whose issuer nobody here knows."""

    certificate: str
    """Id of a CA generation or of a certificate; else the subject and the begin of the digest."""
    provenance: Provenance
    subject: str
    issuer: str
    sha256: str


def find_orphans(reads: Reads) -> tuple[Orphan, ...]:
    """Return the certificates of CAs whose issuer the inventory does not hold, by label.

    An issuer is known when a certificate of its name is there whose key verifies the signature: names alone prove
    nothing. One that has expired is an issuer still.
    """
    authorities = list_authorities(reads)
    by_subject: dict[Hashable, list[AuthorityCertificate]] = {}
    for each in authorities:
        by_subject.setdefault(_folded(each.view.subject), []).append(each)
    found = []
    for each in authorities:
        candidates = by_subject.get(_folded(each.view.issuer), [])
        if not any(has_signed(other.view, each.view) for other in candidates):
            texts = names.text(each.view.subject), names.text(each.view.issuer)
            found.append(Orphan(each.label, each.provenance, *texts, each.sha256))
    return tuple(found)


def _folded(name: bytes) -> Hashable:
    """Return what equal names share; for octets that are no name, themselves."""
    try:
        return names.folded(name)
    except InputError:
        return name
