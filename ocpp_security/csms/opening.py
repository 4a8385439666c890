"""A server connection whose opening handshake costs little more than the protocol itself.

The protocol is that of `websockets`: its `ServerProtocol` parses the request, judges it and makes the answer. What is
left out is what the library's own `ServerConnection.handshake` adds around it for every connection: a task, two
waits, a timeout and a context manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from collections.abc import Awaitable, Callable

from websockets.asyncio.connection import Connection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from chargepki.ocpp_security.csms.bounded import BoundedConnection
from chargepki.ocpp_security.redact import without_message

__all__ = ["OpeningConnection", "OpeningProtocol"]

_log = logging.getLogger("chargepki.csms")


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

    async def open(self, judge: Callable[[Request], Awaitable[Response | None]]) -> bool:
        """Wait for the request and answer it; true when the connection is open afterwards.

        Args:
            judge: returns the answer to a request that is refused; what it raises is answered 500.
        """
        await self.request_rcvd
        request = self.request
        if request is None:
            return False
        response: Response | None
        try:
            response = await judge(request)
        except Exception as exc:  # noqa: BLE001 - a bug of ours must cost this attempt and not the endpoint
            _log.error("an upgrade request could not be judged", exc_info=without_message(exc))
            response = self.protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, "try again later\n")
        if response is None:
            response = self.protocol.accept(request)
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
