"""Read strict DER; every violation is an error that names its offset and a stable rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from chargepki.pki.errors import InputError

__all__ = ["MAX_DEPTH", "MAX_DER_BYTES", "DerError", "Tlv", "check_strict", "parse"]

MAX_DER_BYTES: Final = 64 * 1024 * 1024
"""Largest object that `parse` takes; a revocation list of a million entries has about 50 MB."""
MAX_DEPTH: Final = 32
"""Deepest nesting that `Tlv.children` follows; X.509 needs about twelve levels."""

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
ENUMERATED: Final = 0x0A
UTF8_STRING: Final = 0x0C
NUMERIC_STRING: Final = 0x12
PRINTABLE_STRING: Final = 0x13
TELETEX_STRING: Final = 0x14
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
VISIBLE_STRING: Final = 0x1A
UNIVERSAL_STRING: Final = 0x1C
BMP_STRING: Final = 0x1E
SEQUENCE: Final = 0x30
SET: Final = 0x31

_CONSTRUCTED: Final = 0x20
_CONTEXT: Final = 0x80
_MAX_OID_BYTES: Final = 128  # far above any assigned identifier; keeps hostile arcs from becoming huge numbers
_PRINTABLE: Final = re.compile(rb"[A-Za-z0-9 '()+,\-./:=?]*\Z")
_NUMERIC: Final = re.compile(rb"[0-9 ]*\Z")
_UTC_TIME: Final = re.compile(rb"\d{12}Z\Z")
_GENERALIZED_TIME: Final = re.compile(rb"\d{14}Z\Z")


class DerError(InputError):
    """Bytes that are not DER: `offset` in octets from the start of the input, `rule` a stable short name."""

    code = "der"

    def __init__(self, rule: str, offset: int, what: str) -> None:
        super().__init__(
            f"not DER at offset {offset}: {what}",
            why=f"rule {rule} (X.690)",
            fix="send the original, unmodified object",
        )
        self.rule = rule
        self.offset = offset


class Tlv(NamedTuple):
    """One element inside `data`: a view by offsets, so that the original octets are never re-encoded.

    A named tuple and not a dataclass: large revocation lists make millions, and this is three times faster to build.
    """

    data: bytes
    offset: int
    """Of the identifier octet, from the start of `data`."""
    tag: int
    """The identifier octet: class, constructed bit and number."""
    content_offset: int
    end: int
    """Offset after the last content octet (exclusive)."""
    depth: int = 0

    def __repr__(self) -> str:
        return f"Tlv(tag=0x{self.tag:02x}, offset={self.offset}, end={self.end})"

    @property
    def content(self) -> bytes:
        """The content octets."""
        return self.data[self.content_offset : self.end]

    @property
    def raw(self) -> bytes:
        """The complete element: tag, length and content, as found."""
        return self.data[self.offset : self.end]

    @property
    def constructed(self) -> bool:
        """Whether the content is made of elements."""
        return bool(self.tag & _CONSTRUCTED)

    @property
    def number(self) -> int:
        """Tag number, 0..30."""
        return self.tag & 0x1F

    def is_context(self, number: int) -> bool:
        """Whether this is the context tag ``[number]``, primitive or constructed."""
        return self.tag & 0xDF == _CONTEXT | number

    def fail(self, rule: str, what: str) -> DerError:
        """Return (not raise) the error for this element."""
        return DerError(rule, self.offset, what)

    def expect(self, tag: int, what: str = "element") -> Tlv:
        """Return self if the identifier octet is *tag*; DerError ``unexpected-tag`` otherwise."""
        if self.tag != tag:
            raise self.fail("unexpected-tag", f"{what} has tag 0x{self.tag:02x}, expected 0x{tag:02x}")
        return self

    def iterate(self) -> Iterator[Tlv]:
        """Yield the elements inside a constructed one; DerError on the first that is malformed."""
        depth = self._inner_depth()
        data, position, end = self.data, self.content_offset, self.end
        while position < end:
            tag, start, stop = _header(data, position, end)
            yield Tlv(data, position, tag, start, stop, depth)
            position = stop

    def children(self, tag: int | None = None) -> tuple[Tlv, ...]:
        """Return the elements inside; with *tag*, first demand that this element has it."""
        if tag is not None and self.tag != tag:
            self.expect(tag)
        depth = self._inner_depth()
        data, position, end = self.data, self.content_offset, self.end
        found: list[Tlv] = []
        while position < end:  # not tuple(self.iterate()): the generator costs a third more, and this is the hot path
            element_tag, start, stop = _header(data, position, end)
            found.append(Tlv(data, position, element_tag, start, stop, depth))
            position = stop
        return tuple(found)

    def _inner_depth(self) -> int:
        if not self.tag & _CONSTRUCTED:
            raise self.fail("not-constructed", f"tag 0x{self.tag:02x} holds no elements")
        if self.depth >= MAX_DEPTH:
            raise self.fail("too-deep", f"nested more than {MAX_DEPTH} levels")
        return self.depth + 1

    def child(self) -> Tlv:
        """Return the only element inside an explicit tag; DerError ``wrong-count`` when there is another number."""
        inside = self.children()
        if len(inside) != 1:
            raise self.fail("wrong-count", f"{len(inside)} elements where one is expected")
        return inside[0]

    def as_integer(self, tag: int = INTEGER) -> int:
        """Return the value of an INTEGER (or ENUMERATED, or implicitly tagged one: pass its *tag*)."""
        self.expect(tag, "INTEGER")
        content = self.content
        if not content:
            raise self.fail("empty-integer", "INTEGER without content")
        if len(content) > 1 and (
            (content[0] == 0 and content[1] < 0x80) or (content[0] == 0xFF and content[1] >= 0x80)
        ):
            raise self.fail("non-minimal-integer", "INTEGER with a superfluous leading octet")
        return int.from_bytes(content, "big", signed=True)

    def as_boolean(self, tag: int = BOOLEAN) -> bool:
        """Return the value of a BOOLEAN, 00 or FF."""
        self.expect(tag, "BOOLEAN")
        content = self.content
        if content not in (b"\x00", b"\xff"):
            raise self.fail("bad-boolean", "BOOLEAN is neither 00 nor FF")
        return content == b"\xff"

    def as_null(self) -> None:
        """Check that this is NULL."""
        if self.expect(NULL, "NULL").end != self.content_offset:
            raise self.fail("bad-null", "NULL with content")

    def as_oid(self, tag: int = OBJECT_IDENTIFIER) -> str:
        """Return an OBJECT IDENTIFIER in dotted form."""
        self.expect(tag, "OBJECT IDENTIFIER")
        if self.end - self.content_offset > _MAX_OID_BYTES:
            raise self.fail("too-large", f"OBJECT IDENTIFIER of more than {_MAX_OID_BYTES} octets")
        dotted = _dotted(self.content)
        if dotted is None:
            raise self.fail("bad-oid", "OBJECT IDENTIFIER is empty, cut off or not minimal")
        return dotted

    def as_octets(self, tag: int = OCTET_STRING) -> bytes:
        """Return the value of an OCTET STRING."""
        return self.expect(tag, "OCTET STRING").content

    def as_bit_string(self, tag: int = BIT_STRING) -> tuple[int, bytes]:
        """Return the number of unused bits (0..7, checked to be zero) and the octets of a BIT STRING."""
        self.expect(tag, "BIT STRING")
        content = self.content
        if not content or content[0] > 7 or (content[0] and len(content) == 1):
            raise self.fail("bad-bit-string", "BIT STRING with a wrong count of unused bits")
        if content[-1] & ((1 << content[0]) - 1) and len(content) > 1:
            raise self.fail("bad-bit-string", "BIT STRING whose unused bits are not zero")
        return content[0], content[1:]

    def as_bits(self, tag: int = BIT_STRING) -> frozenset[int]:
        """Return the positions of the bits set in a BIT STRING of at most 64 octets; trailing zeros are not judged."""
        _, value = self.as_bit_string(tag)
        if len(value) > 64:
            raise self.fail("too-large", "named bits in more than 64 octets")
        return frozenset(8 * i + bit for i, octet in enumerate(value) for bit in range(8) if octet & (0x80 >> bit))

    def as_text(self, tag: int | None = None) -> str:
        """Return the characters of a string type; which one is known from the tag unless *tag* names an implicit one.

        An implicit *tag* is read as IA5String, the only one that GeneralName has. Octets of a TeletexString are read as
        Latin-1, as every implementation does.
        """
        kind = self.tag
        if tag is not None:
            self.expect(tag, "string")
            kind = IA5_STRING
        content = self.content
        codec = _CODECS.get(kind)
        if codec is None:
            raise self.fail("unexpected-tag", f"tag 0x{kind:02x} is not a character string")
        if (kind == PRINTABLE_STRING and not _PRINTABLE.match(content)) or (
            kind == NUMERIC_STRING and not _NUMERIC.match(content)
        ):
            raise self.fail("bad-string", "a character is outside the set of its string type")
        try:
            return content.decode(codec)
        except UnicodeDecodeError:
            raise self.fail("bad-string", "octets that are no characters of their string type") from None

    def as_time(self) -> datetime:
        """Return a UTCTime or GeneralizedTime of RFC 5280's form (whole seconds, ``Z``) as aware UTC."""
        content = self.content
        if self.tag == UTC_TIME:
            if not _UTC_TIME.match(content):
                raise self.fail("bad-time", "UTCTime is not YYMMDDHHMMSSZ")
            content = (b"20" if content < b"50" else b"19") + content
        elif self.tag != GENERALIZED_TIME:
            raise self.fail("unexpected-tag", f"tag 0x{self.tag:02x} is not a time")
        elif not _GENERALIZED_TIME.match(content):
            raise self.fail("bad-time", "GeneralizedTime is not YYYYMMDDHHMMSSZ")
        try:
            return datetime(
                int(content[:4]), int(content[4:6]), int(content[6:8]), int(content[8:10]), int(content[10:12]),
                int(content[12:14]), tzinfo=UTC,
            )  # fmt: skip
        except ValueError:
            raise self.fail("bad-time", "a time that the calendar does not have") from None


