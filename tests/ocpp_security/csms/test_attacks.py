"""The endpoint seen by an attacker: borrowed identities, smuggled headers, foreign and dead certificates, floods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets
from cryptography.hazmat.primitives import serialization

from chargepki.ocpp_security.csms import CsmsLimits
from chargepki.ocpp_security.csms.journal import Incident, SecurityJournal
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.pki.authority import IssueOrder
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.authority.issuance import complete, prepare, reserve
from chargepki.pki.pem import to_pem
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, basic_header, build_station_csr, foreign_station, open_socket

UNLIMITED = CsmsLimits(failed_attempts=10_000)
BASIC = basic_header("VICTIM", PASSWORD)["Authorization"]
UPGRADE = (
    "Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: ocpp2.0.1",
)  # fmt: skip


@pytest.fixture
def victim(rig: Rig) -> Iterator[Rig]:
    for identity in ("VICTIM", "CS_1", "CSX1"):
        if rig.inventory.find_station(identity) is None:
            rig.add_station(identity, password=PASSWORD if identity != "CS_1" else b"other-password-1")
    yield rig


async def status_of(url: str, tls: ssl.SSLContext | None, path: str, headers: dict[str, str] | None = None) -> int:
    try:
        socket = await open_socket(url, "", path=path, headers=headers or {}, tls=tls)
    except websockets.InvalidStatus as refused:
        return refused.response.status_code
    await socket.close()
    return 101


async def raw_request(server: Any, tls: ssl.SSLContext, request: bytes) -> bytes:
    """Send *request* as it is and return the status line; empty when the connection just ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls, server_hostname="localhost")
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            return await asyncio.wait_for(reader.readline(), 60)
        return b""
    finally:
        writer.close()


# --- identities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "username"),
    [
        ("/ocpp/victim", "VICTIM"),
        ("/ocpp/victim", "victim"),
        ("/ocpp/VICTIM/", "VICTIM"),
        ("/ocpp/VICTIM%2F", "VICTIM"),
        ("/ocpp//VICTIM", "VICTIM"),
        ("/ocpp/./VICTIM", "VICTIM"),
        ("/ocpp/x/../VICTIM", "VICTIM"),
        ("/OCPP/VICTIM", "VICTIM"),
        ("/ocpp%2FVICTIM", "VICTIM"),
        ("/ocpp/VICTIM%00", "VICTIM"),
        ("/ocpp/VICTIM%0d%0aX:y", "VICTIM"),
        ("/ocpp/%2556ICTIM", "VICTIM"),
        ("/ocpp/VICTIM%20", "VICTIM"),
        ("/ocpp/+VICTIM", "VICTIM"),
        ("/ocpp/VICTIM;x", "VICTIM"),
        ("/ocpp/%C0%AFVICTIM", "VICTIM"),
        ("/ocpp/V%C4%B0CTIM", "VICTIM"),  # dotted capital I, which lower() turns into an i
        ("/ocpp/%EF%BC%B6ICTIM", "VICTIM"),  # full-width V, which NFKC turns into a V
        ("/ocpp/%25", "%"),
        ("/ocpp/%", "VICTIM"),
        ("/ocpp/CS%5F1", "CSX1"),
        ("/ocpp/CSX1", "CS_1"),
        ("/ocpp/CS%251", "CSX1"),
        ("/ocpp/'%20OR%201=1--", "VICTIM"),
        ("/ocpp/VICTIM?identity=VICTIM", "CSX1"),
    ],
)
def test_no_spelling_of_an_identity_borrows_another_ones_rights(victim: Rig, path: str, username: str) -> None:
    async def story() -> int:
        async with victim.server(2, limits=UNLIMITED) as server:
            headers = basic_header(username, PASSWORD)
            return await status_of(victim.url_of(server), victim.client_tls(), path, headers)

    assert run_on("uvloop", story()) in (401, 404)


