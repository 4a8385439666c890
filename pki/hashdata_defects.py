"""The wrong ways in which stations in the field compute CertificateHashData, as tables of what they hash instead."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeVar

from chargepki.pki import der, keys, oids
from chargepki.pki.der import Tlv
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import HASH_ALGORITHMS, hashed_parts

__all__ = ["MEANINGS", "Form", "HashDefect", "HashForms", "forms_of", "write_wrongly"]


class HashDefect(StrEnum):
    """One thing that a station does wrong; `MEANINGS` says it in words."""

    NAME_REENCODED = "name-reencoded"
    NAME_REVERSED = "name-reversed"
    NAME_WITHOUT_HEADER = "name-without-header"
    NAME_CANONICAL = "name-canonical"
    NAME_TEXT = "name-text"
    NAME_OF_SUBJECT = "name-of-subject"
    KEY_INFO = "key-info"
    KEY_UNUSED_BITS = "key-unused-bits"
    KEY_BIT_STRING = "key-bit-string"
    KEY_COMPRESSED = "key-compressed"
    KEY_MODULUS = "key-modulus"
    KEY_OF_SUBJECT = "key-of-subject"
    KEY_CERTIFICATE = "key-certificate"
    OTHER_HASH = "other-hash"
    FIELDS_SWAPPED = "fields-swapped"
    BASE64 = "base64"
    UPPER_CASE = "upper-case"
    SERIAL_LOWER_CASE = "serial-lower-case"
    SERIAL_PADDED = "serial-padded"
    SERIAL_DECIMAL = "serial-decimal"
    SERIAL_PREFIXED = "serial-prefixed"
    SERIAL_SEPARATED = "serial-separated"
    SERIAL_DER = "serial-der"
    SERIAL_64_BITS = "serial-64-bits"
    SERIAL_ROUNDED = "serial-rounded"
    SERIAL_CUT = "serial-cut"
    SERIAL_REVERSED = "serial-reversed"
    SERIAL_OF_ISSUER = "serial-of-issuer"

    @property
    def is_spelling(self) -> bool:
        """Whether the value is the right one, only written otherwise than we write it."""
        return self in _SPELLINGS


_SPELLINGS: Final = frozenset({HashDefect.UPPER_CASE, HashDefect.SERIAL_LOWER_CASE, HashDefect.SERIAL_PADDED})

MEANINGS: Final[Mapping[HashDefect, str]] = {
    HashDefect.NAME_REENCODED: "issuerNameHash covers a new encoding of the name, not the octets of the certificate",
    HashDefect.NAME_REVERSED: "issuerNameHash covers the name with its parts in reverse order",
    HashDefect.NAME_WITHOUT_HEADER: "issuerNameHash covers the name without tag and length of its SEQUENCE",
    HashDefect.NAME_CANONICAL: "issuerNameHash covers OpenSSL's canonical form of the name",
    HashDefect.NAME_TEXT: "issuerNameHash covers the name as text",
    HashDefect.NAME_OF_SUBJECT: "issuerNameHash covers the subject, not the issuer",
    HashDefect.KEY_INFO: "issuerKeyHash covers the whole SubjectPublicKeyInfo, not the key in it",
    HashDefect.KEY_UNUSED_BITS: "issuerKeyHash covers the octet of unused bits, too",
    HashDefect.KEY_BIT_STRING: "issuerKeyHash covers the BIT STRING with its tag and length",
    HashDefect.KEY_COMPRESSED: "issuerKeyHash covers the compressed point",
    HashDefect.KEY_MODULUS: "issuerKeyHash covers the RSA modulus alone",
    HashDefect.KEY_OF_SUBJECT: "issuerKeyHash covers the key of the certificate itself, not its issuer's",
    HashDefect.KEY_CERTIFICATE: "issuerKeyHash covers a whole certificate: it is a fingerprint",
    HashDefect.OTHER_HASH: "the hash is another one than hashAlgorithm says",
    HashDefect.FIELDS_SWAPPED: "issuerNameHash and issuerKeyHash stand in each other's place",
    HashDefect.BASE64: "the hashes are base64, not hex",
    HashDefect.UPPER_CASE: "hex is in upper case",
    HashDefect.SERIAL_LOWER_CASE: "serialNumber is in lower case, the hashes are in upper case",
    HashDefect.SERIAL_PADDED: "serialNumber has leading zeros",
    HashDefect.SERIAL_DECIMAL: "serialNumber is decimal, not hex",
    HashDefect.SERIAL_PREFIXED: "serialNumber begins with 0x",
    HashDefect.SERIAL_SEPARATED: "serialNumber has separators between its octets",
    HashDefect.SERIAL_DER: "serialNumber is the DER of the INTEGER, with tag and length",
    HashDefect.SERIAL_64_BITS: "serialNumber holds the lowest 64 bits alone",
    HashDefect.SERIAL_ROUNDED: "serialNumber went through a floating-point number",
    HashDefect.SERIAL_CUT: "serialNumber is cut to 20 characters",
    HashDefect.SERIAL_REVERSED: "serialNumber has its octets in reverse order",
    HashDefect.SERIAL_OF_ISSUER: "serialNumber is the one of the issuer's certificate",
}

_HASHES: Final = ("sha256", "sha384", "sha512", "sha1")
_FOLDED: Final = {oids.COUNTRY_NAME: 0x13, oids.SERIAL_NUMBER: 0x13, oids.DN_QUALIFIER: 0x13}
_IA5: Final = {oids.DOMAIN_COMPONENT: 0x16, oids.EMAIL_ADDRESS: 0x16}
_UTF8, _PRINTABLE = 0x0C, 0x13
_TEXTS: Final = frozenset({0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1B, 0x1C, 0x1E})
_NONE: Final[frozenset[HashDefect]] = frozenset()

T = TypeVar("T")

Form = tuple[bytes, frozenset[HashDefect]]
"""Octets that a station may have hashed, and what is wrong with them (nothing for the right ones)."""


@dataclass(frozen=True, slots=True)
class HashForms:
    """Everything that a report about one certificate may hold; the right form stands first in each."""

    names: tuple[Form, ...]
    keys: tuple[Form, ...]
    serials: tuple[tuple[str, frozenset[HashDefect]], ...]
    """Texts in lower case, without the padding and the case that are told by looking at the text."""


@lru_cache(maxsize=512)
def forms_of(certificate_der: bytes, issuer_der: bytes | None) -> HashForms:
    """Return what stations may hash for a certificate.

    Args:
        issuer_der: its issuer's certificate, itself for a root; ``None`` when it is not known: then only the forms
            that need none are there, and the first key form is not the right one.

    Raises:
        InputError: one of them is no certificate.
    """
    serial, issuer, subject, spki = hashed_parts(certificate_der)
    own = frozenset({HashDefect.KEY_OF_SUBJECT})
    names = list(_name_forms(issuer))
    if subject != issuer:
        names += [(octets, wrong | {HashDefect.NAME_OF_SUBJECT}) for octets, wrong in _name_forms(subject)]
    found: list[Form] = []
    issuer_serial: int | None = None
    if issuer_der is not None:
        issuer_serial, _, _, issuer_spki = hashed_parts(issuer_der)
        found += _key_forms(issuer_spki)
        found.append((issuer_der, frozenset({HashDefect.KEY_CERTIFICATE})))
    if issuer_der != certificate_der:
        found += [(octets, wrong | own) for octets, wrong in _key_forms(spki)]
        found.append((certificate_der, frozenset({HashDefect.KEY_CERTIFICATE, HashDefect.KEY_OF_SUBJECT})))
    serials = list(_serial_forms(serial))
    if issuer_serial is not None and issuer_serial != serial:
        of_issuer = frozenset({HashDefect.SERIAL_OF_ISSUER})
        serials += [(text, wrong | of_issuer) for text, wrong in _serial_forms(issuer_serial)]
    return HashForms(_cheapest(names), _cheapest(found), _cheapest(serials))


def _cheapest(forms: list[tuple[T, frozenset[HashDefect]]]) -> tuple[tuple[T, frozenset[HashDefect]], ...]:
    """Keep each form once, with the fewest things wrong about it; the order stays."""
    best: dict[T, frozenset[HashDefect]] = {}
    for form, wrong in forms:
        if form not in best or len(wrong) < len(best[form]):
            best[form] = wrong
    return tuple(best.items())


# --- names -----------------------------------------------------------------------------------------------------------


def _name_forms(name: bytes) -> Iterator[Form]:
    yield name, _NONE
    rdns = der.parse(name).children(der.SEQUENCE)
    reencoded, reverse = frozenset({HashDefect.NAME_REENCODED}), frozenset({HashDefect.NAME_REVERSED})
    yield b"".join(rdn.raw for rdn in rdns), frozenset({HashDefect.NAME_WITHOUT_HEADER})
    for choose in (_utf8_where_allowed, _utf8_everywhere, _printable_where_possible):
        parts = [_rdn(rdn, choose) for rdn in rdns]
        yield der.sequence(*parts), reencoded
        yield der.sequence(*reversed(parts)), reencoded | reverse
    if len(rdns) > 1:
        yield der.sequence(*(rdn.raw for rdn in reversed(rdns))), reverse
    yield b"".join(_rdn(rdn, _canonical) for rdn in rdns), frozenset({HashDefect.NAME_CANONICAL})
    for text in _texts(rdns):
        yield text.encode("utf-8", "replace"), frozenset({HashDefect.NAME_TEXT})


def _rdn(rdn: Tlv, encode: Callable[[str, Tlv], bytes]) -> bytes:
    parts = [each.children(der.SEQUENCE) for each in rdn.children(der.SET)]
    return der.set_of(*(der.sequence(kind.raw, encode(kind.as_oid(), value)) for kind, value in parts))


def _utf8_where_allowed(oid: str, value: Tlv) -> bytes:
    """RFC 5280 4.1.2.4: UTF8String, but for attributes whose type is fixed; what most libraries write by default."""
    return _encoded(value, _FOLDED.get(oid) or _IA5.get(oid) or _UTF8)


def _utf8_everywhere(_oid: str, value: Tlv) -> bytes:
    return _encoded(value, _UTF8)


def _printable_where_possible(oid: str, value: Tlv) -> bytes:
    return _encoded(value, _IA5.get(oid) or _PRINTABLE)


def _encoded(value: Tlv, tag: int) -> bytes:
    if value.tag not in _TEXTS:
        return value.raw
    text = _text(value)
    if tag == _PRINTABLE:
        try:
            return der.printable_string(text)
        except InputError:
            return der.utf8_string(text)
    return der.tlv(tag, text.encode("utf-8", "replace"))


def _canonical(_oid: str, value: Tlv) -> bytes:
    """OpenSSL's x509_name_canon: lower case, one space between words, UTF8String."""
    if value.tag not in _TEXTS:
        return value.raw
    folded = "".join(char.lower() if char.isascii() else char for char in " ".join(_text(value).split()))
    return der.utf8_string(folded)