_CODECS: Final = {
    UTF8_STRING: "utf-8",
    NUMERIC_STRING: "ascii",
    PRINTABLE_STRING: "ascii",
    TELETEX_STRING: "latin-1",
    IA5_STRING: "ascii",
    VISIBLE_STRING: "ascii",
    UNIVERSAL_STRING: "utf-32-be",
    BMP_STRING: "utf-16-be",
}


@lru_cache(maxsize=1024)
def _dotted(content: bytes) -> str | None:
    if not content or content[-1] & 0x80:
        return None
    arcs: list[int] = []
    arc = 0
    fresh = True
    for octet in content:
        if fresh and octet == 0x80:
            return None
        arc = (arc << 7) | (octet & 0x7F)
        fresh = not octet & 0x80
        if fresh:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _header(data: bytes, offset: int, limit: int) -> tuple[int, int, int]:
    """Return identifier octet, content offset and end of the element at *offset*, which may not pass *limit*."""
    if offset + 2 > limit:
        raise DerError("truncated", offset, "the input ends inside a header")
    tag = data[offset]
    if tag & 0x1F == 0x1F:
        raise DerError("high-tag-number", offset, "tag numbers above 30 do not occur in these objects")
    length = data[offset + 1]
    start = offset + 2
    if length >= 0x80:
        size = length & 0x7F
        if size == 0:
            raise DerError("indefinite-length", offset, "indefinite length (BER)")
        if size > 8:
            raise DerError("too-large", offset, f"length given in {size} octets")
        if start + size > limit:
            raise DerError("truncated", offset, "the input ends inside a length")
        length = int.from_bytes(data[start : start + size], "big")
        if length < 0x80 or length >> (8 * (size - 1)) == 0:
            raise DerError("non-minimal-length", offset, "length in more octets than needed")
        start += size
    end = start + length
    if end > limit:
        raise DerError("truncated", offset, f"{length} octets announced, {limit - start} left")
    return tag, start, end


