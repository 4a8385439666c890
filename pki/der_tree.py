"""Read DER into a tree in one pass, noting every small violation instead of stopping at the first.

`chargepki.pki.der` refuses; this module reports. Only what makes the structure unreadable (a length beyond the end,
an indefinite length) raises. The walk is written for speed: a linter runs it once per issued certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

from chargepki.pki.der import DerError

__all__ = [
    "PRINTABLE_OCTETS",
    "DerProblem",
    "Node",
    "decode_integer",
    "decode_oid",
    "read_element",
    "read_level",
    "read_part",
    "read_tree",
]

_MAX_DEPTH: Final = 32
_MAX_OID_OCTETS: Final = 64
_MOST_ELEMENTS: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 512
_SEQUENCE: Final = 0x30
_SET: Final = 0x31

_PRIMITIVE_ONLY: Final = frozenset({1, 2, 3, 4, 5, 6, 9, 10, 12, 18, 19, 20, 22, 23, 24, 26, 28, 30})
PRINTABLE_OCTETS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


class DerProblem(NamedTuple):
    """One violation of DER that did not stop the reading."""

    offset: int
    """Of the element's identifier octet, counted from the start of the object."""
    rule: str
    """Stable short name, as in `DerError.rule`."""
    what: str


T = TypeVar("T")


class Node(NamedTuple):
    """One element: positions in the buffer that was read. `kids` is empty for primitive elements."""

    tag: int
    start: int
    content: int
    end: int
    kids: tuple[Node, ...]


# What a named tuple's own constructor calls, for those who make dozens for each certificate.
_make: Final = tuple.__new__


def read_tree(data: bytes, start: int, end: int, problems: list[DerProblem]) -> Node:
    """Read exactly one element that fills ``data[start:end]``.

    Raises:
        DerError: the structure cannot be followed; `offset` counts from the start of *data*.
    """
    nodes = _read(data, start, end, 0, problems)
    if not nodes:
        raise DerError("truncated", start, "no DER element")
    if len(nodes) > 1:
        problems.append(DerProblem(nodes[1].start, "trailing-bytes", f"{end - nodes[1].start} bytes follow the object"))
    return nodes[0]


def read_part(data: bytes, start: int, end: int, reader: Callable[[bytes, Node], T], problems: list[DerProblem]) -> T:
    """Return what *reader* makes of the one element that fills ``data[start:end]``; raises like `read_tree`.

    The certificates of one CA differ in few of their parts. What was read without a fault is remembered by its octets;
    anything else is read again where it stands, because faults name offsets in the whole object.

    Args:
        reader: a function of a module, whose result depends on the octets alone and is never changed nor ``None``.
    """
    # Only short parts are remembered, so that hostile ones cannot fill the memory.
    if end - start <= _MAX_REMEMBERED_BYTES:
        found: T | None = _faultless(reader, data[start:end])
        if found is not None:
            return found
    return reader(data, read_tree(data, start, end, problems))


@lru_cache(maxsize=1024)
def _faultless(reader: Callable[[bytes, Node], T], part: bytes) -> T | None:
    problems: list[DerProblem] = []
    try:
        found = reader(part, read_tree(part, 0, len(part), problems))
    except DerError:
        return None
    return None if problems else found


def read_element(data: bytes, pos: int, end: int, problems: list[DerProblem]) -> Node:
    """Read the header of the element at *pos*, which may not pass *end*; `kids` stays empty.

    Raises like `read_tree`.
    """
    if pos + 1 >= end:
        raise DerError("truncated", pos, "the input ends inside a header")
    tag, length = data[pos], data[pos + 1]
    content = pos + 2
    if length > 0x7F:
        content, length = _long_length(data, content, end, pos, length, problems)
    if content + length > end:
        raise DerError("truncated", pos, f"{length} content octets announced, {end - content} present")
    if tag & 0x1F == 0x1F:
        raise DerError("high-tag-number", pos, "tag numbers above 30 do not occur here")
    return Node(tag, pos, content, content + length, ())


