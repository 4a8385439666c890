"""Read and write bit-packed EXI: n-bit numbers, unsigned integers, octets and strings, none of them aligned to bytes.

Every way to write something else for the same value is refused when reading, so that a message that was read is
written back as the same bytes: what a signature covers is never in doubt.
"""

from __future__ import annotations

import re
from typing import Final

from chargepki.pki.exi.errors import Problem

__all__ = ["MOST_NUMBER_BITS", "NOT_XML", "BitReader", "BitWriter"]

MOST_NUMBER_BITS: Final = 1024
"""An integer without a limit in its schema ends here: serial numbers have 160 bits (RFC 5280 section 4.1.2.2)."""

NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""A character that no XML document can hold (XML 1.0 section 2.2), and so no message."""

# Bits are collected in one number, which is cheap while it is small.
_MOST_PENDING_BITS: Final = 1024


class BitReader:
    """Takes values from the front of a stream; `position` counts bits."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes) -> None:
        self._end = len(data) * 8
        # Two bytes more, so that a number at the very end can be cut out of three bytes as any other.
        self._data = data + b"\0\0"
        self.position = 0

    def fail(self, reason: str, *, at: int | None = None) -> Problem:
        """Return the problem *reason*, here or at the bit *at*."""
        return Problem(reason, self.position if at is None else at)

    def bits(self, count: int) -> int:
        """Read a number of at most nine bits."""
        position = self.position
        stop = position + count
        if stop > self._end:
            raise self.fail("the stream ends too early")
        self.position = stop
        index = position >> 3
        window = self._data[index] << 8 | self._data[index + 1]
        return window >> (16 - (position & 7) - count) & ((1 << count) - 1)

    def unsigned(self, most_bits: int = MOST_NUMBER_BITS) -> int:
        """Read an unsigned integer: seven bits in each octet, lowest first, the top bit set in all but the last."""
        octet = self.bits(8)
        if octet < 0x80:
            return octet
        start = self.position - 8
        value, shift = octet & 0x7F, 7
        while octet >= 0x80:
            if shift > most_bits:
                raise self.fail(f"a number takes more than {most_bits} bits", at=start)
            octet = self.bits(8)
            value |= (octet & 0x7F) << shift
            shift += 7
        if octet == 0:
            raise self.fail("a number is written longer than it needs to be", at=start)
        return value

    def octets(self, count: int) -> bytes:
        """Read *count* whole octets."""
        position = self.position
        stop = position + 8 * count
        if stop > self._end:
            left = (self._end - position) // 8
            raise self.fail(f"{count} bytes are announced, and {left} are left")
        self.position = stop
        first, shift = position >> 3, position & 7
        if not shift:
            return self._data[first : stop >> 3]
        # One byte more than is wanted, moved so that the wanted ones are its last.
        window = int.from_bytes(self._data[first : (stop >> 3) + 1], "big") >> (8 - shift)
        return (window & ((1 << 8 * count) - 1)).to_bytes(count, "big")

    def text(self, count: int) -> str:
        """Read *count* characters, each as an unsigned integer."""
        start = self.position
        octets = self.octets(count)  # A character takes at least one octet.
        if octets.isascii():
            value = octets.decode("ascii")
            if value.isprintable():
                return value
        else:
            self.position = start
            value = "".join([self._character() for _ in range(count)])
        if found := NOT_XML.search(value):
            raise self.fail(f"U+{ord(found[0]):04X} is no character of XML", at=start)
        return value

    def _character(self) -> str:
        start = self.position
        code = self.unsigned(21)
        if code > 0x10FFFF:
            raise self.fail(f"{code:#x} is no character", at=start)
        return chr(code)

    def finish(self) -> None:
        """Check that nothing but the padding of the last byte, all zeros, is left."""
        left = self._end - self.position
        if left >= 8:
            raise self.fail(f"{left // 8} more bytes follow the message")
        if self.bits(left):
            raise self.fail("the bits after the message are not zero", at=self.position - left)


class BitWriter:
    """Appends values to a stream."""

    __slots__ = ("_done", "_pending", "_width")

    def __init__(self) -> None:
        self._done = bytearray()
        self._pending = 0
        self._width = 0
        """How many bits of *pending* are not written yet."""

    def bits(self, value: int, count: int) -> None:
        """Write *value* in *count* bits."""
        self._pending = self._pending << count | value
        self._width += count

    def unsigned(self, value: int) -> None:
        """Write an unsigned integer."""
        while value >= 0x80:
            self._pending = self._pending << 8 | value & 0x7F | 0x80
            self._width += 8
            value >>= 7
        self._pending = self._pending << 8 | value
        self._width += 8

    def octets(self, value: bytes) -> None:
        """Write whole octets."""
        count = 8 * len(value)
        self._pending = self._pending << count | int.from_bytes(value, "big")
        self._width += count
        if self._width >= _MOST_PENDING_BITS:
            self._flush()

    def text(self, value: str) -> None:
        """Write the characters of *value*, each as an unsigned integer."""
        if value.isascii():
            self.octets(value.encode("ascii"))
            return
        for character in value:
            self.unsigned(ord(character))
            if self._width >= _MOST_PENDING_BITS:
                self._flush()

    def _flush(self) -> None:
        """Move the whole bytes of what is pending."""
        count, rest = divmod(self._width, 8)
        self._done += (self._pending >> rest).to_bytes(count, "big")
        self._pending &= (1 << rest) - 1
        self._width = rest

    def finish(self) -> bytes:
        """Return the stream, padded with zeros to whole bytes."""
        self.bits(0, -self._width % 8)
        self._flush()
        return bytes(self._done)
