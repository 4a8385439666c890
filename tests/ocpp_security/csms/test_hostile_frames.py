"""Whatever a connected peer sends, its handler survives or closes cleanly, and nothing secret reaches the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import cast

import orjson
import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.connection import Connection

from chargepki.ocpp_security.link import Reply, RpcLink
from chargepki.ocpp_security.rpc import CallReceived, ProtocolViolation, RpcSession
from chargepki.ocpp_security.versions import OcppVersion, Role
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import open_socket

HEARTBEAT = '[2,"alive","Heartbeat",{}]'
SECRET = "s3cret-value-nobody-may-log"


def _csr_call(label: str, body: str) -> str:
    pem = f"-----BEGIN {label}-----\n{body}\n-----END {label}-----"
    return orjson.dumps([2, "1", "SignCertificate", {"csr": pem}]).decode()


FRAMES: dict[str, str | bytes] = {
    "empty": "",
    "binary": b"\x00\xff\x00",
    "binary JSON": HEARTBEAT.encode(),
    "not JSON": "hello",
    "number": "1",
    "object": "{}",
    "empty array": "[]",
    "unknown type": '[9,"1","Heartbeat",{}]',
    "type as text": '["2","1","Heartbeat",{}]',
    "type as bool": '[true,"1","Heartbeat",{}]',
    "too short": '[2,"1"]',
    "too long": '[2,"1","Heartbeat",{},{},{}]',
    "list id": '[2,["a"],"Heartbeat",{}]',
    "number id": '[2,1,"Heartbeat",{}]',
    "long id": '[2,"' + "x" * 100 + '","Heartbeat",{}]',
    "list action": '[2,"1",["b"],3]',
    "object action": '[2,"1",{},{}]',
    "unknown action": '[2,"1","Frobnicate",{}]',
    "CSMS's action": '[2,"1","CertificateSigned",{"certificateChain":"x"}]',
    "not served": '[2,"1","Get15118EVCertificate",{}]',
    "list payload": '[2,"1","Heartbeat",[]]',
    "extra field": '[2,"1","Heartbeat",{"x":1}]',
    "wrong type": '[2,"1","SignCertificate",{"csr":5}]',
    "empty CSR": '[2,"1","SignCertificate",{"csr":""}]',
    "CSR of spaces": '[2,"1","SignCertificate",{"csr":"   "}]',
    "CSR of noise": _csr_call("CERTIFICATE REQUEST", "AAAA"),
    "CSR with wrong label": _csr_call("RSA PRIVATE KEY", "MAA="),
    "CSR without type": '[2,"1","SignCertificate",{"csr":"x","certificateType":"Nonsense"}]',
    "duplicate keys": '[2,"1","Heartbeat",{"a":1,"a":2}]',
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep payload": '[2,"1","DataTransfer",{"vendorId":"v","data":' + "[" * 5000 + "]" * 5000 + "}]",
    "huge number": '[2,"1","DataTransfer",{"vendorId":"v","data":1e999999}]',
    "huge integer": '[2,"1","DataTransfer",{"vendorId":"v","data":' + "9" * 5000 + "}]",
    "lone surrogate": '[2,"1","DataTransfer",{"vendorId":"\\ud800"}]',
    "NUL": '[2,"1","DataTransfer",{"vendorId":"a\\u0000b"}]',
    "answer to nothing": '[3,"1",{}]',
    "error to nothing": '[4,"1","GenericError","",{}]',
    "error with list": '[4,"1",["x"],{},5]',
    "event without time": '[2,"1","SecurityEventNotification",{"type":"x"}]',
    "event with odd time": '[2,"1","SecurityEventNotification",{"type":"x","timestamp":"not a date"}]',
    "odd event": '[2,"1","SecurityEventNotification",{"type":"\\u001b[2J","timestamp":"0001-01-01T00:00:00Z"}]',
    "event before time": '[2,"1","SecurityEventNotification",{"type":"x","timestamp":"0001-01-01T00:00:00+14:00"}]',
    "event without zone": '[2,"1","SecurityEventNotification",{"type":"x","timestamp":"2026-01-01T00:00:00"}]',
    "secret in noise": '[2,"1","SetVariables",{"password":"' + SECRET + '"}',
    "secret in a call": '[2,"1","SetVariables",{"setVariableData":[{"attributeValue":"' + SECRET + '"}]}]',
}


async def is_alive(socket: websockets.ClientConnection) -> bool:
    """Whether the CSMS still answers a Heartbeat on this connection (other answers may come first)."""
    await socket.send(HEARTBEAT)
    while True:
        answer = orjson.loads(await asyncio.wait_for(socket.recv(), 60))
        if answer[:2] == [3, "alive"]:
            return True


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_hostile_frames_never_end_the_handler(rig: Rig, version: str, caplog: pytest.LogCaptureFixture) -> None:
    station = f"HOSTILE-{version}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            for name, frame in FRAMES.items():
                socket = await open_socket(
                    rig.url_of(server), station, protocols=(version,), password=PASSWORD, tls=rig.client_tls()
                )
                await socket.send(frame)
                assert await is_alive(socket), name
                await socket.close()
                await wait_for(lambda: len(server.registry) == 0)

    with caplog.at_level(logging.DEBUG, "chargepki"):
        run_on("uvloop", story())
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    assert SECRET not in caplog.text
    assert "\x1b" not in caplog.text
    assert not [e for e in rig.inventory.list_security_events(station=station) if "\x1b" in e.type]


def test_ten_megabytes_are_refused_with_1009_and_the_server_lives(rig: Rig, loop: str) -> None:
    station = f"BIG-{loop}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            for frame in ("x" * 10_000_000, b"\0" * 10_000_000):
                socket = await open_socket(url, station, password=PASSWORD, tls=tls)
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.send(frame)
                    await socket.recv()
                assert socket.close_code == 1009
            socket = await open_socket(url, station, password=PASSWORD, tls=tls)
            assert await is_alive(socket)
            await socket.close()

    run_on(loop, story())


def test_a_peer_that_sends_nothing_but_rubbish_is_closed_after_a_while(rig: Rig) -> None:
    rig.add_station("RUBBISH")

    async def story() -> None:
        async with rig.server(2) as server:
            socket = await open_socket(rig.url_of(server), "RUBBISH", password=PASSWORD, tls=rig.client_tls())
            with pytest.raises(websockets.ConnectionClosed):
                for _ in range(1000):
                    await socket.send("rubbish")
                    await socket.recv()
            assert socket.close_code == 1008

    run_on("asyncio", story())
    events = [event.type for event in rig.inventory.list_security_events(station="RUBBISH")]
    assert events.count("InvalidMessages") == 1  # one for the series, not one per frame


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("results", '[3,"nobody-asked",{}]'),
        ("errors", '[4,"nobody-asked","GenericError","",{}]'),
        ("errors about results", '[5,"nobody-asked","GenericError","",{}]'),
        ("calls with one id", '[2,"again","NoSuchAction",{}]'),
    ],
)
def test_a_flood_of_what_nobody_asked_for_is_closed_and_leaves_one_event(rig: Rig, name: str, frame: str) -> None:
    station = "FLOOD-" + name.replace(" ", "-")
    rig.add_station(station, profile=1)

    async def story() -> int | None:
        async with rig.server(1) as server:
            socket = await open_socket(rig.url_of(server), station, protocols=("ocpp2.1",), password=PASSWORD)
            reading = asyncio.create_task(_drain(socket))
            with contextlib.suppress(websockets.ConnectionClosed):
                for _ in range(20_000):
                    await socket.send(frame)
                await socket.wait_closed()
            await reading
            return socket.close_code

    assert run_on("uvloop", story()) == 1008
    events = rig.inventory.list_security_events(station=station)
    assert len([event for event in events if event.type == "InvalidMessages"]) == 1


async def _drain(socket: websockets.ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        async for _ in socket:
            pass


def test_calls_whose_answers_are_not_read_wait_in_the_peers_own_socket() -> None:
    """Back pressure: the CSMS reads on only when its answers leave, so a flood of calls costs it no memory."""
    read = 0

    class Clogged:
        async def recv(self) -> str:
            nonlocal read
            read += 1
            return f'[2,"{read}","Heartbeat",{{}}]'

        async def send(self, _text: str) -> None:
            await asyncio.Event().wait()

    async def answer(_event: CallReceived) -> Reply:
        return Reply({"currentTime": "2026-03-01T12:00:00Z"})

    async def violated(event: ProtocolViolation) -> None:
        raise AssertionError(event.reason)

    async def story() -> None:
        link = RpcLink(
            cast("Connection", Clogged()),
            RpcSession(OcppVersion.V201, role=Role.CSMS),
            on_call=answer,
            on_violation=violated,
            clock=lambda: datetime.now(UTC),
            log=logging.getLogger("chargepki.test"),
            name="clogged",
        )
        running = asyncio.create_task(link.run())
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_on("asyncio", story())
    assert read == 1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), min_size=1, max_size=40))
def test_every_sequence_of_frames_leaves_the_connection_alive(rig: Rig, frames: list[str | bytes]) -> None:
    if rig.inventory.find_station("FUZZED") is None:
        rig.add_station("FUZZED", profile=1)

    async def story() -> None:
        async with rig.server(1) as server:
            socket = await open_socket(rig.url_of(server), "FUZZED", password=PASSWORD)
            for frame in frames:
                await socket.send(frame if isinstance(frame, bytes) else frame.encode("utf-8", "ignore").decode())
            assert await is_alive(socket)
            await socket.close()

    run_on("asyncio", story())


def test_wrong_websocket_bytes_close_the_connection_without_a_trace(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_station("RAW", profile=1)

    async def story() -> None:
        async with rig.server(1) as server:
            for junk in (b"\xff" * 100, b"\x81\x05hello", b"\x88\x00", b"\x89\xff"):
                socket = await open_socket(rig.url_of(server), "RAW", password=PASSWORD)
                socket.transport.write(junk)
                socket.transport.abort()
                await wait_for(lambda: len(server.registry) == 0)
            socket = await open_socket(rig.url_of(server), "RAW", password=PASSWORD)
            assert await is_alive(socket)
            await socket.close()

    with caplog.at_level(logging.DEBUG, "chargepki"):
        run_on("uvloop", story())
    assert not [record for record in caplog.records if record.exc_info], caplog.text
