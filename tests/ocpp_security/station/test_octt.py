"""Cases of the OCTT for a station, by the simulated one: what the tool does to it, and what it looks for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode
from chargepki.ocpp_security.events import SecurityEvent, event_name
from chargepki.ocpp_security.rpc import CallReceived
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.station.dialling import Credentials
from chargepki.ocpp_security.station.session import StationSession
from chargepki.ocpp_security.tls import TlsIdentity, server_context
from chargepki.ocpp_security.versions import OcppVersion
from testkit.csms_rig import PASSWORD, run_on
from testkit.desk import desk_with

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
FAST = RetryPolicy(timedelta(seconds=0.02), timedelta(seconds=0.02))
DAY = timedelta(days=1)
VARIABLE = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "SecurityProfile"}}


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    common_name: str, issuer: str, start: timedelta = -DAY, end: timedelta = DAY, *, ca: bool = False, dns: str = ""
) -> bytes:
    """Return a certificate for *common_name*, valid from *start* to *end* counted from now."""
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key(common_name if ca else "server").public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    return builder.sign(key(issuer), hashes.SHA256()).public_bytes(Encoding.DER)


def served(*chain: bytes) -> TlsIdentity:
    return TlsIdentity(tuple(chain), key("server"))


def servers() -> Sequence[tuple[str, TlsIdentity]]:
    """The certificates of the case after the errata of 2025, and a sound one; of wildcards `test_tls` has the proof."""
    return (
        ("expired", served(certificate("localhost", "root", -2 * DAY, -DAY, dns="localhost"))),
        ("not yet valid", served(certificate("localhost", "root", DAY, 2 * DAY, dns="localhost"))),
        ("of another root", served(certificate("localhost", "other", dns="localhost"))),
        ("of another name", served(certificate("elsewhere", "root", dns="elsewhere"))),
        ("sound", served(certificate("localhost", "root", dns="localhost"))),
    )


def shows(event: Progress) -> bool:
    """Say whether *event* is what a station makes of a server: connected, or a security event about it."""
    is_event = event.milestone is Milestone.SECURITY_EVENT and "StartupOfTheDevice" not in event.text
    return is_event or event.milestone is Milestone.CONNECTED


class Bench:
    """A station of one version in front of servers that a test makes up."""

    def __init__(self, folder: Path, version: str) -> None:
        self.version, self.store = version, StationStore(folder / "station")
        root = certificate("root", "root", ca=True)
        self.store.set_trust(x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM))
        self.store.set_password(PASSWORD)
        self.requests: list[str] = []

    async def meet(self, tls: ssl.SSLContext) -> Milestone:
        """Let the station try a server once; return what it made of it."""

        async def nobody(connection: ServerConnection) -> None:
            await connection.wait_closed()

        def seen(_: ServerConnection, request: Request) -> None:
            self.requests.append(request.headers["Authorization"])

        speaks = [Subprotocol(self.version)]
        async with serve(nobody, "127.0.0.1", 0, ssl=tls, process_request=seen, subprotocols=speaks) as server:
            return await self.go_to(next(iter(server.sockets)).getsockname()[1])

    async def go_to(self, port: int) -> Milestone:
        """Let the station connect until it is connected or raises an event about the server."""
        url = f"wss://localhost:{port}"
        station = StationSimulator(url, "BENCH", self.store, self.version, retry=FAST, enrol=False)
        shown = await station.run(shows)
        assert shown is not None
        return shown.milestone

    def queued(self, event: SecurityEvent) -> int:
        name = event_name(OcppVersion(self.version), event)
        return [each.type for each in self.store.state.events].count(name)


@pytest.fixture(params=VERSIONS)
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, request.param)


def test_tc_078_and_tc_a_05_cs_no_invalid_server_certificate_gets_the_password(bench: Bench) -> None:
    """A00.FR.309 to 311, 412 to 414: it hangs up, raises the event, and comes in once the certificate is sound."""

    async def story() -> None:
        for what, identity in servers():
            shown = await bench.meet(server_context({SecurityProfile.TLS_BASIC}, [identity]))
            assert (shown is Milestone.CONNECTED) == (what == "sound") == bool(bench.requests), what

    run_on("asyncio", story())
    assert bench.queued(SecurityEvent.INVALID_CSMS_CERTIFICATE) == 4


def test_what_is_no_fault_of_a_server_certificate_is_not_called_so(bench: Bench) -> None:
    """A wrong password and a server that hangs up are refusals, each a common one, and no security event."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def nobody(_: ServerConnection) -> None:
        raise AssertionError("connected")

    def unauthorised(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(HTTPStatus.UNAUTHORIZED, "")

    async def story() -> list[int | None]:
        tls, seen = server_context({SecurityProfile.TLS_BASIC}, [servers()[-1][1]]), []
        async with (
            serve(nobody, "127.0.0.1", 0, ssl=tls, process_request=unauthorised) as refusing,
            await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls) as closing,
        ):
            for server in (refusing, closing):
                url = f"wss://localhost:{next(iter(server.sockets)).getsockname()[1]}"
                station = StationSimulator(url, "BENCH", bench.store, bench.version, retry=FAST, enrol=False)
                told = await station.run(lambda event: event.milestone is Milestone.REFUSED)
                seen.append(told.status if told else 0)
        return seen

    assert run_on("asyncio", story()) == [401, None]
    assert bench.queued(SecurityEvent.INVALID_CSMS_CERTIFICATE) == 0


