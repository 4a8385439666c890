"""Read a PKCS#10 certification request, in every wrapping the field uses, and check proof of possession."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki import der, keys, names, oids
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm, PublicKey

__all__ = ["CSR_LABELS", "MAX_CSR_BYTES", "CertificateRequest", "RequestedExtension", "check_possession", "parse_csr"]

CSR_LABELS: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
"""RFC 7468 7, and the older label that Windows and some stations still write."""
MAX_CSR_BYTES: Final = 65536
"""Far above any honest request: OCPP allows 5 500 characters of PEM."""

_ATTRIBUTES: Final = 0xA0
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
    encoded = der.decode_der_or_pem(data, CSR_LABELS, "certificate request", max_bytes)
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
        subject=tuple(names.attributes(fields[1].raw)),
        spki_der=spki_der,
        public_key=public_key,
        key_algorithm=keys.algorithm_of(public_key),
        extensions=tuple(_requested_extensions(attributes)) if attributes is not None else (),
        signature_algorithm_der=algorithm.raw,
        signature=signature,
    )


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
