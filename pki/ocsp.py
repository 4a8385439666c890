"""Read OCSP requests and build OCSP responses (RFC 6960, RFC 9654, RFC 5019); pure functions over DER."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from chargepki.pki import der, keys, oids
from chargepki.pki.crl import ReasonCode
from chargepki.pki.der import DerError, Tlv
from chargepki.pki.errors import InputError

__all__ = [
    "HASH_OIDS",
    "MAX_CERT_IDS",
    "MAX_NONCE_BYTES",
    "MAX_REQUEST_BYTES",
    "CertId",
    "CertStatus",
    "OcspRequest",
    "ResponseStatus",
    "ResponseTemplate",
    "SingleAnswer",
    "assemble_response",
    "build_cert_id",
    "build_response_data",
    "build_single_request",
    "error_response",
    "issuer_hashes",
    "key_hash",
    "parse_ocsp_request",
]

MAX_REQUEST_BYTES: Final = 16 * 1024
"""A signed request with a chain of certificates fits; ours is about 80 octets."""
MAX_CERT_IDS: Final = 32
"""An EV asks for the four certificates of a chain at most; more is bounded, because each costs a look-up."""
MAX_NONCE_BYTES: Final = 128
"""RFC 9654 2.1: SIZE(1..128)."""

HASH_OIDS: Final[Mapping[str, str]] = MappingProxyType(
    {"sha1": oids.SHA1, "sha256": oids.SHA256, "sha384": oids.SHA384, "sha512": oids.SHA512}
)
"""Hashes of a CertID that are recognised: RFC 5019 and RFC 6960 name SHA-1, OCPP's hash data the others."""
_HASH_NAMES: Final = {oid: name for name, oid in HASH_OIDS.items()}

_OID_BASIC: Final = der.oid("1.3.6.1.5.5.7.48.1.1")  # id-pkix-ocsp-basic, RFC 6960 4.2.1
_NONCE: Final = "1.3.6.1.5.5.7.48.1.2"  # id-pkix-ocsp-nonce, RFC 9654 2.1
_UNDERSTOOD: Final = frozenset(
    {
        _NONCE,
        "1.3.6.1.5.5.7.48.1.4",  # acceptable response types, RFC 6960 4.4.3: basic is all that there is
        "1.3.6.1.5.5.7.48.1.7",  # service locator, RFC 6960 4.4.6
        "1.3.6.1.5.5.7.48.1.8",  # preferred signature algorithms, RFC 6960 4.4.7: a wish, and each CA has one key
    }
)


class ResponseStatus(IntEnum):
    """OCSPResponseStatus (RFC 6960 4.2.1); 4 is not used."""

    SUCCESSFUL = 0
    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    SIG_REQUIRED = 5
    UNAUTHORIZED = 6


@dataclass(frozen=True, slots=True)
class CertId:
    """Which certificate a client asks about (RFC 6960 4.1.1)."""

    hash_name: str
    """``sha1``, ``sha256``, ``sha384`` or ``sha512``; empty for a hash that we do not know."""
    name_hash: bytes
    key_hash: bytes
    serial: int
    raw: bytes
    """As it came: the response repeats exactly these octets (4.2.1)."""


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """A decoded request. A signature on it is neither needed nor looked at (RFC 6960 4.1.2, RFC 5019 2.1.1)."""

    cert_ids: tuple[CertId, ...]
    nonce: bytes | None


@dataclass(frozen=True, slots=True)
class CertStatus:
    """What is known of one certificate.

    `revoked_at` is ``None`` unless it is revoked; *known* is false for a serial that no certificate was issued with.
    """

    known: bool
    revoked_at: datetime | None = None
    reason: ReasonCode | None = None

    @property
    def word(self) -> str:
        """``good``, ``revoked`` or ``unknown``."""
        return "unknown" if not self.known else "good" if self.revoked_at is None else "revoked"


@dataclass(frozen=True, slots=True)
class SingleAnswer:
    """One SingleResponse (RFC 6960 4.2.1)."""

    cert_id: bytes
    """DER of the CertID."""
    status: CertStatus
    this_update: datetime
    next_update: datetime


