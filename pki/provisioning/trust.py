"""What is known of the revocation of those who ask, and of whom it has to be asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509

from chargepki.pki.errors import RevocationError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.status_addresses import status_addresses

__all__ = ["UNREADABLE", "Question", "Standing", "open_questions"]

UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for an extension that is absent or unreadable; the chain is judged by a reader of our own."""


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
