"""Sockets: accept with a bound, TLS handshakes apart, deadlines, stop with grace."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

from chargepki.pki.services.connection import HttpConnection
from chargepki.pki.services.http import Limits, Request, Response, http_date
from chargepki.pki.services.tally import Tally

__all__ = ["App", "HttpServer", "bind"]

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 0.5
_REQUEST_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


Contexts: TypeAlias = Callable[[], ssl.SSLContext]


class App(Protocol):
    """What answers requests."""

    def submit(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answer *request*, now or later, exactly once; never raises."""


def bind(host: str, port: int, *, backlog: int = 1024) -> socket.socket:
    """Return a listening socket; several processes of one user may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: the address cannot be used.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class HttpServer:
    """Serves one app on any number of listening sockets within one event loop."""

    def __init__(self, app: App, *, limits: Limits | None = None, tally: Tally | None = None, access_log: bool = False):
        self._app = app
        self.limits = limits or Limits()
        self.tally = tally or Tally()
        self._access_log = access_log
        self._connections: dict[HttpConnection, None] = {}
        self._handshaking = 0
        self.held = 0
        """Octets of requests that peers have here beyond their share."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_stopping = False
        self.date_line = b""
        self._prefix = secrets.token_hex(4)
        self._count = 0
        self._tick()

    def start(self, listener: socket.socket, context: Contexts | None = None) -> None:
        """Accept on *listener*; call from the running loop.

        Args:
            context: gives the TLS context of the next connection; ``None`` is no TLS.
        """
        self._loop = asyncio.get_running_loop()
        if not self._listeners:
            self._spawn(self._sweep())
        self._listeners.append(listener)
        self._spawn(self._accept(listener, context))

    async def stop(self) -> None:
        """Accept no more, let requests under way finish within their time, then hang up."""
        self.is_stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.stop()
        deadline = self.now() + self.limits.stop_seconds
        while self._connections and self.now() < deadline:  # noqa: ASYNC110  # they end one by one, in bounded time
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            if connection.transport is not None:
                connection.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open, handshakes included."""
        return len(self._connections) + self._handshaking

    # -- what connections tell ------------------------------------------------------------------------------------

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def opened(self, connection: HttpConnection) -> None:
        """Remember a connection."""
        self._connections[connection] = None

    def closed(self, connection: HttpConnection) -> None:
        """Forget it."""
        self._connections.pop(connection, None)

    def refused(self, connection: HttpConnection, status: int, text: str) -> None:
        """Note what was no request."""
        self.tally.count_request("refused", status)
        _log.info("refused %s: %s", connection.peer, text, extra={"status": status, "peer": connection.peer})

    def submit(self, connection: HttpConnection, request: Request) -> None:
        """Hand a request to the app; its answer goes back over the connection."""
        request.id = self._request_id(request)
        started = time.perf_counter()

        def answer(response: Response) -> None:
            self.tally.count_request(response.endpoint, response.status, time.perf_counter() - started)
            if self._access_log or response.status >= 500:
                self._log_access(request, response, time.perf_counter() - started)
            connection.respond(request, response)

        self._app.submit(request, answer)

    def _request_id(self, request: Request) -> str:
        for name, value in request.headers:
            if len(name) == 12 and name.lower() == b"x-request-id" and 0 < len(value) <= 64:
                if _REQUEST_ID.issuperset(value):
                    return value.decode("ascii")
                break
        self._count += 1
        return f"{self._prefix}{self._count:x}"

    def _log_access(self, request: Request, response: Response, seconds: float) -> None:
        extra = {
            "request_id": request.id,
            "peer": request.peer,
            "method": request.method,
            "endpoint": response.endpoint,
            "status": response.status,
            "outcome": response.outcome,
            "bytes": len(response.body) if response.stream is None else response.stream.length,
            "milliseconds": round(seconds * 1000, 3),
        }
        level = logging.WARNING if response.status >= 500 else logging.INFO
        _log.log(level, "%s %s %s", request.method, response.endpoint, response.status, extra=extra)

    # -- sockets --------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket, context: Contexts | None) -> None:
        assert self._loop is not None
        while True:
            try:
                sock, address = await self._loop.sock_accept(listener)
            except (OSError, ValueError) as error:  # ValueError: a listener that `stop` has closed has no descriptor
                if self.is_stopping:
                    return
                # Out of descriptors, most likely: idle peers make room, and the queue of the kernel waits.
                _log.warning("cannot accept: %s", error)
                self._make_room()
                await asyncio.sleep(0.1)
                continue
            if self.connections >= self.limits.connections and not self._make_room():
                self.tally.count_request("refused", 503)
                sock.close()
                continue
            self._handshaking += 1
            self._spawn(self._welcome(sock, address, context))

    async def _welcome(self, sock: socket.socket, address: object, context: Contexts | None) -> None:
        assert self._loop is not None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                lambda: HttpConnection(self, self.limits, endpoint_is_tls=context is not None),
                sock,
                ssl=context() if context is not None else None,
                ssl_handshake_timeout=self.limits.handshake_seconds if context is not None else None,
            )
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            self.tally.count_request("handshake", 0)
            _log.debug("no TLS with %s: %s", address, error)
            sock.close()
        finally:
            self._handshaking -= 1

    def _make_room(self) -> bool:
        """Hang up on the peer that has been idle longest; false when nobody is."""
        idle = [connection for connection in self._connections if connection.is_idle]
        if not idle:
            return False
        min(idle, key=lambda connection: connection.deadline).expire()
        return True

    async def _sweep(self) -> None:
        while True:
            self._tick()
            now = self.now()
            for connection in [each for each in self._connections if each.deadline < now]:
                connection.expire()
            await asyncio.sleep(_SWEEP_SECONDS)

    def _tick(self) -> None:
        self.date_line = f"Date: {http_date(datetime.now(UTC))}\r\n".encode()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the server failed", exc_info=task.exception())
