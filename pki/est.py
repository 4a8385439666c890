"""EST messages: bodies, certs-only answers, wanted attributes, server-made keys; octets in, octets out.

Clause: RFC 7030, as RFC 8951 clarifies it (base64 bodies, CsrAttrs).
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from chargepki.pki import der, oids
from chargepki.pki.csr import MAX_CSR_BYTES, CertificateRequest, parse_csr
from chargepki.pki.errors import InputError
from chargepki.pki.keys import KeyAlgorithm, signature_algorithm
from chargepki.pki.profiles.base import Profile

__all__ = [
    "CERTS_ONLY",
    "CSR_ATTRIBUTES",
    "MAX_BODY_BYTES",
    "build_certs_only",
    "build_csr_attributes",
    "build_server_key_answer",
    "encode_body",
    "find_session_link",
    "read_certs_only",
    "read_request_body",
]

CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
CSR_ATTRIBUTES: Final = "application/csrattrs"
MAX_BODY_BYTES: Final = 2 * MAX_CSR_BYTES
"""Largest request body that is decoded, in octets of base64."""
_MAX_CERTIFICATES: Final = 64

_CURVES: Final = {
    KeyAlgorithm.SECP256R1: oids.SECP256R1,
    KeyAlgorithm.SECP384R1: oids.SECP384R1,
    KeyAlgorithm.SECP521R1: oids.SECP521R1,
}


def encode_body(content: bytes) -> bytes:
    """Return *content* as base64 in lines of 64 characters with a final newline (RFC 8951 3.1: blanks are allowed)."""
    text = base64.b64encode(content)
    return b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))


def read_request_body(body: bytes) -> CertificateRequest:
    """Decode the body of an enrolment request: base64 of a PKCS#10 request.

    RFC 8951 3.1 lets base64 hold blanks and line ends anywhere and makes Content-Transfer-Encoding meaningless. Clients
    are also seen to send PEM, or plain DER, and a request that says the same in another wrapping is the same request.

    Raises:
        InputError: too large, or no request.
    """
    if len(body) > MAX_BODY_BYTES:
        raise InputError(f"the body is larger than {MAX_BODY_BYTES} octets", fix="send one PKCS#10 request in base64")
    if not body.strip():
        raise InputError("the body is empty", fix="send one PKCS#10 request in base64")
    return parse_csr(body, max_bytes=MAX_BODY_BYTES)


def find_session_link(request: CertificateRequest) -> bytes | None:
    """Return the content of the request's challengePassword, undecoded; ``None`` when it has none.

    In EST its presence says that it holds the base64 of the TLS session's ``tls-unique`` value (RFC 7030 3.5).

    Raises:
        InputError: the attribute is malformed, or stands there twice.
    """
    fields = der.parse(request.info_der).children(der.SEQUENCE)
    found: list[bytes] = []
    for attribute in fields[3].children() if len(fields) == 4 else ():
        kind, values = attribute.children(der.SEQUENCE)
        if kind.as_oid() == oids.CHALLENGE_PASSWORD:
            found += [value.content for value in values.children(der.SET)]
            if len(found) != 1:
                raise InputError("the request's challengePassword has not exactly one value", why="RFC 2985 5.4.1")
    return found[0] if found else None


def build_certs_only(certificates_der: Sequence[bytes]) -> bytes:
    """Return the DER of a certs-only CMC Simple PKI Response (RFC 7030 4.1.3, 4.2.3): SignedData without signers."""
    loaded = [x509.load_der_x509_certificate(encoded) for encoded in certificates_der]
    return pkcs7.serialize_certificates(loaded, Encoding.DER)


def read_certs_only(body: bytes) -> tuple[bytes, ...]:
    """Return the certificates (DER) of a certs-only answer, in the order in which they stand there: any.

    Args:
        body: base64 with or without blanks, PEM, or DER.

    Raises:
        InputError: no such message, none or too many certificates in it.
    """
    encoded = _decode(body)
    try:
        loaded = pkcs7.load_der_pkcs7_certificates(encoded)
    except (ValueError, TypeError) as error:
        raise InputError(
            "the answer is not a certs-only PKCS#7 message",
            why="RFC 7030 4.1.3",
            fix="check that the URL is an EST URL",
        ) from error
    if not 0 < len(loaded) <= _MAX_CERTIFICATES:
        raise InputError(f"the answer holds {len(loaded)} certificates", why=f"1 to {_MAX_CERTIFICATES} are read")
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in loaded)


def _decode(body: bytes) -> bytes:
    if len(body) > 16 * MAX_BODY_BYTES:
        raise InputError("the answer is larger than 2 MiB")
    if body[:1] == b"\x30":
        return body
    lines = [line for line in body.split(b"\n") if not line.startswith(b"-----")]
    try:
        return base64.b64decode(b"".join(b"".join(lines).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the answer is not base64", why="RFC 8951 3.1") from error


def build_csr_attributes(profile: Profile, key_algorithm: KeyAlgorithm) -> bytes:
    """Return the DER CsrAttrs that tell a client which key and signature a label wants (RFC 7030 4.5.2).

    Args:
        key_algorithm: what the profile takes, preferred one.

    >>> from chargepki.pki.profiles import get_profile
    >>> build_csr_attributes(get_profile("ocpp/charging-station"), KeyAlgorithm.SECP256R1).hex()[:4]
    '3021'
    """
    signature = der.oid(signature_algorithm(key_algorithm).oid)
    curve = _CURVES.get(key_algorithm)
    if curve is None:
        return der.sequence(signature)
    key = der.sequence(der.oid(oids.EC_PUBLIC_KEY), der.set_of(der.oid(curve)))
    return der.sequence(key, signature)


def build_server_key_answer(private_key: bytes, certificate: bytes, *, encrypted: bool) -> tuple[str, bytes]:
    """Return content type and body of a serverkeygen answer: the key's part, then the certificate's (RFC 7030 4.4.2).

    Args:
        private_key: DER of the CMS EnvelopedData, or of PKCS#8 where *encrypted* is false.
        certificate: DER of the certs-only message.
    """
    boundary = f"est-{secrets.token_hex(16)}"
    kind = "application/pkcs7-mime; smime-type=server-generated-key" if encrypted else "application/pkcs8"
    body = b""
    for content_type, content in ((kind, private_key), (CERTS_ONLY, certificate)):
        body += f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
        body += encode_body(content) + b"\r\n"
    return f"multipart/mixed; boundary={boundary}", body + f"--{boundary}--\r\n".encode()
