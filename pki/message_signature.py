"""Sign and verify the elements of ISO 15118 messages: XML signatures over EXI.

Each signed element is encoded on its own and digested; SignedInfo with these digests is encoded in turn, and signed
(ISO 15118-2 Annex J; V2G2-771; V2G20-1449, 2473 to 2476).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from chargepki.pki.errors import InputError
from chargepki.pki.exi import Message, MessageSet, Tree, encode

__all__ = ["SignatureRefused", "blank_signature", "sign_elements", "signed_elements", "verify_elements"]

CANONICAL_EXI: Final = "http://www.w3.org/TR/canonical-exi/"
# Both spellings are seen; the URN is what the text of -20 is said to give, and what we write.
ED448: Final = "urn:iso:std:iso:15118:-20:Security:xmldsig#Ed448"
ED448_RFC9231: Final = "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed448"

SigningKey = ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | ed448.Ed448PublicKey


class SignatureRefused(InputError):
    """A signature that does not hold, or does not cover what it must."""

    code = "message-signature"


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a key of one kind signs: the first of the signature URIs is written, each is read."""

    signatures: tuple[str, ...]
    digest: str
    digest_of: Callable[[bytes], bytes]
    value_bytes: int
    hash: hashes.HashAlgorithm | None = None


_SCHEMES: Final[Mapping[str, _Scheme]] = {
    "secp256r1": _Scheme(
        ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",),
        "http://www.w3.org/2001/04/xmlenc#sha256",
        lambda data: hashlib.sha256(data).digest(),
        64,
        hashes.SHA256(),
    ),
    "secp521r1": _Scheme(
        ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",),
        "http://www.w3.org/2001/04/xmlenc#sha512",
        lambda data: hashlib.sha512(data).digest(),
        132,
        hashes.SHA512(),
    ),
    "ed448": _Scheme(
        (ED448, ED448_RFC9231),
        "urn:iso:std:iso:15118:-20:Security:xmlenc#SHAKE256",
        lambda data: hashlib.shake_256(data).digest(64),
        114,
    ),
}

# The elements of a message that are signed, below its body (-2) or the message itself (-20).
_SIGNED: Final[Mapping[tuple[MessageSet, str], tuple[str, ...]]] = {
    (MessageSet.ISO15118_2, "CertificateInstallationReq"): (),
    (MessageSet.ISO15118_2, "CertificateUpdateReq"): (),
    (MessageSet.ISO15118_20, "CertificateInstallationReq"): ("OEMProvisioningCertificateChain",),
    (MessageSet.ISO15118_20, "CertificateInstallationRes"): ("SignedInstallationData",),
} | dict.fromkeys(
    (
        (MessageSet.ISO15118_2, "CertificateInstallationRes"),
        (MessageSet.ISO15118_2, "CertificateUpdateRes"),
    ),
    ("ContractSignatureCertChain", "ContractSignatureEncryptedPrivateKey", "DHpublickey", "eMAID"),
)


def signed_elements(message: Message) -> list[Message]:
    """Return the elements of a whole message that its signature must cover, each to be encoded on its own.

    Raises:
        SignatureRefused: the message is none whose elements are signed, or lacks one.

    Clause: V2G2-891 (four elements of the responses of -2); V2G20-1077, 1548, 2648.
    """
    tree, name = message.tree, message.name
    if message.message_set is MessageSet.ISO15118_2:
        body = tree.get("Body")
        name, inner = next(iter(body.items()), ("", None)) if isinstance(body, dict) else ("", None)
        tree = inner if isinstance(inner, dict) else {}
    names = _SIGNED.get((message.message_set, name))
    if names is None:
        raise SignatureRefused(f"{name or message.name} is no message whose elements are signed here")
    if not names:
        return [Message(message.message_set, name, tree, message.open_lists)]
    elements = []
    for each in names:
        element = tree.get(each)
        if not isinstance(element, dict):
            raise SignatureRefused(f"{name} lacks {each}")
        elements.append(Message(message.message_set, each, element, message.open_lists))
    return elements


def sign_elements(elements: Sequence[Message], key: SigningKey) -> Tree:
    """Return the Signature for the header of the message that *elements* belong to.

    Raises:
        SignatureRefused: an element has no Id, two have the same, or no scheme of ISO 15118 is for such a key.
    """
    scheme = _scheme(key, elements)
    info = _signed_info(elements, scheme)
    data = encode(Message(MessageSet.XMLDSIG, "SignedInfo", info))
    if isinstance(key, ed448.Ed448PrivateKey):
        value = key.sign(data)
    else:
        assert scheme.hash is not None
        half = scheme.value_bytes // 2
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(scheme.hash)))
        value = r.to_bytes(half, "big") + s.to_bytes(half, "big")
    return {"SignedInfo": info, "SignatureValue": {"value": value}}


def blank_signature(elements: Sequence[Message], key: VerifyingKey) -> Tree:
    """Return what `sign_elements` would, with zeros in place of the signature: as long, and valid for nobody.

    Raises:
        SignatureRefused: as `sign_elements` does.
    """
    scheme = _scheme(key, elements)
    return {"SignedInfo": _signed_info(elements, scheme), "SignatureValue": {"value": bytes(scheme.value_bytes)}}


