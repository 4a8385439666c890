"""Read a PKCS#10 certification request, in every wrapping the field uses, check proof of possession, and write one."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from chargepki.pki import der, der_writer, keys, names, oids
from chargepki.pki.csr_usual import UsualRequest, read_usual
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm, PublicKey

__all__ = [
    "CSR_LABELS",
    "MAX_CSR_BYTES",
    "CertificateRequest",
    "RequestedExtension",
    "build_csr",
    "check_possession",
    "parse_csr",
    "plain_der",
]

CSR_LABELS: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
"""RFC 7468 7, and the older label that Windows and some stations still write."""
MAX_CSR_BYTES: Final = 65536
"""Far above any honest request: OCPP allows 5 500 characters of PEM."""

_ATTRIBUTES: Final = 0xA0
_PLAIN_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/\r\n]+={0,2})\r?\n-----END CERTIFICATE REQUEST-----\s*\Z"
)
_EXTENSION_REQUESTS: Final = (oids.EXTENSION_REQUEST, oids.MICROSOFT_EXTENSION_REQUEST)


@dataclass(frozen=True, slots=True)
class RequestedExtension:
    """One extension that the requester would like to have."""

    oid: str
    critical: bool
    value: bytes
    """Content of extnValue: the DER of the extension itself, undecoded."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A decoded request; every ``…_der`` is a slice of the original bytes, never re-encoded."""

    der: bytes = field(repr=False)
    info_der: bytes = field(repr=False)
    """CertificationRequestInfo: what the signature covers."""
    subject_der: bytes = field(repr=False)
    subject: tuple[tuple[str, str], ...]
    """(short name or dotted OID, value) in the order of the request."""
    spki_der: bytes = field(repr=False)
    public_key: PublicKey = field(repr=False)
    key_algorithm: KeyAlgorithm
    extensions: tuple[RequestedExtension, ...]
    signature_algorithm_der: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_csr(data: bytes | str, *, max_bytes: int = MAX_CSR_BYTES) -> CertificateRequest:
    """Decode the one request in *data*; says nothing yet about whether it should be granted.

    Accepted: DER; PEM with either label, CRLF, explanatory text, no final newline; bare base64; PEM wrapped in base64
    once more (has2be stations). Inside, strict DER, with one tolerance: ``critical FALSE`` may be written out.

    Args:
        data: text or bytes; text beyond Latin-1 cannot be a request.
        max_bytes: largest *data* that is looked at.

    Raises:
        InputError: not a request, more than one, malformed, or a key that no profile knows; says where.

    Clause: RFC 2986 4; OCPP A02.FR.03.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    encoded = _plain_pem(data) if len(data) <= max_bytes else None
    if encoded is None:
        encoded = der.decode_der_or_pem(data, CSR_LABELS, "certificate request", max_bytes)
    usual = read_usual(encoded)
    return _read(encoded) if usual is None else _decoded(encoded, usual)


def _decoded(encoded: bytes, usual: UsualRequest) -> CertificateRequest:
    """Decode what is in the fields of a request of the usual shape; says what `_read` says of the same octets."""
    public_key = keys.load_public_key(usual.spki)
    return CertificateRequest(
        der=encoded,
        info_der=usual.info,
        subject_der=usual.subject,
        subject=_subject(der.parse(usual.subject)),
        spki_der=usual.spki,
        public_key=public_key,
        key_algorithm=KeyAlgorithm.SECP256R1,
        extensions=_extensions(usual.attributes),
        signature_algorithm_der=usual.algorithm,
        signature=usual.signature,
    )


def _read(encoded: bytes) -> CertificateRequest:
    """Decode any request, element by element."""
    parts = der.parse(encoded).children(der.SEQUENCE)
    if len(parts) != 3:
        raise InputError(f"a certificate request has 3 parts, this has {len(parts)}", why="RFC 2986 4.2")
    info, algorithm, signature_field = parts
    fields = info.children(der.SEQUENCE)
    if len(fields) not in (3, 4):
        raise InputError(f"CertificationRequestInfo has 4 fields, this has {len(fields)}", why="RFC 2986 4.1")
    if fields[0].as_integer() != 0:
        raise InputError("the request's version is not v1 (0)", why="RFC 2986 4.1 knows no other")
    unused, signature = signature_field.as_bit_string()
    if unused:
        raise InputError("the request's signature is not whole octets", why="RFC 2986 4.2")
    algorithm.expect(der.SEQUENCE, "signatureAlgorithm")
    spki_der = fields[2].raw
    public_key = keys.load_public_key(spki_der)
    # RFC 2986 has the attributes field always present, OpenSSL and others leave an empty one out.
    attributes = fields[3] if len(fields) == 4 else None
    return CertificateRequest(
        der=encoded,
        info_der=info.raw,
        subject_der=fields[1].raw,
        subject=_subject(fields[1]),
        spki_der=spki_der,
        public_key=public_key,
        key_algorithm=keys.algorithm_of(public_key),
        extensions=_extensions(attributes.raw) if attributes is not None else (),
        signature_algorithm_der=algorithm.raw,
        signature=signature,
    )


def plain_der(data: bytes) -> bytes | None:
    """Return the DER of a request that comes bare or in one PEM block as openssl writes it; ``None`` for all else."""
    if len(data) > MAX_CSR_BYTES:
        return None
    return data if data[:1] == b"\x30" else _plain_pem(data)


def _plain_pem(data: bytes) -> bytes | None:
    """Return the content of one PEM block as openssl writes it; ``None`` leaves all else to the tolerant reader."""
    block = _PLAIN_PEM.match(data)
    if block is None:
        return None
    try:
        return binascii.a2b_base64(block[1].translate(None, b"\r\n"), strict_mode=True)
    except binascii.Error:
        return None


def check_possession(request: CertificateRequest) -> None:
    """Refuse a request that its own key has not signed.

    Raises:
        PolicyRefusal: the signature does not verify, or is of a kind too weak to prove anything.

    Clause: RFC 2986 3 (proof of possession).
    """
    fix = "sign the request with the private key of the public key in it, with SHA-256 or better"
    try:
        proven = keys.verify(request.public_key, request.signature, request.info_der, request.signature_algorithm_der)
    except InputError as exc:
        raise PolicyRefusal(f"the request proves nothing: {exc.what}", why=exc.why, fix=fix) from exc
    if not proven:
        raise PolicyRefusal(
            "the request's signature does not verify with its own key",
            why="without proof of possession anyone could have another's key certified (RFC 2986 3)",
            fix=fix,
        )


# A fleet's requests differ in key and CN alone: the other RDNs and the wanted extensions are the same octets each time,
# so their decoded form is remembered. Only short ones are, so that hostile requests cannot fill the memory.
_MAX_REMEMBERED_BYTES: Final = 512


def _subject(name: der.Tlv) -> tuple[tuple[str, str], ...]:
    """Return the attributes of a Name, as `names.attributes` does."""
    found: tuple[tuple[str, str], ...] = ()
    try:
        for rdn in name.children(der.SEQUENCE):
            found += (_remembered_rdn if rdn.end - rdn.offset <= _MAX_REMEMBERED_BYTES else _read_rdn)(rdn.raw)
    except der.DerError:
        return tuple(names.attributes(name.raw, text_only=True))  # raises it again, with the offset in the whole name
    return found


def _read_rdn(rdn: bytes) -> tuple[tuple[str, str], ...]:
    return tuple(names.attributes(der.sequence(rdn), text_only=True))


_remembered_rdn = lru_cache(maxsize=1024)(_read_rdn)


def _extensions(raw: bytes) -> tuple[RequestedExtension, ...]:
    return (_remembered_extensions if len(raw) <= _MAX_REMEMBERED_BYTES else _read_extensions)(raw)


def _read_extensions(raw: bytes) -> tuple[RequestedExtension, ...]:
    return tuple(_requested_extensions(der.parse(raw)))


_remembered_extensions = lru_cache(maxsize=256)(_read_extensions)


def _requested_extensions(attributes: der.Tlv) -> Iterator[RequestedExtension]:
    if attributes.tag != _ATTRIBUTES:
        raise InputError("the request's fourth field is not its attributes", why="RFC 2986 4.1: [0] IMPLICIT SET")
    for attribute in attributes.children():
        parts = attribute.children(der.SEQUENCE)
        if len(parts) != 2:
            raise InputError("an attribute of the request is not a type and a set of values", why="RFC 2986 4.1")
        kind, values = parts
        if kind.as_oid() in _EXTENSION_REQUESTS:
            for value in values.children(der.SET):
                for extension in value.children(der.SEQUENCE):
                    yield _extension(extension)


def _extension(element: der.Tlv) -> RequestedExtension:
    parts = element.children(der.SEQUENCE)
    if len(parts) not in (2, 3):
        raise InputError("a requested extension has an identifier, a criticality and a value", why="RFC 5280 4.1")
    critical = parts[1].as_boolean() if len(parts) == 3 else False
    return RequestedExtension(parts[0].as_oid(), critical, parts[-1].as_octets())


def build_csr(subject_der: bytes, spki_der: bytes, algorithm: KeyAlgorithm, sign: Callable[[bytes], bytes]) -> bytes:
    """Return a request (DER) without attributes; the subject goes into it octet by octet.

    Args:
        sign: makes the signature that `keys.signature_algorithm` names for a key of *algorithm*.

    Clause: RFC 2986 4.
    """
    writer = der_writer
    info = writer.sequence(writer.integer(0), subject_der, spki_der, writer.implicit(0, b"", constructed=True))
    signature = writer.bit_string(sign(info))
    return writer.sequence(info, keys.signature_algorithm(algorithm).der, signature)
