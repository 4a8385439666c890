"""Write DER: one function per type, always the shortest form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from chargepki.pki.errors import InputError

__all__ = [
    "bit_string",
    "boolean",
    "enumerated",
    "explicit",
    "generalized_time",
    "ia5_string",
    "implicit",
    "integer",
    "named_bits",
    "null",
    "octet_string",
    "oid",
    "printable_string",
    "sequence",
    "set_of",
    "time",
    "tlv",
    "utf8_string",
]

_CONSTRUCTED: Final = 0x20
_CONTEXT: Final = 0x80
_DOTTED: Final = re.compile(r"(?:[01]\.(?:[0-9]|[1-3][0-9])|2\.(?:0|[1-9][0-9]*))(?:\.(?:0|[1-9][0-9]*))*\Z", re.ASCII)
_PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*\Z")


def tlv(tag: int, content: bytes) -> bytes:
    """Return tag, shortest length and *content*; *tag* is the identifier octet (0..255, tag number below 31)."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    if length < 0x100:
        return bytes((tag, 0x81, length)) + content
    if length < 0x10000:
        return bytes((tag, 0x82, length >> 8, length & 0xFF)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of encoded *parts*, in that order."""
    return tlv(0x30, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF encoded *parts*, sorted as X.690 11.6 demands."""
    return tlv(0x31, b"".join(sorted(parts) if len(parts) > 1 else parts))


def integer(value: int) -> bytes:
    """Return an INTEGER in the fewest octets, two's complement."""
    # One octet more than the magnitude needs whenever its top bit would be read as a sign.
    size = ((value + (value < 0)).bit_length() + 8) // 8
    return tlv(0x02, value.to_bytes(size, "big", signed=True))


def enumerated(value: int) -> bytes:
    """Return an ENUMERATED."""
    return b"\x0a" + integer(value)[1:]


def boolean(value: bool) -> bytes:
    """Return a BOOLEAN: FF for true (X.690 11.1)."""
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def null() -> bytes:
    """Return NULL."""
    return b"\x05\x00"


@lru_cache(maxsize=1024)
def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER.

    Raises:
        InputError: *dotted* is not an identifier such as ``2.5.29.15``.
    """
    if len(dotted) > 256 or not _DOTTED.match(dotted):
        raise InputError(f"{dotted[:256]!r} is not an object identifier", fix="write it with dots, as in 2.5.4.3")
    arcs = [int(arc) for arc in dotted.split(".")]
    out = bytearray()
    for arc in (40 * arcs[0] + arcs[1], *arcs[2:]):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | (arc & 0x7F))
        out += bytes(reversed(octets))
    return tlv(0x06, bytes(out))


def bit_string(value: bytes, unused: int = 0) -> bytes:
    """Return a BIT STRING of *value*; the low *unused* bits (0..7) of its last octet are zero and do not count."""
    if not 0 <= unused <= 7 or (unused and (not value or value[-1] & ((1 << unused) - 1))):
        raise ValueError("unused bits must be zero and exist")
    return tlv(0x03, bytes((unused,)) + value)


def named_bits(positions: Iterable[int]) -> bytes:
    """Return a BIT STRING with the given bits set (0 is the first), without trailing zeros (X.690 11.2.2)."""
    bits = set(positions)
    if not bits:
        return b"\x03\x01\x00"
    highest = max(bits)
    size = highest // 8 + 1
    number = sum(1 << (size * 8 - 1 - position) for position in bits)
    return bit_string(number.to_bytes(size, "big"), size * 8 - 1 - highest)


def octet_string(value: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(0x04, value)


def utf8_string(text: str) -> bytes:
    """Return a UTF8String."""
    try:
        return tlv(0x0C, text.encode())
    except UnicodeEncodeError as exc:
        raise InputError(f"{text!r} cannot be written in UTF-8", fix="remove lone surrogates") from exc


def printable_string(text: str) -> bytes:
    """Return a PrintableString.

    Raises:
        InputError: a character is outside letters, digits, space and ``'()+,-./:=?`` (X.680 41.4).
    """
    if not _PRINTABLE.match(text):
        raise InputError(f"{text!r} does not fit a PrintableString", fix="use letters, digits, space and '()+,-./:=?")
    return tlv(0x13, text.encode("ascii"))


def ia5_string(text: str) -> bytes:
    """Return an IA5String.

    Raises:
        InputError: a character is not ASCII.
    """
    if not text.isascii():
        raise InputError(f"{text!r} does not fit an IA5String", fix="use ASCII characters, punycode for host names")
    return tlv(0x16, text.encode("ascii"))


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise TypeError("a naive datetime has no place in a certificate; pass an aware one")
    return moment.astimezone(UTC)


def time(moment: datetime) -> bytes:
    """Return a Time: UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 4.1.2.5); fractions are cut off.

    Raises:
        TypeError: *moment* is naive.
        InputError: *moment* is before 1950.
    """
    moment = _utc(moment)
    if moment.year >= 2050:
        return generalized_time(moment)
    if moment.year < 1950:
        raise InputError(f"year {moment.year} has no form in a certificate", why="UTCTime begins in 1950 (RFC 5280)")
    return b"\x17\x0d" + moment.strftime("%y%m%d%H%M%SZ").encode("ascii")


def generalized_time(moment: datetime) -> bytes:
    """Return a GeneralizedTime in whole seconds, ``Z`` (RFC 5280 4.1.2.5.2); fractions are cut off.

    Raises:
        TypeError: *moment* is naive.
    """
    moment = _utc(moment)
    # strftime's %Y has no leading zeros for years below 1000 on Linux.
    return b"\x18\x0f" + f"{moment.year:04}{moment:%m%d%H%M%S}Z".encode("ascii")


def explicit(number: int, content: bytes) -> bytes:
    """Return *content* (a complete encoding) wrapped in the context tag ``[number]``, 0..30."""
    return tlv(_CONTEXT | _CONSTRUCTED | number, content)


def implicit(number: int, content: bytes, constructed: bool) -> bytes:
    """Return *content* (without its own tag and length) under the context tag ``[number]``, 0..30."""
    return tlv(_CONTEXT | (_CONSTRUCTED if constructed else 0) | number, content)
