"""Make mutants of DER: of its octets, and of its structure with every length put right again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

__all__ = ["MUTATORS", "Element", "mutate", "parse", "write"]

_MAX_DEPTH = 24
_MAX_MUTANT_BYTES = 400_000
_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 2**2048)
_TAGS = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31,
         0xA0, 0xA1, 0xA2, 0xA3, 0x80, 0x81, 0x82, 0x86, 0x24, 0x23, 0x1F, 0xBF, 0x00, 0xFF)  # fmt: skip


@dataclass(slots=True)
class Element:
    """One element; `kids` is ``None`` when `content` is to be taken as it is."""

    tag: int
    content: bytes = b""
    kids: list[Element] | None = None
    prefix: bytes = field(default=b"")
    """What stands before the kids: the octet of unused bits of a BIT STRING that holds DER."""


def parse(data: bytes, depth: int = 0) -> list[Element] | None:
    """Return the elements that fill *data*, with DER inside strings taken apart; ``None`` when it is none."""
    elements: list[Element] = []
    position = 0
    while position < len(data):
        header = _header(data, position)
        if header is None:
            return None
        content, end = header
        elements.append(_element(data[position], data[content:end], depth))
        position = end
    return elements


def _header(data: bytes, position: int) -> tuple[int, int] | None:
    if position + 2 > len(data):
        return None
    length, content = data[position + 1], position + 2
    if length > 0x80:
        count = length & 0x7F
        if count > 4 or content + count > len(data):
            return None
        length, content = int.from_bytes(data[content : content + count], "big"), content + count
    elif length == 0x80:
        return None
    return (content, content + length) if content + length <= len(data) else None


def _element(tag: int, content: bytes, depth: int) -> Element:
    element = Element(tag, content)
    if depth >= _MAX_DEPTH or not content:
        return element
    if tag & 0x20 or (tag == 0x04 and content[0] in (0x30, 0x31, 0x04, 0x03, 0x02)):
        element.kids = parse(content, depth + 1)
    elif tag == 0x03 and content[:2] == b"\0\x30":
        element.prefix, element.kids = b"\0", parse(content[1:], depth + 1)
    return element


def write(elements: list[Element]) -> bytes:
    """Return the octets, every length as it must be."""
    return b"".join(_written(each) for each in elements)


def _written(element: Element) -> bytes:
    content = element.content if element.kids is None else element.prefix + write(element.kids)
    return bytes((element.tag & 0xFF,)) + _length(len(content)) + content


def _length(count: int) -> bytes:
    if count < 0x80:
        return bytes((count,))
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def _all(elements: list[Element]) -> Iterator[tuple[list[Element], int]]:
    """Yield the place of every element: the list that holds it, and its index there."""
    for index, element in enumerate(elements):
        yield elements, index
        if element.kids is not None:
            yield from _all(element.kids)


# ---------------------------------------------------------------- octets


def flip_bits(data: bytes, random: Random, other: bytes) -> bytes:
    """Turn up to four bits over."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_octets(data: bytes, random: Random, other: bytes) -> bytes:
    """Write interesting octets somewhere."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        changed[random.randrange(len(changed))] = random.choice((0, 1, 0x7F, 0x80, 0x81, 0x84, 0xFF, 0x30, 0x1F))
    return bytes(changed)


def truncate(data: bytes, random: Random, other: bytes) -> bytes:
    """Cut the end off, or append to it."""
    if random.random() < 0.2:
        return data + random.choice((b"\0", data, random.randbytes(20), b"\0" * 5000))
    return data[: random.randrange(len(data))]


def edit_length(data: bytes, random: Random, other: bytes) -> bytes:
    """Write another length into a header that really is one, leaving all else alone."""
    places = list(_headers(data, 0, len(data), 0))
    if not places:
        return flip_bits(data, random, other)
    position, content, end = random.choice(places)
    length = end - content
    new = random.choice(
        (
            _length(length + 1),
            _length(max(length - 1, 0)),
            _length(length * 2),
            _length(2**24),
            b"\0",
            b"\x80",
            b"\x7f",
            b"\x81" + bytes((length & 0xFF,)),
            b"\x83" + (length & 0xFFFFFF).to_bytes(3, "big"),
            b"\x84\xff\xff\xff\xff",
            b"\x84\x7f\xff\xff\xff",
            b"\x88" + b"\xff" * 8,
            b"\xff" + b"\xff" * 127,
        )
    )
    return data[: position + 1] + new + data[content:]


def _headers(data: bytes, start: int, end: int, depth: int) -> Iterator[tuple[int, int, int]]:
    while start < end:
        header = _header(data[:end], start)
        if header is None:
            return
        yield start, *header
        if data[start] & 0x20 and depth < _MAX_DEPTH:
            yield from _headers(data, *header, depth + 1)
        start = header[1]


# ---------------------------------------------------------------- structure


def _structural(change: Callable[[list[Element], int, Random, bytes], None]) -> Callable[[bytes, Random, bytes], bytes]:
    def mutator(data: bytes, random: Random, other: bytes) -> bytes:
        tree = parse(data)
        if not tree:
            return flip_bits(data, random, other)
        changed = data
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            places = list(_all(tree))
            if not places:
                break
            holder, index = random.choice(places)
            change(holder, index, random, other)
            changed = write(tree)
            if len(changed) > _MAX_MUTANT_BYTES:  # repeats of repeats would fill the memory
                break
        return changed

    mutator.__name__ = change.__name__.lstrip("_")
    mutator.__doc__ = change.__doc__
    return mutator


@_structural
def change_tag(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Call an element something else."""
    holder[index].tag = random.choice(_TAGS)


