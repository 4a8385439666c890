"""The hooks of a `websockets` server around `authenticate`: who may come in is decided before the upgrade."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Generic, Protocol, cast
from weakref import WeakKeyDictionary

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from chargepki.ocpp_security.attempts import AuthenticationGuard
from chargepki.ocpp_security.authentication import (
    AuthenticatedStation,
    RefusedConnection,
    UpgradeRequest,
    authenticate,
)
from chargepki.ocpp_security.station_source import EntryT, EvidenceT, StationSource
from chargepki.ocpp_security.tls import PeerChain
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import StateError, UnavailableError, printable

__all__ = [
    "SUBPROTOCOLS",
    "StationGate",
    "UpgradingSocket",
    "build_refusal",
    "not_admitted",
    "peer_host",
    "peer_name",
    "read_upgrade",
    "select_subprotocol",
]

_log = logging.getLogger("chargepki.csms")

SUBPROTOCOLS = (OcppVersion.V21.value, OcppVersion.V201.value, OcppVersion.V16.value)
"""Newest first: the server's order wins when a station offers several."""
_VERSIONS = {version.value: version for version in OcppVersion}


class UpgradingSocket(Protocol):
    """What the hooks ask a connection whose upgrade request has come; a `ServerConnection` is one."""

    transport: asyncio.Transport

    def respond(self, status: HTTPStatus | int, text: str) -> Response:
        """Return a refusal in plain text."""
        ...


class StationGate(Generic[EntryT, EvidenceT]):
    """Authentication alone, for a server that keeps connections in its own way; `CsmsSecurity` brings all the rest.

    Example:
        gate = StationGate(InventoryStations(inventory), profiles=(2, 3))
        async with websockets.serve(handler, host, port, ssl=context, **gate.options()):
            ...  # and in the handler: gate.station(websocket)

    Args:
        stations: the inventory, or a table of one's own.
        profiles: security profiles that this port serves: 1, 2, 3, or 2 and 3.
        trust: see `authenticate`; not needed where the TLS context is from `server_context`.
        crls: see `authenticate`; looked at where *trust* is.
        refused: told about every refusal, with the peer's address; by default it is logged with cause and cure.
    """

    def __init__(
        self,
        stations: StationSource[EntryT, EvidenceT],
        *,
        profiles: Collection[int] = (2, 3),
        trust: Sequence[bytes] = (),
        crls: Sequence[bytes] = (),
        path_prefix: str = "/ocpp/",
        guard: AuthenticationGuard | None = None,
        refused: Callable[[RefusedConnection, str], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stations, self._profiles, self._prefix = stations, profiles, path_prefix
        self.trust, self.crls = trust, crls
        """Both may be replaced at any time; for new connections."""
        self._guard = guard or AuthenticationGuard()
        self._refused = refused or _log_refusal
        self._clock = clock
        self._admitted: WeakKeyDictionary[ServerConnection, AuthenticatedStation[EntryT, EvidenceT]] = (
            WeakKeyDictionary()
        )

    def options(self) -> dict[str, Any]:
        """Return what `websockets.serve` has to be told: the hooks, the subprotocols, and what a peer may cost.

        Without compression, and with connections that a flood of pings or a peer that reads nothing ends.
        """
        from chargepki.ocpp_security.csms.bounded import BoundedConnection  # that package imports this module

        return {
            "process_request": self.process_request,
            "create_connection": BoundedConnection,
            "subprotocols": [cast(Subprotocol, name) for name in SUBPROTOCOLS],
            "select_subprotocol": select_subprotocol,
            "compression": None,
        }

    async def process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Let the upgrade go on, or answer it; the hook of the same name of `websockets.serve`."""
        upgrade = read_upgrade(socket, request, peer_host(socket))
        try:
            verdict = await authenticate(
                upgrade, self._stations, now=self._clock(), guard=self._guard, profiles=self._profiles,
                trust=self.trust, crls=self.crls, path_prefix=self._prefix,
            )  # fmt: skip
        except UnavailableError as error:
            verdict = RefusedConnection(
                status=HTTPStatus.SERVICE_UNAVAILABLE, reason="unavailable", cause=error.what, cure=error.fix
            )
        if isinstance(verdict, AuthenticatedStation):
            self._admitted[socket] = verdict
            return None
        self._refused(verdict, peer_name(socket))
        return build_refusal(socket, verdict)

    def station(self, socket: ServerConnection) -> AuthenticatedStation[EntryT, EvidenceT]:
        """Return who came in over *socket*.

        Raises:
            StateError: nobody did; `process_request` was not asked about it.
        """
        verdict = self._admitted.get(socket)
        if verdict is None:
            raise not_admitted()
        return verdict

    def close(self) -> None:
        """End the threads that verify passwords."""
        self._guard.close()


def read_upgrade(socket: UpgradingSocket, request: Request, host: str) -> UpgradeRequest:
    """Return what `authenticate` has to know about an upgrade request of `websockets`.

    Args:
        host: address of the peer, without the port.
    """
    ssl_object = socket.transport.get_extra_info("ssl_object")
    return UpgradeRequest(
        path=request.path,
        authorization=tuple(request.headers.get_all("Authorization")),
        chain_der=PeerChain.of(ssl_object) if ssl_object is not None else (),
        tls=ssl_object is not None,
        host=host,
        version=_negotiated(request),
    )


def _negotiated(request: Request) -> OcppVersion | None:
    """Return the version that `select_subprotocol` will choose."""
    headers = request.headers.get_all("Sec-WebSocket-Protocol")
    if len(headers) == 1 and headers[0] in _VERSIONS:
        return _VERSIONS[headers[0]]
    offered = {name.strip() for header in headers for name in header.split(",")}
    return next((OcppVersion(name) for name in SUBPROTOCOLS if name in offered), None)


def build_refusal(socket: UpgradingSocket, refused: RefusedConnection) -> Response:
    """Return the HTTP answer to an upgrade request that is refused."""
    response = socket.respond(refused.status, refused.answer)
    for name, value in refused.headers.items():
        response.headers[name] = value
    return response


def select_subprotocol(_socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the newest version that both sides speak; the hook of the same name of `websockets.serve`.

    With none in common the upgrade is finished without the header. Close the connection then (OCPP-J 3.1.2).
    """
    return next((cast(Subprotocol, name) for name in SUBPROTOCOLS if name in offered), None)


def peer_host(socket: ServerConnection) -> str:
    """Return the address of the other side, without the port; empty where there is none."""
    address = socket.remote_address
    return str(address[0]) if isinstance(address, tuple) and address else ""


def peer_name(socket: ServerConnection) -> str:
    """Return the address of the other side as ``HOST:PORT``, IPv6 in brackets."""
    address = socket.remote_address
    if not isinstance(address, tuple) or len(address) < 2:
        return "unknown"
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def not_admitted() -> StateError:
    """Return the error about a connection that no hook has admitted."""
    return StateError(
        "the connection was not authenticated here",
        why="only connections that process_request of this very object admitted are",
        fix="pass **security.serve_options() (or **gate.options()) to websockets.serve",
    )


def _log_refusal(refused: RefusedConnection, peer: str) -> None:
    who = f"{printable(refused.claimed)[:64]} (claimed)" if refused.claimed else "unknown station"
    cure = f"; to fix: {refused.cure}" if refused.cure else ""
    _log.warning("%s from %s: [%s] %s%s", who, peer, refused.reason, printable(refused.cause), cure)