def parse_ocsp_request(data: bytes) -> OcspRequest:
    """Decode an OCSPRequest (DER).

    Raises:
        DerError: it is none, asks about nothing or about more than `MAX_CERT_IDS` certificates, has a nonce of another
            length than 1 to 128 octets, or a critical extension that is not understood. All of these are answered
            with malformedRequest (RFC 6960 2.3, 4.4; RFC 9654 2.1).
    """
    outer = der.parse(data, max_bytes=MAX_REQUEST_BYTES)
    parts = outer.children(der.SEQUENCE)
    if not 1 <= len(parts) <= 2 or (len(parts) == 2 and parts[1].tag != 0xA0):
        raise outer.fail("wrong-count", "not an OCSPRequest")
    fields = list(parts[0].children(der.SEQUENCE))
    # DER leaves the default out, yet a client that writes v1 is as clear.
    if fields and fields[0].tag == 0xA0 and fields.pop(0).child().as_integer() != 0:
        raise outer.fail("bad-version", "not version 1 of OCSP")
    if fields and fields[0].tag == 0xA1:
        fields.pop(0)  # requestorName: nobody is treated differently by it
    if not 1 <= len(fields) <= 2 or (len(fields) == 2 and fields[1].tag != 0xA2):
        raise outer.fail("wrong-count", "not a TBSRequest")
    requests = fields[0].children(der.SEQUENCE)
    if not 1 <= len(requests) <= MAX_CERT_IDS:
        raise fields[0].fail("wrong-count", f"{len(requests)} certificates are asked for; 1 to {MAX_CERT_IDS} may be")
    nonce = _read_extensions(fields[1]) if len(fields) == 2 else None
    return OcspRequest(tuple([_read_request(request) for request in requests]), nonce)


def _read_request(request: Tlv) -> CertId:
    parts = request.children(der.SEQUENCE)
    if not 1 <= len(parts) <= 2 or (len(parts) == 2 and parts[1].tag != 0xA0):
        raise request.fail("wrong-count", "not a Request")
    if len(parts) == 2:
        _read_extensions(parts[1])
    fields = parts[0].children(der.SEQUENCE)
    if len(fields) != 4:
        raise parts[0].fail("wrong-count", "not a CertID")
    algorithm = fields[0].children(der.SEQUENCE)
    if not 1 <= len(algorithm) <= 2:
        raise fields[0].fail("wrong-count", "not an AlgorithmIdentifier")
    return CertId(
        hash_name=_HASH_NAMES.get(algorithm[0].as_oid(), ""),
        name_hash=fields[1].as_octets(),
        key_hash=fields[2].as_octets(),
        serial=fields[3].as_integer(),
        raw=parts[0].raw,
    )


def _read_extensions(holder: Tlv) -> bytes | None:
    """Return the nonce, refusing critical extensions that are not understood (RFC 6960 4.4)."""
    seen: dict[str, bytes] = {}
    for each in holder.child().children(der.SEQUENCE):
        parts = each.children(der.SEQUENCE)
        if len(parts) not in (2, 3):
            raise each.fail("wrong-count", "not an Extension")
        oid = parts[0].as_oid()
        critical = len(parts) == 3 and parts[1].as_boolean()
        if oid in seen:
            raise each.fail("duplicate", f"the extension {oid} appears twice")
        if critical and oid not in _UNDERSTOOD:
            raise each.fail("unknown-critical", f"the critical extension {oid} is not understood")
        seen[oid] = parts[-1].as_octets()
    value = seen.get(_NONCE)
    if value is None:
        return None
    nonce = der.parse(value).as_octets()
    if not 1 <= len(nonce) <= MAX_NONCE_BYTES:
        raise DerError("bad-nonce", holder.offset, f"a nonce of {len(nonce)} octets; RFC 9654 has 1 to 128")
    return nonce


# ---------------------------------------------------------------- certificate identifiers


def issuer_hashes(hash_name: str, name_der: bytes, spki_der: bytes) -> tuple[bytes, bytes]:
    """Return issuerNameHash and issuerKeyHash of a CA (RFC 6960 4.1.1).

    Args:
        hash_name: a key of `HASH_OIDS`.
        name_der: the CA's subject, DER.
        spki_der: its SubjectPublicKeyInfo, DER.
    """
    bits = keys.public_key_bits(spki_der)
    return (
        hashlib.new(hash_name, name_der, usedforsecurity=False).digest(),
        hashlib.new(hash_name, bits, usedforsecurity=False).digest(),
    )


