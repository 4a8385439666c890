"""CSMS endpoints that are not ours: a server of the plain `ocpp` package, and npm's ocpp-rpc in strict mode."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import ocpp.v16
import ocpp.v21
import ocpp.v201
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from ocpp.charge_point import camel_to_snake_case, snake_to_camel_case
from ocpp.routing import on
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from testkit.hierarchy import Node, make_node
from testkit.node_station import FOLDER, NodeStation
from testkit.ocpp_peers import Credential

__all__ = ["KINDS", "ForeignCsms", "Hierarchy", "foreign_csms"]

KINDS = ("ocpp", "ocpp-rpc")
PASSWORD = "correct-horse-16"


class Hierarchy:
    """A root, a sub-CA and a server certificate, made with `cryptography` alone; as files for foreign programs."""

    def __init__(self, folder: Path) -> None:
        self.root = make_node("foreign root", None, ca=True)
        self.sub = make_node("foreign sub", self.root, ca=True)
        name = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        server = make_node("localhost", self.sub, ca=False, extensions=[(name, False)])
        self.cert, self.key, self.client_ca = folder / "csms.pem", folder / "csms.key", folder / "client-ca.pem"
        self.cert.write_bytes(_pem(server) + _pem(self.sub))
        self.key.write_bytes(Credential(server.key).key_pem())
        self.client_ca.write_bytes(_pem(self.sub) + _pem(self.root))
        self.password = folder / "password"
        self.password.write_text(PASSWORD)

    @property
    def root_pem(self) -> bytes:
        """What the station has to trust."""
        return _pem(self.root)

    def sign(self, csr: str, *, key: Any = None, issuer: Node | None = None) -> str:
        """Sign a CSR as a CSMS's CA would, leaf first, without the root.

        Args:
            key: certify this public key in place of that of the CSR.
            issuer: sign with this CA.
        """
        request, signer = x509.load_pem_x509_csr(csr.encode()), issuer or self.sub
        now = datetime.now(UTC)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(signer.certificate.subject)
            .public_key(key or request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(signer.certificate.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=False, crl_sign=False, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False,
                    encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )  # fmt: skip
        return (leaf.public_bytes(Encoding.PEM) + _pem(signer)).decode()

    def forge(self, csr: str, how: str) -> str:
        """Return a chain that a station must refuse: ``foreign-key``, ``wrong-chain`` or ``garbage``."""
        if how == "foreign-key":
            return self.sign(csr, key=ec.generate_private_key(ec.SECP256R1()).public_key())
        if how == "wrong-chain":
            return self.sign(csr, issuer=make_node("foreign sub", make_node("rogue root", None, ca=True), ca=True))
        return "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def _pem(node: Node) -> bytes:
    return node.certificate.public_bytes(Encoding.PEM)


class ForeignCsms(Protocol):
    """A running endpoint; what it sees comes as events, one dictionary each."""

    url: str

    async def expect(self, event: str, **match: Any) -> dict[str, Any]:
        """Return the next event of that kind with these values."""
        ...

    async def deliver(self, chain: str, request_id: int | None = None) -> None:
        """Send CertificateSigned; the answer comes as the event ``delivered``."""
        ...

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send any message (camelCase) and return the payload of the answer, valid by the endpoint's own schemas."""
        ...


