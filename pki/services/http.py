"""Requests and responses as values, and the octets of a response's head (RFC 9110, RFC 9112)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

__all__ = [
    "Body",
    "Handler",
    "Limits",
    "Request",
    "Response",
    "http_date",
    "if_none_match",
    "plain",
    "refuse_method",
    "with_max_age",
]

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost; every number bounds memory or time."""

    connections: int = 2000
    """Per process; when all are in use, the one that has been idle longest makes room."""
    target_bytes: int = 8 * 1024
    header_bytes: int = 16 * 1024
    body_bytes: int = 256 * 1024
    held_bytes: int = 64 << 20
    """Of the requests of all peers of a process together, beyond a small share that each has for itself."""
    pipelined: int = 16
    request_seconds: float = 10.0
    """From the first octet of a request to its last: a slow sender gains nothing by sending one more."""
    idle_seconds: float = 30.0
    handler_seconds: float = 30.0
    write_seconds: float = 30.0
    """Without any progress of a peer that does not read."""
    handshake_seconds: float = 10.0
    stop_seconds: float = 10.0
    """Requests that are under way when the server stops may take so long."""


@dataclass(slots=True)
class Request:
    """One request, whole."""

    method: str
    target: bytes
    """As it came: path and query, percent-encoded."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Names as they came."""
    body: bytes = b""
    id: str = ""
    """Of the client's ``X-Request-Id`` if it is sound, else ours; also in the response and in the log."""
    peer: str = ""
    client_certificate: bytes | None = None
    """DER of the verified TLS client certificate, where one was presented."""
    is_tls: bool = False
    tls_unique: bytes | None = None
    """What both ends of the TLS session know and nobody else (RFC 5929 3); ``None`` without TLS."""

    @property
    def path(self) -> bytes:
        """The path, decoded once, without the query."""
        return unquote_to_bytes(self.target.partition(b"?")[0])

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of the header *name* (lower case)."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class Body(Protocol):
    """A body that is too long for memory, read piece by piece while it is sent."""

    @property
    def length(self) -> int:
        """Octets in all."""

    async def read(self) -> bytes:
        """Return the next piece when it may be sent, at most 64 KiB; nothing at the end.

        Raises:
            OSError: it cannot be read on; the connection is then cut, so that the peer knows it has not got all.
        """

    def close(self) -> None:
        """Let go of it, sent or not."""


@dataclass(slots=True)
class Response:
    """One response; `head` is rendered once and may be sent many times."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    endpoint: str = "other"
    """For metrics and logs: a fixed word, never anything that a peer chose."""
    outcome: str = ""
    """What was answered, for metrics: another fixed word."""
    stream: Body | None = None
    """In place of `body`; closed by the connection in any case."""
    _head: bytes = b""

    @property
    def head(self) -> bytes:
        """Status line and headers, without those of the single exchange and without the empty line."""
        if not self._head:
            lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}"]
            lines += [f"{name}: {value}" for name, value in self.headers]
            if self.status != HTTPStatus.NOT_MODIFIED:
                lines.append(f"Content-Length: {len(self.body) if self.stream is None else self.stream.length}")
            self._head = ("\r\n".join(lines) + "\r\n").encode("latin-1")
        return self._head


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def plain(status: int, text: str, *, endpoint: str = "other", headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return a short text."""
    fixed = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Response(status, text.encode() + b"\n", (*fixed, *headers), endpoint)


def refuse_method(allowed: str, endpoint: str) -> Response:
    """Return 405 with the methods that there are (RFC 9110 15.5.6)."""
    return plain(405, f"use {allowed}", endpoint=endpoint, headers=(("Allow", allowed),))


def if_none_match(request: Request, response: Response) -> Response:
    """Return 304 to a client that has this response, by its ETag, already (RFC 9110 13.1.2)."""
    wanted = request.header(b"if-none-match")
    if wanted is None:
        return response
    if wanted.strip() != b"*" and dict(response.headers)["ETag"].encode() not in wanted:
        return response
    headers = tuple(header for header in response.headers if header[0] != "Content-Type")
    return Response(304, b"", headers, response.endpoint, response.outcome)


def with_max_age(response: Response, seconds: int) -> Response:
    """Return *response* with max-age *seconds*, which goes before Expires in every cache (RFC 9111 5.3).

    >>> with_max_age(Response(200, headers=(("Cache-Control", "max-age=3600, public"),)), 7).headers
    (('Cache-Control', 'max-age=7, public'),)
    """
    headers = tuple(
        (name, f"max-age={seconds}, {value.partition(', ')[2]}" if name == "Cache-Control" else value)
        for name, value in response.headers
    )
    return Response(response.status, response.body, headers, response.endpoint, response.outcome)


def http_date(at: datetime) -> str:
    """Return an IMF-fixdate.

    >>> http_date(datetime(2026, 3, 1, 12, tzinfo=UTC))
    'Sun, 01 Mar 2026 12:00:00 GMT'
    """
    return format_datetime(at.astimezone(UTC), usegmt=True)