def test_a_percent_encoded_spelling_of_ones_own_identity_is_that_identity(victim: Rig) -> None:
    async def story() -> None:
        async with victim.server(2, limits=UNLIMITED) as server:
            url, tls = victim.url_of(server), victim.client_tls()
            headers = basic_header("VICTIM", PASSWORD)
            socket = await open_socket(url, "", path="/ocpp/%56ICTIM?x=1", headers=headers, tls=tls)
            assert [connection.station.id for connection in server.registry] == ["VICTIM"]
            await socket.close()

    run_on("uvloop", story())


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        ("two credentials, the first right", [f"Authorization: {BASIC}", "Authorization: Basic WDpY"]),
        ("two credentials, the second right", ["Authorization: Basic WDpY", f"Authorization: {BASIC}"]),
        ("two credentials in other case", [f"AUTHORIZATION: {BASIC}", f"authorization: {BASIC}"]),
        ("credentials joined by a comma", [f"Authorization: {BASIC}, {BASIC}"]),
        ("a blank before the colon", [f"Authorization : {BASIC}"]),
        ("a folded line", ["X: y", f" Authorization: {BASIC}"]),
        ("a bare carriage return", [f"X: y\rAuthorization: {BASIC}"]),
        ("a proxy's header", [f"X-Forwarded-Authorization: {BASIC}", f"Proxy-Authorization: {BASIC}"]),
        ("a client certificate by header", ["X-SSL-Client-Cert: VICTIM", "X-Client-CN: VICTIM"]),
        ("a NUL in the credentials", [f"Authorization: {BASIC}\0"]),
        ("credentials of 2 kB", ["Authorization: Basic " + "A" * 2048]),
        ("a header of 100 kB", ["X: " + "a" * 100_000, f"Authorization: {BASIC}"]),
        ("5000 headers", [*(f"X-{n}: y" for n in range(5000)), f"Authorization: {BASIC}"]),
    ],
)
def test_no_arrangement_of_headers_opens_a_connection(
    victim: Rig, case: str, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> tuple[bytes, int]:
        async with victim.server(2, limits=UNLIMITED) as server:
            request = "\r\n".join(["GET /ocpp/VICTIM HTTP/1.1", *UPGRADE, *lines, "", ""]).encode("latin-1")
            answer = await raw_request(server, victim.client_tls(), request)
            opened = len(server.registry)
            # The endpoint is unharmed.
            socket = await open_socket(victim.url_of(server), "VICTIM", password=PASSWORD, tls=victim.client_tls())
            await socket.close()
            return answer, opened

    with caplog.at_level(logging.DEBUG, "chargepki"):
        answer, opened = run_on("asyncio", story())
    assert b" 101 " not in answer and opened == 0, case
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    assert PASSWORD.decode() not in caplog.text and BASIC.split()[1] not in caplog.text


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /ocpp/VICTIM HTTP/1.1",
        "GET /ocpp/VICTIM HTTP/1.0",
        "GET http://localhost/ocpp/VICTIM HTTP/1.1",
        "GET /ocpp/VICTIM HTTP/2.0",
        "GET  /ocpp/VICTIM HTTP/1.1",
        "GET /ocpp/" + "V" * 100_000 + " HTTP/1.1",
        "\x16\x03\x01",
        "",
    ],
)
def test_an_odd_request_line_opens_nothing(victim: Rig, request_line: str) -> None:
    async def story() -> None:
        limits = CsmsLimits(failed_attempts=10_000, upgrade=timedelta(seconds=2))
        async with victim.server(2, limits=limits) as server:
            request = "\r\n".join([request_line, *UPGRADE, f"Authorization: {BASIC}", "", ""]).encode("latin-1")
            assert b" 101 " not in await raw_request(server, victim.client_tls(), request)
            assert len(server.registry) == 0

    run_on("asyncio", story())


def test_a_header_that_comes_one_byte_at_a_time_does_not_extend_the_time_limit(victim: Rig) -> None:
    async def story() -> float:
        async with victim.server(2, limits=CsmsLimits(upgrade=timedelta(seconds=0.5))) as server:
            tls = victim.client_tls()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=tls, server_hostname="localhost"
            )
            begun = asyncio.get_running_loop().time()

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        writer.write(b"G")
                        await writer.drain()
                        await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 60)
            dripping.cancel()
            writer.close()
            return asyncio.get_running_loop().time() - begun

    assert run_on("asyncio", story()) < 30


# --- certificates ------------------------------------------------------------------------------------------------


