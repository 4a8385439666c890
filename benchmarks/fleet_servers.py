"""Servers that `benchmarks.fleet` compares ``csms serve`` with, each with the same TLS context on the same loop.

``python -m benchmarks.fleet_servers KIND FOLDER`` serves until it is terminated. Each kind does what the one before it
does, and one thing more, so that the differences are the price of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import logging
import sqlite3
import ssl
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import cast

import uvloop
from cryptography import x509
from cryptography.x509.oid import NameOID
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

__all__ = ["Kind"]

_SUBPROTOCOL = Subprotocol("ocpp2.0.1")


class Kind(StrEnum):
    """How far a connection is taken."""

    BARE = "bare"
    """An asyncio protocol: TLS, and nothing above it."""
    LIBRARY = "library"
    """``websockets.serve`` as it comes: TLS and the upgrade of anybody."""
    FLOOR = "floor"
    """The library's protocol without its connections, one question to the database and one look at the certificate:
    no bound, no time-out, no reason for a refusal. What the checks cost at least."""
    UPGRADE = "upgrade"
    """Our endpoint, which lets anybody in: its own way of accepting, without a question to the inventory."""
    CHECKS = "checks"
    """Our endpoint with its identity and revocation checks; what follows the answer 101 is left out."""
    SERVE = "serve"
    """The whole ``csms serve``: the station entered as present, its certificate taken into use, the log."""


class _Bare(asyncio.Protocol):
    """Greets when the handshake is over; holds nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"x")  # type: ignore[attr-defined]  # a TLS transport can


class _Floor(asyncio.Protocol):
    """Answers an upgrade request with as little as the library and the checks can be done with; holds nothing."""

    database: sqlite3.Connection

    def __init__(self) -> None:
        self._protocol = ServerProtocol(subprotocols=[_SUBPROTOCOL], select_subprotocol=lambda *_: _SUBPROTOCOL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's TLS transport is none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for request in self._protocol.events_received():
            if not isinstance(request, Request):
                continue
            self._check(request)
            self._protocol.send_response(self._protocol.accept(request))
            for piece in self._protocol.data_to_send():
                self._transport.write(piece)

    def _check(self, request: Request) -> None:
        leaf = self._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(leaf)
        identity = request.path.rpartition("/")[2]
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == identity
        assert certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc
        known = (identity, hashlib.sha256(leaf).hexdigest())
        rows = self.database.execute(
            "SELECT * FROM station JOIN certificate ON certificate.station = station.id "
            "WHERE station.id = ? AND certificate.sha256 = ?",
            known,
        )
        assert len(rows.fetchall()) == 1


def _context(folder: Path) -> tuple[ssl.SSLContext, tuple[bytes, ...]]:
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    from chargepki.ocpp_security.security_profile import SecurityProfile
    from chargepki.ocpp_security.tls import TlsIdentity, server_context

    chain = x509.load_pem_x509_certificates((folder / "server.pem").read_bytes())
    key = load_pem_private_key((folder / "server.key").read_bytes(), None)
    trust = x509.load_pem_x509_certificates((folder / "trust.pem").read_bytes())
    identity = TlsIdentity(tuple(each.public_bytes(Encoding.DER) for each in chain), key)  # type: ignore[arg-type]  # an EC key
    anchors = tuple(each.public_bytes(Encoding.DER) for each in trust)
    # As `csms serve` has it.
    context = server_context({SecurityProfile(3)}, [identity], client_trust=anchors, ignore_client_validity=True)
    return context, anchors


async def _serve(kind: Kind, folder: Path, stack: contextlib.AsyncExitStack) -> int:
    context, anchors = _context(folder)
    if kind is Kind.BARE:
        server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", 0, ssl=context, backlog=1024)
        return int(server.sockets[0].getsockname()[1])
    if kind is Kind.LIBRARY:
        return await _serve_library(context, stack)
    if kind is Kind.FLOOR:
        logging.getLogger("websockets").setLevel(logging.CRITICAL)
        _Floor.database = stack.enter_context(contextlib.closing(sqlite3.connect(folder / "inventory.db")))
        server = await asyncio.get_running_loop().create_server(_Floor, "127.0.0.1", 0, ssl=context, backlog=1024)
        return int(server.sockets[0].getsockname()[1])
    return await _serve_ours(kind, folder, context, anchors, stack)


async def _serve_library(context: ssl.SSLContext, stack: contextlib.AsyncExitStack) -> int:
    from websockets.asyncio.server import ServerConnection, serve

    async def hold(socket: ServerConnection) -> None:
        await socket.wait_closed()

    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    server = await stack.enter_async_context(
        serve(
            hold,
            "127.0.0.1",
            0,
            ssl=context,
            compression=None,
            ping_interval=None,
            subprotocols=[_SUBPROTOCOL],
            backlog=1024,
        )
    )
    return int(next(iter(server.sockets)).getsockname()[1])


async def _serve_ours(
    kind: Kind, folder: Path, context: ssl.SSLContext, anchors: tuple[bytes, ...], stack: contextlib.AsyncExitStack
) -> int:
    from benchmarks.material import ACTOR
    from chargepki.ocpp_security.csms import ClientTrust, CsmsConfig, CsmsServer
    from chargepki.ocpp_security.csms.admission import Admitted
    from chargepki.ocpp_security.csms.listener import Peer
    from chargepki.ocpp_security.csms.opening import OpeningConnection
    from chargepki.ocpp_security.security_profile import SecurityProfile
    from chargepki.pki import aio
    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.audit import AuditKey

    url, key = f"sqlite:///{folder / 'inventory.db'}", AuditKey.load_or_create(folder / "audit.key")
    inventory = stack.enter_context(contextlib.closing(Inventory.open(url, log_key=key)))
    config = CsmsConfig(security_profiles=frozenset({3}), tls=context, client_trust=ClientTrust(anchors=anchors))
    server = CsmsServer(config, inventory, aio.QueueIssuer(inventory, actor=ACTOR))

    async def hold(socket: OpeningConnection, _admitted: Admitted, _peer: Peer) -> None:
        await socket.wait_closed()

    server._attend = hold  # type: ignore[method-assign,assignment]  # the cut after the answer 101
    if kind is Kind.UPGRADE:
        anybody = Admitted(next(inventory.list_stations()), SecurityProfile(3), None)

        async def judge(*_request: object) -> Admitted:
            return anybody

        server.security.judge = judge  # type: ignore[method-assign,assignment]  # and the one before the checks
    await stack.enter_async_context(server)
    return server.port


async def _main(kind: Kind, folder: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        port = await _serve(kind, folder, stack)
        # As `csms serve` does.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        print(json.dumps({"port": port}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as server_loop:
        server_loop.run(_main(Kind(sys.argv[1]), Path(sys.argv[2])))
