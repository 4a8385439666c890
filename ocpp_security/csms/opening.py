"""A server connection whose opening handshake costs little more than the checks in it.

The protocol is that of `websockets`: its `ServerProtocol` reads every frame, and it parses, judges and answers every
upgrade request that is not of the usual shape, or that is refused. What is left out for a usual request that is let in
is what the library does before the first frame: a parser in nested coroutines, a task, two waits, a timeout and a
context manager for every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from chargepki.ocpp_security.csms.bounded import BoundedConnection
from chargepki.ocpp_security.csms.upgrade_request import UsualRequest, build_acceptance, read_usual
from chargepki.ocpp_security.redact import without_message

__all__ = ["Judge", "Opening", "OpeningConnection", "OpeningProtocol", "OpeningTerms"]

_log = logging.getLogger("chargepki.csms")

Judge = Callable[[Request], Awaitable[Response | None]]
"""Returns the answer to a request that is refused, and nothing to one that is let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningTerms:
    """What all connections of one listener have in common; seconds, octets, messages."""

    subprotocols: tuple[str, ...]
    """Ours, the preferred one first."""
    max_size: int
    max_queue: int
    ping_interval: float | None
    ping_timeout: float
    close_timeout: float
    logger: logging.Logger
    is_serving: Callable[[], bool]
    """Whether new connections are let in; 503 when not."""

    def protocol(self, state: State) -> OpeningProtocol:
        """Return a protocol of the library, before its upgrade request or after it."""
        return OpeningProtocol(
            # No extension is offered: compression of secrets next to chosen text, and memory, for nothing.
            subprotocols=cast("tuple[Subprotocol, ...]", self.subprotocols),
            select_subprotocol=_select_subprotocol,
            state=state,
            max_size=self.max_size,
            # websockets logs frames at debug level; secrets travel in frames.
            logger=self.logger,
        )

    def make(self, state: State) -> OpeningConnection:
        """Return a connection of the library, before its upgrade request or after it."""
        return OpeningConnection(
            self.protocol(state),
            # It is asked for is_serving only; websockets' own Server would bring its silent TLS accept loop with it.
            cast("Server", self),
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            close_timeout=self.close_timeout,
            max_queue=self.max_queue,
        )


def _select_subprotocol(protocol: ServerProtocol, offered: Sequence[str]) -> Subprotocol | None:
    """Choose ours first; none in common opens without the header and is closed then, as OCPP-J 3.1.2 asks."""
    return next((name for name in protocol.available_subprotocols or () if name in offered), None)


class OpeningProtocol(ServerProtocol):
    """The library's protocol; an accepted request is answered without a Date, which 1xx may lack (RFC 9110 6.6.1)."""

    def accept(self, request: Request) -> Response:
        """Return the answer to an upgrade request, as the library does."""
        try:
            key, extensions, subprotocol = self.process_request(request)
        except Exception:  # noqa: BLE001 - whatever it is, the library words the refusal, and logs its own mistakes
            return super().accept(request)
        self.accept_called = True
        headers = Headers()
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Accept"] = key
        if extensions is not None:
            headers["Sec-WebSocket-Extensions"] = extensions
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        return Response(http.HTTPStatus.SWITCHING_PROTOCOLS, "Switching Protocols", headers)