def _unrecorded(rig: Rig, station: str, *, void: bool) -> Credential:
    """A certificate that was signed but never recorded: a crash between the two, or a thief inside the authority."""
    credential = Credential()
    spki = credential.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    subject = (("CN", station), ("O", ORGANIZATION))
    order = IssueOrder(ca="t-cso-sub", profile="ocpp/charging-station", spki=spki, subject=subject, station=station)
    now = datetime.now(UTC).replace(microsecond=0)
    issuer = rig.authority.open_issuer("t-cso-sub")
    prepared = prepare(order, issuer, rig.inventory, actor=ACTOR, now=now)
    record = rig.inventory.write(lambda tx: reserve(tx, prepared, actor=ACTOR, now=now))
    der = complete(record, issuer)
    if void:

        def work(tx: Any) -> None:
            tx.void_certificate(record.id)
            tx.audit(ACTOR, "certificate.void", record.id, now=now)

        rig.inventory.write(work)
    credential.chain_pem = "".join(to_pem("CERTIFICATE", part) for part in (der, rig.sub_der))
    return credential


def _for_purpose(rig: Rig, station: str, *, ca: str, profile: str, **options: Any) -> Credential:
    credential = Credential()
    spki = credential.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    subject = (("CN", station), ("O", ORGANIZATION))
    order = IssueOrder(ca=ca, profile=profile, spki=spki, subject=subject, station=station, **options)
    issued = rig.authority.issue(order)
    credential.chain_pem = "".join(to_pem("CERTIFICATE", der) for der in issued.chain)
    return credential