def build_cert_id(hash_name: str, name_hash: bytes, key_hash: bytes, serial: int) -> bytes:
    """Return a CertID (DER) as nearly every client writes it: the hash with NULL parameters."""
    return der.sequence(
        _hash_identifier(hash_name), der.octet_string(name_hash), der.octet_string(key_hash), der.integer(serial)
    )


@lru_cache(maxsize=8)
def _hash_identifier(hash_name: str) -> bytes:
    return der.sequence(der.oid(HASH_OIDS[hash_name]), der.null())


def build_single_request(cert_id: bytes, *, nonce: bytes | None = None) -> bytes:
    """Return an OCSPRequest (DER) about one certificate; without a nonce it is the one of RFC 5019 2.1.1."""
    extensions = b""
    if nonce is not None:
        extensions = der.explicit(2, der.sequence(_nonce_extension(nonce)))
    return der.sequence(der.sequence(der.sequence(der.sequence(cert_id)), extensions))


# ---------------------------------------------------------------- responses


def key_hash(spki_der: bytes) -> bytes:
    """Return the KeyHash of a responder: SHA-1 over the value of its subjectPublicKey (RFC 6960 4.2.1)."""
    return hashlib.sha1(keys.public_key_bits(spki_der), usedforsecurity=False).digest()


def build_response_data(
    responder_key_hash: bytes, produced_at: datetime, answers: Sequence[SingleAnswer], *, nonce: bytes | None = None
) -> bytes:
    """Return the ResponseData (DER) that the responder signs; the responder is named by its key.

    Raises:
        InputError: no answer, or nextUpdate not after thisUpdate.
        TypeError: a naive datetime.

    Clause: RFC 6960 4.2.1; RFC 5019 2.2.1 (byKey keeps it short), 2.2.4 (times); RFC 9654 2.1.
    """
    if not answers:
        raise InputError("a response without an answer says nothing")
    extensions = b"" if nonce is None else der.explicit(1, der.sequence(_nonce_extension(nonce)))
    return der.sequence(
        der.explicit(2, der.octet_string(responder_key_hash)),
        _time(produced_at),
        der.sequence(*[_single(answer) for answer in answers]),
        extensions,
    )


def _single(answer: SingleAnswer) -> bytes:
    if answer.next_update <= answer.this_update:
        raise InputError("nextUpdate is not after thisUpdate", why="the answer would be stale from the start")
    return der.sequence(
        answer.cert_id,
        _status(answer.status),
        _time(answer.this_update),
        der.explicit(0, _time(answer.next_update)),
    )


_GOOD: Final = der.implicit(0, b"", constructed=False)
_UNKNOWN: Final = der.implicit(2, b"", constructed=False)


def _status(status: CertStatus) -> bytes:
    if not status.known:
        return _UNKNOWN
    if status.revoked_at is None:
        return _GOOD
    reason = b""
    if status.reason is not None and status.reason is not ReasonCode.UNSPECIFIED:
        reason = der.explicit(0, der.enumerated(status.reason.number))
    return der.implicit(1, _time(status.revoked_at) + reason, constructed=True)


@lru_cache(maxsize=256)
def _time_of(moment: datetime) -> bytes:
    return der.generalized_time(moment)


def _time(moment: datetime) -> bytes:
    # Batches repeat a few instants; naive ones must fail before the cache equates them with anything.
    return _time_of(moment) if moment.tzinfo is not None else der.generalized_time(moment)


def _nonce_extension(nonce: bytes) -> bytes:
    if not 1 <= len(nonce) <= MAX_NONCE_BYTES:
        raise InputError(f"a nonce of {len(nonce)} octets", why="RFC 9654 2.1 has 1 to 128")
    return der.sequence(der.oid(_NONCE), der.octet_string(der.octet_string(nonce)))


def assemble_response(
    response_data: bytes, signature_algorithm_der: bytes, signature: bytes, certificates: Sequence[bytes] = ()
) -> bytes:
    """Return a successful OCSPResponse (DER).

    Args:
        certificates: DER; the delegated signer's, or none when the CA itself signed (RFC 6960 4.2.2.2).
    """
    basic = der.sequence(
        response_data,
        signature_algorithm_der,
        der.bit_string(signature),
        der.explicit(0, der.sequence(*certificates)) if certificates else b"",
    )
    return der.sequence(_SUCCESSFUL, der.explicit(0, der.sequence(_OID_BASIC, der.octet_string(basic))))


