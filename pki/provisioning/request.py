"""Read a vehicle's request for its contract, and verify that whoever holds the certificate's key has signed it.

CertificateInstallationReq of ISO 15118-2 and -20 is signed with the OEM provisioning key, CertificateUpdateReq of -2
with the old contract's (V2G2 7.9.2.4; V2G20-1548). What the signature does not cover is believed no more than the
station that carries it: session, and in -20 also root list, number of contracts and wishes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from chargepki.pki.errors import InputError
from chargepki.pki.exi import Message, MessageSet, Tree, decode, encode
from chargepki.pki.identifiers import Emaid
from chargepki.pki.message_signature import SignatureRefused, signed_elements, verify_elements

__all__ = ["RequestKind", "RootName", "SignedRequest", "verify_request"]

_INSTALLATION: Final = "CertificateInstallationReq"
_UPDATE: Final = "CertificateUpdateReq"


class RequestKind(StrEnum):
    """What the vehicle asks for."""

    INSTALL = "install"
    UPDATE = "update"
    """Of ISO 15118-2 alone: a new certificate for the contract that it has."""


@dataclass(frozen=True, slots=True)
class RootName:
    """A V2G root that the vehicle has."""

    issuer: str
    """As the vehicle writes it; there is no one way to write a name."""
    serial_number: int


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request whose signature holds; only `verify_request` makes it. Who signed is for the chain to tell."""

    message_set: MessageSet
    kind: RequestKind
    chain: tuple[bytes, ...]
    """DER, leaf first; in an installation of -2 the leaf alone."""
    session_id: bytes
    identity: str
    """SHA-256 over what was signed and the signature's commitment, hex: the same request again has the same."""
    roots: tuple[RootName, ...]
    emaid: Emaid | None = None
    """Of an update."""
    maximum_contracts: int | None = None
    """How many contracts the vehicle has room for (-20)."""
    prioritized: tuple[str, ...] = ()
    """EMAIDs that it wants first (-20), as it wrote them."""

    @property
    def leaf(self) -> bytes:
        """DER of the certificate whose key has signed."""
        return self.chain[0]


def verify_request(exi: bytes) -> SignedRequest:
    """Read a whole request as EXI and verify its signature under the certificate in it.

    Raises:
        InputError: it is malformed, or none of the three requests (`ExiError`); or its signature does not hold
            (`SignatureRefused`).

    Clause: ISO 15118-2 7.9.2.4.3; ISO 15118-20 [V2G20-1548].
    """
    message = decode(exi)
    body, name = _body(message)
    header = message.tree["Header"]
    assert isinstance(header, dict)
    signature = header.get("Signature")
    if not isinstance(signature, dict):
        raise SignatureRefused(
            f"the {name} is not signed", why="without a signature anybody could ask in the vehicle's name"
        )
    chain = _chain(message.message_set, name, body)
    elements = signed_elements(message)
    verify_elements(elements, signature, _key_of(chain[0]))
    value = signature["SignatureValue"]
    assert isinstance(value, dict)
    session_id, maximum = header["SessionID"], body.get("MaximumContractCertificateChains")
    assert isinstance(session_id, bytes)
    return SignedRequest(
        message.message_set,
        RequestKind.UPDATE if name == _UPDATE else RequestKind.INSTALL,
        chain,
        session_id,
        _identity(elements[0], value["value"]),
        tuple(_roots(body)),
        Emaid.parse(str(body["eMAID"])) if name == _UPDATE else None,
        maximum if isinstance(maximum, int) else None,
        tuple(_texts(body.get("PrioritizedEMAIDs"), "EMAID")),
    )


def _body(message: Message) -> tuple[Tree, str]:
    """Return what a request holds, and its name."""
    name, tree = message.name, message.tree
    if message.name == "V2G_Message":
        body = tree["Body"]
        assert isinstance(body, dict)
        name, inner = next(iter(body.items()), ("", {}))
        tree = inner if isinstance(inner, dict) else {}
    if name not in (_INSTALLATION, _UPDATE) or "Header" not in message.tree:
        raise InputError(
            f"{name or message.name} is no request for a contract",
            fix=f"give a whole {_INSTALLATION}, or {_UPDATE} of ISO 15118-2",
        )
    return tree, name


def _chain(message_set: MessageSet, name: str, body: Tree) -> tuple[bytes, ...]:
    if name == _INSTALLATION and message_set is MessageSet.ISO15118_2:
        leaf = body["OEMProvisioningCert"]
        assert isinstance(leaf, bytes)
        return (leaf,)
    chain = body["ContractSignatureCertChain" if name == _UPDATE else "OEMProvisioningCertificateChain"]
    assert isinstance(chain, dict)
    leaf, below = chain["Certificate"], chain.get("SubCertificates")
    assert isinstance(leaf, bytes)
    listed = below.get("Certificate") if isinstance(below, dict) else None
    return (leaf, *(each for each in listed if isinstance(each, bytes))) if isinstance(listed, list) else (leaf,)


def _key_of(der: bytes) -> ec.EllipticCurvePublicKey | ed448.Ed448PublicKey:
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise SignatureRefused("the certificate of the request cannot be read, or has no key of ISO 15118") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey | ed448.Ed448PublicKey):
        raise SignatureRefused("the certificate of the request has no key of ISO 15118")
    return key


def _identity(element: Message, signature: object) -> str:
    """Return the name of a request.

    Of the signature only its first half counts: from (r, s) anybody makes the equally valid (r, n - s), and would have
    a request that was never seen before.
    """
    assert isinstance(signature, bytes)
    parts = (element.message_set.encode(), encode(element), signature[: len(signature) // 2])
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


def _roots(body: Tree) -> list[RootName]:
    listed = body.get("ListOfRootCertificateIDs")
    entries = listed.get("RootCertificateID") if isinstance(listed, dict) else None
    return [
        RootName(str(each["X509IssuerName"]), int(str(each["X509SerialNumber"])))
        for each in (entries if isinstance(entries, list) else ())
        if isinstance(each, dict)
    ]


def _texts(tree: object, name: str) -> list[str]:
    listed = tree.get(name) if isinstance(tree, dict) else None
    return [str(each) for each in listed] if isinstance(listed, list) else []
