"""The OCPP endpoint: admits connections, keeps one per station, and embeds into anybody's event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import ssl
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from websockets.http11 import Request, Response

from chargepki.ocpp_security.csms.admission import Admitted
from chargepki.ocpp_security.csms.config import ClientTrust, CsmsConfig, DuplicatePolicy
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.listener import Listener, Peer
from chargepki.ocpp_security.csms.opening import Judge, Opening, OpeningConnection
from chargepki.ocpp_security.csms.patience import Patience
from chargepki.ocpp_security.csms.registry import Registry
from chargepki.ocpp_security.csms.security import CsmsSecurity
from chargepki.ocpp_security.csms.tls_failures import TlsFailure
from chargepki.ocpp_security.gate import SUBPROTOCOLS, build_refusal
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.aio import Issuer
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory

__all__ = ["CsmsServer"]

_log = logging.getLogger("chargepki.csms")
_PROTOCOL_ERROR = 1002
_UPGRADE_TIMEOUT = "no upgrade in time"


class CsmsServer:
    """An OCPP endpoint in the caller's event loop (asyncio or uvloop).

    Example:
        async with CsmsServer(CsmsConfig(tls=context), inventory, issuer) as server:
            print(server.port)

    Several servers, in one process or in many, may share one inventory. The caller keeps *inventory* and *issuer*
    open for as long as the server runs and closes them afterwards.
    """

    def __init__(self, config: CsmsConfig, inventory: Inventory, issuer: Issuer) -> None:
        self.config = config
        self.security = CsmsSecurity(config, inventory, issuer)
        self._patience = Patience(config.limits.upgrade.total_seconds())
        self._listener = Listener(
            host=config.host,
            port=config.port,
            tls=config.tls,
            subprotocols=SUBPROTOCOLS,
            limits=config.limits,
            serve=self._serve,
            tls_failed=self._tls_failed,
            too_busy=self._too_busy,
            is_proxy=config.proxy.is_at if config.proxy is not None else None,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The TCP port that is bound; valid after `start`."""
        return self._listener.port

    @property
    def registry(self) -> Registry:
        """The stations that are connected to this server."""
        return self.security.registry

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context of new connections."""
        return self._listener.tls

    def reload(
        self,
        *,
        tls: ssl.SSLContext | None,
        client_trust: ClientTrust | None = None,
        duplicate: DuplicatePolicy | None = None,
        allow_unsecured: Iterable[str] | None = None,
    ) -> None:
        """Serve new connections with other TLS material; open connections keep what they began with.

        Args:
            tls: a context for the same security profiles as the one before; ``None`` where there was none.
            client_trust: ``None`` leaves it as it is.
            duplicate: what becomes of second connections from now on; ``None`` leaves it as it is.
            allow_unsecured: in place of `CsmsConfig.allow_unsecured`, for open connections too; ``None`` leaves it as
                it is.

        Raises:
            InputError: the profiles of the endpoint and the context do not fit together.
        """
        dataclasses.replace(self.config, tls=tls)  # refuses what does not fit
        self._listener.tls = tls
        if client_trust is not None:
            self.security.trust(client_trust)
        if duplicate is not None:
            self.security.duplicate = duplicate
        if allow_unsecured is not None:
            self.security.services.unsecured.patterns = tuple(allow_unsecured)

    async def start(self) -> None:
        """Bind, and begin to serve.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        await self.security.start()
        try:
            await self._listener.start()
        except OSError as exc:
            await self.security.stop()
            raise UnavailableError(
                f"cannot listen on {self.config.host}:{self.config.port}", why=str(exc.strerror or exc)
            ) from exc
        scheme = "wss" if self.config.tls is not None else "ws"
        profiles = ", ".join(str(number) for number in sorted(self.config.security_profiles))
        _log.info("listening on %s://%s:%s/ocpp/ (profiles %s)", scheme, self.config.host, self.port, profiles)

    async def stop(self) -> None:
        """Close every connection (1001), finish what is being recorded, and release the threads. Idempotent."""
        await self._listener.stop_accepting()
        await self.security.close_all()
        await self._listener.wait_handlers()
        await self.security.stop()

    # Before the upgrade

    def _tls_failed(self, peer: Peer, failure: TlsFailure) -> None:
        cause = f"TLS handshake failed: {failure.cause}"
        self.security.metrics.tls_failed(failure.code)
        incident = Incident(failure.code, cause, failure.cure, failure.event)
        self.security.journal.note(incident, station=None, peer=str(peer))

    def _too_busy(self, peer: Peer, cause: str) -> None:
        self.security.metrics.dropped("too-many-handshakes")
        self.security.journal.note(Incident("too-many-handshakes", cause), station=None, peer=str(peer))

    async def _open(self, opening: Opening, judge: Judge, peer: Peer) -> OpeningConnection | None:
        """Answer the upgrade request in time; return the connection when it is open afterwards."""
        task = asyncio.current_task()
        assert task is not None
        self._patience.begin(task, functools.partial(task.cancel, _UPGRADE_TIMEOUT))
        try:
            return await opening.open(judge)
        except asyncio.CancelledError as exc:
            if exc.args != (_UPGRADE_TIMEOUT,) or task.uncancel():
                raise
        finally:
            self._patience.end(task)
        self.security.metrics.dropped("upgrade-timeout")
        incident = Incident("upgrade-timeout", "no complete WebSocket request came in time", "check the link")
        self.security.journal.note(incident, station=None, peer=str(peer))
        opening.transport.abort()
        return None

    async def _serve(self, opening: Opening, peer: Peer, answered: Callable[[], None]) -> None:
        admitted: list[Admitted] = []
        shown = peer

        async def judge(request: Request) -> Response | None:
            nonlocal shown
            verdict = await self.security.judge(opening, request, peer.host)
            shown = Peer(self.security.address_of(request, peer.host), peer.port)
            if isinstance(verdict, Admitted):
                admitted.append(verdict)
                return None
            self.security.note_refusal(verdict, str(shown))
            return build_refusal(opening, verdict)

        socket = await self._open(opening, judge, peer)
        answered()
        if socket is not None and admitted:
            await self._attend(socket, admitted[0], shown)

    async def _attend(self, socket: OpeningConnection, admitted: Admitted, peer: Peer) -> None:
        """Serve an open connection until it closes."""
        # The headers are judged; websockets would keep them for as long as the connection, three kilobytes each.
        for message in (socket.request, socket.response):
            if message is not None:
                message.headers.clear()
        socket.start_keepalive()
        version = next((item for item in OcppVersion if item.value == socket.subprotocol), None)
        if version is None:
            incident = Incident("no-common-version", "no OCPP version in common", "offer ocpp1.6 or later")
            self.security.journal.note(incident, station=admitted.station.id, peer=str(peer))
            await socket.close(_PROTOCOL_ERROR, f"no common subprotocol; we speak {', '.join(SUBPROTOCOLS)}")
            return
        connection = StationConnection(
            self.security.services, socket, admitted, version, str(peer), self.config.clock()
        )
        await self.security.run(connection)