def _take(events: list[dict[str, Any]], used: set[int], event: str, match: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first event that fits and was not returned before."""
    for position, found in enumerate(events):
        if position not in used and found["event"] == event and all(found.get(key) == match[key] for key in match):
            used.add(position)
            return found
    return None


class _NodeCsms:
    def __init__(self, process: asyncio.subprocess.Process, url: str, told: NodeStation) -> None:
        self._process, self.url, self._told = process, url, told
        self._used: set[int] = set()

    async def expect(self, event: str, **match: Any) -> dict[str, Any]:
        while (found := _take(self._told.events, self._used, event, match)) is None:
            await self._told.expect(event)
            assert not self._told.told("invalid"), self._told.events
        return found

    async def deliver(self, chain: str, request_id: int | None = None) -> None:
        assert self._process.stdin is not None
        line = {"chain": chain} | ({"requestId": request_id} if request_id is not None else {})
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"method": method, "params": params}).encode() + b"\n")
        payload: dict[str, Any] = (await self.expect("answered", method=method))["payload"]
        return payload


@contextlib.asynccontextmanager
async def _node(hierarchy: Hierarchy, version: str, profile: int, modes: dict[str, str]) -> AsyncIterator[ForeignCsms]:
    arguments: list[str | Path] = ["--protocol", version, "--password-file", hierarchy.password]
    if profile > 1:
        arguments += ["--cert", hierarchy.cert, "--key", hierarchy.key, "--client-ca", hierarchy.client_ca]
    for name, value in modes.items():
        arguments += [f"--{name}", value] if value else [f"--{name}"]
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / "csms.mjs"), *map(str, arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        told = NodeStation(process)
        port = (await told.expect("listening"))["port"]
        yield _NodeCsms(process, f"{'ws' if profile == 1 else 'wss'}://localhost:{port}/ocpp", told)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class _PythonCsms:
    def __init__(self, modes: dict[str, str]) -> None:
        self.modes, self.url = modes, ""
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.station: Any = None
        self.seen: list[dict[str, Any]] = []
        self._used: set[int] = set()

    def tell(self, event: str, **details: Any) -> None:
        self.events.put_nowait({"event": event, **details})

    async def expect(self, event: str, **match: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(60):
                while (found := _take(self.seen, self._used, event, match)) is None:
                    self.seen.append(await self.events.get())
                return found
        except TimeoutError:
            raise AssertionError(f"no {event} {match}; told: {self.seen}") from None

    async def deliver(self, chain: str, request_id: int | None = None) -> None:
        module = _MODULES[self.station._connection.subprotocol]
        fields: dict[str, Any] = {"certificate_chain": chain}
        if module is not ocpp.v16:
            fields["certificate_type"] = "ChargingStationCertificate"
        if request_id is not None:
            fields["request_id"] = request_id
        answer = await self.station.call(module.call.CertificateSigned(**fields), suppress=False)
        self.tell("delivered", status=answer.status)

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        module = _MODULES[self.station._connection.subprotocol]
        request = getattr(module.call, method)(**camel_to_snake_case(params))
        payload: dict[str, Any] = snake_to_camel_case(asdict(await self.station.call(request, suppress=False)))
        return {name: value for name, value in payload.items() if value is not None}

    def authenticate(self, socket: ServerConnection, request: Request) -> Response | None:
        tls = socket.transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert() if tls is not None else None
        subject = {key: value for rdn in (certificate or {}).get("subject", ()) for key, value in rdn}
        profile = 3 if certificate else 2 if tls is not None else 1
        self.tell("arrived", identity=request.path.rpartition("/")[2], profile=profile, subject=subject or None)
        given = base64.b64decode(request.headers.get("Authorization", "Basic ").partition(" ")[2]).partition(b":")[2]
        if profile < 3 and given != PASSWORD.encode():
            return socket.respond(HTTPStatus.UNAUTHORIZED, "authentication failed\n")
        return None

    async def handle(self, socket: ServerConnection) -> None:
        self.station = _CLASSES[str(socket.subprotocol)]("station", socket)
        self.station.csms = self
        with contextlib.suppress(ConnectionClosed):
            await self.station.start()

    async def act(self, station: Any, method: str, fields: dict[str, Any]) -> Any:
        self.tell("received", method=method, params=fields)
        mode = self.modes.get({"BootNotification": "boot", "SignCertificate": "sign"}.get(method, ""), "accept")
        if mode == "callerror":
            raise ocpp.exceptions.InternalError("no")
        result = station._call_result
        if method == "SignCertificate":
            return result.SignCertificate(status="Rejected" if mode == "reject" else "Accepted")
        return result.BootNotification(datetime.now(UTC).isoformat(), 300, "Accepted")

    async def trigger(self, station: Any) -> None:
        module = _MODULES[station._connection.subprotocol]
        request = (
            module.call.ExtendedTriggerMessage(requested_message="SignChargePointCertificate")
            if module is ocpp.v16
            else module.call.TriggerMessage(requested_message="SignChargingStationCertificate")
        )
        answer = await station.call(request, suppress=False)
        self.tell("triggered", status=answer.status)


class _Handlers:
    csms: _PythonCsms
    _call_result: Any

    @on("BootNotification")  # type: ignore[untyped-decorator]  # no types
    async def on_boot(self, **fields: Any) -> Any:
        if "trigger" in self.csms.modes:
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(self.csms.trigger(self)))
        return await self.csms.act(self, "BootNotification", fields)

    @on("SignCertificate")  # type: ignore[untyped-decorator]  # no types
    async def on_sign(self, **fields: Any) -> Any:
        if self.csms.modes.get("sign") == "silent":
            self.csms.tell("received", method="SignCertificate", params=fields)
            # The reading loop of the package waits for a handler, so silence has to come from the socket.
            self._send = _swallow(self._send)  # type: ignore[has-type]  # the untyped package sets it
        return await self.csms.act(self, "SignCertificate", fields)

    @on("Authorize")  # type: ignore[untyped-decorator]  # no types
    async def on_authorize(self, **fields: Any) -> Any:
        self.csms.tell("received", method="Authorize", params=fields)
        told = {"status": "Accepted"}
        result = self._call_result.Authorize
        if "id_tag" in fields:
            return result(id_tag_info=told)
        return result(id_token_info=told, certificate_status="Accepted")

    @on("GetCertificateStatus")  # type: ignore[untyped-decorator]  # no types
    async def on_status_asked(self, **fields: Any) -> Any:
        self.csms.tell("received", method="GetCertificateStatus", params=fields)
        return self._call_result.GetCertificateStatus(status="Failed")

    @on("DataTransfer")  # type: ignore[untyped-decorator]  # no types
    async def on_transfer(self, **fields: Any) -> Any:
        self.csms.tell("received", method="DataTransfer", params=fields)
        answers = {
            "Authorize": {"idTokenInfo": {"status": "Accepted"}, "certificateStatus": "Accepted"},
            "GetCertificateStatus": {"status": "Failed"},
        }
        data = json.dumps(answers[fields["message_id"]])
        return self._call_result.DataTransfer(status="Accepted", data=data)

    @on("Heartbeat")  # type: ignore[untyped-decorator]  # no types
    async def on_heartbeat(self) -> Any:
        return self._call_result.Heartbeat(datetime.now(UTC).isoformat())

    @on("StatusNotification")  # type: ignore[untyped-decorator]  # no types
    async def on_status(self, **_: Any) -> Any:
        return self._call_result.StatusNotification()

    @on("SecurityEventNotification")  # type: ignore[untyped-decorator]  # no types
    async def on_event(self, **fields: Any) -> Any:
        self.csms.tell("received", method="SecurityEventNotification", params=fields)
        return self._call_result.SecurityEventNotification()


def _swallow(send: Callable[[str], Any]) -> Callable[[str], Any]:
    swallowed: list[str] = []

    async def once(message: str) -> None:
        if not swallowed:
            swallowed.append(message)
            return
        await send(message)

    return once


_MODULES: dict[str, Any] = {"ocpp1.6": ocpp.v16, "ocpp2.0.1": ocpp.v201, "ocpp2.1": ocpp.v21}
_CLASSES = {name: type("Csms", (_Handlers, module.ChargePoint), {}) for name, module in _MODULES.items()}


@contextlib.asynccontextmanager
async def _python(
    hierarchy: Hierarchy, version: str, profile: int, modes: dict[str, str]
) -> AsyncIterator[ForeignCsms]:
    csms = _PythonCsms(modes)
    context = None
    if profile > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(hierarchy.cert, hierarchy.key)
        context.load_verify_locations(hierarchy.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    server: Server
    async with serve(
        csms.handle, "127.0.0.1", 0, ssl=context, process_request=csms.authenticate,
        subprotocols=[Subprotocol(version)], compression=None,
    ) as server:  # fmt: skip
        port = next(iter(server.sockets)).getsockname()[1]
        csms.url = f"{'ws' if profile == 1 else 'wss'}://localhost:{port}/ocpp"
        yield csms


def foreign_csms(
    kind: str, hierarchy: Hierarchy, version: str, *, profile: int = 2, **modes: str
) -> contextlib.AbstractAsyncContextManager[ForeignCsms]:
    """Run an endpoint of *kind* for the block.

    Args:
        profile: 1 is clear text; 2 and 3 are one endpoint, which asks for a client certificate.
        modes: ``trigger=""`` asks for a CSR after the boot; ``boot`` and ``sign`` are ``accept``, ``reject``,
            ``callerror`` or ``silent``.
    """
    return (_python if kind == "ocpp" else _node)(hierarchy, version, profile, modes)
