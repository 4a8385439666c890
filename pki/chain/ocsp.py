"""Read OCSP responses and judge who signed them, about which certificate, and when (RFC 6960)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from chargepki.pki import der, keys, oids
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.der import DerError, Tlv
from chargepki.pki.errors import InputError, printable_number

__all__ = [
    "NoStatus",
    "OcspAnswer",
    "OcspResponse",
    "is_about",
    "is_responder",
    "read_ocsp_response",
    "why_no_delegate",
]

_BASIC: Final = "1.3.6.1.5.5.7.48.1.1"  # id-pkix-ocsp-basic, RFC 6960 4.2.1
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"  # id-pkix-ocsp-nonce, RFC 6960 4.4.1
_HASHES: Final[Mapping[str, str]] = MappingProxyType(
    {oids.SHA1: "sha1", oids.SHA256: "sha256", oids.SHA384: "sha384", oids.SHA512: "sha512"}
)
_STATUSES: Final = {
    1: "malformedRequest",
    2: "internalError",
    3: "tryLater",
    5: "sigRequired",
    6: "unauthorized",
}
MAX_RESPONSE_BYTES: Final = 256 * 1024
_MAX_ANSWERS: Final = 512
_DIGITAL_SIGNATURE: Final = 0
_NON_REPUDIATION: Final = 1


@dataclass(frozen=True, slots=True)
class OcspAnswer:
    """One SingleResponse."""

    hash_name: str
    """Of hashlib; empty for a hash that we do not know."""
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: str
    """``good``, ``revoked`` or ``unknown``."""
    revoked_at: datetime | None
    reason: int
    this_update: datetime
    next_update: datetime | None
    unknown_critical: str


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """A successful basic response; nothing has been verified."""

    tbs: bytes
    algorithm: bytes
    signature: bytes
    responder_name: bytes | None
    responder_key_hash: bytes | None
    produced_at: datetime
    answers: tuple[OcspAnswer, ...]
    nonce: bytes | None
    unknown_critical: str
    certificates: tuple[bytes, ...]


class NoStatus(DerError):
    """An OCSPResponse that reports an error instead of a status; for readers it is no more use than noise."""

    code = "ocsp-error"

    def __init__(self, what: str) -> None:
        super().__init__("ocsp-error", 0, what)
        self.what = what
        self.why = "an answer of that kind tells of no certificate (RFC 6960 2.3)"
        self.fix = "ask again later, or ask the responder that the certificate names"


def read_ocsp_response(data: bytes) -> OcspResponse:
    """Decode an OCSPResponse (DER).

    Raises:
        NoStatus: it reports an error.
        DerError: it is none.
    """
    parts = der.parse(data, max_bytes=MAX_RESPONSE_BYTES).children(der.SEQUENCE)
    if not parts:
        raise DerError("wrong-count", 0, "not an OCSPResponse")
    status = parts[0].as_integer(der.ENUMERATED)
    if status:
        raise NoStatus(f"the responder answered {_STATUSES.get(status) or printable_number(status)}")
    if len(parts) != 2:
        raise DerError("wrong-count", 0, "a successful response without content")
    kind, holder = _exactly(parts[1].expect(0xA0, "responseBytes").child(), 2)
    if kind.as_oid() != _BASIC:
        raise kind.fail("unexpected-type", "not a basic OCSP response")
    fields = der.parse(holder.as_octets()).children(der.SEQUENCE)
    if len(fields) not in (3, 4):
        raise holder.fail("wrong-count", "not a BasicOCSPResponse")
    certificates: tuple[bytes, ...] = ()
    if len(fields) == 4:
        certificates = tuple(each.raw for each in fields[3].expect(0xA0, "certs").child().children(der.SEQUENCE))
    unused, signature = fields[2].as_bit_string()
    if unused:
        raise fields[2].fail("bad-bit-string", "a signature is whole octets")
    return _read_data(fields[0], fields[1].raw, signature, certificates)


def _exactly(element: Tlv, count: int) -> tuple[Tlv, ...]:
    kids = element.children(der.SEQUENCE)
    if len(kids) != count:
        raise element.fail("wrong-count", f"{len(kids)} elements where {count} are expected")
    return kids


def _read_data(data: Tlv, algorithm: bytes, signature: bytes, certificates: tuple[bytes, ...]) -> OcspResponse:
    kids = list(data.children(der.SEQUENCE))
    if kids and kids[0].tag == 0xA0:
        kids.pop(0)
    if len(kids) not in (3, 4) or kids[0].tag not in (0xA1, 0xA2):
        raise data.fail("unexpected-tag", "not a ResponseData")
    responder = kids[0].child()
    answers = kids[2].children(der.SEQUENCE)
    if len(answers) > _MAX_ANSWERS:
        raise data.fail("too-large", f"more than {_MAX_ANSWERS} answers")
    extensions = _extensions(kids[3]) if len(kids) == 4 else {}
    nonce = extensions.get(_NONCE)
    return OcspResponse(
        tbs=data.raw,
        algorithm=algorithm,
        signature=signature,
        responder_name=responder.raw if kids[0].tag == 0xA1 else None,
        responder_key_hash=responder.as_octets() if kids[0].tag == 0xA2 else None,
        produced_at=kids[1].as_time(),
        answers=tuple(_read_answer(each) for each in answers),
        nonce=None if nonce is None else _nonce(nonce[1]),
        unknown_critical=next((o for o, (critical, _) in extensions.items() if critical and o != _NONCE), ""),
        certificates=certificates,
    )


def _nonce(value: bytes) -> bytes:
    """Return the nonce's octets; old responders put them there without an OCTET STRING around them (RFC 2560)."""
    try:
        return der.parse(value).as_octets()
    except DerError:
        return value


