"""One HTTP/1.1 connection: strict parsing by llhttp, bounded buffers, one request at a time, a deadline always."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from chargepki.pki.services.http import Body, Limits, Request, Response, plain

if TYPE_CHECKING:
    from chargepki.pki.services.server import HttpServer

__all__ = ["HttpConnection"]

_log = logging.getLogger(__name__)
_SLICE = 64 * 1024
"""Octets of a long body that are handed to the transport at once, so that a peer that does not read costs no more."""
_FREE = 8 * 1024
"""Octets of requests that every peer may have here; what one has beyond them counts against what all have together."""


class HttpConnection(asyncio.Protocol):
    """What the server knows of one peer. `deadline` is when the server loses patience, whatever it waits for."""

    def __init__(self, server: HttpServer, limits: Limits, *, endpoint_is_tls: bool = False) -> None:
        self._server = server
        self._limits = limits
        self.is_tls = endpoint_is_tls
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.deadline = server.now() + limits.request_seconds
        self.is_idle = True
        self._client_certificate: bytes | None = None
        self._tls_unique: bytes | None = None
        self._parser: Any = None
        self._queue: deque[tuple[Request, bool, int]] = deque()
        self._current: Request | None = None
        self._current_size = 0
        self._keep_alive = True
        self._closing = False
        self._reading_paused = False
        self._write_paused = False
        self._rest: memoryview | None = None
        self._pump: asyncio.Task[None] | None = None
        self._held = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._begin()

    # -- transport ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the peer and its certificate."""
        self._parser = httptools.HttpRequestParser(self)
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports derive from no class of asyncio
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "local"
        session = transport.get_extra_info("ssl_object")
        if isinstance(session, ssl.SSLObject):
            self._client_certificate = session.getpeercert(binary_form=True)
            # Under TLS 1.3, for which no standard defines it, it is what clients that use OpenSSL too take for it.
            self._tls_unique = session.get_channel_binding("tls-unique")
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what is left."""
        self._closing = True
        self._queue.clear()
        self._rest = None
        self._hold(-self._held)
        if self._pump is not None:
            self._pump.cancel()
        # These two refer back to this object. In such a circle the dead connection, buffers and TLS session of OpenSSL
        # included, would lie about until Python's collector of circles comes by, which is ever later.
        self._parser = self.transport = None
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse; whatever llhttp refuses is answered with 400 and the end of the connection."""
        if self._closing:
            return
        if self.is_idle:
            self.is_idle = False
            if not self._write_paused:
                self.deadline = self._server.now() + self._limits.request_seconds
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "no protocol upgrade is offered here")
        except httptools.HttpParserCallbackError:
            # `_refuse` has answered already: llhttp only learns to stop.
            if not self._closing:
                raise
        except httptools.HttpParserError:
            self._refuse(400, "not an HTTP/1.1 request")
        else:
            if not self._in_body and self._received > self._limits.header_bytes:
                self._refuse(431, "the header is too long")

    def eof_received(self) -> bool:
        """Answer what has been asked completely, then close."""
        self._keep_alive = False
        return self._current is not None or bool(self._queue) or self._is_sending

    def pause_writing(self) -> None:
        """Send no more and take up no other request: the peer does not read."""
        self._write_paused = True
        self._writable.clear()
        self.deadline = self._server.now() + self._limits.write_seconds

    def resume_writing(self) -> None:
        """Go on sending."""
        self._write_paused = False
        self._writable.set()
        if self._rest is not None:
            self._send_rest()
        elif self._current is None and self._pump is None and not self._closing:
            self._sent()

    # -- llhttp's callbacks ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_size = 0
        self._body: bytes | bytearray = b""
        self._in_body = False
        self._received = 0

    def on_message_begin(self) -> None:
        """Start another request."""
        received = self._received
        self._begin()
        self._received = received

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            self._stop(414, "the target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header. A trailer is counted alone: nobody may add to a header after the body (RFC 9110 6.5.1)."""
        if not self._in_body:
            self._headers.append((name, value))
        self._header_size += len(name) + len(value)
        if len(self._headers) > 100 or self._header_size > self._limits.header_bytes:
            self._stop(431, "the header is too long")

    def on_headers_complete(self) -> None:
        """Let a client go on that waits for leave to send its body (RFC 9110 10.1.1)."""
        self._in_body = True
        if len(self._headers) < 3:
            return
        for name, value in self._headers:
            if len(name) == 6 and name.lower() == b"expect":
                if value.lower() != b"100-continue":
                    self._stop(417, "unknown expectation")
                elif self.transport is not None and self._current is None:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to the limit."""
        if not self._body:
            self._body = body
        else:
            # One buffer, not a list: an object for each chunk of two octets takes thirty times their place.
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += body
        if len(self._body) > self._limits.body_bytes:
            self._stop(413, f"the body is longer than {self._limits.body_bytes} octets")
        if not self._hold(len(body)):
            self._stop(503, "too many long requests at once")

    def on_message_complete(self) -> None:
        """Queue the request behind the one that is being answered."""
        body = bytes(self._body)
        method = self._parser.get_method().decode("ascii", "replace")
        request = Request(
            method,
            self._target,
            self._headers,
            body,
            "",
            self.peer,
            self._client_certificate,
            self.is_tls,
            self._tls_unique,
        )
        self._received = 0
        self._in_body = False
        size = len(body) + len(self._target) + self._header_size
        if not self._hold(size - len(body)):
            self._stop(503, "too many long requests at once")
        self._queue.append((request, self._parser.should_keep_alive(), size))
        if len(self._queue) > self._limits.pipelined and not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()
        if len(self._queue) > 64 * self._limits.pipelined:
            self._stop(429, "too many requests at once")
        if self._current is None:
            self._next()

    def _stop(self, status: int, text: str) -> None:
        self._refuse(status, text)
        raise ValueError(text)  # ends llhttp's run over this buffer

    def _hold(self, size: int) -> bool:
        """Count octets of requests that are kept; false when all peers together have too many."""
        before = max(0, self._held - _FREE)
        self._held += size
        more = max(0, self._held - _FREE) - before
        self._server.held += more
        return more <= 0 or self._server.held <= self._limits.held_bytes

    # -- requests and responses -----------------------------------------------------------------------------------

    def _next(self) -> None:
        # A peer that asks on and does not read its answers would have them all pile up here.
        if self._current is not None or self._is_sending or self._write_paused or self._closing:
            return
        if not self._queue:
            if self._server.is_stopping:
                self._close()
            return
        self._current, keep_alive, self._current_size = self._queue.popleft()
        self._keep_alive = self._keep_alive and keep_alive
        if self._reading_paused and len(self._queue) <= self._limits.pipelined // 2 and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()
        self.deadline = self._server.now() + self._limits.handler_seconds
        self._server.submit(self, self._current)

    def respond(self, request: Request, response: Response) -> None:
        """Send the response to the request that is being answered; too late is no error."""
        if request is not self._current or self._closing or self.transport is None:
            if response.stream is not None:
                response.stream.close()
            return
        self._current = None
        self._hold(-self._current_size)
        keep = self._keep_alive and not self._server.is_stopping
        tail = b"\r\n" if keep else b"Connection: close\r\n\r\n"
        head = b"".join((response.head, self._server.date_line, b"X-Request-Id: ", request.id.encode(), b"\r\n", tail))
        body = b"" if request.method == "HEAD" else response.body
        self._keep_alive = keep
        if response.stream is not None:
            self.transport.write(head)
            self.deadline = self._server.now() + self._limits.write_seconds
            stream = response.stream
            self._pump = asyncio.get_running_loop().create_task(self._send_stream(request, stream))
            # Not in the task: one that is cancelled before its first step runs nothing of its own.
            self._pump.add_done_callback(lambda _: stream.close())
            return
        if len(body) <= _SLICE:
            self.transport.write(head + body)
            self._sent()
            return
        self.transport.write(head)
        self._rest = memoryview(body)
        self.deadline = self._server.now() + self._limits.write_seconds
        self._send_rest()

    def _send_rest(self) -> None:
        assert self.transport is not None
        while self._rest is not None and not self._write_paused and not self._closing:
            self.transport.write(self._rest[:_SLICE])
            self._rest = self._rest[_SLICE:] if len(self._rest) > _SLICE else None
        if self._rest is None and not self._closing:
            self._sent()

    async def _send_stream(self, request: Request, stream: Body) -> None:
        assert self.transport is not None
        try:
            while request.method != "HEAD" and (piece := await stream.read()):
                self.transport.write(piece)
                self.deadline = self._server.now() + self._limits.write_seconds
                await self._writable.wait()
        except OSError as error:
            _log.error("a body cannot be sent to its end: %s", error, extra={"request_id": request.id})
            self.transport.abort()
            return
        self._pump = None
        if not self._closing:
            self._sent()

    @property
    def _is_sending(self) -> bool:
        return self._rest is not None or self._pump is not None

    def _sent(self) -> None:
        if not self._keep_alive:
            self._close()
            return
        if self._queue:
            self._next()
            return
        self.is_idle = True
        if not self._write_paused:
            self.deadline = self._server.now() + self._limits.idle_seconds

    def _refuse(self, status: int, text: str) -> None:
        """Answer what is no request, and hang up."""
        if self._closing or self.transport is None:
            return
        if self._current is None and not self._is_sending:
            response = plain(status, text)
            self.transport.write(response.head + self._server.date_line + b"Connection: close\r\n\r\n" + response.body)
        self._server.refused(self, status, text)
        self._close()

    def expire(self) -> None:
        """Hang up because the deadline has passed."""
        if self._current is not None:
            self._server.refused(self, 503, "the answer took too long")
        elif not self.is_idle and not self._is_sending and not self._write_paused:
            self._refuse(408, "the request took too long")
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def stop(self) -> None:
        """Hang up unless a request is under way; then after its answer."""
        if self.is_idle or (self._current is None and not self._queue and not self._is_sending):
            self._close()

    def _close(self) -> None:
        self._closing = True
        if self.transport is not None:
            self.transport.close()
            # What is still to be sent must go within this time, or is dropped.
            self.deadline = self._server.now() + self._limits.write_seconds
