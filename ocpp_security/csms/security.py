"""What all connections of one CSMS process share, without a listening socket: admission, flows, operations, cut-off."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast
from weakref import WeakKeyDictionary

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from chargepki.ocpp_security.authentication import RefusedConnection, UpgradeRequest
from chargepki.ocpp_security.contract_check import ContractChecker
from chargepki.ocpp_security.csms.admission import Admission, Admitted
from chargepki.ocpp_security.csms.arrival import Arrival, arrive, depart
from chargepki.ocpp_security.csms.background import Background
from chargepki.ocpp_security.csms.bounded import BoundedConnection
from chargepki.ocpp_security.csms.config import ClientTrust, CsmsConfig, DuplicatePolicy
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.journal import Incident, SecurityJournal
from chargepki.ocpp_security.csms.listener import quiet_logger
from chargepki.ocpp_security.csms.metrics import CsmsMetrics
from chargepki.ocpp_security.csms.offload import Offload, Together
from chargepki.ocpp_security.csms.proxy import ProxiedPeer, refuse_proxy_headers
from chargepki.ocpp_security.csms.registry import Registry
from chargepki.ocpp_security.csms.renewal import Renewals
from chargepki.ocpp_security.csms.restricted import entry_incident
from chargepki.ocpp_security.csms.services import Services
from chargepki.ocpp_security.csms.worker import Worker
from chargepki.ocpp_security.fetch import Fetcher
from chargepki.ocpp_security.gate import (
    SUBPROTOCOLS,
    UpgradingSocket,
    build_refusal,
    not_admitted,
    peer_host,
    peer_name,
    read_upgrade,
    select_subprotocol,
)
from chargepki.ocpp_security.passwords import PasswordVerifier
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.status import StatusGateway
from chargepki.ocpp_security.throttle import WindowCounter
from chargepki.ocpp_security.unsecured import UnsecuredLinks
from chargepki.pki.aio import Issuer
from chargepki.pki.errors import ChargePkiError, StateError, UnavailableError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, ActorKind

__all__ = ["CsmsSecurity"]

_log = logging.getLogger("chargepki.csms")
_GOING_AWAY, _INTERNAL_ERROR = 1001, 1011
_PROBE_SECONDS = 5.0
_TOGETHER_SECONDS = 0.05
"""How long an arrival or a departure may wait for others to be committed with it."""


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
        gateway = StatusGateway(
            inventory,
            self._offload,
            Fetcher(config.fetch),
            issuers=_status_issuers(config),
            signers=config.ocsp_signers,
            clock=config.clock,
        )
        contracts = None
        if config.contract is not None:
            contracts = ContractChecker(config.contract, inventory, gateway, self._offload, clock=config.clock)
        self.services = Services(
            config=config,
            inventory=inventory,
            issuer=issuer,
            offload=self._offload,
            journal=self.journal,
            registry=Registry(),
            renewals=Renewals(),
            background=Background(),
            status=gateway,
            contracts=contracts,
            unsecured=UnsecuredLinks(config.allow_unsecured),
        )
        self.metrics = CsmsMetrics()
        self.metrics.watch_connections(lambda: len(self.registry))
        self._admission = Admission(config, inventory, self._offload, self._verifier)
        self._comings: Together[Callable[[Transaction], Arrival | None], Arrival | None] = Together(
            self._offload, inventory.write_all, pause=_TOGETHER_SECONDS, in_turn=True
        )
        self._worker = Worker(self.services, self.displace)
        self._displacements = WindowCounter(config.limits.displacement_window, config.limits.displacements)
        self._admitted: WeakKeyDictionary[ServerConnection, Admitted] = WeakKeyDictionary()
        self.duplicate = config.duplicate
        """What becomes of a second connection of one station; may be replaced at any time."""
        self._is_started = self._stopping = False
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
        await self._admission.start()
        await self._worker.start()
        self._is_started = True

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
        self._admission.close()
        self._verifier.close()
        self._offload.close()

    @property
    def trust_changed(self) -> asyncio.Event:
        """Set when somebody changed what a client certificate may chain to: a CA, or a manufacturer's CA."""
        return self._worker.trust_changed

    def trust(self, client_trust: ClientTrust) -> None:
        """Judge the client certificates of new connections by *client_trust*; open connections live on."""
        self._admission.client_trust = client_trust

    async def check_ready(self) -> None:
        """Raise when this process should get no connections.

        Raises:
            ChargePkiError: it is stopping, or the inventory cannot be read.
        """
        if self._stopping:
            raise StateError("the CSMS stops")
        await self._offload.run(self.services.inventory.audit_head)

    # Before the upgrade

    async def judge(self, socket: UpgradingSocket, request: Request, host: str) -> Admitted | RefusedConnection:
        """Decide about an upgrade request.

        Args:
            host: address of the peer, without the port.
        """
        if not self._is_started:
            error = _not_started()
            return RefusedConnection(
                status=HTTPStatus.SERVICE_UNAVAILABLE, reason="not-started", cause=error.what, cure=error.fix
            )
        upgrade = self._read(socket, request, host)
        if isinstance(upgrade, RefusedConnection):
            return upgrade
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

    def _read(self, socket: UpgradingSocket, request: Request, host: str) -> UpgradeRequest | RefusedConnection:
        """Return what is known of the request: by our own TLS, or by the word of the proxy in front."""
        upgrade = read_upgrade(socket, request, host)
        if self.config.proxy is None:
            return refuse_proxy_headers(request.headers) or upgrade
        seen = self.config.proxy.read(request.headers, host)
        if isinstance(seen, RefusedConnection):
            return seen
        return dataclasses.replace(upgrade, chain_der=seen.chain_der, tls=seen.tls, host=seen.host)

    def address_of(self, request: Request, host: str) -> str:
        """Return the address of the station: *host*, or what the proxy in front says it is."""
        if self.config.proxy is None:
            return host
        seen = self.config.proxy.read(request.headers, host)
        return seen.host if isinstance(seen, ProxiedPeer) else host

    async def _may_replace(self, admitted: Admitted) -> bool:
        """With ``duplicate=probe``, let a second connection in only when the first leaves a ping unanswered."""
        first = self.registry.find(admitted.station.id)
        if first is None or self.duplicate is DuplicatePolicy.NEWEST:
            return True
        return not await first.link.is_alive(_PROBE_SECONDS)

    # The hooks of a `websockets` server

    async def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Decide before the upgrade who may come in; the hook of the same name of `websockets.serve`."""
        verdict = await self.judge(socket, request, peer_host(socket))
        if isinstance(verdict, Admitted):
            self._admitted[socket] = verdict
            return None
        self.note_refusal(verdict, peer_name(socket))
        return build_refusal(socket, verdict)

    def admitted(self, socket: ServerConnection) -> Admitted:
        """Return who came in over *socket*.

        Raises:
            StateError: nobody did; `process_request` was not asked about it.
        """
        verdict = self._admitted.get(socket)
        if verdict is None:
            raise not_admitted()
        return verdict

    def serve_options(self) -> dict[str, Any]:
        """Return what `websockets.serve` has to be told: hooks, TLS, and bounds on what a peer may cost."""
        limits = self.config.limits
        return {
            "ssl": self.config.tls,
            "process_request": self.process_request,
            "create_connection": BoundedConnection,
            "subprotocols": [cast(Subprotocol, name) for name in SUBPROTOCOLS],
            "select_subprotocol": select_subprotocol,
            # No extension: compression of secrets next to chosen text, and memory, for nothing.
            "compression": None,
            "max_size": limits.max_message_bytes,
            "max_queue": limits.max_queued_messages,
            "open_timeout": (limits.tls_handshake + limits.upgrade).total_seconds(),
            "ping_interval": limits.ping_interval.total_seconds() or None,
            "ping_timeout": limits.ping_timeout.total_seconds(),
            "close_timeout": limits.close.total_seconds(),
            "server_header": None,
            # websockets logs frames at debug level; secrets travel in frames.
            "logger": quiet_logger(),
        }

    def note_refusal(self, refused: RefusedConnection, peer: str) -> None:
        """Log and record why a connection was refused; *peer* is its address, with the port."""
        self.metrics.refused(refused.reason, refused.status)
        incident = Incident(refused.reason, refused.cause, refused.cure, refused.event)
        self.journal.note(incident, station=refused.station, peer=peer, claimed=refused.claimed)

    # After the upgrade

    async def run(self, connection: StationConnection) -> None:
        """Serve *connection* until it closes: at most one for each station, and recorded as present meanwhile.

        Raises:
            StateError: `start` was not awaited: nobody would carry out operations or close what is revoked.
        """
        if not self._is_started:
            raise _not_started()
        connection.is_served = True
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
        self.metrics.accepted(connection.version.value, connection.profile)
        displaced = self.registry.enter(connection)
        if displaced is not None:
            self.displace(displaced, connection.peer)
        try:
            arrival = await self._comings.run(lambda tx: arrive(tx, self.services, connection, self.config.clock()))
            assert arrival is not None
            if connection.is_fallback:
                self.registry.hangs_on_others(connection)
            if arrival is Arrival.WELCOME:
                if connection.is_awaited:
                    self._worker.connected(connection)
                silence = self.config.limits.silence.total_seconds()
                timer = asyncio.get_running_loop().call_later(silence, connection.become_ready)
            else:
                connection.close_for(arrival.incident(connection.station.id), arrival.value)
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
            await self._comings.run(lambda tx: depart(tx, connection, self.config.clock()))
        except ChargePkiError as exc:
            _log.error("%s: its departure could not be recorded: %s", connection.station.id, exc)

    def displace(self, first: StationConnection, by: str) -> None:
        """Close *first* because a newer connection of its station has come, and watch out for a war of two."""
        self.registry.leave(first)
        self.metrics.displaced()
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


def _not_started() -> StateError:
    return StateError(
        "this CsmsSecurity was not started",
        why="revocations and operations on stations would not reach its connections",
        fix="serve inside: async with CsmsSecurity(...) as security",
    )


def _status_issuers(config: CsmsConfig) -> tuple[bytes, ...]:
    """Return under whom answers are verified: what judges contracts is known here as well."""
    contract = config.contract
    more = () if contract is None else (*contract.anchors, *contract.intermediates)
    return (*config.status_issuers, *more)


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
