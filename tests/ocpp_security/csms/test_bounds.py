"""Two connections for one identity, and peers that only cost: bounded, on real sockets, at nobody else's expense."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import struct
from datetime import timedelta
from typing import Any

import pytest
import websockets

from chargepki.ocpp_security.csms import CsmsLimits, CsmsServer, DuplicatePolicy, bounded
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import basic_header, foreign_station, open_socket

WRONG = b"wrong-password-000"
HEARTBEAT = '[2,"alive","Heartbeat",{}]'


async def refused(rig: Rig, server: CsmsServer, identity: str, **options: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as caught:
        await open_socket(rig.url_of(server), identity, tls=rig.client_tls(), **options)
    return caught.value.response.status_code


async def raw_open(rig: Rig, server: CsmsServer, identity: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Upgrade by hand, so that what follows need not be WebSocket at all."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=rig.client_tls(), server_hostname="localhost"
    )
    value = basic_header(identity, PASSWORD)["Authorization"]
    writer.write(
        f"GET /ocpp/{identity} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: ocpp2.0.1\r\nAuthorization: {value}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head, head
    return reader, writer


def frame(opcode: int, payload: bytes, *, first: int = 0x80) -> bytes:
    """Return a masked client frame; *first* holds FIN and the reserved bits."""
    mask = os.urandom(4)
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack("!H", length)
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([first | opcode]) + size + mask + body


# --- two connections (the attacks that SaiFlow published in 2023) --------------------------------------------------


def test_saiflow_a_second_connection_without_the_credential_neither_hijacks_nor_kills_the_first(rig: Rig) -> None:
    rig.add_station("SAIFLOW-1")

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            async with foreign_station(url, "SAIFLOW-1", "ocpp2.0.1", password=PASSWORD, tls=tls) as station:
                await station.boot("SAIFLOW-1")
                first = server.registry.find("SAIFLOW-1")
                for options in ({}, {"password": WRONG}, {"headers": basic_header("OTHER", PASSWORD)}):
                    assert await refused(rig, server, "SAIFLOW-1", **options) == 401
                # Percent-encoding, a query and another case are no other way in.
                for path in ("/ocpp/SAIFLOW%2D1", "/ocpp/SAIFLOW-1?x", "/ocpp/saiflow-1"):
                    assert await refused(rig, server, "", path=path, password=WRONG) == 401
                assert server.registry.find("SAIFLOW-1") is first
                assert await station.heartbeat()

    run_on("uvloop", story())


def test_saiflow_what_the_csms_sends_goes_to_the_newest_proven_connection_and_the_old_one_hears_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("SAIFLOW-2")

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            first = await open_socket(url, "SAIFLOW-2", password=PASSWORD, tls=tls)
            second = await open_socket(url, "SAIFLOW-2", password=PASSWORD, tls=tls)
            await first.wait_closed()
            assert first.close_code == 1008 and "newer connection" in str(first.close_reason)
            # Nothing that still arrives over the first counts, and its end does not take the second with it.
            await wait_for(lambda: len(server.registry) == 1)
            await second.send(HEARTBEAT)
            assert "currentTime" in str(await second.recv())
            assert rig.inventory.find_presence("SAIFLOW-2") is not None
            await second.close()

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    (event,) = rig.inventory.list_security_events(station="SAIFLOW-2")
    assert event.type == "ConnectionReplaced" and "connection-replaced" in caplog.text


def test_two_that_hold_the_same_credential_raise_an_alert_that_is_critical(rig: Rig) -> None:
    rig.add_station("SAIFLOW-3")

    async def story() -> None:
        async with rig.server(2, limits=CsmsLimits(displacements=2)) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            opened = [await open_socket(url, "SAIFLOW-3", password=PASSWORD, tls=tls) for _ in range(4)]
            await wait_for(lambda: len(server.registry) == 1)
            for item in opened:
                await item.close()

    run_on("uvloop", story())
    events = rig.inventory.list_security_events(station="SAIFLOW-3")
    assert any(event.type == "ConnectionsDisplaceEachOther" and event.critical for event in events)


def test_with_probe_a_dead_first_connection_gives_way_and_a_living_one_does_not(rig: Rig) -> None:
    rig.add_station("PROBED")

    async def story() -> list[int]:
        seen = []
        async with rig.server(2, duplicate=DuplicatePolicy.PROBE) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            first = await open_socket(url, "PROBED", password=PASSWORD, tls=tls)
            seen.append(await refused(rig, server, "PROBED", password=PASSWORD))
            await first.close()
            await wait_for(lambda: len(server.registry) == 0)
            # One that answers no ping: upgraded by hand, and silent ever after.
            _reader, writer = await raw_open(rig, server, "PROBED")
            await wait_for(lambda: len(server.registry) == 1)
            second = await open_socket(url, "PROBED", password=PASSWORD, tls=tls)
            seen.append(101)
            await second.close()
            writer.close()
        return seen

    assert run_on("uvloop", story()) == [409, 101]


# --- peers that only cost ------------------------------------------------------------------------------------------


def test_a_half_open_connection_is_found_by_ping_and_forgotten(rig: Rig) -> None:
    rig.add_station("HALF-OPEN")
    limits = CsmsLimits(ping_interval=timedelta(seconds=0.3), ping_timeout=timedelta(seconds=0.3))

    async def story() -> None:
        async with rig.server(2, limits=limits) as server:
            _reader, writer = await raw_open(rig, server, "HALF-OPEN")
            await wait_for(lambda: len(server.registry) == 1)
            await wait_for(lambda: len(server.registry) == 0)
            await wait_for(lambda: not getattr(rig.inventory.find_presence("HALF-OPEN"), "connected", True))
            writer.close()

    run_on("uvloop", story())


def test_a_flood_of_pings_is_closed_and_costs_nobody_else(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_station("PINGS")
    rig.add_station("NEIGHBOUR")

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            _reader, writer = await raw_open(rig, server, "PINGS")
            neighbour = await open_socket(url, "NEIGHBOUR", password=PASSWORD, tls=tls)
            for _ in range(40):
                with contextlib.suppress(ConnectionError):
                    writer.write(frame(0x9, b"x" * 125) * 20)
                await asyncio.sleep(0)
            await wait_for(lambda: [item.station.id for item in server.registry] == ["NEIGHBOUR"])
            await neighbour.send(HEARTBEAT)
            assert "currentTime" in str(await neighbour.recv())
            writer.transport.abort()
            await neighbour.close()

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    assert "[ping-flood]" in caplog.text


@pytest.mark.parametrize(
    ("case", "data", "code"),
    [
        ("a compressed frame", frame(0x1, b"\x00" * 64, first=0xC0), 1002),
        ("an oversized frame", b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0", 1009),
        ("fragments without end", frame(0x1, b"x" * 60_000, first=0) + frame(0x0, b"x" * 60_000, first=0) * 8, 1009),
        ("an oversized ping", frame(0x9, b"x" * 126), 1002),
        ("an unmasked frame", b"\x81\x02[]", 1002),
        ("an unknown opcode", frame(0x3, b"x"), 1002),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_frames_that_would_cost_memory_close_the_connection(rig: Rig, case: str, data: bytes, code: int) -> None:
    if rig.inventory.find_station("FRAMES") is None:
        rig.add_station("FRAMES")

    async def story() -> int:
        async with rig.server(2, limits=CsmsLimits(failed_attempts=1000, displacements=1000)) as server:
            reader, writer = await raw_open(rig, server, "FRAMES")
            writer.write(data)
            head = await asyncio.wait_for(reader.readexactly(2), 60)
            while head[0] != 0x88:
                await reader.readexactly(head[1] & 0x7F)
                head = await asyncio.wait_for(reader.readexactly(2), 60)
            found = struct.unpack("!H", (await reader.readexactly(head[1]))[:2])[0]
            writer.close()
            await wait_for(lambda: len(server.registry) == 0)
            return int(found)

    assert run_on("uvloop", story()) == code


def test_compression_is_not_negotiated_so_there_is_nothing_to_blow_up(rig: Rig) -> None:
    rig.add_station("DEFLATE")

    async def story() -> None:
        async with rig.server(2) as server:
            headers = {**basic_header("DEFLATE", PASSWORD)}
            socket = await websockets.connect(
                f"{rig.url_of(server)}/ocpp/DEFLATE",
                subprotocols=[websockets.Subprotocol("ocpp2.0.1")],
                additional_headers=headers,
                ssl=rig.client_tls(),
                compression="deflate",
                proxy=None,
            )
            assert "Sec-WebSocket-Extensions" not in socket.response.headers  # type: ignore[union-attr]  # after the handshake
            await socket.close()

    run_on("uvloop", story())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_peer_that_reads_nothing_is_not_buffered_for_without_end(
    rig: Rig, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window is full, and pongs are written without waiting: what piles up ends the connection."""
    # So many pings would be closed as a flood long before; what is bounded here is what they leave behind.
    monkeypatch.setattr(bounded, "_MAX_PINGS", 1_000_000)
    station = f"SLOW-{loop}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            reader, writer = await raw_open(rig, server, station)
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # a peer with a full window
            pings = frame(0x9, b"x" * 125) * 400
            most, (slow,) = 0, list(server.registry)
            end = asyncio.get_running_loop().time() + 30
            while len(server.registry) and asyncio.get_running_loop().time() < end:
                with contextlib.suppress(ConnectionError):
                    writer.write(pings)
                most = max(most, slow.link.connection.transport.get_write_buffer_size())
                await asyncio.sleep(0)
            assert len(server.registry) == 0
            assert most < 4 << 20
            writer.transport.abort()

    run_on(loop, story())


