"""Judge a signed request: the certificate that signed it, its chain, its status, and whether we know it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from chargepki.pki import names, oids
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import Purpose
from chargepki.pki.errors import PolicyRefusal, RevocationError, StateError
from chargepki.pki.identifiers import Emaid, Pcid
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import VehicleState
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.pem import pem_blocks
from chargepki.pki.provisioning.agreement import Recipient, recipient_of
from chargepki.pki.provisioning.request import RequestKind, SignedRequest
from chargepki.pki.provisioning.trust import UNREADABLE, Question, open_questions
from chargepki.pki.role_roots import Roots, manufacturers_of

__all__ = ["Examined", "UnknownVehicle", "examine"]

_MAX_PEM_BYTES: Final = 1 << 16


class UnknownVehicle(StateError):
    """A certificate that is not on record here, or not any more."""

    code = "unknown-vehicle"


@dataclass(frozen=True, slots=True)
class Examined:
    """A request whose signer is believed as far as our own records go; only `examine` makes it."""

    request: SignedRequest
    path: tuple[bytes, ...]
    """DER, leaf first, root last."""
    recipient: Recipient
    """The key that the contract key is wrapped for."""
    vehicle: str | None
    """PCID; of an update, that of the installation before it, as far as it is on record."""
    contract: str | None
    """Of an update: the 14 characters of its contract."""
    questions: tuple[Question, ...]
    """What others have to be asked before anything is made."""


def examine(request: SignedRequest, inventory: Inventory, roots: Roots, now: datetime) -> Examined:
    """Judge whoever has signed *request*; nothing is written, nobody is asked.

    Raises:
        ChainError: the certificate leads to no root that is believed for its purpose.
        PolicyRefusal: a key that no contract can be wrapped for, or an update of another contract.
        RevocationError: a certificate of ours in the path is revoked.
        StateError: the vehicle, or the contract certificate, is not known here.
    """
    recipient = _recipient(request.leaf)
    if request.kind is RequestKind.UPDATE:
        sub_cas, vehicle, contract = _known_contract(request, inventory)
        purpose = Purpose.CONTRACT
    else:
        sub_cas, vehicle = _known_vehicle(request, inventory)
        contract, purpose = None, Purpose.OEM_PROVISIONING
    verified = roots.verifier().verify(request.leaf, (*request.chain[1:], *sub_cas), purpose=purpose, at=now)
    if purpose is Purpose.OEM_PROVISIONING:
        allowed = manufacturers_of(inventory, verified.anchor)
        assert vehicle is not None
        if allowed and Pcid.parse(vehicle).manufacturer not in allowed:
            raise PolicyRefusal(
                f"vehicle {vehicle} leads to a root that may certify vehicles of {' '.join(sorted(allowed))} alone",
                fix="see: chargepki vehicle list-roots",
            )
    questions = open_questions(inventory, verified.certificates)
    return Examined(request, verified.certificates, recipient, vehicle, contract, questions)


def _recipient(leaf: bytes) -> Recipient:
    key = recipient_of(leaf)
    if _wants_tpm(x509.load_der_x509_certificate(leaf)):
        raise PolicyRefusal(
            "the vehicle wants its contract key wrapped for its TPM",
            why="its provisioning certificate names a TPM storage key (V2G20-2594, 2518 to 2521); "
            "such a duplication blob is not made here",
            fix="ask with a provisioning certificate without one",
        )
    return key


def _wants_tpm(certificate: x509.Certificate) -> bool:
    try:
        access = certificate.extensions.get_extension_for_class(x509.SubjectInformationAccess).value
    except UNREADABLE:
        return False
    return any(each.access_method.dotted_string == oids.AD_TPM_STORAGE_KEY for each in access)


def _known_vehicle(request: SignedRequest, inventory: Inventory) -> tuple[tuple[bytes, ...], str]:
    known = inventory.find_provisioning_certificate(hashlib.sha256(request.leaf).hexdigest())
    if known is None or known.state is not VehicleState.ACTIVE:
        name = names.text(view_certificate(request.leaf).subject)
        raise UnknownVehicle(
            f"the provisioning certificate of {name} is not known here" if known is None
            else f"the provisioning certificate of {name} was removed",
            why="contracts are provisioned to vehicles that were admitted (VDE-AR-E 2802-100-1)",
            fix="chargepki vehicle import FILE",
        )  # fmt: skip
    blocks = pem_blocks(known.sub_cas, max_bytes=_MAX_PEM_BYTES)
    return tuple(block.der for block in blocks), known.vehicle


def _known_contract(request: SignedRequest, inventory: Inventory) -> tuple[tuple[bytes, ...], str | None, str]:
    """Return the sub-CAs, the vehicle and the contract of the certificate that asks to be replaced."""
    digest = hashlib.sha256(request.leaf).hexdigest()
    record = inventory.find_certificate_by_sha256(digest)
    if record is None or not record.profile.endswith("/contract"):
        raise UnknownVehicle(
            "the contract certificate of the request was not issued here",
            fix="the vehicle asks its own mobility operator, or for an installation",
        )
    if record.state is not CertificateState.ISSUED:
        raise RevocationError(f"the contract certificate {record.id} is {record.state.value}", status="revoked")
    emaid = Emaid.parse(names.get(record.subject_der, "CN") or "")
    assert request.emaid is not None
    if not emaid.same(request.emaid):
        raise PolicyRefusal(
            f"the request is for the contract {request.emaid}, and signed with a key of {emaid}",
            why="ISO 15118-2: eMAID and certificate of an update name one contract",
            fix="the vehicle asks for the contract that it has",
        )
    given = inventory.find_provisioning_of(record.id)
    above: list[bytes] = []
    ca = inventory.get_ca(record.ca)
    while ca.issuer is not None and ca.certificate_der is not None:
        above.append(ca.certificate_der)
        ca = inventory.get_ca(ca.issuer)
    return tuple(above), given.vehicle if given is not None else None, emaid.account
