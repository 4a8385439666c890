"""Read EXI into messages, and write messages as EXI.

A message is a tree of dictionaries: the key is the name of an attribute or a child, the value what it holds. A child
that may occur more than once is a list; the text of an element with attributes stands under ``value``. Binary values
are bytes, everything else is text or a number. `chargepki.pki.exi.json_form` turns such a tree into JSON and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chargepki.pki.exi.bits import BitReader, BitWriter
from chargepki.pki.exi.errors import ExiError, Problem
from chargepki.pki.exi.states import EMPTY_WIDTH, SETS, Event, Production, Root, State, roots_of
from chargepki.pki.exi.values import Scalar

__all__ = ["MAX_EXI_BYTES", "Message", "MessageSet", "Tree", "Value", "decode", "encode", "find_root"]

Value = Scalar | dict[str, "Value"] | list["Value"]
Tree = dict[str, Value]

MAX_EXI_BYTES: Final = 65_536
"""A longer stream is refused unread: OCPP 2.1 carries 17,000 characters of base64."""

# EXI 1.0 section 5: distinguishing bits 10, no options in the stream, version 1. ISO 15118 knows no other header.
_HEADER: Final = 0x80


class MessageSet(StrEnum):
    """The schema that a stream is written with."""

    ISO15118_2 = "iso15118-2"
    ISO15118_20 = "iso15118-20"
    XMLDSIG = "xmldsig"
    """XML Signature alone: SignedInfo is digested and signed as a fragment of this schema, whatever it signs."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, or an element of one that is encoded on its own to be signed.

    Attributes:
        name: of the outermost element.
        tree: what it holds.
        open_lists: written by a codec that takes the list of root certificates of -2 for unbounded (`OPEN_LIST`); the
            bytes differ after exactly 20 of them.
    """

    message_set: MessageSet
    name: str
    tree: Tree
    open_lists: bool = False


def decode(
    data: bytes, *, message_set: MessageSet | None = None, name: str | None = None, limits: bool = True
) -> Message:
    """Read one EXI stream.

    Args:
        message_set: the schema that it was written with; without it, the one that fits is found.
        name: the outermost element that is expected; without it, whichever there is.
        limits: refuse lengths and numbers that the schema forbids (a certificate of 801 bytes in -2). The structure
            is checked either way.

    Raises:
        ExiError: the stream is malformed, of another message, or not the one way to write what it says.
    """
    if len(data) > MAX_EXI_BYTES:
        raise ExiError(f"the EXI stream has {len(data)} bytes; at most {MAX_EXI_BYTES} are read")
    if not data or data[0] != _HEADER:
        first = f"0x{data[0]:02x}" if data else "nothing"
        raise ExiError(
            f"an EXI stream of ISO 15118 starts with the byte 0x80, not with {first}",
            fix="give the bytes of the message alone, without the V2GTP header",
            bit_offset=0,
        )
    sets = tuple(MessageSet) if message_set is None else (message_set,)
    candidates = [(root, False) for each in sets for root in roots_of(each, limits=limits)]
    if MessageSet.ISO15118_2 in sets:
        candidates += [(root, True) for root in roots_of(MessageSet.ISO15118_2, limits=limits, open_lists=True)]
    furthest: ExiError | None = None
    for root, is_open in candidates:
        if (name is not None and root.name != name) or not _starts_with(data, root):
            continue
        try:
            return Message(MessageSet(root.message_set), root.name, _read_stream(data, root), is_open)
        except ExiError as error:
            if furthest is None or (error.bit_offset or 0) > (furthest.bit_offset or 0):
                furthest = error
    raise furthest or _unknown_start(data, sets, name)


def encode(message: Message, *, limits: bool = True) -> bytes:
    """Write *message* as an EXI stream.

    Args:
        limits: refuse lengths and numbers that the schema forbids.

    Raises:
        ExiError: the message does not follow its schema; says which element or attribute.
    """
    root = find_root(message, limits=limits)
    writer = BitWriter()
    writer.bits(_HEADER, 8)
    writer.bits(root.code, root.width)
    try:
        _write_element(writer, root.start, message.tree)
    except Problem as problem:
        raise problem.error(root.name) from None
    if root.is_fragment:
        writer.bits(root.end_code, root.end_width)
    return writer.finish()


def find_root(message: Message, *, limits: bool = True) -> Root:
    """Return the root that *message* starts with.

    Raises:
        ExiError: its set knows none of that name.
    """
    roots = roots_of(message.message_set, limits=limits, open_lists=message.open_lists)
    for root in roots:
        if root.name == message.name:
            return root
    known = ", ".join(root.name for root in roots)
    raise ExiError(f"{message.name} is no message of {message.message_set}", fix=f"known are: {known}")


# -- reading -----------------------------------------------------------------------------------------------------------


def _starts_with(data: bytes, root: Root) -> bool:
    return _first_code(data, root.width) == root.code


def _first_code(data: bytes, width: int) -> int | None:
    """Return the event code after the header; ``None`` when the stream ends before it does."""
    return BitReader(data[1:3]).bits(width) if 8 * len(data[1:3]) >= width else None


def _unknown_start(data: bytes, sets: Sequence[MessageSet], name: str | None) -> ExiError:
    """Return what to say about a stream that starts with none of the elements we read."""
    if name is not None:
        return ExiError(f"the EXI stream does not start with {name}", bit_offset=8)
    hint = ""
    if MessageSet.ISO15118_20 in sets:
        documents = SETS[MessageSet.ISO15118_20].documents
        code = _first_code(data, len(documents).bit_length())
        if code is not None and code < len(documents):
            hint = f"; read as {MessageSet.ISO15118_20} it would be {documents[code]}"
    known = ", ".join(dict.fromkeys(root.name for each in sets for root in roots_of(each)))
    return ExiError(
        f"bit 8: the EXI stream starts with no message about certificates{hint}",
        fix=f"these are read: {known}",
        bit_offset=8,
    )


def _read_stream(data: bytes, root: Root) -> Tree:
    reader = BitReader(data)
    reader.position = 8 + root.width
    try:
        tree = _read_element(reader, root.start)
    except Problem as problem:
        raise problem.error(root.name) from None
    try:
        if root.is_fragment and reader.bits(root.end_width) != root.end_code:
            raise reader.fail("more elements follow the signed one", at=reader.position - root.end_width)
        reader.finish()
    except Problem as problem:
        raise problem.error(root.name) from None
    return tree


def _read_element(reader: BitReader, state: State) -> Tree:
    """Read attributes and children up to the end of the element."""
    tree: Tree = {}
    while True:
        productions = state.productions
        code = reader.bits(state.width)
        production = productions[code] if code < len(productions) else None
        if production is None:
            raise _deviation(reader, state, code)
        event = production.event
        if event is Event.END:
            return tree
        name = production.name
        value: Value
        try:
            if event is Event.VALUE:
                # The characters, and the end of the child: the only productions of a simple type, code 0 of one bit.
                if reader.bits(1):
                    value = _read_empty(reader, production, EMPTY_WIDTH)
                else:
                    value = production.read(reader)
                    if reader.bits(1):
                        raise reader.fail("a deviation from the schema after the value", at=reader.position - 1)
            elif event is Event.ELEMENT:
                assert production.child is not None
                value = _read_element(reader, production.child)
            elif event is Event.UNUSED:
                raise reader.fail("messages about certificates never carry this", at=reader.position - state.width)
            elif event is Event.EMPTY:
                tree[name] = _read_empty(reader, production, production.extra)
                return tree
            else:
                value = production.read(reader)
        except Problem as problem:
            raise problem.inside(name) from None
        if production.many:
            values = tree.setdefault(name, [])
            assert isinstance(values, list)
            values.append(value)
        elif name in tree:
            raise reader.fail(f"{name} occurs twice")
        else:
            tree[name] = value
        state = production.next


def _read_empty(reader: BitReader, production: Production, width: int) -> Scalar:
    """Read the rest of an event code that ends an element where a value was to come."""
    start = reader.position
    if reader.bits(width) or production.empty is None:
        raise reader.fail("a deviation from the schema where a value is expected", at=start)
    return production.empty


_SILENT = {Event.EMPTY, Event.UNUSED}


def _deviation(reader: BitReader, state: State, code: int) -> Problem:
    """Return what to say about an event code that stands for nothing we read."""
    names = [each.name or "the end" for each in state.productions if each is not None and each.event not in _SILENT]
    if len(names) > 6:
        names = [*names[:6], f"{len(names) - 6} others"]
    at = reader.position - state.width
    expected = f"expected {' or '.join(names)}" if names else "nothing is expected here"
    reason = "a foreign element" if code < len(state.productions) else "a deviation from the schema"
    return reader.fail(f"event code {code} stands for {reason}; {expected}", at=at)


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_element(writer: BitWriter, state: State, tree: object) -> None:
    """Write attributes and children in the order of the schema, and the end of the element."""
    if not isinstance(tree, Mapping):
        raise Problem(f"an object with its fields is wanted, not {type(tree).__name__}")
    rest = dict(tree)
    places: dict[str, int] = {}
    while True:
        code, production = (_next_field(state, rest) if rest else state.end) or (0, None)
        if production is None:
            raise _misfit(state, rest)
        writer.bits(code, state.width)
        event, name = production.event, production.name
        if event is Event.END:
            return
        value = rest[name]
        if production.many:
            assert isinstance(value, list)
            place = places[name] = places.get(name, -1) + 1
            if place + 1 == len(value):
                del rest[name]
            value = value[place]
        else:
            del rest[name]
        if event is Event.EMPTY:
            writer.bits(0, production.extra)
            if rest:
                raise _misfit(state, rest)
            return
        try:
            _write_value(writer, production, value)
        except Problem as problem:
            raise problem.inside(name) from None
        state = production.next


def _next_field(state: State, rest: Mapping[str, object]) -> tuple[int, Production] | None:
    """Return which of the fields that are left comes first in the schema, with its event code."""
    best: tuple[int, Production] | None = None
    for name, value in rest.items():
        found = state.named.get(name)
        if found is None or (best is not None and best[0] < found[0]):
            continue
        production = found[1]
        if production.many and not isinstance(value, list):
            raise Problem(f"a list is wanted, not {type(value).__name__}").inside(name)
        if production.many and not value:
            continue
        is_empty = production.event is Event.CHARACTERS and value == production.empty
        best = (state.empty or found) if is_empty else found
        if best[0] == 0:
            break
    return best


def _write_value(writer: BitWriter, production: Production, value: object) -> None:
    if production.event is Event.ELEMENT:
        assert production.child is not None
        _write_element(writer, production.child, value)
    elif production.event is Event.VALUE:
        if value == production.empty and value is not None:
            writer.bits(1 << EMPTY_WIDTH, 1 + EMPTY_WIDTH)
            return
        writer.bits(0, 1)
        production.write(writer, value)
        writer.bits(0, 1)
    elif production.event is Event.UNUSED:
        raise Problem("messages about certificates never carry this")
    else:
        production.write(writer, value)


def _misfit(state: State, rest: Mapping[str, object]) -> Problem:
    """Return what to say about the fields that are left, or are missing."""
    wanted = [each.name for each in state.productions if each is not None and each.event < Event.EMPTY]
    shown = ", ".join(repr(str(name)[:80]) for name in list(rest)[:6])
    if state.end is not None or not wanted:
        return Problem(f"{shown} cannot stand here: unknown, one too many, or beside another choice")
    return Problem(f"{' or '.join(wanted[:6])} is missing" + (f"; {shown} does not fit" if rest else ""))
