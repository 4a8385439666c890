"""Read and write the values of simple types.

A value is text (strings, names of an enumeration), bytes (both binary types) or a number.
"""

from __future__ import annotations

from collections.abc import Callable

from chargepki.pki.exi.bits import MOST_NUMBER_BITS, NOT_XML, BitReader, BitWriter
from chargepki.pki.exi.errors import Problem
from chargepki.pki.exi.grammar import Kind, Simple

__all__ = ["Scalar", "check_limits", "reader_of", "writer_of"]

Scalar = str | int | bytes

# In place of a length, 0 and 1 refer to an entry of the string tables (EXI 1.0 section 7.3.3). ISO 15118 sets
# valuePartitionCapacity to 0, so that the tables stay empty and a length is always written plus two.
_TABLE_HITS = 2


def check_limits(simple: Simple, value: Scalar) -> None:
    """Raise `Problem` when *value* breaks a limit of its schema."""
    if isinstance(value, int):
        measured, unit = value, ""
    else:
        measured, unit = len(value), " bytes" if isinstance(value, bytes) else " characters"
    low, high = simple.minimum, simple.maximum
    if (low is None or measured >= low) and (high is None or measured <= high):
        return
    if low == high:
        allowed = f"exactly {low}"
    elif high is not None and measured > high:
        allowed = f"at most {high}"
    else:
        allowed = f"at least {low}"
    raise Problem(f"{measured if unit else 'the number'}{unit} where the schema allows {allowed}")


def reader_of(simple: Simple, *, limits: bool) -> Callable[[BitReader], Scalar]:
    """Return what reads a value of this type.

    Args:
        limits: refuse what breaks a limit of the schema.
    """
    read = _READERS[simple.kind](simple)
    # The limits of an n-bit number and of an enumeration are limits of what can be written at all.
    if not limits or simple.kind in {Kind.NBIT, Kind.ENUM} or (simple.minimum is None and simple.maximum is None):
        return read

    def checked(reader: BitReader) -> Scalar:
        start = reader.position
        value = read(reader)
        try:
            check_limits(simple, value)
        except Problem as problem:
            problem.bit_offset = start
            raise
        return value

    return checked


def _read_string(simple: Simple) -> Callable[[BitReader], Scalar]:
    def read(reader: BitReader) -> str:
        start = reader.position
        length = reader.unsigned()
        if length < _TABLE_HITS:
            raise reader.fail("a string refers to the string table, which ISO 15118 keeps empty", at=start)
        return reader.text(length - _TABLE_HITS)

    return read


def _read_binary(simple: Simple) -> Callable[[BitReader], Scalar]:
    return lambda reader: reader.octets(reader.unsigned())


def _read_enum(simple: Simple) -> Callable[[BitReader], Scalar]:
    values, width = simple.values, (len(simple.values) - 1).bit_length()

    def read(reader: BitReader) -> str:
        start = reader.position
        place = reader.bits(width)
        if place >= len(values):
            raise reader.fail(f"value {place} of an enumeration of {len(values)}", at=start)
        return values[place]

    return read


def _read_nbit(simple: Simple) -> Callable[[BitReader], Scalar]:
    low, span = _range(simple)
    width = span.bit_length()

    def read(reader: BitReader) -> int:
        start = reader.position
        value = reader.bits(width)
        if value > span:
            raise reader.fail(f"a number beyond {low + span}", at=start)
        return low + value

    return read


def _range(simple: Simple) -> tuple[int, int]:
    assert simple.minimum is not None
    assert simple.maximum is not None
    return simple.minimum, simple.maximum - simple.minimum


def _read_unsigned(simple: Simple) -> Callable[[BitReader], Scalar]:
    return BitReader.unsigned


def _read_integer(simple: Simple) -> Callable[[BitReader], Scalar]:
    def read(reader: BitReader) -> int:
        # A negative number n is written as -n - 1, so that there is one zero only.
        return -1 - reader.unsigned() if reader.bits(1) else reader.unsigned()

    return read


