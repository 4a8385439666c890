"""Read an upgrade request of the usual shape in one go, and answer it as `websockets` would; anything else gives way.

The library reads line by line in nested coroutines and keeps everything that HTTP allows. Nearly every station sends
the same ten lines in one piece: those are checked with one pattern. What is odd in any way (in pieces, repeated, not
ASCII, long, with a body, no upgrade) is left to the library, so that there is one judge of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request
from websockets.utils import accept_key

__all__ = ["UsualRequest", "build_acceptance", "read_usual"]

_MAX_BYTES: Final = min(8192, MAX_LINE_LENGTH)
"""Of the whole request: no line of it can be longer than the library allows."""
_NAME_CHARACTERS: Final = r"[-!#$%&'*+.^_`|~0-9a-zA-Z]++"
_LINE: Final = rf"{_NAME_CHARACTERS}:[\t -~]*+\r\n"
_USUAL: Final = re.compile(
    # Request line and header lines as the library allows them, without what is not ASCII (RFC 9112 3, RFC 9110 5.5).
    rf"GET (/[!-~]*+) HTTP/1\.1\r\n((?:{_LINE}){{4,{min(64, MAX_NUM_HEADERS)}}}+)\r\n".encode("ascii")
)
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
"""Sixteen octets in base64 (RFC 6455 4.1)."""
_NAMES: Final = re.compile(rf"{_NAME_CHARACTERS}(?:, ?{_NAME_CHARACTERS})*+")
_CONNECTIONS: Final = frozenset({"upgrade", "keep-alive, upgrade"})
_LEFT_TO_THE_LIBRARY: Final = frozenset({"transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class UsualRequest:
    """An upgrade request that the library would accept."""

    request: Request
    key: str
    """Sec-WebSocket-Key, as it came."""
    offered: Sequence[str]
    """Subprotocols in the order of the peer."""
    origin: str | None


def read_usual(data: bytes) -> UsualRequest | None:
    """Return the upgrade request that *data* is, whole and with nothing behind it, or ``None`` to let the library see.

    >>> read_usual(b"GET / HTTP/1.1\\r\\n\\r\\n") is None
    True
    """
    match = _USUAL.fullmatch(data) if len(data) <= _MAX_BYTES else None
    if match is None:
        return None
    path, lines = match.groups()
    headers, found = Headers(), dict[str, str]()
    for line in lines.decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        known = len(found)
        found[name.lower()] = value
        if len(found) == known:
            return None
        # As the library's parser does: the pattern has judged name and value.
        headers.set_insecure(name, value)
    key, names = found.get("sec-websocket-key", ""), found.get("sec-websocket-protocol")
    is_usual = (
        found.get("upgrade", "").lower() == "websocket"
        and found.get("connection", "").lower() in _CONNECTIONS
        and found.get("sec-websocket-version") == "13"
        and _KEY.fullmatch(key) is not None
        and (names is None or _NAMES.fullmatch(names) is not None)
        and _LEFT_TO_THE_LIBRARY.isdisjoint(found)
    )
    if not is_usual:
        return None
    offered = () if names is None else names.replace(" ", "").split(",")
    return UsualRequest(Request(path.decode("ascii"), headers), key, offered, found.get("origin"))


def build_acceptance(usual: UsualRequest, subprotocol: str | None) -> bytes:
    """Return the answer 101 to *usual*, without extensions and without a Date, which 1xx may lack (RFC 9110 6.6.1).

    Args:
        subprotocol: one of ours; ``None`` leaves the header out.
    """
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(usual.key)}\r\n{chosen}\r\n"
    ).encode("ascii")
