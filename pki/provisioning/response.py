"""Build the response to a vehicle: contract chain, wrapped key, and the signature of the provisioning service.

ISO 15118-2: four signed elements (V2G2-891); ISO 15118-20: one (V2G20-1077, 2648). Pure: what is random comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448

from chargepki.pki.contract_keys import WrapForm, WrappedKey
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.exi import Message, MessageSet, Tree, Value, decode, encode
from chargepki.pki.message_signature import blank_signature, sign_elements, signed_elements
from chargepki.pki.provisioning.request import RequestKind

__all__ = ["AnswerTooLong", "Content", "base64_characters", "build_response", "check_fits", "readdress", "signing_leaf"]

_WRAPPED_BYTES: Final = {WrapForm.ISO15118_2: (65, 48), WrapForm.SECP521: (133, 94), WrapForm.X448: (56, 84)}
_LATE: Final = datetime(9999, 1, 1, tzinfo=UTC)
# What a station can carry, for the plan that a refusal names (OCPP 2.0.1 ed. 3 and 2.1 schemas).
_OCPP_21_CHARACTERS: Final = 17_000


class AnswerTooLong(PolicyRefusal):
    """A response that the station could not carry; nothing was made."""

    code = "answer-too-long"


@dataclass(frozen=True, slots=True)
class Content:
    """What a response says.

    Attributes:
        contract_chain: DER, leaf first, without the root.
        cps_chain: likewise, of the provisioning service.
        remaining: how many further contracts the vehicle may ask for (-20).
    """

    message_set: MessageSet
    kind: RequestKind
    contract_chain: Sequence[bytes]
    cps_chain: Sequence[bytes]
    wrapped: WrappedKey
    emaid: str
    remaining: int = 0


def build_response(
    content: Content, key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey, *, session_id: bytes, now: datetime
) -> bytes:
    """Return the signed response as EXI.

    Args:
        key: of the leaf of the CPS chain.

    Raises:
        ExiError: a certificate is longer than the standard allows (800 bytes in -2, 1600 in -20).
        SignatureRefused: the key is on a curve of the other standard.
    """
    unsigned = _unsigned(content, session_id, now)
    header = unsigned.tree["Header"]
    assert isinstance(header, dict)
    header["Signature"] = sign_elements(signed_elements(unsigned), key)
    return encode(unsigned)


def readdress(response: bytes, message_set: MessageSet, *, session_id: bytes, remaining: int, now: datetime) -> bytes:
    """Return a response that was built before for another session of the same vehicle.

    Session, time and the number of remaining contracts are not signed; what is signed stays byte for byte.
    """
    message = decode(response, message_set=message_set)
    header = message.tree["Header"]
    assert isinstance(header, dict)
    header["SessionID"] = session_id
    if message_set is MessageSet.ISO15118_20:
        header["TimeStamp"] = int(now.timestamp())
        message.tree["RemainingContractCertificateChains"] = remaining
    return encode(message)


def signing_leaf(response: bytes, message_set: MessageSet) -> bytes:
    """Return the certificate (DER) of whoever signed a response."""
    tree = decode(response, message_set=message_set).tree
    if message_set is MessageSet.ISO15118_2:
        body = tree["Body"]
        assert isinstance(body, dict)
        inner = next(iter(body.values()))
        assert isinstance(inner, dict)
        chain = inner["SAProvisioningCertificateChain"]
    else:
        chain = tree["CPSCertificateChain"]
    assert isinstance(chain, dict)
    leaf = chain["Certificate"]
    assert isinstance(leaf, bytes)
    return leaf


def base64_characters(octets: int) -> int:
    """Return the length of *octets* in base64, padding included.

    >>> base64_characters(4200)
    5600
    """
    return 4 * -(-octets // 3)


def check_fits(
    content: Content,
    largest_leaf: int,
    key: ec.EllipticCurvePublicKey | ed448.Ed448PublicKey,
    *,
    characters: int,
    carrier: str,
) -> int:
    """Return the most characters of base64 that the response can have, before anything of it is made.

    Args:
        content: its contract chain without the leaf, which is not made yet; of its wrapped key the form counts.
        largest_leaf: the most bytes that the contract certificate can have.
        key: of the leaf of the CPS chain.
        characters: what the field of the station's answer takes.
        carrier: the protocol, for people.

    Raises:
        AnswerTooLong: it would not fit; says by how much, and what would help.
    """
    public, encrypted = _WRAPPED_BYTES[content.wrapped.form]
    wrapped = WrappedKey(content.wrapped.form, bytes(public), bytes(encrypted))
    chain = (bytes(largest_leaf), *content.contract_chain)
    stand_in = replace(content, contract_chain=chain, wrapped=wrapped, remaining=255)
    message = _unsigned(stand_in, bytes(8), _LATE)
    header = message.tree["Header"]
    assert isinstance(header, dict)
    header["Signature"] = blank_signature(signed_elements(message), key)
    size = base64_characters(len(encode(message)))
    if size > characters:
        raise AnswerTooLong(
            f"the answer would have up to {size} characters of base64; {carrier} carries {characters}",
            why=f"contract chain {_sizes(chain)}, chain of the provisioning service {_sizes(content.cps_chain)}",
            fix=_plan(size, characters),
        )
    return size


def _plan(size: int, characters: int) -> str:
    steps = []
    if size <= _OCPP_21_CHARACTERS and characters < _OCPP_21_CHARACTERS:
        steps.append(f"connect the station with OCPP 2.1, which carries {_OCPP_21_CHARACTERS}")
    steps.append(
        f"if its OCPPCommCtrlr.FieldLength of Get15118EVCertificateResponse.exiResponse is {size} or more, "
        "raise exi_response_limit of the CSMS"
    )
    steps.append("shorten the certificates: a shorter public URL, shorter names, one sub-CA less")
    return "; or ".join(steps)


def _sizes(chain: Sequence[bytes]) -> str:
    return f"{' + '.join(str(len(each)) for each in chain)} bytes"


def _unsigned(content: Content, session_id: bytes, now: datetime) -> Message:
    return (_of_2 if content.message_set is MessageSet.ISO15118_2 else _of_20)(content, session_id, now)


def _of_2(content: Content, session_id: bytes, now: datetime) -> Message:
    name = "CertificateUpdateRes" if content.kind is RequestKind.UPDATE else "CertificateInstallationRes"
    body: Tree = {
        "ResponseCode": "OK",
        "SAProvisioningCertificateChain": _chain(content.cps_chain),
        "ContractSignatureCertChain": {"Id": "id1", **_chain(content.contract_chain)},
        "ContractSignatureEncryptedPrivateKey": {"Id": "id2", "value": content.wrapped.encrypted},
        "DHpublickey": {"Id": "id3", "value": content.wrapped.public},
        "eMAID": {"Id": "id4", "value": content.emaid},
    }
    header: Tree = {"SessionID": session_id}
    return Message(MessageSet.ISO15118_2, "V2G_Message", {"Header": header, "Body": {name: body}})


def _of_20(content: Content, session_id: bytes, now: datetime) -> Message:
    header: Tree = {"SessionID": session_id, "TimeStamp": int(now.timestamp())}
    tree: Tree = {
        "Header": header,
        "ResponseCode": "OK",
        "EVSEProcessing": "Finished",
        "CPSCertificateChain": _chain(content.cps_chain),
        "SignedInstallationData": {
            "Id": "id1",
            "ContractCertificateChain": _chain(content.contract_chain),
            "ECDHCurve": "X448" if content.wrapped.form is WrapForm.X448 else "SECP521",
            "DHPublicKey": content.wrapped.public,
            content.wrapped.form.value: content.wrapped.encrypted,
        },
        "RemainingContractCertificateChains": content.remaining,
    }
    return Message(MessageSet.ISO15118_20, "CertificateInstallationRes", tree)


def _chain(certificates: Sequence[bytes]) -> Tree:
    leaf, *below = certificates
    if not below:
        return {"Certificate": leaf}
    listed: list[Value] = list(below)
    return {"Certificate": leaf, "SubCertificates": {"Certificate": listed}}