_READERS: dict[Kind, Callable[[Simple], Callable[[BitReader], Scalar]]] = {
    Kind.STRING: _read_string,
    Kind.BASE64: _read_binary,
    Kind.HEX: _read_binary,
    Kind.ENUM: _read_enum,
    Kind.NBIT: _read_nbit,
    Kind.UNSIGNED: _read_unsigned,
    Kind.INTEGER: _read_integer,
}

_TYPES: dict[Kind, tuple[type, str]] = {
    Kind.STRING: (str, "text"),
    Kind.BASE64: (bytes, "bytes"),
    Kind.HEX: (bytes, "bytes"),
    Kind.ENUM: (str, "text"),
    Kind.NBIT: (int, "a number"),
    Kind.UNSIGNED: (int, "a number"),
    Kind.INTEGER: (int, "a number"),
}


def writer_of(simple: Simple, *, limits: bool) -> Callable[[BitWriter, object], None]:
    """Return what writes a value of this type, and raises `Problem` for a value that is not of it.

    Args:
        limits: refuse what breaks a limit of the schema.
    """
    expected, called = _TYPES[simple.kind]
    write = _WRITERS[simple.kind](simple)
    bounded = (limits or simple.kind is Kind.NBIT) and not (simple.minimum is None and simple.maximum is None)

    def checked(writer: BitWriter, value: object) -> None:
        if not isinstance(value, str | int | bytes) or type(value) is not expected:
            raise Problem(f"{called} is wanted, not {type(value).__name__}")
        if bounded:
            check_limits(simple, value)
        write(writer, value)

    return checked


def _write_string(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    def write(writer: BitWriter, value: Scalar) -> None:
        assert isinstance(value, str)
        if found := NOT_XML.search(value):
            raise Problem(f"U+{ord(found[0]):04X} is no character of XML")
        writer.unsigned(len(value) + _TABLE_HITS)
        writer.text(value)

    return write


def _write_binary(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    def write(writer: BitWriter, value: Scalar) -> None:
        assert isinstance(value, bytes)
        writer.unsigned(len(value))
        writer.octets(value)

    return write


def _write_enum(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    places = {name: place for place, name in enumerate(simple.values)}
    width = (len(places) - 1).bit_length()

    def write(writer: BitWriter, value: Scalar) -> None:
        place = places.get(str(value))
        if place is None:
            raise Problem(f"{str(value)[:80]!r} is none of {', '.join(places)}")
        writer.bits(place, width)

    return write


def _write_nbit(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    low, span = _range(simple)
    width = span.bit_length()

    def write(writer: BitWriter, value: Scalar) -> None:
        assert isinstance(value, int)
        writer.bits(value - low, width)

    return write


def _write_unsigned(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    def write(writer: BitWriter, value: Scalar) -> None:
        assert isinstance(value, int)
        if value < 0:
            raise Problem("a number below zero where the schema allows none")
        _check_size(value)
        writer.unsigned(value)

    return write


def _write_integer(simple: Simple) -> Callable[[BitWriter, Scalar], None]:
    def write(writer: BitWriter, value: Scalar) -> None:
        assert isinstance(value, int)
        _check_size(value)
        writer.bits(value < 0, 1)
        writer.unsigned(-1 - value if value < 0 else value)

    return write


def _check_size(value: int) -> None:
    if value.bit_length() > MOST_NUMBER_BITS:
        raise Problem(f"a number of {value.bit_length()} bits; at most {MOST_NUMBER_BITS} are read or written")


_WRITERS: dict[Kind, Callable[[Simple], Callable[[BitWriter, Scalar], None]]] = {
    Kind.STRING: _write_string,
    Kind.BASE64: _write_binary,
    Kind.HEX: _write_binary,
    Kind.ENUM: _write_enum,
    Kind.NBIT: _write_nbit,
    Kind.UNSIGNED: _write_unsigned,
    Kind.INTEGER: _write_integer,
}
