"""The OCPP endpoint: admits connections, keeps one per station, and embeds into anybody's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.protocol import State

from chargepki.ocpp_security.csms.admission import Admission, Admitted, Approach, Denied
from chargepki.ocpp_security.csms.arrival import Arrival, arrive, depart
from chargepki.ocpp_security.csms.background import Background
from chargepki.ocpp_security.csms.config import CsmsConfig, DuplicatePolicy
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.journal import Incident, SecurityJournal
from chargepki.ocpp_security.csms.listener import Listener, Peer
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.csms.registry import Registry
from chargepki.ocpp_security.csms.renewal import Renewals
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.csms.throttle import WindowCounter
from chargepki.ocpp_security.csms.tls_failures import TlsFailure
from chargepki.ocpp_security.csms.worker import Worker
from chargepki.ocpp_security.passwords import PasswordVerifier
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.aio import Issuer
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import Actor, ActorKind

__all__ = ["CsmsServer"]

_log = logging.getLogger("chargepki.csms")
_PROTOCOL_ERROR, _POLICY_VIOLATION, _GOING_AWAY = 1002, 1008, 1001
_PROBE_SECONDS = 5.0
# Newest first: the server's order wins when a station offers several.
_SUBPROTOCOLS = (OcppVersion.V21.value, OcppVersion.V201.value, OcppVersion.V16.value)
_BODIES = {
    HTTPStatus.UNAUTHORIZED: "authentication failed\n",
    HTTPStatus.FORBIDDEN: "not allowed\n",
    HTTPStatus.NOT_FOUND: "no OCPP endpoint here\n",
    HTTPStatus.CONFLICT: "this station is connected already\n",
    HTTPStatus.TOO_MANY_REQUESTS: "too many attempts\n",
    HTTPStatus.SERVICE_UNAVAILABLE: "try again later\n",
}


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
        self._offload = Offload()
        self._verifier = PasswordVerifier()
        actor = Actor(f"csms {config.owner}", ActorKind.SYSTEM, authenticated=True)
        self._journal = SecurityJournal(inventory, self._offload, config.clock, actor)
        self._services = Services(
            config=config,
            inventory=inventory,
            issuer=issuer,
            offload=self._offload,
            journal=self._journal,
            registry=Registry(),
            renewals=Renewals(),
            background=Background(),
        )
        self._admission = Admission(config, inventory, self._offload, self._verifier)
        self._worker = Worker(self._services, self.displace)
        self._displacements = WindowCounter(config.limits.displacement_window, config.limits.displacements)
        self._listener = Listener(
            host=config.host,
            port=config.port,
            tls=config.tls,
            subprotocols=_SUBPROTOCOLS,
            limits=config.limits,
            serve=self._serve,
            tls_failed=self._tls_failed,
            too_busy=self._too_busy,
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
        return self._services.registry

    async def start(self) -> None:
        """Bind, and begin to serve.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        await self._worker.start()
        try:
            await self._listener.start()
        except OSError as exc:
            await self._worker.stop()
            raise UnavailableError(
                f"cannot listen on {self.config.host}:{self.config.port}", why=str(exc.strerror or exc)
            ) from exc
        scheme = "wss" if self.config.tls is not None else "ws"
        profiles = ", ".join(str(number) for number in sorted(self.config.security_profiles))
        _log.info("listening on %s://%s:%s/ocpp/ (profiles %s)", scheme, self.config.host, self.port, profiles)

    async def stop(self) -> None:
        """Close every connection (1001), finish what is being recorded, and release the threads. Idempotent."""
        await self._listener.stop_accepting()
        for connection in self._services.registry:
            connection.link.close_soon(_GOING_AWAY, "the CSMS stops")
        await self._worker.stop()
        await self._listener.wait_handlers()
        self._services.background.cancel(self._services.renewals.waiting)
        await self._services.background.finish(seconds=5)
        await self._journal.drain()
        self._verifier.close()
        self._offload.close()

    # Before the upgrade

    def _tls_failed(self, peer: Peer, failure: TlsFailure) -> None:
        cause = f"TLS handshake failed: {failure.cause}"
        self._journal.note(Incident(failure.code, cause, failure.cure, failure.event), station=None, peer=str(peer))

    def _too_busy(self, peer: Peer, cause: str) -> None:
        self._journal.note(Incident("too-many-handshakes", cause), station=None, peer=str(peer))

    async def _serve(self, socket: ServerConnection, peer: Peer, answered: Callable[[], None]) -> None:
        admitted: list[Admitted] = []

        async def process_request(_socket: ServerConnection, request: Request) -> Response | None:
            verdict = await self._judge(socket, request, peer)
            if isinstance(verdict, Admitted):
                admitted.append(verdict)
                return None
            self._journal_denial(verdict, peer)
            return _deny(socket, verdict.status)

        try:
            async with asyncio.timeout(self.config.limits.upgrade.total_seconds()):
                await socket.handshake(process_request, server_header=None)
        except TimeoutError:
            incident = Incident("upgrade-timeout", "no complete WebSocket request came in time", "check the link")
            self._journal.note(incident, station=None, peer=str(peer))
            socket.transport.abort()
            return
        answered()
        if socket.protocol.state is not State.OPEN or not admitted:
            return
        socket.start_keepalive()
        version = next((item for item in OcppVersion if item.value == socket.subprotocol), None)
        if version is None:
            incident = Incident("no-common-version", "no OCPP version in common", "offer ocpp1.6 or later")
            self._journal.note(incident, station=admitted[0].station.id, peer=str(peer))
            await socket.close(_PROTOCOL_ERROR, f"no common subprotocol; we speak {', '.join(_SUBPROTOCOLS)}")
            return
        await self._run(StationConnection(self._services, socket, admitted[0], version, str(peer), self.config.clock()))

    async def _judge(self, socket: ServerConnection, request: Request, peer: Peer) -> Admitted | Denied:
        ssl_object = socket.transport.get_extra_info("ssl_object")
        approach = Approach(
            path=request.path,
            authorization=tuple(request.headers.get_all("Authorization")),
            certificate_der=ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None,
            tls=ssl_object is not None,
            host=peer.host,
        )
        try:
            verdict = await self._admission.judge(approach, self.config.clock())
        except UnavailableError as exc:
            return Denied(HTTPStatus.SERVICE_UNAVAILABLE, Incident("unavailable", str(exc)), "")
        if isinstance(verdict, Admitted) and not await self._may_replace(verdict):
            incident = Incident("connected-already", "its first connection is alive", "wait until that one is closed")
            return Denied(HTTPStatus.CONFLICT, incident, verdict.station.id, verdict.station.id)
        return verdict

    async def _may_replace(self, admitted: Admitted) -> bool:
        """With ``duplicate=probe``, let a second connection in only when the first leaves a ping unanswered."""
        first = self._services.registry.find(admitted.station.id)
        if first is None or self.config.duplicate is DuplicatePolicy.NEWEST:
            return True
        return not await first.link.is_alive(_PROBE_SECONDS)

    def _journal_denial(self, denied: Denied, peer: Peer) -> None:
        if denied.incident is not None:
            self._journal.note(denied.incident, station=denied.station, peer=str(peer), claimed=denied.claimed)

    # After the upgrade

    async def _run(self, connection: StationConnection) -> None:
        timer: asyncio.TimerHandle | None = None
        displaced = self._services.registry.enter(connection)
        if displaced is not None:
            self.displace(displaced, connection.peer)
        try:
            arrival = await self._services.offload.run(
                self._services.inventory.write, lambda tx: arrive(tx, self._services, connection, self.config.clock())
            )
            if arrival is Arrival.WELCOME:
                self._worker.connected(connection)
                silence = self.config.limits.silence.total_seconds()
                timer = asyncio.get_running_loop().call_later(silence, connection.become_ready)
            else:
                connection.close_for(arrival.incident(), arrival.value)
            _log.info(
                "%s connected from %s (%s, profile %d)",
                connection.station.id, connection.peer, connection.version.value, connection.profile,
            )  # fmt: skip
            _log_certificate(connection)
            await connection.link.run()
        except ChargePkiError as exc:
            _log.error("%s: the connection cannot be served: %s", connection.station.id, exc)
            await connection.link.close_soon(1011, "try again later")
        finally:
            if timer is not None:
                timer.cancel()
            await self._leave(connection)

    async def _leave(self, connection: StationConnection) -> None:
        self._services.registry.leave(connection)
        _log.info("%s disconnected (%s)", connection.station.id, connection.link.farewell())
        try:
            await self._services.offload.run(
                self._services.inventory.write, lambda tx: depart(tx, connection, self.config.clock())
            )
        except ChargePkiError as exc:
            _log.error("%s: its departure could not be recorded: %s", connection.station.id, exc)

    def displace(self, first: StationConnection, by: str) -> None:
        """Close *first* because a newer connection of its station has come, and watch out for a war of two."""
        self._services.registry.leave(first)
        incident = Incident(
            "connection-replaced", f"replaced by a newer connection from {by}", event="ConnectionReplaced"
        )
        first.close_for(incident, "replaced by a newer connection of this station")
        now = self.config.clock()
        limits = self.config.limits
        if self._displacements.add(first.station.id, now) >= limits.displacements:
            first.note(
                Incident(
                    "displacement-war",
                    f"{limits.displacements} connections displaced each other within {limits.displacement_window}: "
                    "two devices use one identity, or its credentials are stolen",
                    "give each device its own identity, and a new password or certificate",
                    "ConnectionsDisplaceEachOther",
                    alert=True,
                )
            )


def _log_certificate(connection: StationConnection) -> None:
    certificate = connection.certificate
    if certificate is not None and connection.took_into_use:
        _log.info("%s: certificate %s taken into use", connection.station.id, certificate.id)
    if certificate is not None and connection.is_fallback:
        _log.warning(
            "%s: connected with the superseded certificate %s, not with the one that it used last; "
            "to fix: chargepki station trigger-renewal %s",
            connection.station.id, certificate.id, connection.station.id,
        )  # fmt: skip


def _deny(socket: ServerConnection, status: HTTPStatus) -> Response:
    response = socket.respond(status, _BODIES[status])
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Basic realm="OCPP"'
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers["Retry-After"] = "60"
    return response
