"""Whom a request is believed from: roots by role, and the status of the certificates below them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509

from chargepki.pki.chain import AnchorUse, ChainVerifier, TrustAnchor
from chargepki.pki.errors import RevocationError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import RoleRootState
from chargepki.pki.inventory.records import CaState, CertificateState
from chargepki.pki.status_addresses import status_addresses

__all__ = ["UNREADABLE", "Question", "Roots", "Standing", "manufacturers_of", "open_questions", "role_anchors"]

UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for an extension that is absent or unreadable; the chain is judged by a reader of our own."""
_ROLES: Final = {
    "oem-root": AnchorUse.OEM,
    "v2g-root": AnchorUse.V2G,
    "mo-root": AnchorUse.MO,
    "emsp-root": AnchorUse.MO,
}


class Standing(StrEnum):
    """What is known of a certificate's revocation."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """It names where to ask, and there is no verified answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate of somebody else that names where its status is to be had."""

    certificate: bytes
    issuer: bytes
    responders: tuple[str, ...]
    lists: tuple[str, ...]


def role_anchors(inventory: Inventory) -> tuple[TrustAnchor, ...]:
    """Return the roots that are believed, each with its role: ours, and those of others that somebody confirmed."""
    own = [
        TrustAnchor(ca.certificate_der, frozenset({_ROLES[role]}))
        for ca in inventory.list_cas()
        if ca.issuer is None
        and ca.certificate_der is not None
        and ca.state in (CaState.ACTIVE, CaState.RETIRED)
        and (role := ca.profile.rpartition("/")[2]) in _ROLES
    ]
    others = [
        TrustAnchor(root.der, frozenset({AnchorUse(root.use)}))
        for root in inventory.list_role_roots()
        if root.state is RoleRootState.TRUSTED
    ]
    return (*own, *others)


def manufacturers_of(inventory: Inventory, anchor: bytes) -> frozenset[str]:
    """Return whose vehicles a root may certify, by world manufacturer identifier; empty: anybody's."""
    found = inventory.find_role_root(hashlib.sha256(anchor).hexdigest())
    return frozenset(found.manufacturers.split()) if found is not None else frozenset()


class Roots:
    """The believed roots as a verifier, made anew only when they have changed; for one thread at a time or many."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._known: tuple[tuple[TrustAnchor, ...], ChainVerifier] | None = None

    def verifier(self) -> ChainVerifier:
        """Return the verifier for the roots of now."""
        anchors = role_anchors(self._inventory)
        known = self._known
        if known is None or known[0] != anchors:
            known = self._known = anchors, ChainVerifier(anchors)
        return known[1]


def open_questions(inventory: Inventory, path: Sequence[bytes]) -> tuple[Question, ...]:
    """Return what has to be asked about a path (DER, leaf first, anchor last), after looking at our own records.

    Certificates that name neither responder nor list have no status that anybody could ask for.

    Raises:
        RevocationError: our own record says that one is revoked.
    """
    return tuple(_questions(inventory, path))


def _questions(inventory: Inventory, path: Sequence[bytes]) -> Iterator[Question]:
    own = {ca.certificate_der: ca.id for ca in inventory.list_cas()}
    for certificate, issuer in itertools.pairwise(path):
        parsed = x509.load_der_x509_certificate(certificate)
        known = inventory.find_certificate(f"{own[issuer]}:{parsed.serial_number:x}") if issuer in own else None
        if known is not None and known.der == certificate:
            if known.state is not CertificateState.ISSUED:
                raise RevocationError(
                    f"certificate {known.id} ({known.subject}) is {known.state.value}", status="revoked"
                )
            continue
        responders, lists = status_addresses(certificate)
        if responders or lists:
            yield Question(certificate, issuer, tuple(responders), tuple(lists))