def read_level(
    data: bytes, start: int, end: int, problems: list[DerProblem], *, most: int = _MOST_ELEMENTS
) -> list[Node]:
    """Read the headers of the elements that fill ``data[start:end]``, without what is inside them.

    For objects of which one part is large and has a faster reader of its own. Raises like `read_tree`.

    Args:
        most: elements that are read; more are an error, so that a large object of tiny elements costs nothing.
    """
    nodes: list[Node] = []
    while start < end:
        if len(nodes) >= most:
            raise DerError("too-many", start, f"more than {most} elements where a handful belongs")
        # A short length is what nearly all have; anything else is read with care.
        tag = data[start]
        stop = start + 2 + data[start + 1] if start + 1 < end else end + 1
        if stop <= end and data[start + 1] < 0x80 and tag & 0x1F != 0x1F:
            nodes.append(_make(Node, (tag, start, start + 2, stop, ())))
        else:
            nodes.append(read_element(data, start, end, problems))
            stop = nodes[-1].end
        start = stop
    return nodes


def _read(data: bytes, pos: int, end: int, depth: int, problems: list[DerProblem]) -> tuple[Node, ...]:
    """Read every element of ``data[pos:end]``."""
    if depth > _MAX_DEPTH:
        raise DerError("too-deep", pos, f"nested deeper than {_MAX_DEPTH} levels")
    nodes: list[Node] = []
    while pos < end:
        start = pos
        tag = data[pos]
        if pos + 1 >= end:
            raise DerError("truncated", start, "the element ends after its identifier octet")
        length = data[pos + 1]
        pos += 2
        if length > 0x7F:
            pos, length = _long_length(data, pos, end, start, length, problems)
        stop = pos + length
        if stop > end:
            raise DerError("truncated", start, f"{length} content octets announced, {end - pos} present")
        if tag & 0x1F == 0x1F:
            raise DerError("high-tag-number", start, "tag numbers above 30 do not occur here")
        if tag & 0x20:
            kids = _read(data, pos, stop, depth + 1, problems)
            if tag == _SET:
                _check_set(data, kids, start, problems)
            elif tag < 0x40 and tag != _SEQUENCE:
                problems.append(DerProblem(start, "constructed-primitive", f"tag {tag & 0x1F} must be primitive"))
            nodes.append(_make(Node, (tag, start, pos, stop, kids)))
        else:
            if tag < 0x40:
                _check_primitive(data, tag, start, pos, stop, problems)
            nodes.append(_make(Node, (tag, start, pos, stop, ())))
        pos = stop
    return tuple(nodes)


def _long_length(
    data: bytes, pos: int, end: int, start: int, first: int, problems: list[DerProblem]
) -> tuple[int, int]:
    """Return the position after the length octets, and the length."""
    count = first & 0x7F
    if count == 0:
        raise DerError("indefinite-length", start, "indefinite length")
    if count > 4 or pos + count > end:
        raise DerError("truncated", start, "the length octets do not fit the object")
    length = int.from_bytes(data[pos : pos + count], "big")
    if length < 0x80 or data[pos] == 0:
        problems.append(DerProblem(start, "non-minimal-length", f"length {length} is not in its shortest form"))
    return pos + count, length


def _check_set(data: bytes, kids: tuple[Node, ...], start: int, problems: list[DerProblem]) -> None:
    """SET OF components are sorted by their encodings (X.690 11.6)."""
    if len(kids) > 1:
        encodings = [data[kid.start : kid.end] for kid in kids]
        if any(after < before for before, after in pairwise(encodings)):
            problems.append(DerProblem(start, "unsorted-set", "the components of the SET are not sorted"))