def _text(value: Tlv) -> str:
    return value.as_text()


_SHORT: Final = {
    oids.COMMON_NAME: "CN", oids.ORGANIZATION_NAME: "O", oids.ORGANIZATIONAL_UNIT_NAME: "OU", oids.COUNTRY_NAME: "C",
    oids.DOMAIN_COMPONENT: "DC", oids.LOCALITY_NAME: "L", oids.STATE_OR_PROVINCE_NAME: "ST",
}  # fmt: skip


def _texts(rdns: tuple[Tlv, ...]) -> Iterator[str]:
    """The forms of OpenSSL (oneline, default) and of RFC 4514; names with odd values are passed over."""
    pairs = []
    for rdn in rdns:
        for attribute in rdn.children(der.SET):
            kind, value = attribute.children(der.SEQUENCE)
            if value.tag not in _TEXTS or kind.as_oid() not in _SHORT:
                return
            pairs.append((_SHORT[kind.as_oid()], _text(value)))
    yield "".join(f"/{name}={value}" for name, value in pairs)
    for separator in (",", ", "):
        yield separator.join(f"{name}={value}" for name, value in pairs)
        yield separator.join(f"{name}={value}" for name, value in reversed(pairs))
    yield ", ".join(f"{name} = {value}" for name, value in pairs)


