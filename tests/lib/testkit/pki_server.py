"""The PKI's endpoints on a real socket in a thread of the test, and clients that behave as badly as one likes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from unittest import mock

from chargepki.pki.authority import Authority
from chargepki.pki.authority.ocsp import OcspSigner, find_delegate
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CertificateRecord
from chargepki.pki.ocsp import build_cert_id, build_single_request, issuer_hashes
from chargepki.pki.services import gate, reliance
from chargepki.pki.services.http import Handler, Limits
from chargepki.pki.services.server import HttpServer, bind
from chargepki.pki.services.site import PkiSite

__all__ = ["Answer", "LiveServer", "cert_id_of", "live_server", "live_signers", "ocsp_request"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class LiveServer:
    """A running server."""

    port: int
    site: PkiSite
    server: HttpServer
    loop: asyncio.AbstractEventLoop

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def ocsp(self, request: bytes) -> Answer:
        """Send an OCSP request by POST."""
        return self.ask("POST", "/ocsp", request, {"Content-Type": "application/ocsp-request"})

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for *condition*."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)


@contextlib.contextmanager
def live_server(
    inventory: Inventory,
    *,
    signers: Callable[[CaRecord], OcspSigner | None] | None = None,
    limits: Limits | None = None,
    context: Callable[[], ssl.SSLContext] | None = None,
    routes: Mapping[bytes, Handler] | None = None,
    clock: Callable[[], datetime] | None = None,
    staple_tokens: Callable[[], Sequence[bytes]] | None = None,
) -> Iterator[LiveServer]:
    """Serve *inventory* on a port of loopback until the block ends."""
    started: list[LiveServer] = []
    ready, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        site = PkiSite(inventory, signers=signers, routes=routes, staple_tokens=staple_tokens)
        if clock is not None:
            site.responder._clock = clock
            site.artefacts._clock = clock
            site.staples._clock = clock
        listener = bind("127.0.0.1", 0)
        server = HttpServer(site, limits=limits, tally=site.tally)
        server.start(listener, context)
        started.append(LiveServer(listener.getsockname()[1], site, server, asyncio.get_running_loop()))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)
        await server.stop()
        await site.close()

    def run() -> None:
        try:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:  # the test's thread shall see it
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run, name="live-server")
    # Otherwise a request that PostgreSQL answers late on a busy machine is told to come again, and a thread that gets
    # no turn there is taken for one that was stopped.
    with mock.patch.object(gate, "_PATIENCE_SECONDS", 60.0), mock.patch.object(reliance, "LEASE_SECONDS", 600.0):
        thread.start()
        try:
            assert ready.wait(60) and started, failures
            yield started[0]
        finally:
            stop.set()
            thread.join(60)
    assert not failures, failures


def live_signers(authority: Authority) -> Callable[[CaRecord], OcspSigner | None]:
    """Return what signs live answers with the delegates of *authority*."""
    return lambda ca: find_delegate(authority.inventory, authority.keystore, ca, authority.now())


def cert_id_of(issuer: CaRecord, serial: int, hash_name: str = "sha1") -> bytes:
    """Return the CertID (DER) of a certificate of *issuer*."""
    assert issuer.certificate_der is not None
    hashes = issuer_hashes(hash_name, issuer.subject_der, view_certificate(issuer.certificate_der).key.der)
    return build_cert_id(hash_name, *hashes, serial)


def ocsp_request(
    inventory: Inventory, certificate: CertificateRecord | str, *, hash_name: str = "sha1", nonce: bytes | None = None
) -> bytes:
    """Return an OCSP request about a certificate of the inventory."""
    record = inventory.get_certificate(certificate) if isinstance(certificate, str) else certificate
    return build_single_request(cert_id_of(inventory.get_ca(record.ca), int(record.serial, 16), hash_name), nonce=nonce)