class OpeningConnection(BoundedConnection):
    """Opened by whoever accepted it: no task is started for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read; the parent of the library's class does this, and the class itself starts a task besides."""
        Connection.connection_made(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for the request that none will come."""
        super().connection_lost(exc)
        if not self.request_rcvd.done():
            self.request_rcvd.set_result(None)

    async def open(self, judge: Judge) -> bool:
        """Wait for the request and answer it; true when the connection is open afterwards."""
        await self.request_rcvd
        if self.request is None:
            return False
        try:
            response = await judge(self.request)
        except Exception as exc:  # noqa: BLE001 - a bug of ours must cost this attempt and not the endpoint
            response = self.failed(exc)
        return await self.answer(response)

    def failed(self, exc: Exception) -> Response:
        """Return the answer to a request that could not be judged."""
        _log.error("an upgrade request could not be judged", exc_info=without_message(exc))
        return self.protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, "try again later\n")

    async def answer(self, refusal: Response | None) -> bool:
        """Answer the request, with 101 or the library's own refusal when there is no *refusal*."""
        request = self.request
        if request is None:
            return False
        response = self.protocol.accept(request) if refusal is None else refusal
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS and not self.server.is_serving():
            response = self.protocol.reject(http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n")
        self.response = response
        if self.protocol.state is not State.CONNECTING:
            return False
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            # The library closes in its own order, and waits for the peer to do so.
            with contextlib.suppress(ConnectionClosed):
                async with self.send_context(expected_state=State.CONNECTING):
                    self.protocol.send_response(response)
            return False
        self.protocol.send_response(response)
        self.send_data()
        # Nothing was awaited since, so that it cannot have been lost meanwhile.
        return True


class Opening(asyncio.Protocol):
    """A connection until its upgrade request is answered; then, or as soon as anything is unusual, it is the library's.

    The octets that came are kept until then, so that the library can be given all of them whenever it takes over.
    """

    transport: asyncio.Transport

    def __init__(self, terms: OpeningTerms) -> None:
        self._terms = terms
        self._received = b""
        self._usual: UsualRequest | None = None
        self._library: OpeningConnection | None = None
        self._is_lost = False
        self._came: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the request."""
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for the request that none will come."""
        self._is_lost = True
        self._wake()

    def eof_received(self) -> None:
        """Let the library see the end: what it does about it depends on what came before."""
        self._give_way().eof_received()

    def data_received(self, data: bytes) -> None:
        """Take the request; what is no usual one, or comes behind one, is the library's."""
        terms = self._terms
        # Who listens to the library's log wants to hear of its handshakes, too.
        if self._usual is None and not terms.logger.isEnabledFor(logging.INFO):
            self._usual = read_usual(data)
            if self._usual is not None:
                self._received = data
                self._wake()
                return
        self._give_way().data_received(data)

    def respond(self, status: http.HTTPStatus | int, text: str) -> Response:
        """Return a refusal in plain text, as the library makes it."""
        return self._give_way().respond(status, text)

    async def open(self, judge: Judge) -> OpeningConnection | None:
        """Wait for the request and answer it; return the connection when it is open afterwards."""
        if self._usual is None and self._library is None and not self._is_lost:
            self._came = asyncio.get_running_loop().create_future()
            await self._came
        usual, library = self._usual, self._library
        if usual is None:
            return library if library is not None and await library.open(judge) else None
        try:
            response = await judge(usual.request)
        except Exception as exc:  # noqa: BLE001 - a bug of ours must cost this attempt and not the endpoint
            response = self._give_way().failed(exc)
        if self._is_lost:
            return None
        if response is None and self._library is None and self._terms.is_serving():
            return self._accept(usual)
        library = self._give_way()
        return library if await library.answer(response) else None

    def _accept(self, usual: UsualRequest) -> OpeningConnection:
        connection = self._terms.make(State.OPEN)
        protocol = connection.protocol
        subprotocol = _select_subprotocol(protocol, usual.offered)
        protocol.accept_called = True
        protocol.origin = cast("Origin | None", usual.origin)
        protocol.subprotocol = subprotocol
        # Without one the library would take the first frame for the request.
        connection.request = usual.request
        self._hand_over(connection)
        self.transport.write(build_acceptance(usual, subprotocol))
        return connection

    def _give_way(self) -> OpeningConnection:
        """Return the library's connection, which has read all that came."""
        if self._library is None:
            self._library = library = self._terms.make(State.CONNECTING)
            if self._is_lost:
                # It is asked for an answer that nobody will get.
                return library
            self._hand_over(library)
            if self._received:
                library.data_received(self._received)
            self._wake()
        return self._library

    def _hand_over(self, connection: OpeningConnection) -> None:
        self.transport.set_protocol(connection)
        connection.connection_made(self.transport)

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