def _remove(rig: Rig, station: str) -> None:
    def work(tx: Any) -> None:
        tx.remove_station(station)
        tx.audit(ACTOR, "station.remove", station, now=datetime.now(UTC))

    rig.inventory.write(work)


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("reserved", "is not in the inventory"),
        ("voided", "is not in the inventory"),
        ("removed station", "is removed"),
        ("csms profile", "which opens no connection"),
    ],
)
def test_a_certificate_that_is_not_an_active_one_of_this_station_is_turned_away(
    rig: Rig, case: str, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    station = "A-" + case.replace(" ", "-")
    rig.add_station(station, profile=3)
    match case:
        case "reserved" | "voided":
            credential = _unrecorded(rig, station, void=case == "voided")
        case "removed station":
            credential, _ = rig.credential(station)
            _remove(rig, station)
        case _:
            credential = _for_purpose(
                rig, station, ca="t-cso-sub", profile="ocpp/csms", dns_names=(f"{station.lower()}.example",)
            )

    async def story() -> int:
        async with rig.server(2, 3, limits=UNLIMITED) as server:
            tls = rig.client_tls(credential)
            headers = basic_header(station, PASSWORD)  # the right password does not help a wrong certificate
            return await status_of(rig.url_of(server), tls, f"/ocpp/{station}", headers)

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        assert run_on("asyncio", story()) == 403
    assert cause in caplog.text


def test_a_certificate_of_another_ca_of_the_same_inventory_fails_in_the_handshake(rig: Rig) -> None:
    subject = (("CN", "x-root"), ("O", ORGANIZATION), ("C", "DE"))
    rig.authority.create_ca(CaOrder("x-root", "ocpp/cso-root", subject=subject))
    subject = (("CN", "x-sub"), ("O", ORGANIZATION), ("C", "DE"))
    rig.authority.create_ca(CaOrder("x-sub", "ocpp/cso-sub", issuer="x-root", subject=subject))
    rig.add_station("OTHERCA", profile=3)
    credential = _for_purpose(rig, "OTHERCA", ca="x-sub", profile="ocpp/charging-station")

    async def story() -> None:
        async with rig.server(2, 3) as server:
            with pytest.raises((OSError, websockets.InvalidHandshake)):
                await open_socket(rig.url_of(server), "OTHERCA", tls=rig.client_tls(credential))
            assert len(server.registry) == 0

    run_on("asyncio", story())


def test_a_removed_station_is_answered_like_an_unknown_one(rig: Rig) -> None:
    rig.add_station("LEFT")
    _remove(rig, "LEFT")

    async def story() -> int:
        async with rig.server(2) as server:
            headers = basic_header("LEFT", PASSWORD)
            return await status_of(rig.url_of(server), rig.client_tls(), "/ocpp/LEFT", headers)

    assert run_on("asyncio", story()) == 401


# --- floods and logs ---------------------------------------------------------------------------------------------


def test_made_up_identities_fill_neither_log_nor_database(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    clock = datetime.now(UTC)

    async def story() -> None:
        offload = Offload()
        journal = SecurityJournal(rig.inventory, offload, lambda: clock, ACTOR)
        incident = Incident("no-credentials", "none", "", "FloodTest")
        for number in range(2000):
            journal.note(incident, station=None, peer=f"192.0.2.1:{number}", claimed=f"X{number}" * 1000)
        for number in range(2000):
            journal.note(incident, station=None, peer=f"[2001:db8::{number:x}]:1", claimed="Y")
        # What an authenticated station does is not drowned by it.
        assert journal.note(incident, station="REAL", peer="192.0.2.1:1")
        await journal.drain()
        offload.close()

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("asyncio", story())
    assert len(caplog.records) < 700
    assert sum(len(record.getMessage()) for record in caplog.records) < 200_000
    assert "no longer reported one by one" in caplog.text
    events = [event for event in rig.inventory.list_security_events(limit=100_000) if event.type == "FloodTest"]
    assert len(events) < 700 and any(event.station == "REAL" for event in events)


@pytest.mark.parametrize("path", ["/ocpp/A%0a2026-01-01 ERROR forged", "/ocpp/%1b[2J", "/ocpp/%E2%80%AE", "/x%0ay"])
def test_what_a_peer_claims_cannot_forge_a_log_line(rig: Rig, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with rig.server(2, limits=UNLIMITED) as server:
            request = "\r\n".join([f"GET {path.replace(' ', '%20')} HTTP/1.1", *UPGRADE, "", ""]).encode("latin-1")
            await raw_request(server, rig.client_tls(), request)
            raw = "\r\n".join(["GET /ocpp/A\x0bB\x85C HTTP/1.1", *UPGRADE, "", ""]).encode("latin-1")
            await raw_request(server, rig.client_tls(), raw)

    with caplog.at_level(logging.DEBUG, "chargepki"):
        run_on("asyncio", story())
    for record in caplog.records:
        assert record.getMessage().isprintable(), record.getMessage()


def test_a_station_that_reports_events_without_end_is_slowed_down_and_loses_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.csms.connection._MAX_EVENTS", 5)
    rig.add_station("CHATTY", profile=1)
    event = '[2,"%d","SecurityEventNotification",{"type":"Flood","timestamp":"2026-03-01T00:00:00Z"}]'

    async def story() -> float:
        async with rig.server(1) as server:
            socket = await open_socket(rig.url_of(server), "CHATTY", password=PASSWORD)
            begun = asyncio.get_running_loop().time()
            for number in range(7):
                await socket.send(event % number)
                await socket.recv()
            await socket.close()
            return asyncio.get_running_loop().time() - begun

    assert run_on("asyncio", story()) > 1.9
    (series,) = rig.inventory.list_event_series(station="CHATTY", type="Flood")
    assert series.count == 7


def test_changing_the_ocpp_version_is_no_way_round_the_limit_of_requests(rig: Rig) -> None:
    rig.add_station("HOPPER", profile=1)

    async def story() -> list[str]:
        answers: list[str] = []
        async with rig.server(1) as server:
            for version in ("ocpp2.0.1", "ocpp2.1"):
                url = rig.url_of(server)
                async with foreign_station(url, "HOPPER", version, password=PASSWORD) as peer:
                    csrs = [build_station_csr(Credential().key, "HOPPER") for _ in range(31)]
                    answers += [await peer.send_csr(csr) for csr in csrs]
        return answers

    assert run_on("asyncio", story()).count("Accepted") == 60


def test_a_revocation_while_many_connect_leaves_none_connected(rig: Rig) -> None:
    rig.add_station("HERD", profile=3)
    credential, certificate_id = rig.credential("HERD")

    async def attempt(url: str, tls: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError, websockets.WebSocketException):
            socket = await open_socket(url, "HERD", tls=tls)
            await asyncio.wait_for(socket.wait_closed(), 60)

    async def story() -> None:
        async with rig.server(3) as server:
            url, tls = rig.url_of(server), rig.client_tls(credential)
            tries = [asyncio.create_task(attempt(url, tls)) for _ in range(6)]
            await wait_for(lambda: len(server.registry) > 0)
            revoking = asyncio.to_thread(rig.authority.revoke, certificate_id, "keyCompromise")
            tries += [asyncio.create_task(attempt(url, tls)) for _ in range(6)]
            await revoking
            await asyncio.gather(*tries)
            await wait_for(lambda: len(server.registry) == 0)

    run_on("asyncio", story())
    presence = rig.inventory.find_presence("HERD")
    assert presence is None or not presence.connected
