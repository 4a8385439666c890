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
from typing import TYPE_CHECKING, Any

from chargepki.ocpp_security.csms.binding import bind
from chargepki.ocpp_security.csms.opening import Opening, OpeningTerms
from chargepki.ocpp_security.csms.tls_failures import TlsFailure, explain_tls_failure
from chargepki.ocpp_security.tls import with_few_sessions
from chargepki.pki.errors import ChargePkiError

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.config import CsmsLimits

__all__ = ["Listener", "Peer", "quiet_logger"]

_log = logging.getLogger("chargepki.csms")
_ACCEPTED_AT_ONCE = 64
"""Before the event loop does other things."""
_PAUSE_SECONDS = 0.2
_TAKEN_UNSEEN = 16
"""Connections between two looks at what their context remembers."""
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
        serve: Callable[[Opening, Peer, Callable[[], None]], Awaitable[None]],
        tls_failed: Callable[[Peer, TlsFailure], None],
        too_busy: Callable[[Peer, str], None],
        is_proxy: Callable[[str], bool] | None = None,
    ) -> None:
        self._host, self._wanted_port = host, port
        self.tls = tls
        self._not_made_again: ssl.SSLContext | None = None
        self._taken = 0
        self._limits = limits
        self._handshake_seconds = limits.tls_handshake.total_seconds()
        self._terms = OpeningTerms(
            subprotocols=subprotocols,
            max_size=limits.max_message_bytes,
            max_queue=limits.max_queued_messages,
            ping_interval=limits.ping_interval.total_seconds() or None,
            ping_timeout=limits.ping_timeout.total_seconds(),
            close_timeout=limits.close.total_seconds(),
            logger=quiet_logger(),
            is_serving=self.is_serving,
        )
        self._serve = serve
        self._tls_failed = tls_failed
        self._too_busy = too_busy
        self._is_proxy = is_proxy
        self._sockets: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._opening_count = 0
        self._opening_by_host: Counter[str] = Counter()
        self._handling: set[asyncio.Task[None]] = set()
        self._upgrading: set[Opening] = set()
        self._serving = self._is_watching = False

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
        self._taken += 1
        if self._tls is None or self._tls is self._not_made_again or self._taken % _TAKEN_UNSEEN:
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
        self._sockets = await bind(self._host, self._wanted_port, backlog=1024)
        self._serving = True
        self._watch()

    async def stop_accepting(self) -> None:
        """Close the listening sockets and drop handshakes that are still open; open connections live on."""
        self._serving = False
        self._rest()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for opening in self._upgrading:
            opening.transport.abort()
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

    def _watch(self) -> None:
        """Accept whoever comes, while there is room."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock, self._accept, sock)
        self._is_watching = True

    def _rest(self) -> None:
        """Leave who comes now in the kernel's queue."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
        self._is_watching = False

    def _watch_again(self) -> None:
        if self._serving and not self._is_watching:
            self._watch()

    def _accept(self, listening: socket.socket) -> None:
        """Take the connections that have come; a reader that stays costs less than to wait for each one anew."""
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._opening_count >= self._limits.max_open_handshakes:
                self._rest()
                return
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                # A peer that gave up before accept() is no news; a full descriptor table is.
                if exc.errno in _OUT_OF_RESOURCES:
                    _log.error("cannot accept connections: %s; raise the limit of open files", exc.strerror)
                    self._rest()
                    asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._watch_again)
                    return
                continue
            self._accepted(sock, Peer(str(address[0]), int(address[1])))

    def _accepted(self, sock: socket.socket, peer: Peer) -> None:
        # Through a proxy come all stations, from one address.
        is_limited = self._is_proxy is None or not self._is_proxy(peer.host)
        if is_limited and self._opening_by_host[peer.host] >= self._limits.max_open_handshakes_per_address:
            sock.close()
            self._too_busy(peer, "too many unfinished handshakes from this address")
            return
        self._opening_count += 1
        self._opening_by_host[peer.host] += 1
        task = asyncio.get_running_loop().create_task(self._open(sock, _Slot(self._give_back, peer)))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _give_back(self, peer: Peer) -> None:
        self._opening_count -= 1
        self._opening_by_host[peer.host] -= 1
        if not self._opening_by_host[peer.host]:
            del self._opening_by_host[peer.host]
        self._watch_again()

    async def _open(self, sock: socket.socket, slot: _Slot) -> None:
        """Do the TLS handshake, and serve the connection that it makes: one task for all of it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        opening = Opening(self._terms)
        tls = self._take_context()
        try:
            if tls is None:
                await loop.connect_accepted_socket(lambda: opening, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: opening, sock, ssl=tls, ssl_handshake_timeout=self._handshake_seconds
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
        await self._handle(opening, slot, task)

    async def _handle(self, opening: Opening, slot: _Slot, task: asyncio.Task[None]) -> None:
        self._upgrading.add(opening)

        def answered() -> None:
            slot.release()
            self._upgrading.discard(opening)

        try:
            await self._serve(opening, slot.peer, answered)
        finally:
            answered()
            opening.transport.close()
            self._handling.discard(task)


class _UnreadPeer(ssl.SSLObject):
    """Spares each connection what event loops do after a handshake: the peer's certificate as a dictionary.

    Nobody here asks for that extra info (``peercert``): the certificate is judged by its octets.
    """

    def getpeercert(self, binary_form: bool = False) -> Any:  # the overloads of typeshed name a private type
        """Return the certificate's DER when asked for that, else nothing of it."""
        return super().getpeercert(binary_form=True) if binary_form else {}


class _Slot:
    """The right to have one unfinished handshake; given back once, whoever ends it."""

    __slots__ = ("_give_back", "peer", "released")

    def __init__(self, give_back: Callable[[Peer], None], peer: Peer) -> None:
        self._give_back, self.peer, self.released = give_back, peer, False

    def release(self) -> None:
        if not self.released:
            self.released = True
            self._give_back(self.peer)


def quiet_logger() -> logging.Logger:
    """Return the logger for `websockets`; silent unless somebody gives it a level."""
    logger = logging.getLogger("chargepki.csms.websocket")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)
    return logger