def _extensions(holder: Tlv) -> dict[str, tuple[bool, bytes]]:
    found: dict[str, tuple[bool, bytes]] = {}
    for each in holder.child().children(der.SEQUENCE):
        kids = each.children(der.SEQUENCE)
        if len(kids) not in (2, 3):
            raise each.fail("wrong-count", "not an Extension")
        found[kids[0].as_oid()] = len(kids) == 3 and kids[1].as_boolean(), kids[-1].as_octets()
    return found


def _read_answer(answer: Tlv) -> OcspAnswer:
    kids = list(answer.children(der.SEQUENCE))
    if len(kids) < 3:
        raise answer.fail("wrong-count", "not a SingleResponse")
    algorithm, name_hash, key_hash, serial = _exactly(kids[0], 4)
    named = algorithm.children(der.SEQUENCE)
    if not named:
        raise algorithm.fail("wrong-count", "an AlgorithmIdentifier names an algorithm")
    status, revoked_at, reason = _read_status(kids[1])
    next_update, critical = None, ""
    for kid in kids[3:]:
        if kid.tag == 0xA0:
            next_update = kid.child().as_time()
        elif kid.tag == 0xA1:
            critical = next((oid for oid, (is_critical, _) in _extensions(kid).items() if is_critical), "")
        else:
            raise kid.fail("unexpected-tag", "not a SingleResponse")
    return OcspAnswer(
        hash_name=_HASHES.get(named[0].as_oid(), ""),
        name_hash=name_hash.as_octets(),
        key_hash=key_hash.as_octets(),
        serial=serial.as_integer(),
        status=status,
        revoked_at=revoked_at,
        reason=reason,
        this_update=kids[2].as_time(),
        next_update=next_update,
        unknown_critical=critical,
    )


def _read_status(status: Tlv) -> tuple[str, datetime | None, int]:
    if status.tag == 0x80:
        return "good", None, 0
    if status.tag == 0x82:
        return "unknown", None, 0
    if status.tag != 0xA1:
        raise status.fail("unexpected-tag", "not a CertStatus")
    kids = status.children()
    if not 1 <= len(kids) <= 2:
        raise status.fail("wrong-count", "not a RevokedInfo")
    reason = kids[1].child().as_integer(der.ENUMERATED) if len(kids) == 2 else 0
    return "revoked", kids[0].as_time(), reason


def is_about(answer: OcspAnswer, target: PathCertificate, issuer: PathCertificate) -> bool:
    """Whether *answer* is about *target*, which *issuer* signed (RFC 6960 4.1.1)."""
    if answer.serial != target.serial or not answer.hash_name:
        return False
    return answer.name_hash == _digest(answer.hash_name, target.issuer) and answer.key_hash == _digest(
        answer.hash_name, _bits(issuer)
    )


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _bits(certificate: PathCertificate) -> bytes:
    try:
        return keys.public_key_bits(certificate.spki)
    except InputError:
        return b""


def is_responder(response: OcspResponse, candidate: PathCertificate) -> bool:
    """Whether the response names *candidate* as its signer."""
    if response.responder_name is not None:
        return same_name(response.responder_name, candidate.subject)
    return response.responder_key_hash == _digest("sha1", _bits(candidate))


def why_no_delegate(candidate: PathCertificate, at: datetime) -> str:
    """Return why *candidate*, which the right CA issued, may not answer in its name, or the empty string."""
    try:
        usages = candidate.extended_key_usage or ()
    except DerError as error:
        return error.what
    if oids.EKU_OCSP_SIGNING not in usages:
        return "ExtendedKeyUsage lacks OCSPSigning (RFC 6960 4.2.2.2)"
    if not candidate.may(_DIGITAL_SIGNATURE) and not candidate.may(_NON_REPUDIATION):
        return "KeyUsage lacks digitalSignature"
    if not candidate.not_before <= at <= candidate.not_after:
        return "it is not valid at this time"
    if candidate.unknown_critical or candidate.duplicate:
        return "an extension is critical and not understood, or appears twice"
    return ""