# --- keys ------------------------------------------------------------------------------------------------------------


def _key_forms(spki: bytes) -> Iterator[Form]:
    bits = keys.public_key_bits(spki)
    yield bits, _NONE
    yield spki, frozenset({HashDefect.KEY_INFO})
    yield b"\0" + bits, frozenset({HashDefect.KEY_UNUSED_BITS})
    yield der.parse(spki).children(der.SEQUENCE)[1].raw, frozenset({HashDefect.KEY_BIT_STRING})
    if bits[:1] == b"\x04" and len(bits) % 2:
        half = len(bits) // 2
        sign = b"\x03" if bits[-1] & 1 else b"\x02"
        yield sign + bits[1 : 1 + half], frozenset({HashDefect.KEY_COMPRESSED})
    elif bits[:1] == b"\x30":
        modulus = der.parse(bits).children(der.SEQUENCE)[0].content
        yield modulus, frozenset({HashDefect.KEY_MODULUS})
        yield modulus.lstrip(b"\0"), frozenset({HashDefect.KEY_MODULUS})


# --- serial numbers --------------------------------------------------------------------------------------------------


def _serial_forms(serial: int) -> Iterator[tuple[str, frozenset[HashDefect]]]:
    hexadecimal = f"{serial:x}"
    whole = f"{serial:0{len(hexadecimal) + len(hexadecimal) % 2}x}"
    octets = [whole[at : at + 2] for at in range(0, len(whole), 2)]
    yield hexadecimal, _NONE
    yield str(serial), frozenset({HashDefect.SERIAL_DECIMAL})
    yield f"0x{hexadecimal}", frozenset({HashDefect.SERIAL_PREFIXED})
    for form in (":".join(octets), " ".join(octets), ":".join(["00", *octets])):
        yield form, frozenset({HashDefect.SERIAL_SEPARATED})
    yield der.integer(serial).hex().lstrip("0"), frozenset({HashDefect.SERIAL_DER})
    if len(octets) > 1:
        yield "".join(reversed(octets)).lstrip("0"), frozenset({HashDefect.SERIAL_REVERSED})
    low = serial & (1 << 64) - 1
    if low != serial:
        yield f"{low:x}", frozenset({HashDefect.SERIAL_64_BITS})
        yield str(low), frozenset({HashDefect.SERIAL_64_BITS, HashDefect.SERIAL_DECIMAL})
    if serial > 1 << 53:
        rounded = int(float(serial)) if serial < 1 << 1000 else serial
        if rounded != serial:
            yield f"{rounded:x}", frozenset({HashDefect.SERIAL_ROUNDED})
            yield str(rounded), frozenset({HashDefect.SERIAL_ROUNDED, HashDefect.SERIAL_DECIMAL})
    if len(whole) > 20:
        for text in (hexadecimal[:20], whole[:20].lstrip("0"), whole[-20:].lstrip("0")):
            yield text, frozenset({HashDefect.SERIAL_CUT})