@contextlib.contextmanager
def handshakes(tls: ssl.SSLContext) -> Iterator[int]:
    """Shake hands with whoever comes and tell them of a failure, which asyncio's servers do not; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    raw = listening.accept()[0]
                    with raw, contextlib.suppress(OSError):
                        tls.wrap_socket(raw, server_side=True).close()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_tc_a_06_cs_a_server_with_old_tls_or_weak_suites_gets_nothing(bench: Bench) -> None:
    """A00.FR.314 to 316, 323, 416, 417, 419, 426: it hangs up and raises the event."""
    sound = dict(servers())["sound"]

    def context(version: ssl.TLSVersion, suites: str) -> ssl.SSLContext:
        made = server_context({SecurityProfile.TLS_BASIC}, [sound])
        made.minimum_version = made.maximum_version = version
        made.set_ciphers(suites)
        return made

    async def story() -> None:
        old = context(ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0")
        weak = context(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA")
        for tls in (old, weak):
            with handshakes(tls) as port:
                assert await bench.go_to(port) is Milestone.SECURITY_EVENT

    run_on("asyncio", story())
    assert bench.requests == []
    log = "".join(text for _, text in bench.store.security_log())
    for event in (SecurityEvent.INVALID_TLS_VERSION, SecurityEvent.INVALID_TLS_CIPHER_SUITE):
        assert event.value in log
        # The catalogue of 1.6 calls it not critical, so it stays in the log there.
        assert bench.queued(event) == (bench.version != "ocpp1.6")


@pytest.mark.parametrize("action", ["UpdateFirmware", "GetDiagnostics"])
def test_row_55_and_1_6_l01_fr_20_what_the_secure_messages_replace_is_not_supported(
    tmp_path: Path, action: str
) -> None:
    """UpdateFirmware of 1.6 beside SignedUpdateFirmware; GetDiagnostics is answered alike."""
    station = StationSimulator("ws://localhost:1", "OLD", StationStore(tmp_path), OcppVersion.V16)
    session = StationSession(station, cast(ClientConnection, object()), Credentials(1, "OLD"))
    payload: dict[str, object] = {"location": "https://images.example/a.img", "retrieveDate": "2026-06-01T12:00:00Z"}
    with pytest.raises(OcppRefusal) as refused:
        asyncio.run(session._answers.answer(CallReceived("1", action, payload)))
    assert isinstance(refused.value.answer, CallErrorAnswer)
    assert refused.value.answer.code is RpcErrorCode.NOT_SUPPORTED
    assert station.firmware.store.state.job is None


def test_b03_fr_08_a_rejected_station_answers_security_error_and_sends_nothing_until_it_is_accepted(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with desk_with(tmp_path) as (desk, _station, _):
            desk.boot_status, desk.boot_interval = "Rejected", 1
            await desk.expect("BootNotification")
            assert await desk.call("GetVariables", {"getVariableData": [VARIABLE]}) == {"error": "SecurityError"}
            # B02.FR.01: in Pending the CSMS may ask for whatever it needs.
            desk.boot_status = "Pending"
            action = ""
            while action != "BootNotification" or "error" in (
                answer := await desk.call("GetVariables", {"getVariableData": [VARIABLE]})
            ):
                action, _ = await asyncio.wait_for(desk.calls.get(), 60)
                assert action == "BootNotification"
            assert answer["getVariableResult"][0]["attributeStatus"] == "Accepted"
            desk.boot_status = "Accepted"
            await desk.expect("StatusNotification")

    run_on("asyncio", story())