def _signed_info(elements: Sequence[Message], scheme: _Scheme) -> Tree:
    return {
        "CanonicalizationMethod": {"Algorithm": CANONICAL_EXI},
        "SignatureMethod": {"Algorithm": scheme.signatures[0]},
        "Reference": [
            {
                "URI": f"#{name}",
                "Transforms": {"Transform": [{"Algorithm": CANONICAL_EXI}]},
                "DigestMethod": {"Algorithm": scheme.digest},
                "DigestValue": scheme.digest_of(encode(element)),
            }
            for name, element in _by_id(elements).items()
        ],
    }


def verify_elements(elements: Sequence[Message], signature: Tree, key: VerifyingKey) -> None:
    """Check that *signature* covers exactly *elements* and was made with the private half of *key*.

    Whether *key* may sign such a message (chain, purpose, revocation) is for the caller to judge.

    Raises:
        SignatureRefused: says which part does not hold.
    """
    scheme = _scheme(key, elements)
    info, value = signature.get("SignedInfo"), signature.get("SignatureValue")
    if not isinstance(info, dict) or not isinstance(value, dict):
        raise SignatureRefused("the signature lacks SignedInfo or SignatureValue")
    _check_method(info.get("CanonicalizationMethod"), (CANONICAL_EXI,), "CanonicalizationMethod")
    _check_method(info.get("SignatureMethod"), scheme.signatures, "SignatureMethod")
    if "Id" in info or "Id" in value or "Id" in signature:
        raise SignatureRefused("the signature has an Id, which ISO 15118 leaves out", why="V2G2-771")
    _check_references(elements, info.get("Reference"), scheme)
    raw = value.get("value")
    if not isinstance(raw, bytes) or len(raw) != scheme.value_bytes:
        raise SignatureRefused(f"SignatureValue has not the {scheme.value_bytes} bytes of r and s, or of Ed448")
    data = encode(Message(MessageSet.XMLDSIG, "SignedInfo", info))
    try:
        if isinstance(key, ed448.Ed448PublicKey):
            key.verify(raw, data)
        else:
            assert scheme.hash is not None
            half = scheme.value_bytes // 2
            der = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            key.verify(der, data, ec.ECDSA(scheme.hash))
    except InvalidSignature as exc:
        raise SignatureRefused("the signature was not made with this key, or SignedInfo was changed") from exc


def _scheme(key: SigningKey | VerifyingKey, elements: Sequence[Message]) -> _Scheme:
    name = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) else "ed448"
    if not elements:
        raise SignatureRefused("there is nothing to be signed")
    of_2 = elements[0].message_set is MessageSet.ISO15118_2
    # V2G20-2674, 2319; V2G2 knows one curve only.
    if name not in (("secp256r1",) if of_2 else ("secp521r1", "ed448")):
        wanted = "secp256r1" if of_2 else "secp521r1 or Ed448"
        raise SignatureRefused(f"messages of {elements[0].message_set} are signed with {wanted}, not with {name}")
    return _SCHEMES[name]


def _by_id(elements: Sequence[Message]) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for element in elements:
        name = element.tree.get("Id")
        if not isinstance(name, str) or not name:
            raise SignatureRefused(f"{element.name} has no Id, by which a signature could refer to it")
        if name in found:
            raise SignatureRefused(f"{element.name} has the Id of {found[name].name}")
        found[name] = element
    return found


def _check_method(method: object, allowed: Sequence[str], called: str) -> None:
    if not isinstance(method, dict) or method.get("Algorithm") not in allowed:
        raise SignatureRefused(f"{called} is not {' or '.join(allowed)}")


def _check_references(elements: Sequence[Message], references: object, scheme: _Scheme) -> None:
    """Check that there is one reference for each element, none else, and that each digest is right."""
    wanted = _by_id(elements)
    if not isinstance(references, list) or len(references) != len(wanted):
        count = len(references) if isinstance(references, list) else 0
        raise SignatureRefused(f"{count} elements are signed where {', '.join(e.name for e in elements)} must be")
    for reference in references:
        if not isinstance(reference, dict) or "Id" in reference or "Type" in reference:
            raise SignatureRefused("a reference has an Id or a Type, which ISO 15118 leaves out", why="V2G2-771")
        uri = reference.get("URI")
        element = wanted.pop(uri[1:], None) if isinstance(uri, str) and uri.startswith("#") else None
        if element is None:
            raise SignatureRefused("a reference names none of the elements that must be signed, or one of them twice")
        transforms = reference.get("Transforms")
        listed = transforms.get("Transform") if isinstance(transforms, dict) else None
        if not isinstance(listed, list) or len(listed) != 1:
            raise SignatureRefused(f"the reference to {element.name} has not exactly one transform", why="V2G20-1449")
        _check_method(listed[0], (CANONICAL_EXI,), "Transform")
        _check_method(reference.get("DigestMethod"), (scheme.digest,), "DigestMethod")
        digest = reference.get("DigestValue")
        if not isinstance(digest, bytes) or not hmac.compare_digest(digest, scheme.digest_of(encode(element))):
            raise SignatureRefused(f"{element.name} is not what was signed")
