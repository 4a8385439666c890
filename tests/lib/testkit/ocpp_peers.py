"""Charging stations that are not ours: the plain `ocpp` package over `websockets`, with keys made at run time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ocpp.messages
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ocpp.routing import after, on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v21 import call as call21
from ocpp.v21 import call_result as result21
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from testkit.foreign_roots import InstalledRoots, with_roots

__all__ = [
    "Credential",
    "ForeignStation",
    "basic_header",
    "build_station_csr",
    "client_tls",
    "foreign_station",
    "open_socket",
]

# The package validates in a thread pool by default; with an event loop per test that only leaks threads.
ocpp.messages.ASYNC_VALIDATION = False
logging.getLogger("ocpp").setLevel(logging.CRITICAL)


@dataclass
class Credential:
    """A station's key with the chain it was given (leaf first), as files for `ssl`."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    chain_pem: str = ""

    def key_pem(self) -> bytes:
        """Return the unencrypted PKCS#8 key; test keys only."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def build_station_csr(
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    organization: str | None = None,
    *,
    ask_ca: bool = False,
) -> str:
    """Return a PEM CSR as a foreign station makes it (cryptography's own builder, not ours)."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if ask_ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


def basic_header(identity: str, password: bytes) -> dict[str, str]:
    """Return the Authorization header of HTTP Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(identity.encode() + b":" + password).decode("ascii")}


def client_tls(root_pem: str, folder: Path, credential: Credential | None = None) -> ssl.SSLContext:
    """Return a client context that trusts *root_pem* alone and presents *credential*, made with `ssl` only."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=root_pem)
    if credential is not None:
        key_file, chain_file = folder / "foreign.key", folder / "foreign.pem"
        key_file.write_bytes(credential.key_pem())
        chain_file.write_text(credential.chain_pem)
        context.load_cert_chain(chain_file, key_file)
    return context


async def open_socket(
    url: str,
    identity: str,
    *,
    protocols: tuple[str, ...] = ("ocpp2.0.1",),
    password: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    path: str | None = None,
    headers: dict[str, str] | None = None,
) -> ClientConnection:
    """Open a bare WebSocket; raises what `websockets` raises (InvalidStatus with the HTTP answer, for one)."""
    extra = dict(headers or {})
    if password is not None:
        extra |= basic_header(identity, password)
    return await websockets.connect(
        url + (path if path is not None else "/ocpp/" + quote(identity, safe="")),
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        additional_headers=extra,
        ssl=tls,
        compression=None,
        proxy=None,
        open_timeout=60,
    )


class ForeignStation:
    """What a test does with a foreign station, the same for all three versions."""

    def __init__(self, charge_point: Any, version: str, socket: ClientConnection) -> None:
        self.charge_point, self.version, self.socket = charge_point, version, socket
        self.triggers: asyncio.Queue[str] = asyncio.Queue()
        self.chains: asyncio.Queue[str] = asyncio.Queue()
        self.signed: list[dict[str, Any]] = []
        """Everything beside the chain that came with each CertificateSigned (snake_case)."""
        self.verdict = "Accepted"
        """What the station answers to CertificateSigned."""
        self.priority = "1"
        """2.x: its NetworkConfigurationPriority."""
        self.variables: dict[str, str] = {}
        """2.x: what else it tells."""
        self.roots = InstalledRoots()
        """What it holds; hand it to the next connection of the same station."""
        self.password_verdict = "Accepted"
        """What it answers to a change of its password."""

    async def boot(self, serial_number: str | None) -> str:
        """Send BootNotification and return the status."""
        if self.version == "ocpp1.6":
            request: Any = call16.BootNotification("Model", "Vendor", charge_point_serial_number=serial_number)
        else:
            station: dict[str, Any] = {"model": "Model", "vendor_name": "Vendor"}
            if serial_number is not None:
                station["serial_number"] = serial_number
            module = call201 if self.version == "ocpp2.0.1" else call21
            request = module.BootNotification(charging_station=station, reason="PowerUp")
        answer = await self.charge_point.call(request, suppress=False)
        return str(answer.status)

    async def heartbeat(self) -> str:
        """Send Heartbeat and return the CSMS's time."""
        module: Any = {"ocpp1.6": call16, "ocpp2.0.1": call201, "ocpp2.1": call21}[self.version]
        answer = await self.charge_point.call(module.Heartbeat(), suppress=False)
        return str(answer.current_time)

    async def report(self, kind: str, timestamp: str, tech_info: str) -> None:
        """Send SecurityEventNotification."""
        module: Any = {"ocpp1.6": call16, "ocpp2.0.1": call201, "ocpp2.1": call21}[self.version]
        request = module.SecurityEventNotification(type=kind, timestamp=timestamp, tech_info=tech_info)
        await self.charge_point.call(request, suppress=False)

    async def send_csr(self, csr: str, *, request_id: int | None = None) -> str:
        """Send SignCertificate and return the status."""
        if self.version == "ocpp1.6":
            request: Any = call16.SignCertificate(csr=csr)
        elif self.version == "ocpp2.0.1":
            request = call201.SignCertificate(csr=csr, certificate_type="ChargingStationCertificate")
        else:
            request = call21.SignCertificate(
                csr=csr,
                certificate_type="ChargingStationCertificate",
                request_id=request_id,
            )
        answer = await self.charge_point.call(request, suppress=False)
        return str(answer.status)

    async def next_chain(self, timeout: float = 60) -> str:
        """Return the next certificate chain that the CSMS delivers."""
        return await asyncio.wait_for(self.chains.get(), timeout)

    async def next_trigger(self, timeout: float = 60) -> str:
        """Return the next message that the CSMS asks for."""
        return await asyncio.wait_for(self.triggers.get(), timeout)


class _Renewing:
    """What a station that renews its certificate does with any version."""

    owner: ForeignStation
    _call_result: Any

    @on("CertificateSigned")  # type: ignore[untyped-decorator]  # no types
    async def on_certificate_signed(self, certificate_chain: str, **fields: Any) -> Any:
        self.owner.signed.append(fields)
        return self._call_result.CertificateSigned(status=self.owner.verdict)

    @after("CertificateSigned")  # type: ignore[untyped-decorator]  # no types
    async def after_certificate_signed(self, certificate_chain: str, **_: Any) -> None:
        self.owner.chains.put_nowait(certificate_chain)

    @on("Reset")  # type: ignore[untyped-decorator]  # no types
    async def on_reset(self, type: str, **_: Any) -> Any:
        self.owner.triggers.put_nowait(f"reset {type}")
        return self._call_result.Reset(status="Accepted")


class _Renewing16(_Renewing):
    @on("ExtendedTriggerMessage")  # type: ignore[untyped-decorator]  # no types
    async def on_trigger(self, requested_message: str, **_: Any) -> Any:
        return self._call_result.ExtendedTriggerMessage(status="Accepted")

    @after("ExtendedTriggerMessage")  # type: ignore[untyped-decorator]  # no types
    async def after_trigger(self, requested_message: str, **_: Any) -> None:
        self.owner.triggers.put_nowait(requested_message)

    @on("ChangeConfiguration")  # type: ignore[untyped-decorator]  # no types
    async def on_change_configuration(self, key: str, value: str) -> Any:
        self.owner.triggers.put_nowait(f"{key}={value}")
        return self._call_result.ChangeConfiguration(status=self.owner.password_verdict)


class _Renewing2(_Renewing):
    @on("TriggerMessage")  # type: ignore[untyped-decorator]  # no types
    async def on_trigger(self, requested_message: str, **_: Any) -> Any:
        return self._call_result.TriggerMessage(status="Accepted")

    @after("TriggerMessage")  # type: ignore[untyped-decorator]  # no types
    async def after_trigger(self, requested_message: str, **_: Any) -> None:
        self.owner.triggers.put_nowait(requested_message)

    @on("SetVariables")  # type: ignore[untyped-decorator]  # no types
    async def on_set_variables(self, set_variable_data: list[dict[str, Any]], **_: Any) -> Any:
        for item in set_variable_data:
            self.owner.triggers.put_nowait(f"{item['variable']['name']}={item['attribute_value']}")
        return self._call_result.SetVariables(
            set_variable_result=[
                {
                    "attribute_status": self.owner.password_verdict,
                    "component": item["component"],
                    "variable": item["variable"],
                }
                for item in set_variable_data
            ]
        )

    @on("GetVariables")  # type: ignore[untyped-decorator]  # no types
    async def on_get_variables(self, get_variable_data: list[dict[str, Any]], **_: Any) -> Any:
        known = {"NetworkConfigurationPriority": self.owner.priority, **self.owner.variables}
        told = []
        for item in get_variable_data:
            name = item["variable"]["name"]
            self.owner.triggers.put_nowait(f"{name}?")
            value = {"attribute_value": known[name]} if name in known else {}
            status = "Accepted" if name in known else "UnknownVariable"
            told.append({"component": item["component"], "variable": item["variable"], **value})
            told[-1]["attribute_status"] = status
        return self._call_result.GetVariables(get_variable_result=told)

    @on("SetNetworkProfile")  # type: ignore[untyped-decorator]  # no types
    async def on_set_network_profile(self, configuration_slot: int, connection_data: dict[str, Any], **_: Any) -> Any:
        profile, url = connection_data["security_profile"], connection_data["ocpp_csms_url"]
        self.owner.triggers.put_nowait(f"slot {configuration_slot}: profile {profile} at {url}")
        return self._call_result.SetNetworkProfile(status="Accepted")


def _station_class(handlers: type[_Renewing], base: Any) -> Callable[[str, ClientConnection], Any]:
    return type("Station", (handlers, base), {})


_MAKERS: dict[str, Callable[[str, ClientConnection], Any]] = {
    "ocpp1.6": _station_class(_Renewing16, with_roots(ChargePoint16, result16, chained=False)),
    "ocpp2.0.1": _station_class(_Renewing2, with_roots(ChargePoint201, result201, chained=True)),
    "ocpp2.1": _station_class(_Renewing2, with_roots(ChargePoint21, result21, chained=True)),
}


@contextlib.asynccontextmanager
async def foreign_station(
    url: str,
    identity: str,
    version: str,
    *,
    password: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    roots: InstalledRoots | None = None,
) -> AsyncIterator[ForeignStation]:
    """Connect a foreign station and run it until the block ends; *roots* are what it held before."""
    socket = await open_socket(url, identity, protocols=(version,), password=password, tls=tls)
    charge_point = _MAKERS[version](identity, socket)
    station = ForeignStation(charge_point, version, socket)
    charge_point.owner = station
    station.roots = roots if roots is not None else station.roots
    reading = asyncio.create_task(charge_point.start())
    try:
        yield station
    finally:
        await socket.close()
        with contextlib.suppress(websockets.ConnectionClosed, asyncio.CancelledError):
            await asyncio.wait_for(reading, 60)