@_structural
def duplicate(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Repeat an element, now and then very often."""
    holder[index:index] = [holder[index]] * random.choice((1, 1, 2, 10, 300))


@_structural
def remove(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Leave an element out."""
    del holder[index]


@_structural
def swap(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Exchange two neighbours, or any two of one level."""
    second = random.randrange(len(holder))
    holder[index], holder[second] = holder[second], holder[index]


@_structural
def splice(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Put an element of another file in the place of one of ours."""
    places = list(_all(parse(other) or []))
    if places:
        theirs, position = random.choice(places)
        holder[index] = theirs[position]


@_structural
def nest(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Wrap an element deeply."""
    tag = random.choice((0x30, 0x31, 0xA0, 0xA4, 0x24))
    content = _written(holder[index])
    for _ in range(random.choice((1, 3, 20, 33, 200, 2000))):
        content = bytes((tag,)) + _length(len(content)) + content
    holder[index] = Element(tag, _content(content))


def _content(encoded: bytes) -> bytes:
    header = _header(encoded, 0)
    return b"" if header is None else encoded[header[0] : header[1]]


@_structural
def fill(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Give an element other, empty or very long content."""
    size = random.choice((0, 1, 2, 20, 127, 128, 5000, 100_000))
    octets = random.choice((b"\0", b"\xff", b"\x80", b"A", b"\x30\x80", b"\x06\x00", b"\xc3"))
    holder[index] = Element(holder[index].tag, (octets * size)[:size])


@_structural
def set_number(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Give an INTEGER or ENUMERATED a value at some edge; versions, counts and rounds are such."""
    numbers = [
        (kids, place) for kids, place in _all(holder) if kids[place].tag in (0x02, 0x0A) and kids[place].kids is None
    ]
    if numbers:
        kids, place = random.choice(numbers)
        value = random.choice(_NUMBERS)
        kids[place] = Element(kids[place].tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


@_structural
def set_text(holder: list[Element], index: int, random: Random, other: bytes) -> None:
    """Write texts into strings and times that tempt whoever prints, decodes or compares them."""
    texts = (
        b"", b"\0", b"\x1b[2J\x07", b"\xff\xfe", "\u202e\U0001f50c".encode(), b"\xd8\x00", b"99991231235959Z",
        b"000000000000Z", b"20260230000000Z", b"2601010000+9959", b"*.*.*", b"http://[::1", b"a@b@c", b"." * 300,
        b"xn--\x00", b"%s%n", b"\r\nX: y", b"https://" + b"a." * 3000,
    )  # fmt: skip
    strings = [
        (kids, place)
        for kids, place in _all(holder)
        if kids[place].kids is None and kids[place].tag in (0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1E, 0x82, 0x86, 0x81)
    ]
    if strings:
        kids, place = random.choice(strings)
        kids[place] = Element(kids[place].tag, random.choice(texts))


MUTATORS: tuple[Callable[[bytes, Random, bytes], bytes], ...] = (
    flip_bits, set_octets, truncate, edit_length, change_tag, duplicate, remove, swap, splice, nest, fill, set_number,
    set_text,
)  # fmt: skip


def mutate(data: bytes, random: Random, other: bytes) -> tuple[str, bytes]:
    """Return a mutant of *data* and the names of what was done; *other* is the file that pieces are taken from."""
    names: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        mutator = random.choice(MUTATORS)
        if data:
            data = mutator(data, random, other)[:_MAX_MUTANT_BYTES]
            names.append(mutator.__name__)
    return "+".join(names), data
