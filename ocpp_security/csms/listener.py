"""Accept sockets ourselves, so that a failed TLS handshake is seen and explained; then hand over to websockets."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from websockets.asyncio.server import Server
from websockets.server import ServerProtocol

from chargepki.ocpp_security.csms.opening import OpeningConnection, OpeningProtocol
from chargepki.ocpp_security.csms.tls_failures import TlsFailure, explain_tls_failure
from chargepki.ocpp_security.tls import with_few_sessions
from chargepki.pki.errors import ChargePkiError

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

    from chargepki.ocpp_security.csms.config import CsmsLimits

__all__ = ["Listener", "Peer", "quiet_logger"]

_log = logging.getLogger("chargepki.csms")
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Peer:
    """Network address of the other side; IPv6 in brackets when shown."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener:
    """One listening address. Every accepted socket ends in `serve`, in `tls_failed`, or is dropped by a limit.

    `websockets.serve` says nothing at all when a TLS handshake fails, on asyncio and on uvloop alike; operators then
    look for weeks for the station "that does not connect". `loop.connect_accepted_socket` raises the reason on both.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        subprotocols: tuple[str, ...],
        limits: CsmsLimits,
        serve: Callable[[OpeningConnection, Peer, Callable[[], None]], Awaitable[None]],
        tls_failed: Callable[[Peer, TlsFailure], None],
        too_busy: Callable[[Peer, str], None],
        is_proxy: Callable[[str], bool] | None = None,
    ) -> None:
        self._host, self._wanted_port = host, port
        self.tls = tls
        self._not_made_again: ssl.SSLContext | None = None
        self._subprotocols = [cast("Subprotocol", name) for name in subprotocols]
        self._limits = limits
        self._ping_interval = limits.ping_interval.total_seconds() or None
        self._ping_timeout = limits.ping_timeout.total_seconds()
        self._close_timeout = limits.close.total_seconds()
        self._logger = quiet_logger()
        self._serve = serve
        self._tls_failed = tls_failed
        self._too_busy = too_busy
        self._is_proxy = is_proxy
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._opening_by_host: Counter[str] = Counter()
        self._room = asyncio.Semaphore(limits.max_open_handshakes)
        self._handling: set[asyncio.Task[None]] = set()
        self._upgrading: set[OpeningConnection] = set()
        self._serving = False

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Context of new connections; may be replaced at any time."""
        return self._tls

    @tls.setter
    def tls(self, context: ssl.SSLContext | None) -> None:
        if context is not None and context.sslobject_class is ssl.SSLObject:
            context.sslobject_class = _UnreadPeer
        self._tls = context

    def _take_context(self) -> ssl.SSLContext | None:
        """Return the context of one more connection; what it remembers of old ones is bounded."""
        if self._tls is None or self._tls is self._not_made_again:
            return self._tls
        try:
            context = with_few_sessions(self._tls)
        except (ChargePkiError, OSError) as error:
            # The bound is OpenSSL's own then, until the material is loaded anew.
            _log.error("the TLS context cannot be made again: %s", error)
            self._not_made_again = self._tls
            return self._tls
        if context is not self._tls:
            self.tls = context
        return context

    @property
    def port(self) -> int:
        """The bound TCP port (useful after asking for port 0)."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Bind and begin to accept.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        port = self._wanted_port
        infos = await loop.getaddrinfo(
            self._host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        try:
            for family, _type, _proto, _name, address in dict.fromkeys(infos):
                # With port 0 the first family chooses, and the others follow it.
                bound = socket.create_server((str(address[0]), port), family=family, backlog=1024)
                bound.setblocking(False)
                self._sockets.append(bound)
                port = port or bound.getsockname()[1]
        except OSError:
            self._close_sockets()
            raise
        self._serving = True
        self._accepting = [loop.create_task(self._accept_loop(sock)) for sock in self._sockets]

    async def stop_accepting(self) -> None:
        """Close the listening sockets and drop handshakes that are still open; open connections live on."""
        self._serving = False
        for task in (*self._accepting, *self._opening):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._opening, return_exceptions=True)
        for connection in self._upgrading:
            connection.transport.abort()
        self._close_sockets()

    async def wait_handlers(self) -> None:
        """Return when every connection handler has ended."""
        while self._handling:
            await asyncio.wait(set(self._handling))

    def is_serving(self) -> bool:
        """Whether new connections are let in; websockets answers 503 when not."""
        return self._serving

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def _accept_loop(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as exc:
                self._room.release()
                # A peer that gave up before accept() is no news; a full descriptor table is.
                if exc.errno in _OUT_OF_RESOURCES:
                    _log.error("cannot accept connections: %s; raise the limit of open files", exc.strerror)
                    await asyncio.sleep(0.2)
                continue
            except asyncio.CancelledError:
                self._room.release()
                raise
            peer = Peer(str(address[0]), int(address[1]))
            # Through a proxy come all stations, from one address.
            is_limited = self._is_proxy is None or not self._is_proxy(peer.host)
            if is_limited and self._opening_by_host[peer.host] >= self._limits.max_open_handshakes_per_address:
                self._room.release()
                sock.close()
                self._too_busy(peer, "too many unfinished handshakes from this address")
                continue
            slot = _Slot(self._room, self._opening_by_host, peer)
            task = loop.create_task(self._open(sock, slot))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, slot: _Slot) -> None:
        """Do the TLS handshake, and serve the connection that it makes: one task for all of it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        connection = self._make_connection()
        tls = self._take_context()
        try:
            if tls is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=tls,
                    ssl_handshake_timeout=self._limits.tls_handshake.total_seconds(),
                )
        except OSError as exc:  # ssl.SSLError and TimeoutError are OSErrors
            slot.release()
            sock.close()
            if tls is not None:
                self._tls_failed(slot.peer, explain_tls_failure(exc))
            return
        except asyncio.CancelledError:
            slot.release()
            sock.close()
            raise
        # What stops the listener drops handshakes, and lets those be who are through.
        self._opening.discard(task)
        self._handling.add(task)
        await self._handle(connection, slot, task)

    async def _handle(self, connection: OpeningConnection, slot: _Slot, task: asyncio.Task[None]) -> None:
        self._upgrading.add(connection)

        def answered() -> None:
            slot.release()
            self._upgrading.discard(connection)

        try:
            await self._serve(connection, slot.peer, answered)
        finally:
            answered()
            connection.transport.close()
            self._handling.discard(task)

    def _make_connection(self) -> OpeningConnection:
        limits = self._limits
        protocol = OpeningProtocol(
            # No extension is offered: compression of secrets next to chosen text, and memory, for nothing.
            subprotocols=self._subprotocols,
            select_subprotocol=_select_subprotocol,
            max_size=limits.max_message_bytes,
            # websockets logs frames at debug level; secrets travel in frames.
            logger=self._logger,
        )
        return OpeningConnection(
            protocol,
            # It is asked for is_serving only; websockets' own Server would bring its silent TLS accept loop with it.
            cast("Server", self),
            ping_interval=self._ping_interval,
            ping_timeout=self._ping_timeout,
            close_timeout=self._close_timeout,
            max_queue=limits.max_queued_messages,
        )