def parse(data: bytes, *, offset: int = 0, strict_end: bool = True, max_bytes: int = MAX_DER_BYTES) -> Tlv:
    """Return the element at *offset*; what is inside is read only when asked for.

    Args:
        data: the whole input; offsets in results and errors count from its start.
        strict_end: demand that nothing follows the element (rule ``trailing-bytes``).
        max_bytes: largest *data* accepted (rule ``too-large``).

    Raises:
        DerError: see `DerError.rule`.
    """
    if len(data) > max_bytes:
        raise DerError("too-large", 0, f"{len(data)} octets, at most {max_bytes} are read")
    tag, start, end = _header(data, offset, len(data))
    if strict_end and end != len(data):
        raise DerError("trailing-bytes", end, f"{len(data) - end} octets after the end")
    return Tlv(data, offset, tag, start, end)


def check_strict(data: bytes) -> None:
    """Check one whole object, every level and every primitive of universal class, against DER.

    OCTET STRING and BIT STRING contents are opaque: check those that hold DER by a call of their own.

    Raises:
        DerError: at the first violation in reading order.
    """
    pending = [parse(data)]
    while pending:
        element = pending.pop()
        tag = element.tag
        if tag & _CONSTRUCTED:
            if tag < 0x40 and tag not in (SEQUENCE, SET):
                raise element.fail("constructed-string", f"tag 0x{tag:02x} must be primitive in DER")
            pending.extend(reversed(element.children()))
        elif tag in (SEQUENCE & 0x1F, SET & 0x1F):
            raise element.fail("not-constructed", f"tag 0x{tag:02x} must be constructed")
        elif check := _CHECKS.get(tag):
            check(element)


_CHECKS: Final = {
    BOOLEAN: Tlv.as_boolean,
    INTEGER: Tlv.as_integer,
    ENUMERATED: lambda element: element.as_integer(ENUMERATED),
    BIT_STRING: Tlv.as_bit_string,
    NULL: Tlv.as_null,
    OBJECT_IDENTIFIER: Tlv.as_oid,
    UTC_TIME: Tlv.as_time,
    GENERALIZED_TIME: Tlv.as_time,
    **dict.fromkeys(_CODECS, Tlv.as_text),
}
