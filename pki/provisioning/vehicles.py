"""Vehicles that contracts can be provisioned to: roots of their manufacturers, and their provisioning certificates.

The checks are those of the provisioning certificate pool of VDE-AR-E 2802-100-1: manufacturer, validity of every
certificate, revocation, chain; the first that fails is told.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from chargepki.pki import names
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import Purpose, Revocation, RevocationMode
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.exi import MessageSet
from chargepki.pki.identifiers import Pcid
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.contract_records import (
    ProvisioningCertificateRecord,
    RoleRootRecord,
    RoleRootState,
    VehicleState,
)
from chargepki.pki.inventory.records import Actor
from chargepki.pki.pem import to_pem
from chargepki.pki.provisioning.admission import verify_admission
from chargepki.pki.provisioning.agreement import find_agreement_key
from chargepki.pki.provisioning.keeping import Admission
from chargepki.pki.provisioning.trust import UNREADABLE

__all__ = ["RoleRoot", "add_root", "admit_vehicle", "withdraw_root"]

_USES: Final = ("oem", "v2g", "mo")


@dataclass(frozen=True, slots=True)
class RoleRoot:
    """A root of somebody else, as an operator wants it believed.

    Attributes:
        use: ``oem``, ``v2g`` or ``mo`` (in ISO 15118-20: eMSP).
        fingerprint: SHA-256 in hex, as it was confirmed on a second channel; colons are ignored.
        source: where it came from, for people.
        manufacturers: world manufacturer identifiers whose vehicles it may certify; empty: any.
    """

    der: bytes
    use: str
    fingerprint: str
    source: str
    manufacturers: tuple[str, ...] = ()


def add_root(inventory: Inventory, root: RoleRoot, *, actor: Actor, now: datetime) -> RoleRootRecord:
    """Believe a root of somebody else; doing it again changes nothing.

    Raises:
        InputError: it is no root certificate, or not the one whose fingerprint was confirmed.
        Conflict: it is believed for another use.
    """
    digest = hashlib.sha256(root.der).hexdigest()
    if not hmac.compare_digest(root.fingerprint.replace(":", "").lower().encode(), digest.encode()):
        raise InputError(
            "the fingerprint is not that of the certificate",
            why=f"SHA-256 of the certificate is {digest}",
            fix="get the fingerprint from its owner on another way than the certificate, and compare",
        )
    view = view_certificate(root.der)
    if root.use not in _USES or view.issuer != view.subject:
        raise InputError("a root is self-signed, and is for oem, v2g or mo", fix="give the root of the hierarchy")
    if root.use == "mo" and root.manufacturers:
        raise InputError("a root for contracts certifies no vehicles", fix="leave the manufacturers out")
    wrong = [each for each in root.manufacturers if len(each) != 3 or not each.isascii() or not each.isalnum()]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no world manufacturer identifier", fix="three letters or digits (ISO 3780)")
    record = RoleRootRecord(
        *(digest, root.use, root.der, names.text(view.subject), root.source),
        " ".join(sorted({each.upper() for each in root.manufacturers})),
        *(RoleRootState.TRUSTED, actor.name, now),
    )

    def work(tx: Transaction) -> RoleRootRecord:
        stored = tx.put_role_root(record)
        details = {"use": record.use, "source": record.source, "manufacturers": record.manufacturers}
        tx.audit(actor, "root.add", digest, now=now, artefact_sha256=digest, details=details)
        return stored

    return inventory.write(work)


def withdraw_root(inventory: Inventory, sha256: str, *, actor: Actor, now: datetime) -> RoleRootRecord:
    """Believe a root no more; certificates below it are refused from now on.

    Raises:
        NotFound: there is none.
    """

    def work(tx: Transaction) -> RoleRootRecord:
        stored = tx.withdraw_role_root(sha256)
        tx.audit(actor, "root.withdraw", sha256, now=now, artefact_sha256=sha256)
        return stored

    return inventory.write(work)


def admit_vehicle(
    inventory: Inventory,
    chain: Sequence[bytes],
    *,
    actor: Actor,
    now: datetime,
    crls: tuple[bytes, ...] = (),
    ocsp_responses: tuple[bytes, ...] = (),
) -> Admission[ProvisioningCertificateRecord]:
    """Judge an OEM provisioning certificate; nothing is written.

    Args:
        chain: DER, leaf first, then sub-CAs; a root at the end is ignored.
        crls: revocation lists about certificates of others, DER.
        ocsp_responses: responses about them, DER.

    Raises:
        InputError: a certificate cannot be read, or its CN is no PCID.
        PolicyRefusal: the manufacturer is nobody's, a certificate has expired, or the key cannot take a contract.
        RevocationError: a certificate is revoked, or names where its status is to be had and there is no evidence.
        ChainError: it leads to no OEM or V2G root that is believed.
    """
    leaf = chain[0]
    pcid, message_set, notices = _read_leaf(leaf)
    evidence = Revocation(RevocationMode.IF_PRESENT, crls, ocsp_responses)
    verified = verify_admission(inventory, chain, pcid, purpose=Purpose.OEM_PROVISIONING, evidence=evidence, now=now)
    view = view_certificate(leaf)
    not_after = view.not_after.value
    assert not_after is not None
    record = ProvisioningCertificateRecord(
        id=hashlib.sha256(leaf).hexdigest(),
        vehicle=pcid.normalised,
        standard=message_set.value,
        der=leaf,
        sub_cas="".join(to_pem("CERTIFICATE", each) for each in verified.certificates[1:-1]).encode(),
        subject=names.text(view.subject),
        not_after=not_after,
        state=VehicleState.ACTIVE,
        added_by=actor.name,
        added_at=now,
    )
    return Admission(record, verified, notices)


def _read_leaf(leaf: bytes) -> tuple[Pcid, MessageSet, tuple[str, ...]]:
    """Return whose it is and for which standard, and what is odd about it."""
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise InputError("the provisioning certificate cannot be read", why=str(exc)) from exc
    pcid = Pcid.parse(names.get(view_certificate(leaf).subject, "CN") or "")
    notices: list[str] = []
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        message_set = MessageSet.ISO15118_2
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp521r1":
        message_set = MessageSet.ISO15118_20
    elif isinstance(key, ed448.Ed448PublicKey):
        message_set = MessageSet.ISO15118_20
        if find_agreement_key(leaf) is None:
            notices.append("its key is Ed448, and it has no second one for X448: no contract can be provisioned to it")
    else:
        raise PolicyRefusal(
            "the key of the provisioning certificate is on no curve of ISO 15118",
            why="V2G2-007 secp256r1; V2G20-2674, 2319 secp521r1 or Ed448",
            fix="get a certificate of one of the profiles oem-provisioning",
        )
    if isinstance(key, ec.EllipticCurvePublicKey):
        _check_key_agreement(certificate)
    if message_set is MessageSet.ISO15118_20 and pcid.check_digit is None:
        notices.append("its PCID has 17 characters: ISO 15118-20 needs 18 to provision a contract (V2G20-2492)")
    return pcid, message_set, tuple(notices)


def _check_key_agreement(certificate: x509.Certificate) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except UNREADABLE:
        usage = None
    if usage is None or not usage.key_agreement:
        raise PolicyRefusal(
            "the provisioning certificate does not assert keyAgreement",
            why="V2G2-822, V2G20-822: its key is the static half of the key agreement that wraps the contract key",
            fix="get a certificate of a profile oem-provisioning",
        )