class _UnreadPeer(ssl.SSLObject):
    """Spares each connection what event loops do after a handshake: the peer's certificate as a dictionary.

    Nobody here asks for that extra info (``peercert``): the certificate is judged by its octets.
    """

    def getpeercert(self, binary_form: bool = False) -> Any:  # the overloads of typeshed name a private type
        """Return the certificate's DER when asked for that, else nothing of it."""
        return super().getpeercert(binary_form=True) if binary_form else {}


class _Slot:
    """The right to have one unfinished handshake; given back once, whoever ends it."""

    __slots__ = ("_by_host", "_room", "peer", "released")

    def __init__(self, room: asyncio.Semaphore, by_host: Counter[str], peer: Peer) -> None:
        self._room, self._by_host, self.peer, self.released = room, by_host, peer, False
        by_host[peer.host] += 1

    def release(self) -> None:
        if self.released:
            return
        self.released = True
        self._room.release()
        self._by_host[self.peer.host] -= 1
        if not self._by_host[self.peer.host]:
            del self._by_host[self.peer.host]


def _select_subprotocol(protocol: ServerProtocol, offered: object) -> Subprotocol | None:
    """Choose ours first; none in common opens without the header and is closed afterwards, as OCPP-J 3.1.2 asks."""
    wanted = set(offered) if isinstance(offered, (list, tuple)) else set()
    return next((name for name in protocol.available_subprotocols or () if name in wanted), None)


def quiet_logger() -> logging.Logger:
    """Return the logger for `websockets`; silent unless somebody gives it a level."""
    logger = logging.getLogger("chargepki.csms.websocket")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)
    return logger
