"""Who is turned away before the upgrade, with which status, and what the operator reads about it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.csms import CsmsConfig, CsmsLimits
from chargepki.pki.errors import InputError
from chargepki.pki.pem import to_pem
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import make_node
from testkit.ocpp_peers import Credential, basic_header, open_socket

UNLIMITED = CsmsLimits(failed_attempts=10_000)


async def refusal(*arguments: Any, **options: Any) -> websockets.Response:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await open_socket(*arguments, **options)
    return refused.value.response


@pytest.mark.parametrize(
    ("case", "path", "headers", "status"),
    [
        ("no credentials", "/ocpp/KNOWN", {}, 401),
        ("unknown identity", "/ocpp/NOBODY", basic_header("NOBODY", PASSWORD), 401),
        ("impossible identity", "/ocpp/NO:BODY", basic_header("KNOWN", PASSWORD), 401),
        ("wrong password", "/ocpp/KNOWN", basic_header("KNOWN", b"wrong-password-000"), 401),
        ("empty password", "/ocpp/KNOWN", basic_header("KNOWN", b""), 401),
        ("another's name", "/ocpp/KNOWN", basic_header("OTHER", PASSWORD), 401),
        ("another's identity", "/ocpp/OTHER", basic_header("KNOWN", PASSWORD), 401),
        ("bearer scheme", "/ocpp/KNOWN", {"Authorization": "Bearer abc"}, 401),
        ("not base64", "/ocpp/KNOWN", {"Authorization": "Basic ???"}, 401),
        ("not UTF-8", "/ocpp/KNOWN", {"Authorization": "Basic //8="}, 401),
        ("case differs", "/ocpp/known", basic_header("known", PASSWORD), 401),
        ("below the expected profile", "/ocpp/HIGH", basic_header("HIGH", PASSWORD), 403),
        ("root path", "/", basic_header("KNOWN", PASSWORD), 404),
        ("no identity", "/ocpp/", basic_header("KNOWN", PASSWORD), 404),
        ("more segments", "/ocpp/a/KNOWN", basic_header("KNOWN", PASSWORD), 404),
        ("other prefix", "/ocppx/KNOWN", basic_header("KNOWN", PASSWORD), 404),
    ],
)
def test_profile_2_turns_away(
    rig: Rig, case: str, path: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    for identity, profile in (("KNOWN", 2), ("OTHER", 2), ("HIGH", 3)):
        if rig.inventory.find_station(identity) is None:
            rig.add_station(
                identity, profile=profile, password=PASSWORD if identity != "OTHER" else b"other-password-1"
            )

    async def story() -> websockets.Response:
        async with rig.server(2, 3, limits=UNLIMITED) as server:
            return await refusal(rig.url_of(server), "", path=path, headers=headers, tls=rig.client_tls())

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        response = run_on("uvloop", story())
    assert response.status_code == status
    bodies = {401: b"authentication failed\n", 403: b"not allowed\n", 404: b"no OCPP endpoint here\n"}
    assert response.body == bodies[status]
    assert ("WWW-Authenticate" in response.headers) is (status == 401)
    assert "to fix:" in caplog.text or status == 401
    assert PASSWORD.decode() not in caplog.text


def test_all_401_answers_are_alike_in_text_and_headers(rig: Rig) -> None:
    rig.add_station("ALIKE")

    async def story() -> set[tuple[object, ...]]:
        seen: set[tuple[object, ...]] = set()
        async with rig.server(2, limits=UNLIMITED) as server:
            for identity, headers in (
                ("ALIKE", basic_header("ALIKE", b"wrong-password-000")),
                ("STRANGER", basic_header("STRANGER", b"wrong-password-000")),
                ("ALIKE", {}),
            ):
                tls = rig.client_tls()
                response = await refusal(rig.url_of(server), identity, headers=headers, tls=tls)
                names = tuple(sorted((k, v) for k, v in response.headers.raw_items() if k != "Date"))
                seen.add((response.status_code, response.reason_phrase, bytes(response.body or b""), names))
        return seen

    assert len(run_on("asyncio", story())) == 1


@pytest.mark.as_shipped
def test_an_unknown_identity_takes_the_time_of_a_wrong_password(rig: Rig) -> None:
    rig.add_station("TIMED")

    async def story() -> tuple[float, float]:
        took: dict[str, list[float]] = {"TIMED": [], "STRANGER": []}
        async with rig.server(2, limits=UNLIMITED) as server:
            tls = rig.client_tls()
            for _ in range(7):
                for identity, times in took.items():
                    begun = time.process_time()
                    await refusal(rig.url_of(server), identity, password=b"wrong-password-000", tls=tls)
                    times.append(time.process_time() - begun)
        return statistics.median(took["TIMED"]), statistics.median(took["STRANGER"])

    known, unknown = run_on("asyncio", story())
    assert 0.6 < known / unknown < 1.6


def test_too_many_failed_attempts_are_answered_429_even_with_the_right_password(rig: Rig) -> None:
    rig.add_station("HAMMERED")

    async def story() -> None:
        async with rig.server(2, limits=CsmsLimits(failed_attempts=3)) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            for _ in range(3):
                assert (await refusal(url, "HAMMERED", password=b"wrong-password-000", tls=tls)).status_code == 401
            assert (await refusal(url, "HAMMERED", password=PASSWORD, tls=tls)).status_code == 429

    run_on("asyncio", story())


def test_the_identity_is_percent_decoded_and_the_username_is_not(rig: Rig) -> None:
    rig.add_station("A|B=1@x")

    async def story() -> None:
        async with rig.server(2) as server:
            socket = await open_socket(rig.url_of(server), "A|B=1@x", password=PASSWORD, tls=rig.client_tls())
            await socket.close()
            encoded = quote("A|B=1@x", safe="")
            path = f"/ocpp/{encoded}"
            headers = basic_header(encoded, PASSWORD)
            tls = rig.client_tls()
            assert (await refusal(rig.url_of(server), "", path=path, headers=headers, tls=tls)).status_code == 401

    run_on("asyncio", story())


def test_two_authorization_headers_are_refused(rig: Rig) -> None:
    rig.add_station("DOUBLE")

    async def story() -> None:
        async with rig.server(2) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=rig.client_tls(), server_hostname="localhost"
            )
            value = basic_header("DOUBLE", PASSWORD)["Authorization"]
            writer.write(
                b"GET /ocpp/DOUBLE HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                + f"Authorization: {value}\r\nAuthorization: {value}\r\n\r\n".encode()
            )
            assert b" 401 " in await reader.readline()
            writer.close()

    run_on("asyncio", story())


def _foreign_credential(folder: Path) -> tuple[Credential, str]:
    root = make_node("Rogue root", None, ca=True)
    leaf = make_node("P3", root, ca=False)
    pem = leaf.certificate.public_bytes(Encoding.PEM).decode()
    return Credential(leaf.key, pem), to_pem("CERTIFICATE", root.der)


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("another station's", "serial number of P3 is 'P3'"),
        ("linked to another", "is linked to P3-OTHER"),
        ("revoked", "is revoked since"),
        ("expired", "not now"),
        ("unregistered", "is unknown"),
        ("linked to none", "is linked to no station"),
        ("server certificate", "is linked to no station"),
    ],
)
def test_profile_3_turns_away_with_403(
    rig: Rig, loop: str, case: str, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    for identity in ("P3", "P3-OTHER"):
        if rig.inventory.find_station(identity) is None:
            rig.add_station(identity, profile=3)
    identity, ahead = "P3", timedelta(0)
    match case:
        case "another station's":
            credential, _ = rig.credential("P3", common_name="P3-STRANGE")
        case "linked to another":
            credential, _ = rig.credential("P3-OTHER", common_name="P3")
        case "revoked":
            credential, certificate_id = rig.credential("P3")
            rig.authority.revoke(certificate_id, "keyCompromise")
        case "expired":
            credential, _ = rig.credential("P3")
            ahead = timedelta(days=4000)
        case "unregistered":
            credential, _ = rig.credential("P3")
            identity = "P3-NOBODY"
        case "linked to none":
            credential, _ = rig.credential(None, common_name="P3-NONE")
        case _:
            chain = "".join(to_pem("CERTIFICATE", der) for der in rig.server_identity.chain_der)
            key = rig.server_identity.private_key
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            credential = Credential(key, chain)

    async def story() -> int:
        async with rig.server(2, 3, clock=lambda: datetime.now(UTC) + ahead) as server:
            tls = rig.client_tls(credential)
            response = await refusal(rig.url_of(server), identity, password=PASSWORD, tls=tls)
            assert response.body == b"not allowed\n"
            return response.status_code

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        assert run_on(loop, story()) == 403
    assert cause in caplog.text


def test_a_certificate_of_a_foreign_root_fails_in_the_handshake_and_the_log_says_why(
    rig: Rig, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    credential, _ = _foreign_credential(rig.folder)

    async def story() -> None:
        async with rig.server(3) as server:
            with pytest.raises((OSError, websockets.InvalidHandshake)):
                await open_socket(rig.url_of(server), "P3", tls=rig.client_tls(credential))
            await wait_for(lambda: "TLS handshake failed" in caplog.text)

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on(loop, story())
    assert "unable to get local issuer certificate" in caplog.text or "self-signed" in caplog.text
    assert "--client-trust" in caplog.text
    events = rig.inventory.list_security_events()
    assert any(e.type == "InvalidChargingStationCertificate" and "client-certificate" in e.tech_info for e in events)


def test_no_client_certificate_where_profile_3_alone_is_served_is_logged(
    rig: Rig, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with rig.server(3) as server:
            with pytest.raises((OSError, websockets.InvalidHandshake)):
                await open_socket(rig.url_of(server), "P3", password=PASSWORD, tls=rig.client_tls())
            await wait_for(lambda: "no-client-certificate" in caplog.text)

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on(loop, story())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_plain_http_and_old_tls_on_a_tls_port_are_explained(
    rig: Rig, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with rig.server(2) as server:
            _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /ocpp/CS1 HTTP/1.1\r\nHost: x\r\n\r\n")
            await wait_for(lambda: "wss://" in caplog.text)
            writer.close()
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
            await wait_for(lambda: "tls-version" in caplog.text)

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on(loop, story())


def test_a_silent_peer_is_dropped_in_tls_and_before_the_request(rig: Rig, loop: str) -> None:
    limits = CsmsLimits(tls_handshake=timedelta(seconds=0.3), upgrade=timedelta(seconds=0.3))

    async def story() -> None:
        async with rig.server(2, limits=limits) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=rig.client_tls(), server_hostname="localhost"
            )
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()

    run_on(loop, story())


def test_one_address_cannot_hold_every_handshake(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    limits = CsmsLimits(max_open_handshakes=8, max_open_handshakes_per_address=3)

    async def story() -> None:
        async with rig.server(2, limits=limits) as server:
            held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            for _, other in (*held, (reader, writer)):
                other.close()

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("asyncio", story())
    assert "too-many-handshakes" in caplog.text


def test_a_plain_web_request_gets_an_http_answer_and_no_connection(rig: Rig) -> None:
    rig.add_station("BROWSER")

    async def story() -> None:
        async with rig.server(2) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=rig.client_tls(), server_hostname="localhost"
            )
            value = basic_header("BROWSER", PASSWORD)["Authorization"]
            writer.write(f"GET /ocpp/BROWSER HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\n\r\n".encode())
            assert b" 426 " in await reader.readline()
            writer.close()
            assert len(server.registry) == 0

    run_on("asyncio", story())


def test_profile_1_is_never_served_beside_tls(rig: Rig) -> None:
    with pytest.raises(InputError, match="one port"):
        CsmsConfig(security_profiles=frozenset({1, 2}), tls=rig.tls(frozenset({2})))
    with pytest.raises(InputError, match="TLS context"):
        CsmsConfig(security_profiles=frozenset({2}), tls=None)
    with pytest.raises(InputError, match="client certificate"):
        CsmsConfig(security_profiles=frozenset({3}), tls=rig.tls(frozenset({2})))


def test_an_unknown_station_is_reported_with_the_command_that_registers_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with rig.server(2) as server:
            await refusal(rig.url_of(server), "NEWCOMER", password=PASSWORD, tls=rig.client_tls())

    run_on("asyncio", story())
    assert "to fix: register it: chargepki station add NEWCOMER" in caplog.text


def test_profile_0_lets_in_only_1_6_stations_recorded_so_and_says_what_that_means(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("ZERO", password=None, profile=0)
    rig.add_station("ONE", profile=1)

    async def story() -> list[object]:
        seen: list[object] = []
        async with rig.server(0, 1) as server:
            url = rig.url_of(server)
            socket = await open_socket(url, "ZERO", protocols=("ocpp1.6",))
            seen.append(socket.subprotocol)
            await socket.close()
            seen.append((await refusal(url, "ZERO", protocols=("ocpp2.0.1",))).status_code)
            seen.append((await refusal(url, "ZERO", protocols=("ocpp2.0.1", "ocpp1.6"))).status_code)
            # Whoever should have a password is asked for it, and looks like one who is not known.
            seen.append((await refusal(url, "ONE", protocols=("ocpp1.6",))).status_code)
            seen.append((await refusal(url, "NOBODY", protocols=("ocpp1.6",))).status_code)
            socket = await open_socket(url, "ONE", protocols=("ocpp1.6",), password=PASSWORD)
            await socket.close()
        async with rig.server(1) as server:
            seen.append((await refusal(rig.url_of(server), "ZERO", protocols=("ocpp1.6",))).status_code)
        return seen

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        assert run_on("uvloop", story()) == ["ocpp1.6", 403, 403, 401, 401, 401]
    assert "[no-security-profile]" in caplog.text
