"""How connections begin and end besides enrolment: serial numbers, versions, removal, a CSMS that stops."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from chargepki.ocpp_security.csms import CsmsLimits
from chargepki.pki.inventory import Transaction
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
ORGANIZATION = "Example CSO"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_boot_notification_with_another_serial_number_closes_a_profile_3_connection(rig: Rig, version: str) -> None:
    station = f"SERIAL-{version}"
    rig.add_station(station, profile=3)
    credential, _ = rig.credential(station)

    async def story() -> None:
        async with (
            rig.server(3) as server,
            foreign_station(rig.url_of(server), station, version, tls=rig.client_tls(credential)) as peer,
        ):
            with pytest.raises(Exception, match=r"SecurityError|serial number"):
                await peer.boot("ANOTHER")
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1008

    run_on("asyncio", story())


@pytest.mark.parametrize("version", ["ocpp2.0.1", "ocpp2.1"])
def test_a_missing_serial_number_is_a_mismatch_on_profile_3(rig: Rig, version: str) -> None:
    station = f"NOSERIAL-{version}"
    rig.add_station(station, profile=3)
    credential, _ = rig.credential(station)

    async def story() -> None:
        async with (
            rig.server(3) as server,
            foreign_station(rig.url_of(server), station, version, tls=rig.client_tls(credential)) as peer,
        ):
            with pytest.raises(Exception, match=r"SecurityError|serial number"):
                await peer.boot(None)
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1008

    run_on("asyncio", story())


@pytest.mark.parametrize("required", [False, True])
def test_a_missing_serial_number_of_ocpp_1_6_is_tolerated_unless_configured_otherwise(rig: Rig, required: bool) -> None:
    station = f"NOSERIAL-{required}"
    rig.add_station(station, profile=3)
    credential, _ = rig.credential(station)

    async def story() -> None:
        async with (
            rig.server(3, require_serial_number_16=required) as server,
            foreign_station(rig.url_of(server), station, "ocpp1.6", tls=rig.client_tls(credential)) as peer,
        ):
            if not required:
                assert await peer.boot(None) == "Accepted"
                return
            with pytest.raises(Exception, match=r"SecurityError|serial number"):
                await peer.boot(None)
            await peer.socket.wait_closed()
            assert peer.socket.close_code == 1008

    run_on("asyncio", story())


def test_removing_a_station_closes_its_connection(rig: Rig) -> None:
    rig.add_station("GONE")

    async def story() -> None:
        async with rig.server(2) as server:
            socket = await open_socket(rig.url_of(server), "GONE", password=PASSWORD, tls=rig.client_tls())
            await wait_for(lambda: rig.inventory.find_presence("GONE"))
            now = datetime.now(UTC)

            def work(tx: Transaction) -> None:
                tx.remove_station("GONE")
                tx.audit(ACTOR, "station.remove", "GONE", now=now)

            await asyncio.to_thread(rig.inventory.write, work)
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1008, "station removed")

    run_on("asyncio", story())


def test_stopping_says_going_away_and_clears_presence(rig: Rig, loop: str) -> None:
    station = f"STOP-{loop}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            socket = await open_socket(rig.url_of(server), station, password=PASSWORD, tls=rig.client_tls())
            await wait_for(lambda: rig.inventory.find_presence(station))
        await socket.wait_closed()
        assert socket.close_code == 1001

    run_on(loop, story())
    presence = rig.inventory.find_presence(station)
    assert presence is not None and not presence.connected


def test_profile_1_works_without_tls_and_only_there(rig: Rig) -> None:
    rig.add_station("PLAIN", profile=1)

    async def story() -> None:
        async with (
            rig.server(1) as server,
            foreign_station(rig.url_of(server), "PLAIN", "ocpp1.6", password=PASSWORD) as peer,
        ):
            assert await peer.boot("PLAIN") == "Accepted"
            assert (await peer.heartbeat()).endswith("Z")

    run_on("asyncio", story())


def test_without_a_common_version_the_upgrade_succeeds_without_header_and_is_closed(rig: Rig) -> None:
    rig.add_station("OLD")

    async def story() -> None:
        async with rig.server(2, limits=CsmsLimits()) as server:
            for protocols in (("ocpp1.2",), ()):
                socket = await open_socket(
                    rig.url_of(server), "OLD", protocols=protocols, password=PASSWORD, tls=rig.client_tls()
                )
                assert socket.subprotocol is None
                await socket.wait_closed()
                assert socket.close_code == 1002
                assert "ocpp2.1" in (socket.close_reason or "")

    run_on("asyncio", story())


def test_what_a_revoked_station_still_sends_does_not_count(rig: Rig) -> None:
    rig.add_station("LINGERS", profile=3)
    credential, certificate_id = rig.credential("LINGERS")
    event = '[2,"1","SecurityEventNotification",{"type":"%s","timestamp":"2026-03-01T00:00:00Z"}]'

    async def story() -> None:
        async with rig.server(3) as server:
            socket = await open_socket(rig.url_of(server), "LINGERS", tls=rig.client_tls(credential))
            await socket.send(event % "BeforeRevocation")
            await socket.recv()
            socket.transport.pause_reading()  # it does not hear that it is closed
            await asyncio.to_thread(rig.authority.revoke, certificate_id, "keyCompromise")
            await wait_for(lambda: all(one.link.is_closing for one in server.registry))
            await socket.send(event % "AfterRevocation")
            await wait_for(lambda: len(server.registry) == 0)
            socket.transport.abort()

    run_on("asyncio", story())
    types = {one.type for one in rig.inventory.list_security_events(station="LINGERS")}
    assert "BeforeRevocation" in types and "AfterRevocation" not in types


def test_stopping_does_not_wait_for_a_peer_that_never_sends_its_request(rig: Rig, loop: str) -> None:
    async def story() -> float:
        async with rig.server(2) as server:
            _reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=rig.client_tls(), server_hostname="localhost"
            )
            await asyncio.sleep(0.1)
            begun = time.monotonic()
        writer.close()
        return time.monotonic() - begun

    assert run_on(loop, story()) < 30
