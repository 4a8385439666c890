"""A vehicle's half of the exchange: sign a request, and open the response with every check that the standards ask for.

For tests of a back end without a car. A vehicle that skips one of these checks can be given somebody else's contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448

from chargepki.pki import names
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import AnchorUse, Purpose, TrustAnchor, verify_chain
from chargepki.pki.contract_keys import (
    WrapForm,
    WrappedKey,
    additional_data,
    find_wrapped_key,
    unwrap_ec_key,
    unwrap_ed448_scalar,
)
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.exi import Message, MessageSet, Tree, Value, decode, encode
from chargepki.pki.identifiers import Emaid
from chargepki.pki.keys import key_identifier, spki_der
from chargepki.pki.message_signature import (
    SignatureRefused,
    SigningKey,
    sign_elements,
    signed_elements,
    verify_elements,
)

__all__ = ["Installed", "Wishes", "build_request", "open_response"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a vehicle asks for beside its identity.

    Attributes:
        roots: DER of the V2G roots that it has, at most 20.
        maximum_contracts: how many contracts it has room for (-20).
        prioritized: EMAIDs that it wants first (-20).
        update: ask for a new certificate of the contract that *chain* is of, rather than for an installation (-2).
    """

    roots: Sequence[bytes]
    maximum_contracts: int = 1
    prioritized: Sequence[str] = ()
    update: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """A contract as the vehicle has it; only `open_response` makes it."""

    emaid: str
    chain: tuple[bytes, ...]
    """DER, leaf first, without the root."""
    secret: ec.EllipticCurvePrivateKey | int
    """The contract's private key; of an Ed448 contract its secret scalar, which RFC 8032 has no file for."""
    remaining: int
    """How many further contracts the vehicle may ask for (-20)."""

    @property
    def curve(self) -> str:
        """The name of the key's curve."""
        return "ed448" if isinstance(self.secret, int) else self.secret.curve.name

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The contract's private key, on a NIST curve.

        Raises:
            InputError: it is an Ed448 contract.
        """
        if isinstance(self.secret, int):
            raise InputError("an Ed448 contract has no private key of RFC 8032 here, only its scalar")
        return self.secret


def build_request(
    chain: Sequence[bytes], key: SigningKey, wishes: Wishes, *, session_id: bytes, now: datetime
) -> bytes:
    """Return a signed request as EXI; the curve of *key* decides on the standard.

    Args:
        chain: DER of the provisioning certificate and its sub-CAs, or for an update of the contract; leaf first.
        session_id: of the session with the station; 8 bytes in -20, at most 8 in -2.

    Raises:
        PolicyRefusal: a key on no curve of ISO 15118, or an update in -20, which has none.
        ExiError: something is longer than the standard allows.
    """
    curve = "ed448" if isinstance(key, ed448.Ed448PrivateKey) else key.curve.name
    is_2 = curve == "secp256r1"
    if curve not in ("secp256r1", "secp521r1", "ed448") or (wishes.update and not is_2):
        raise PolicyRefusal(
            f"there is no such request with a key on {curve}",
            fix="secp256r1 for ISO 15118-2, secp521r1 or Ed448 for installations of ISO 15118-20",
        )
    roots: Tree = {"RootCertificateID": [_root_name(each) for each in wishes.roots]}
    header: Tree = {"SessionID": session_id}
    body: Tree
    if is_2:
        name = "CertificateUpdateReq" if wishes.update else "CertificateInstallationReq"
        body = {"Id": "id1"}
        if wishes.update:
            body["ContractSignatureCertChain"] = _chain(chain)
            body["eMAID"] = Emaid.parse(names.get(view_certificate(chain[0]).subject, "CN") or "").normalised
        else:
            body["OEMProvisioningCert"] = chain[0]
        body["ListOfRootCertificateIDs"] = roots
        message = Message(MessageSet.ISO15118_2, "V2G_Message", {"Header": header, "Body": {name: body}})
    else:
        header["TimeStamp"] = int(now.timestamp())
        body = {
            "Header": header,
            "OEMProvisioningCertificateChain": {"Id": "id1", **_chain(chain)},
            "ListOfRootCertificateIDs": roots,
            "MaximumContractCertificateChains": wishes.maximum_contracts,
        }
        if wishes.prioritized:
            body["PrioritizedEMAIDs"] = {"EMAID": list(wishes.prioritized)}
        message = Message(MessageSet.ISO15118_20, "CertificateInstallationReq", body)
    header["Signature"] = sign_elements(signed_elements(message), key)
    return encode(message)


def open_response(
    exi: bytes,
    leaf: bytes,
    key: ec.EllipticCurvePrivateKey | x448.X448PrivateKey,
    *,
    roots: Sequence[bytes],
    now: datetime,
) -> Installed:
    """Verify a response and unwrap the contract key, in the order that the standards ask for.

    Args:
        leaf: DER of the certificate whose key signed the request.
        key: its private key; of an Ed448 certificate the one of its second key, for X448.
        roots: DER of the V2G roots that the vehicle has.

    Raises:
        ChainError: the provisioning service leads to none of *roots*, or is none (DC=CPS).
        InputError: malformed; or the signature does not hold, or the key is not the contract's.

    Clause: V2G2-823, 891, 925; V2G20-1077, 1078, 2492, 2507, 2510, 2572.
    """
    message = decode(exi)
    is_2 = message.message_set is MessageSet.ISO15118_2
    body = message.tree
    if is_2:
        inner = next(iter(_dict(body["Body"]).values()), None)
        body = _dict(inner)
    code = str(body.get("ResponseCode"))
    if not code.startswith("OK"):
        raise InputError(f"the response says {code}")
    cps = _ders(body["SAProvisioningCertificateChain" if is_2 else "CPSCertificateChain"])
    anchors = [TrustAnchor(each, frozenset({AnchorUse.V2G})) for each in roots]
    verify_chain(cps[0], cps[1:], anchors, purpose=Purpose.CPS, at=now)
    signature = _dict(message.tree["Header"]).get("Signature")
    if not isinstance(signature, dict):
        raise SignatureRefused("the response is not signed")
    signer = x509.load_der_x509_certificate(cps[0]).public_key()
    if not isinstance(signer, ec.EllipticCurvePublicKey | ed448.Ed448PublicKey):
        raise SignatureRefused("the provisioning service has no key of ISO 15118")
    verify_elements(signed_elements(message), signature, signer)
    data = body if is_2 else _dict(body["SignedInstallationData"])
    chain = _ders(data["ContractSignatureCertChain" if is_2 else "ContractCertificateChain"])
    emaid = names.get(view_certificate(chain[0]).subject, "CN") or ""
    if is_2 and not Emaid.parse(str(_dict(body["eMAID"])["value"])).same(Emaid.parse(emaid)):
        raise InputError("eMAID and contract certificate name two contracts")
    contract = x509.load_der_x509_certificate(chain[0]).public_key()
    if not isinstance(contract, ec.EllipticCurvePublicKey | ed448.Ed448PublicKey):
        raise InputError("the contract certificate has no key on a curve")
    wrapped = find_wrapped_key(data)
    aad = b""
    if wrapped.form in (WrapForm.SECP521, WrapForm.X448):
        pcid = names.get(view_certificate(leaf).subject, "CN") or ""
        aad = additional_data(pcid, key_identifier(spki_der(contract), 8))
    opened = _unwrap(wrapped, key, contract, aad)
    remaining = body.get("RemainingContractCertificateChains", 0)
    assert isinstance(remaining, int)
    return Installed(emaid, chain, opened, remaining)


def _unwrap(
    wrapped: WrappedKey,
    key: ec.EllipticCurvePrivateKey | x448.X448PrivateKey,
    contract: ec.EllipticCurvePublicKey | ed448.Ed448PublicKey,
    aad: bytes,
) -> ec.EllipticCurvePrivateKey | int:
    if isinstance(contract, ed448.Ed448PublicKey) and isinstance(key, x448.X448PrivateKey):
        return unwrap_ed448_scalar(wrapped, key, contract=contract, aad=aad)
    if isinstance(contract, ec.EllipticCurvePublicKey) and isinstance(key, ec.EllipticCurvePrivateKey):
        return unwrap_ec_key(wrapped, key, contract=contract, aad=aad)
    raise InputError(
        "the contract's key and the vehicle's are of different kinds",
        why="V2G20-2709: a contract shares the curve of the vehicle's provisioning certificate",
        fix="for an Ed448 certificate give the private key of its second key, for X448",
    )


def _root_name(der: bytes) -> Tree:
    certificate = x509.load_der_x509_certificate(der)
    return {"X509IssuerName": certificate.issuer.rfc4514_string(), "X509SerialNumber": certificate.serial_number}


def _chain(certificates: Sequence[bytes]) -> Tree:
    leaf, *below = certificates
    listed: list[Value] = list(below)
    return {"Certificate": leaf, **({"SubCertificates": {"Certificate": listed}} if below else {})}


def _ders(chain: Value) -> tuple[bytes, ...]:
    tree = _dict(chain)
    below = _dict(tree.get("SubCertificates", {})).get("Certificate", [])
    assert isinstance(below, list)
    return tuple(each for each in (tree["Certificate"], *below) if isinstance(each, bytes))


def _dict(value: Value | None) -> Tree:
    if not isinstance(value, dict):
        raise InputError("the response lacks what it is made of")
    return value
