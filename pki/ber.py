"""Rewrite BER as definite-length elements, for the containers whose standards allow it (PKCS#7, PKCS#12)."""

from __future__ import annotations

from typing import Final

from chargepki.pki.der_reader import DerError
from chargepki.pki.der_writer import tlv

__all__ = ["to_definite"]

_MAX_DEPTH: Final = 32
_MOST_ELEMENTS: Final = 100_000
_OCTET_STRING: Final = 0x04
_END: Final = b"\0\0"


def to_definite(data: bytes) -> tuple[bytes, int]:
    """Return the first element of *data* with definite, shortest lengths and whole OCTET STRINGs, and where it ended.

    What is DER already comes back as it is. Contents are not looked into beyond constructed elements.

    Raises:
        DerError: the structure cannot be followed; `offset` counts from the start of *data*.

    >>> to_definite(bytes.fromhex("3080040141240804014204014300000000"))[0].hex()
    '300704014104024243'
    """
    return _Rewriter(data).element(0, len(data), 0)


class _Rewriter:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _MOST_ELEMENTS

    def element(self, pos: int, end: int, depth: int) -> tuple[bytes, int]:
        data, start = self._data, pos
        self._left -= 1
        if self._left < 0:
            raise DerError("too-many", pos, f"more than {_MOST_ELEMENTS} elements")
        if depth > _MAX_DEPTH:
            raise DerError("too-deep", pos, f"nested deeper than {_MAX_DEPTH} levels")
        if pos + 2 > end:
            raise DerError("truncated", pos, "the input ends inside a header")
        tag, length = data[pos], data[pos + 1]
        if tag & 0x1F == 0x1F:
            raise DerError("high-tag-number", pos, "tag numbers above 30 do not occur here")
        pos += 2
        stop: int | None = pos + length
        if length == 0x80:
            if not tag & 0x20:
                raise DerError("indefinite-length", start, "a primitive element has no indefinite length")
            stop = None
        elif length > 0x80:
            count = length & 0x7F
            stop = pos + count + int.from_bytes(data[pos : pos + count], "big")
            pos += count
        if stop is not None and (stop > end or pos > end):
            raise DerError("truncated", start, f"{max(stop - pos, 0)} content octets announced, {end - pos} present")
        if not tag & 0x20:
            assert stop is not None
            return tlv(tag, data[pos:stop]), stop
        return self._constructed(tag, pos, stop, end, depth)

    def _constructed(self, tag: int, pos: int, stop: int | None, end: int, depth: int) -> tuple[bytes, int]:
        parts: list[bytes] = []
        limit = end if stop is None else stop
        while stop is None or pos < stop:
            if stop is None and self._data[pos : pos + 2] == _END:
                pos += 2
                break
            part, pos = self.element(pos, limit, depth + 1)
            parts.append(part)
        if tag == _OCTET_STRING | 0x20:
            return tlv(_OCTET_STRING, b"".join(map(_content, parts))), pos
        return tlv(tag, b"".join(parts)), pos


def _content(part: bytes) -> bytes:
    """Return the content octets of an element that was written here."""
    return part[2:] if part[1] < 0x80 else part[2 + (part[1] & 0x7F) :]
