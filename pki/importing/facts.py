"""Read from a certificate what the inventory keeps of it: a few slices of its bytes, as cheaply as may be."""

from __future__ import annotations

import warnings
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from chargepki.pki.certificate_view import MAX_BYTES
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.import_records import FoundCertificate

__all__ = ["read_facts"]

_MAX_SERIAL_BITS: Final = 512
_AUTHORITY_KEY: Final = b"\x55\x1d\x23"
_SUBJECT_KEY: Final = b"\x55\x1d\x0e"


class _Part(NamedTuple):
    """One DER element: where it begins, where its contents begin, where it ends."""

    tag: int
    at: int
    inner: int
    end: int


def read_facts(der: bytes, place: str, file_sha256: str, role: str | None = None) -> FoundCertificate:
    """Return what the inventory keeps of the certificate *der*. Nothing of it has been verified.

    Args:
        place: where it was found.
        file_sha256: digest of the file that it was found in.
        role: what the layout of the folder says it is for.

    Raises:
        InputError: it is no certificate, or one whose serial number, names or times cannot be read.
    """
    if len(der) > MAX_BYTES:
        raise InputError(f"a certificate of {len(der)} bytes", why=f"none in this domain is larger than {MAX_BYTES}")
    try:
        with warnings.catch_warnings():
            # A serial number that breaks RFC 5280 is for the linter to tell of.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            serial = certificate.serial_number
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        issuer, subject, key, extensions = _slices(certificate.tbs_certificate_bytes)
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError("a certificate that cannot be read", why=str(error)[:200]) from error
    if serial.bit_length() > _MAX_SERIAL_BITS:
        raise InputError(
            f"a certificate with a serial number of {serial.bit_length()} bits", why="20 octets are allowed"
        )
    if serial < 0:
        raise InputError("a certificate with a negative serial number", why="RFC 5280 4.1.2.2 wants a positive one")
    key_id = _key_id(extensions, _AUTHORITY_KEY)
    if not key_id and issuer == subject:
        key_id = _key_id(extensions, _SUBJECT_KEY)
    return FoundCertificate(
        der=der,
        sha256=sha256(der).hexdigest(),
        serial=f"{serial:x}",
        issuer_der=issuer,
        authority_key_id=key_id,
        subject_der=subject,
        spki_sha256=sha256(key).hexdigest(),
        not_before=not_before,
        not_after=not_after,
        place=place,
        file_sha256=file_sha256,
        role=role,
    )


def _part(data: bytes, at: int) -> _Part:
    """Return the element at *at*; its bytes were parsed as DER before, so lengths are definite and fit."""
    length, inner = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, inner = int.from_bytes(data[inner : inner + size], "big"), inner + size
    return _Part(data[at], at, inner, inner + length)


def _slices(tbs: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return issuer, subject, SubjectPublicKeyInfo and Extensions (empty where there are none) of a TBSCertificate."""
    part = _part(tbs, _part(tbs, 0).inner)
    if part.tag == 0xA0:
        part = _part(tbs, part.end)
    found = []
    for _ in range(5):  # signature, issuer, validity, subject, subjectPublicKeyInfo
        part = _part(tbs, part.end)
        found.append(tbs[part.at : part.end])
    while part.end < len(tbs):
        part = _part(tbs, part.end)
        if part.tag == 0xA3:
            return found[1], found[3], found[4], tbs[part.inner : part.end]
    return found[1], found[3], found[4], b""


def _key_id(extensions: bytes, wanted: bytes) -> bytes:
    """Return the key identifier of an extension, or nothing."""
    if wanted not in extensions:
        return b""
    whole = _part(extensions, 0)
    at = whole.inner
    while at < whole.end:
        extension = _part(extensions, at)
        at = extension.end
        oid = _part(extensions, extension.inner)
        if extensions[oid.inner : oid.end] != wanted:
            continue
        value = _part(extensions, oid.end)
        if value.tag == 0x01:  # critical
            value = _part(extensions, value.end)
        content = extensions[value.inner : value.end]
        if wanted == _AUTHORITY_KEY:
            content = content[_part(content, 0).inner : _part(content, 0).end]
        if not content or (wanted == _AUTHORITY_KEY and content[0] != 0x80):
            return b""  # an AuthorityKeyIdentifier that names issuer and serial number alone
        inner = _part(content, 0)
        return content[inner.inner : inner.end]
    return b""
