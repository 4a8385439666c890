"""The elements of a certificate that path processing reads, from offsets and slices: strict DER, no objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from chargepki.pki import der
from chargepki.pki.certificate_view import parse_time
from chargepki.pki.der import DerError

__all__ = [
    "USUAL_CONSTRAINTS",
    "USUAL_USAGES",
    "content_of",
    "end_of",
    "instant",
    "read_basic_constraints",
    "read_extension",
    "read_frame",
    "read_header",
    "read_key_usage",
    "read_validity",
    "with_century",
]


def read_header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return tag, content offset and end of the element at *at*, which may not pass *end*.

    Raises:
        DerError: the header is cut off, not in its shortest form, or of a length that no certificate needs.
    """
    if at + 2 > end:
        raise DerError("truncated", at, "the input ends inside a header")
    length = data[at + 1]
    content = at + 2
    if length > 0x7F:
        if length == 0x81:
            length = data[content] if content < end else 0
            content += 1
            shortest = 0x80
        elif length == 0x82:
            length = int.from_bytes(data[content : content + 2], "big")
            content += 2
            shortest = 0x100
        else:
            raise DerError("too-large", at, "a length of more than two octets, or an indefinite one")
        if length < shortest:
            raise DerError("non-minimal-length", at, "length in more octets than needed")
    stop = content + length
    if stop > end:
        raise DerError("truncated", at, f"{length} content octets announced, {end - content} present")
    return data[at], content, stop


def end_of(data: bytes, at: int, end: int, tag: int) -> int:
    """Return where the element at *at* ends, which has *tag* and may not pass *end*.

    Raises:
        DerError: like `read_header`, or another tag.
        IndexError: nothing is at *at*.
    """
    length = data[at + 1]
    if length < 0x80 and data[at] == tag:
        stop = at + 2 + length
        if stop <= end:
            return stop
    return content_of(data, at, end, tag)[1]


def content_of(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Return where the content of the element at *at* begins and ends. Raises like `end_of`."""
    found, content, stop = read_header(data, at, end)
    if found != tag:
        raise DerError("unexpected-tag", at, f"tag 0x{found:02x}, expected 0x{tag:02x}")
    return content, stop


def read_frame(data: bytes, end: int) -> tuple[int, int, int]:
    """Return where the TBSCertificate of a Certificate begins, where its content does, and where it ends.

    Raises:
        DerError: not one SEQUENCE that fills ``data[:end]`` and begins with a SEQUENCE.
        IndexError: the input ends before there is a header.
    """
    start, stop = content_of(data, 0, end, 0x30)
    if stop != end:
        raise DerError("not-a-certificate", 0, "not one SEQUENCE that fills the input")
    content, tbs_end = content_of(data, start, end, 0x30)
    return start, content, tbs_end


def read_validity(data: bytes, at: int, end: int) -> tuple[bytes, bytes, int]:
    """Return both ends of the Validity at *at*, inclusive, as `instant` writes them, and the offset after it.

    Raises:
        DerError: it does not hold two times of RFC 5280's form.
    """
    content, stop = content_of(data, at, end, 0x30)
    first, middle = _read_time(data, content, stop)
    last, after = _read_time(data, middle, stop)
    if after != stop:
        raise DerError("not-a-certificate", at, "validity does not hold two times")
    return first, last, stop


def _read_time(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    tag, content, stop = read_header(data, at, end)
    text = data[content:stop]
    if tag not in (0x17, 0x18) or parse_time(tag, text) is None:
        raise DerError("bad-time", at, "not a UTCTime or GeneralizedTime in whole seconds and Z (RFC 5280 4.1.2.5)")
    if tag == 0x17:
        text = with_century(text)
    return text[:-1], stop


def with_century(text: bytes) -> bytes:
    """Return the text of a UTCTime with all four digits of its year (RFC 5280 4.1.2.5.1)."""
    return (b"20" if text < b"5" else b"19") + text


def instant(at: datetime) -> bytes:
    """Return *at* (aware) as ``YYYYMMDDHHMMSS`` of UTC, and its fraction of a second if there is one.

    Such texts sort as the instants do, which spares a certificate's validity from becoming two `datetime` objects.
    """
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    text = b"%04d%02d%02d%02d%02d%02d" % (at.year, at.month, at.day, at.hour, at.minute, at.second)
    return text + b".%06d" % at.microsecond if at.microsecond else text


def read_extension(data: bytes, at: int, end: int) -> tuple[bytes, bool, int, int]:
    """Return identifier (content octets), critical, and where the content of extnValue begins and ends.

    Raises:
        DerError: what is at *at* is no Extension.
        IndexError: nothing is there.
    """
    content, stop = content_of(data, at, end, 0x30)
    start, value = content_of(data, content, stop, 0x06)
    critical = False
    tag, content, last = read_header(data, value, stop)
    if tag == 0x01:
        # DER leaves the DEFAULT out, but FALSE is written so often that refusing it would help nobody.
        flag = data[content:last]
        if flag not in (b"\xff", b"\x00"):
            raise DerError("bad-boolean", value, "critical is neither 00 nor FF")
        critical = flag == b"\xff"
        tag, content, last = read_header(data, last, stop)
    if tag != 0x04 or last != stop:
        raise DerError("unexpected-tag", at, "not an Extension")
    return data[start:value], critical, content, stop


USUAL_CONSTRAINTS: Final[dict[bytes, tuple[bool, int | None]]] = {
    b"\x30\x00": (False, None),
    b"\x30\x03\x01\x01\xff": (True, None),
    **{b"\x30\x06\x01\x01\xff\x02\x01" + bytes([length]): (True, length) for length in range(128)},
}
"""What `read_basic_constraints` says of the values that occur."""


def read_basic_constraints(value: bytes) -> tuple[bool, int | None]:
    """Return cA and pathLenConstraint of BasicConstraints. Raises `DerError`."""
    kids = list(der.parse(value).children(der.SEQUENCE))
    ca = kids.pop(0).as_boolean() if kids and kids[0].tag == 0x01 else False
    length = kids.pop(0).as_integer() if kids else None
    if kids or (length is not None and length < 0):
        raise DerError("unexpected-tag", 0, "basicConstraints does not have its ASN.1 type")
    return ca, length


_REVERSED: Final = tuple(int(f"{octet:08b}"[::-1], 2) for octet in range(256))
USUAL_USAGES: Final = {
    bytes((0x03, 2, (octet & -octet).bit_length() - 1, octet)): _REVERSED[octet] for octet in range(1, 256)
}
"""What `read_key_usage` says of one octet of bits, in DER."""


def read_key_usage(value: bytes) -> int:
    """Return the bits of KeyUsage as a mask, bit n for KeyUsage bit n; trailing zeros are not judged."""
    if len(value) in (4, 5) and value[0] == 0x03 and value[1] == len(value) - 2 and value[2] < 8:
        # Unused bits that are set are not judged either: others do not look, and the linter says so.
        return _REVERSED[value[3]] if len(value) == 4 else _REVERSED[value[3]] | _REVERSED[value[4]] << 8
    bits = der.parse(value).as_bits()
    return sum(1 << bit for bit in bits)
