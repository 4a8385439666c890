"""Vehicle certificates of ISO 15118-20: with what a vehicle opens its TLS connection to a charging station."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from chargepki.pki import names
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import Purpose, Revocation
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.identifiers import EvccId
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import VehicleCertificateRecord, VehicleState
from chargepki.pki.inventory.records import Actor
from chargepki.pki.pem import to_pem
from chargepki.pki.provisioning.admission import verify_admission
from chargepki.pki.provisioning.keeping import Admission

__all__ = ["admit_vehicle_certificate", "is_vehicle_certificate"]


def is_vehicle_certificate(leaf: bytes) -> bool:
    """Say whether a certificate's CN is an EVCCID, as a vehicle certificate's must be (V2G20-2598).

    Raises:
        InputError: it is no certificate.
    """
    try:
        EvccId.parse(names.get(view_certificate(leaf).subject, "CN") or "")
    except InputError:
        view_certificate(leaf)
        return False
    return True


def admit_vehicle_certificate(
    inventory: Inventory, chain: Sequence[bytes], *, actor: Actor, now: datetime, evidence: Revocation
) -> Admission[VehicleCertificateRecord]:
    """Judge a vehicle certificate; nothing is written.

    Args:
        chain: DER, leaf first, then sub-CAs; a root at the end is ignored.
        evidence: revocation lists and responses about certificates of others.

    Raises:
        InputError: a certificate cannot be read, or its CN is no EVCCID.
        PolicyRefusal: the manufacturer is nobody's, a certificate has expired, or the key is none of -20.
        RevocationError: a certificate is revoked, or names where its status is to be had and there is no evidence.
        ChainError: it leads to no OEM or V2G root that is believed, or is none for TLS clients.

    Clause: V2G20-2331 (OEM or V2G root), 2598 (subject), 2599, 2600 (revocation pointers), 2674, 2319 (keys).
    """
    leaf = chain[0]
    view = view_certificate(leaf)
    evccid = EvccId.parse(names.get(view.subject, "CN") or "")
    _check_key(leaf)
    verified = verify_admission(inventory, chain, evccid, purpose=Purpose.VEHICLE, evidence=evidence, now=now)
    banned = f"EVCCID {evccid.normalised} has a letter that ISO 15118-20 C.5 bans (I, O, Q)"
    not_after = view.not_after.value
    assert not_after is not None
    record = VehicleCertificateRecord(
        id=hashlib.sha256(leaf).hexdigest(),
        evccid=evccid.normalised,
        der=leaf,
        sub_cas="".join(to_pem("CERTIFICATE", each) for each in verified.certificates[1:-1]).encode(),
        subject=names.text(view.subject),
        not_after=not_after,
        state=VehicleState.ACTIVE,
        added_by=actor.name,
        added_at=now,
    )
    return Admission(record, verified, (banned,) if evccid.has_banned_letters else ())


def _check_key(leaf: bytes) -> None:
    try:
        key = x509.load_der_x509_certificate(leaf).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise InputError("the vehicle certificate cannot be read", why=str(exc)) from exc
    if isinstance(key, ed448.Ed448PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp521r1"
    ):
        return
    raise PolicyRefusal(
        "the key of the vehicle certificate is none of ISO 15118-20",
        why="V2G20-2674, 2319: secp521r1 or Ed448",
        fix="get a certificate of the profile iso15118-20/vehicle",
    )
