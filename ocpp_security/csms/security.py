"""What all connections of one CSMS process share, without a listening socket: admission, flows, operations, cut-off."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request

from chargepki.ocpp_security.authentication import RefusedConnection, UpgradeRequest
from chargepki.ocpp_security.csms.admission import Admission, Admitted
from chargepki.ocpp_security.csms.arrival import Arrival, arrive, depart
from chargepki.ocpp_security.csms.background import Background
from chargepki.ocpp_security.csms.config import CsmsConfig, DuplicatePolicy
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.journal import Incident, SecurityJournal
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.csms.registry import Registry
from chargepki.ocpp_security.csms.renewal import Renewals
from chargepki.ocpp_security.csms.restricted import entry_incident
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.csms.worker import Worker
from chargepki.ocpp_security.passwords import PasswordVerifier
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.throttle import WindowCounter
from chargepki.ocpp_security.tls import peer_chain
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.aio import Issuer
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import Actor, ActorKind

__all__ = ["CsmsSecurity"]

_log = logging.getLogger("chargepki.csms")
_GOING_AWAY, _INTERNAL_ERROR = 1001, 1011
_PROBE_SECONDS = 5.0


class CsmsSecurity:
    """The security half of a CSMS, for a server that accepts its own connections; `CsmsServer` is one.

    Example:
        async with CsmsSecurity(CsmsConfig(tls=context, plans=plans), inventory, issuer) as security:
            ...  # admit, then `run` each connection; the SecurityMixin classes do the latter

    Several of them, in one process or in many, may share one inventory. The caller keeps *inventory* and *issuer*
    open for as long as it runs and closes them afterwards.
    """

    def __init__(self, config: CsmsConfig, inventory: Inventory, issuer: Issuer) -> None:
        self.config = config
        self._offload = Offload()
        self._verifier = PasswordVerifier()
        actor = Actor(f"csms {config.owner}", ActorKind.SYSTEM, authenticated=True)
        self.journal = SecurityJournal(inventory, self._offload, config.clock, actor)
        self.services = Services(
            config=config,
            inventory=inventory,
            issuer=issuer,
            offload=self._offload,
            journal=self.journal,
            registry=Registry(),
            renewals=Renewals(),
            background=Background(),
        )
        self._admission = Admission(config, inventory, self._offload, self._verifier)
        self._worker = Worker(self.services, self.displace)
        self._displacements = WindowCounter(config.limits.displacement_window, config.limits.displacements)
        self._stopping = False
        self._served = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def registry(self) -> Registry:
        """The stations that are connected to this process."""
        return self.services.registry

    async def start(self) -> None:
        """Begin to follow the inventory: revocations, operations, queued requests."""
        await self._worker.start()

    async def close_all(self) -> None:
        """Begin to close every connection (1001), and give back the leases on operations. Idempotent."""
        self._stopping = True
        for connection in self.registry:
            connection.link.close_soon(_GOING_AWAY, "the CSMS stops")
        await self._worker.stop()

    async def stop(self) -> None:
        """Close every connection, finish what is being recorded, and release the threads. Idempotent."""
        await self.close_all()
        await self._idle.wait()
        self.services.background.cancel(self.services.renewals.waiting)
        await self.services.background.finish(seconds=5)
        await self.journal.drain()
        self._verifier.close()
        self._offload.close()

    # Before the upgrade

    async def judge(self, socket: ServerConnection, request: Request, host: str) -> Admitted | RefusedConnection:
        """Decide about an upgrade request.

        Args:
            host: address of the peer, without the port.
        """
        ssl_object = socket.transport.get_extra_info("ssl_object")
        upgrade = UpgradeRequest(
            path=request.path,
            authorization=tuple(request.headers.get_all("Authorization")),
            chain_der=peer_chain(ssl_object) if ssl_object is not None else (),
            tls=ssl_object is not None,
            host=host,
            version=_negotiated(request),
        )
        try:
            verdict = await self._admission.judge(upgrade, self.config.clock())
        except UnavailableError as exc:
            return RefusedConnection(
                status=HTTPStatus.SERVICE_UNAVAILABLE, reason="unavailable", cause=exc.what, cure=exc.fix
            )
        if isinstance(verdict, Admitted) and not await self._may_replace(verdict):
            return RefusedConnection(
                status=HTTPStatus.CONFLICT,
                reason="connected-already",
                cause="its first connection is alive",
                cure="wait until that one is closed",
                claimed=verdict.station.id,
                station=verdict.station.id,
            )
        return verdict

    async def _may_replace(self, admitted: Admitted) -> bool:
        """With ``duplicate=probe``, let a second connection in only when the first leaves a ping unanswered."""
        first = self.registry.find(admitted.station.id)
        if first is None or self.config.duplicate is DuplicatePolicy.NEWEST:
            return True
        return not await first.link.is_alive(_PROBE_SECONDS)

    def note_refusal(self, refused: RefusedConnection, peer: str) -> None:
        """Log and record why a connection was refused; *peer* is its address, with the port."""
        incident = Incident(refused.reason, refused.cause, refused.cure, refused.event)
        self.journal.note(incident, station=refused.station, peer=peer, claimed=refused.claimed)

    # After the upgrade

    async def run(self, connection: StationConnection) -> None:
        """Serve *connection* until it closes: at most one for each station, and recorded as present meanwhile."""
        if self._stopping:
            await connection.link.close_soon(_GOING_AWAY, "the CSMS stops")
            return
        self._served += 1
        self._idle.clear()
        try:
            await self._run(connection)
        finally:
            self._served -= 1
            if not self._served:
                self._idle.set()

    async def _run(self, connection: StationConnection) -> None:
        timer: asyncio.TimerHandle | None = None
        displaced = self.registry.enter(connection)
        if displaced is not None:
            self.displace(displaced, connection.peer)
        try:
            arrival = await self._offload.run(
                self.services.inventory.write, lambda tx: arrive(tx, self.services, connection, self.config.clock())
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
            await connection.link.close_soon(_INTERNAL_ERROR, "try again later")
        finally:
            if timer is not None:
                timer.cancel()
            await self._leave(connection)

    async def _leave(self, connection: StationConnection) -> None:
        self.registry.leave(connection)
        _log.info("%s disconnected (%s)", connection.station.id, connection.link.farewell())
        try:
            await self._offload.run(
                self.services.inventory.write, lambda tx: depart(tx, connection, self.config.clock())
            )
        except ChargePkiError as exc:
            _log.error("%s: its departure could not be recorded: %s", connection.station.id, exc)

    def displace(self, first: StationConnection, by: str) -> None:
        """Close *first* because a newer connection of its station has come, and watch out for a war of two."""
        self.registry.leave(first)
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


def _negotiated(request: Request) -> OcppVersion | None:
    """Return the version that the upgrade will choose: the newest that the station offers."""
    offered = {
        name.strip() for header in request.headers.get_all("Sec-WebSocket-Protocol") for name in header.split(",")
    }
    return next((version for version in reversed(OcppVersion) if version.value in offered), None)


def _log_certificate(connection: StationConnection) -> None:
    certificate = connection.certificate
    if connection.previous_password:
        connection.note(
            Incident(
                "previous-password",
                "it came in with its password before the last change, within the grace that its record allows "
                "(a deviation from A01.FR.03)",
                f"chargepki station set {connection.station.id} --no-password-grace ends it",
                "PreviousPasswordUsed",
            )
        )
    if connection.profile is SecurityProfile.NONE:
        connection.note(
            Incident(
                "no-security-profile",
                "connected without any security profile: nobody knows whether it is this station",
                f"give it a password, then: chargepki station set-profile {connection.station.id} 1",
                "NoSecurityProfile",
            )
        )
    if connection.restriction is not None:
        connection.note(entry_incident(connection.restriction))
        return
    if connection.was_onboarded:
        _log.info("%s: onboarded; its manufacturer's certificate opens nothing any more", connection.station.id)
    if certificate is not None and connection.took_into_use:
        _log.info("%s: certificate %s taken into use", connection.station.id, certificate.id)
    if certificate is not None and connection.is_fallback:
        _log.warning(
            "%s: connected with the superseded certificate %s, not with the one that it used last; "
            "to fix: chargepki station trigger-renewal %s",
            connection.station.id, certificate.id, connection.station.id,
        )  # fmt: skip
