"""Certificates whose issuer is not in the inventory: nobody here can say what they rest on."""

from __future__ import annotations

from dataclasses import dataclass

from chargepki.pki import names
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import Compare
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions.authorities import Provenance, Signers, issuers_of_imported, list_authorities

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
    signers = Signers(authorities)
    found = []
    for each in authorities:
        if each.provenance is Provenance.IMPORTED:
            continue  # counted with all that its issuer has issued
        if not signers.of(each.view):
            texts = names.text(each.view.subject), names.text(each.view.issuer)
            found.append(Orphan(each.label, each.provenance, *texts, each.sha256, 1))
    for ca, issuer in issuers_of_imported(reads, authorities):
        if issuer is None:
            number = reads.count_matching(Compare(FIELDS["ca"], "=", ca.id))
            found.append(Orphan(ca.id, Provenance.IMPORTED, "", ca.subject, "", number))
    return tuple(found)