# --- the other way round ---------------------------------------------------------------------------------------------


def write_wrongly(
    certificate_der: bytes, issuer_der: bytes, defects: frozenset[HashDefect], algorithm: str = "SHA256"
) -> dict[str, str]:
    """Return the hash data that a station with these *defects* reports (for simulated stations and tests).

    Raises:
        InputError: no station can have all of them at once, or this certificate cannot show one of them.
    """
    if algorithm not in HASH_ALGORITHMS:
        raise InputError(f"hash {algorithm!r} is not one of OCPP", fix=f"use one of {', '.join(HASH_ALGORITHMS)}")
    forms = forms_of(certificate_der, issuer_der)
    name = _chosen(forms.names, defects, "NAME_")
    key = _chosen(forms.keys, defects, "KEY_")
    serial = _chosen(forms.serials, defects, "SERIAL_")
    hash_name = algorithm.lower()
    if HashDefect.OTHER_HASH in defects:
        hash_name = next(each for each in reversed(_HASHES) if each != hash_name)
    texts = [_digest_text(hash_name, octets, is_base64=HashDefect.BASE64 in defects) for octets in (name, key)]
    if HashDefect.SERIAL_PADDED in defects:
        serial = _padded(serial)
    if HashDefect.UPPER_CASE in defects and HashDefect.BASE64 not in defects:
        texts = [text.upper() for text in texts]
        serial = serial if HashDefect.SERIAL_LOWER_CASE in defects else serial.upper()
    if HashDefect.FIELDS_SWAPPED in defects:
        texts.reverse()
    values = (algorithm, *texts, serial)
    return dict(zip(("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber"), values, strict=True))


def _chosen(forms: tuple[tuple[T, frozenset[HashDefect]], ...], defects: frozenset[HashDefect], prefix: str) -> T:
    wanted = frozenset(each for each in defects if each.name.startswith(prefix) and not each.is_spelling)
    for value, wrong in forms:
        if wrong == wanted:
            return value
    raise InputError(f"no such hash data: {', '.join(sorted(wanted)) or 'no defect'} for this certificate")


def _padded(serial: str) -> str:
    prefix = "0x" if serial.startswith("0x") else ""
    digits = serial.removeprefix(prefix)
    if not digits.isalnum():
        return f"00{digits[2]}{digits}"
    return prefix + digits.rjust(len(digits) + 2 - len(digits) % 2, "0")


def _digest_text(hash_name: str, octets: bytes, *, is_base64: bool) -> str:
    digest = hashlib.new(hash_name, octets, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii") if is_base64 else digest.hex()