def test_what_tls_1_2_remembers_of_old_sessions_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tickets OpenSSL keeps every session with the certificates that the station showed."""
    monkeypatch.setattr("chargepki.ocpp_security.tls._MAX_SESSIONS", 3)
    monkeypatch.setattr("chargepki.ocpp_security.csms.listener._TAKEN_UNSEEN", 1)
    rig.add_station("OLD-TLS")
    credential, _ = rig.credential("OLD-TLS")
    tls = rig.client_tls(credential)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    contexts: dict[int, ssl.SSLContext] = {}
    remembered: list[int] = []

    async def story() -> None:
        async with rig.server(2, 3) as server:
            for _ in range(10):
                # The certificate is demanded, judged and known by every context.
                async with foreign_station(rig.url_of(server), "OLD-TLS", "ocpp2.0.1", tls=tls) as peer:
                    await peer.boot("OLD-TLS")
                assert server.tls is not None
                contexts[id(server.tls)] = server.tls
                remembered.append(server.tls.session_stats()["number"])

    run_on("uvloop", story())
    assert len(contexts) == 4 and max(remembered) == 3


def test_stopping_does_not_wait_until_the_watch_of_the_inventory_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were it waited for, this would hang.
    monkeypatch.setattr("chargepki.ocpp_security.csms.feed._WATCH_SECONDS", 3600.0)

    async def story() -> None:
        async with rig.server(2):
            await asyncio.sleep(0.1)

    run_on("asyncio", story())