def _check_primitive(data: bytes, tag: int, start: int, pos: int, stop: int, problems: list[DerProblem]) -> None:
    """Judge the content of one universal primitive element."""
    if tag == 0x06:
        if (message := _oid_fault(data[pos:stop])) is not None:
            problems.append(DerProblem(start, "bad-oid", message))
    elif tag in (0x02, 0x0A):
        if stop == pos:
            problems.append(DerProblem(start, "empty-integer", "an INTEGER has at least one content octet"))
        elif stop - pos > 1 and (
            (data[pos] == 0 and data[pos + 1] < 0x80) or (data[pos] == 0xFF and data[pos + 1] >= 0x80)
        ):
            problems.append(DerProblem(start, "non-minimal-integer", "the INTEGER has a superfluous first octet"))
    elif tag == 0x01:
        if stop - pos != 1 or data[pos] not in (0x00, 0xFF):
            problems.append(DerProblem(start, "bad-boolean", "a BOOLEAN is one octet, 00 or FF"))
    elif tag == 0x03:
        _check_bit_string(data, start, pos, stop, problems)
    elif tag == 0x05:
        if stop != pos:
            problems.append(DerProblem(start, "bad-null", "NULL has no content"))
    elif tag in (0x10, 0x11):
        problems.append(DerProblem(start, "primitive-constructed", "SEQUENCE and SET must be constructed"))
    elif tag not in _PRIMITIVE_ONLY:
        problems.append(DerProblem(start, "unknown-tag", f"universal tag {tag} does not occur in certificates"))
    else:
        _check_string(data, tag, start, pos, stop, problems)


def _check_bit_string(data: bytes, start: int, pos: int, stop: int, problems: list[DerProblem]) -> None:
    if stop == pos or data[pos] > 7 or (stop - pos == 1 and data[pos]):
        problems.append(DerProblem(start, "bad-bit-string", "the count of unused bits is wrong"))
    elif data[pos] and data[stop - 1] & ((1 << data[pos]) - 1):
        problems.append(DerProblem(start, "bad-bit-string", "unused bits must be zero"))


def _check_string(data: bytes, tag: int, start: int, pos: int, stop: int, problems: list[DerProblem]) -> None:
    """Character sets. T61String and the like are left to the rules about names."""
    content = data[pos:stop]
    if tag == 0x0C:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            problems.append(DerProblem(start, "bad-string", "the UTF8String is not UTF-8"))
    elif tag == 0x13:
        if not PRINTABLE_OCTETS.issuperset(content):
            problems.append(DerProblem(start, "bad-string", "the PrintableString has other characters"))
    elif tag == 0x16 and not content.isascii():
        problems.append(DerProblem(start, "bad-string", "the IA5String has characters above 127"))


@lru_cache(maxsize=512)
def _oid_fault(content: bytes) -> str | None:
    """Say what is wrong with the encoding of an OID; the same few OIDs come again and again."""
    if not content:
        return "an OBJECT IDENTIFIER has at least one content octet"
    if len(content) > _MAX_OID_OCTETS:
        return f"the OBJECT IDENTIFIER has {len(content)} content octets"
    if content[-1] & 0x80:
        return "the last arc of the OBJECT IDENTIFIER does not end"
    if content[0] == 0x80 or any(
        octet == 0x80 and not content[index] & 0x80 for index, octet in enumerate(content[1:])
    ):
        return "an arc of the OBJECT IDENTIFIER is not in its shortest form"
    return None


@lru_cache(maxsize=512)
def decode_oid(content: bytes) -> str:
    """Return the dotted form of OID content octets; a broken encoding gives the empty string, never an error."""
    if len(content) > _MAX_OID_OCTETS:
        return ""
    arcs: list[int] = []
    value = 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(value)
            value = 0
    if not arcs or content[-1] & 0x80:
        return ""
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def decode_integer(content: bytes) -> int:
    """Return the value of INTEGER content octets (two's complement); no octets give 0."""
    return int.from_bytes(content, "big", signed=True)