_SUCCESSFUL: Final = der.enumerated(ResponseStatus.SUCCESSFUL)


def error_response(status: ResponseStatus) -> bytes:
    """Return an OCSPResponse (DER) that carries no answer and no signature (RFC 6960 2.3).

    >>> error_response(ResponseStatus.TRY_LATER).hex()
    '30030a0103'
    """
    if status is ResponseStatus.SUCCESSFUL:
        raise InputError("a successful response has content")
    return der.sequence(der.enumerated(status))


class ResponseTemplate:
    """Everything that the responses of one signer have in common within one second, so that a live one costs little.

    Example:
        template = ResponseTemplate(key_hash, algorithm, certificates, produced_at=now, next_update=until)
        data = template.response_data(cert_id, CertStatus(known=True), nonce)
        response = template.assemble(data, signer.sign(data))
    """

    def __init__(
        self,
        responder_key_hash: bytes,
        signature_algorithm_der: bytes,
        certificates: Sequence[bytes],
        *,
        produced_at: datetime,
        next_update: datetime,
    ) -> None:
        """Prepare it; thisUpdate is *produced_at*.

        Raises:
            InputError: nextUpdate is not after thisUpdate.
        """
        if next_update <= produced_at:
            raise InputError("nextUpdate is not after thisUpdate", why="the answer would be stale from the start")
        self._head = der.explicit(2, der.octet_string(responder_key_hash)) + _time(produced_at)
        self._times = _time(produced_at) + der.explicit(0, _time(next_update))
        self._algorithm = signature_algorithm_der
        self._certificates = der.explicit(0, der.sequence(*certificates)) if certificates else b""

    def response_data(self, cert_id: bytes, status: CertStatus, nonce: bytes) -> bytes:
        """Return what `build_response_data` does for one answer with a nonce."""
        encoded = _status(status)
        single_octets = len(cert_id) + len(encoded) + len(self._times)
        outer, inner, before = _data_headers(len(self._head), single_octets, len(nonce))
        return b"".join((outer, self._head, inner, cert_id, encoded, self._times, before, nonce))

    def assemble(self, response_data: bytes, signature: bytes) -> bytes:
        """Return what `assemble_response` does."""
        before, bits = _answer_headers(
            len(response_data) + len(self._algorithm), len(signature), len(self._certificates)
        )
        return b"".join((before, response_data, self._algorithm, bits, signature, self._certificates))


# Tags and lengths follow from a few numbers that hardly ever change, and putting them together one by one takes as long
# as half a signature.


@lru_cache(maxsize=1024)
def _data_headers(head_octets: int, single_octets: int, nonce_octets: int) -> tuple[bytes, bytes, bytes]:
    """Return what stands before the head, before the CertID, and before the nonce of a ResponseData."""
    single = _header(der.SEQUENCE, single_octets)
    inner = _header(der.SEQUENCE, len(single) + single_octets) + single
    before = _nonce_prefix(nonce_octets)
    outer = _header(der.SEQUENCE, head_octets + len(inner) + single_octets + len(before) + nonce_octets)
    return outer, inner, before


@lru_cache(maxsize=1024)
def _answer_headers(signed_octets: int, signature_octets: int, certificates_octets: int) -> tuple[bytes, bytes]:
    """Return what stands before the ResponseData, and before the octets of the signature."""
    bits = der.bit_string(bytes(signature_octets))[:-signature_octets]
    basic = signed_octets + len(bits) + signature_octets + certificates_octets
    before = _header(der.SEQUENCE, basic)
    for tag, first in ((der.OCTET_STRING, _OID_BASIC), (der.SEQUENCE, b""), (0xA0, _SUCCESSFUL), (der.SEQUENCE, b"")):
        before = first + _header(tag, len(before) + basic) + before
    return before, bits


def _header(tag: int, octets: int) -> bytes:
    """Return tag and length of an element whose content has so many octets, one at least."""
    return der.tlv(tag, bytes(octets))[:-octets]


@lru_cache(maxsize=MAX_NONCE_BYTES)
def _nonce_prefix(length: int) -> bytes:
    """Return responseExtensions up to the octets of the nonce, which come last."""
    return der.explicit(1, der.sequence(_nonce_extension(bytes(length))))[:-length]
