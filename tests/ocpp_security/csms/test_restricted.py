"""Stations that are let in to get a certificate and for nothing else; passwords around a change."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import ocpp.exceptions
import pytest
import websockets
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.passwords import hash_password
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import Delivery
from chargepki.pki.pem import to_pem
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import Node, make_node
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
ORGANIZATION = "Example CSO"
TRIGGERS = {"ocpp1.6": "SignChargePointCertificate"}


def allow(rig: Rig, station: str, **terms: Any) -> None:
    def work(tx: Transaction) -> None:
        tx.change_station_terms(station, **terms)
        tx.audit(ACTOR, "station.change", station, now=datetime.now(UTC))

    rig.inventory.write(work)


def credential_of(leaf: Node, *chain: Node) -> Credential:
    pem = "".join(node.certificate.public_bytes(Encoding.PEM).decode() for node in (leaf, *chain))
    return Credential(leaf.key, pem)


async def status_of(rig: Rig, url: str, station: str, credential: Credential, version: str) -> int:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await open_socket(url, station, protocols=(version,), tls=rig.client_tls(credential))
    return refused.value.response.status_code


async def renew_in_pending(rig: Rig, url: str, station: str, version: str, credential: Credential) -> Credential:
    """Come in restricted, try what is forbidden, follow the trigger, and return what came of it."""
    fresh = Credential()
    async with foreign_station(url, station, version, tls=rig.client_tls(credential)) as peer:
        assert await peer.boot(station) == "Pending"
        with pytest.raises(ocpp.exceptions.SecurityError):
            await peer.heartbeat()
        assert await peer.next_trigger() == TRIGGERS.get(version, "SignChargingStationCertificate")
        csr = build_station_csr(fresh.key, station, ORGANIZATION)
        assert await peer.send_csr(csr, request_id=3) == "Accepted"
        fresh.chain_pem = await peer.next_chain()
    return fresh


@pytest.mark.parametrize("version", VERSIONS)
def test_a00_fr_406_a_station_is_onboarded_from_its_makers_certificate_to_ours(rig: Rig, version: str) -> None:
    station = f"ON-{version}"
    maker = make_node(f"Maker {version}", None, ca=True)
    sub = make_node("Maker sub", maker, ca=True, path_length=0)
    made = credential_of(make_node(station, sub, ca=False), sub)
    rig.makers.append(maker.der)
    rig.add_station(station, password=None, profile=3)

    async def story() -> None:
        async with rig.server(3) as server:
            url = rig.url_of(server)
            # Trusted by the handshake, and still nothing before the operator says so for this very station.
            assert await status_of(rig, url, station, made, version) == 403
            allow(
                rig,
                station,
                onboarding_ca="maker.pem",
                onboarding_anchors=to_pem("CERTIFICATE", maker.der).encode(),
            )
            fresh = await renew_in_pending(rig, url, station, version, made)
            async with foreign_station(url, station, version, tls=rig.client_tls(fresh)) as peer:
                assert await peer.boot(station) == "Accepted"
                assert await peer.heartbeat()
            assert rig.inventory.find_station_terms(station).onboarding_ca is None
            assert await status_of(rig, url, station, made, version) == 403

    run_on("uvloop", story())
    assert any(entry.action == "station.onboard" for entry in rig.inventory.list_audit(limit=10_000))


def test_ending_the_onboarding_of_a_station_closes_its_connection(rig: Rig) -> None:
    maker = make_node("Maker ended", None, ca=True)
    made = credential_of(make_node("ON-ENDED", maker, ca=False))
    rig.makers.append(maker.der)
    rig.add_station("ON-ENDED", password=None, profile=3)
    allow(rig, "ON-ENDED", onboarding_ca="m", onboarding_anchors=to_pem("CERTIFICATE", maker.der).encode())

    async def story() -> None:
        async with rig.server(3) as server:
            socket = await open_socket(rig.url_of(server), "ON-ENDED", tls=rig.client_tls(made))
            await wait_for(lambda: server.registry.find("ON-ENDED") is not None)
            await asyncio.to_thread(allow, rig, "ON-ENDED", onboarding_ca=None, onboarding_anchors=None)
            await socket.wait_closed()
            assert socket.close_code == 1008

    run_on("uvloop", story())


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.1"])
def test_a00_fr_429_an_expired_certificate_is_renewed_in_pending_where_configured(
    rig: Rig, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    station = f"EXPIRED-{version}"
    rig.add_station(station, profile=3)
    # Back-dated by five minutes, it has expired a second after it was made.
    old, _ = rig.credential(station, validity=timedelta(minutes=5))

    async def story() -> None:
        await asyncio.sleep(1.1)
        async with rig.server(3) as server:
            url = rig.url_of(server)
            assert await status_of(rig, url, station, old, version) == 403
            allow(rig, station, accept_expired=True)
            fresh = await renew_in_pending(rig, url, station, version, old)
            async with foreign_station(url, station, version, tls=rig.client_tls(fresh)) as peer:
                assert await peer.boot(station) == "Accepted"

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("uvloop", story())
    assert "certificate-expired" in caplog.text and "A00.FR.429" in caplog.text
    states = [record.delivery for record in rig.inventory.list_certificates(station=station)]
    assert Delivery.IN_USE in states


async def can_enter(rig: Rig, url: str, station: str, password: bytes) -> bool:
    try:
        socket = await open_socket(url, station, password=password, tls=rig.client_tls())
    except websockets.InvalidStatus:
        return False
    await socket.close()
    return True


@pytest.mark.parametrize("grace", [None, 3600])
def test_a01_fr_03_after_accepted_the_old_password_is_refused_unless_a_grace_is_configured(
    rig: Rig, grace: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    station, new = f"GRACE-{grace}", b"next-password-01"
    rig.add_station(station)
    if grace is not None:
        allow(rig, station, password_grace_seconds=grace)

    def pend(tx: Transaction) -> None:
        tx.update_station(station, pending_password_hash=hash_password(new))
        tx.audit(ACTOR, "station.password", station, now=datetime.now(UTC))

    rig.inventory.write(pend)

    async def story() -> list[bool]:
        async with rig.server(2) as server:
            url = rig.url_of(server)
            # The answer is outstanding: both are taken (A01.FR.04). Then the station shows that it has the new one.
            seen = [await can_enter(rig, url, station, PASSWORD), await can_enter(rig, url, station, new)]
            await wait_for(lambda: rig.inventory.get_station(station).pending_password_hash is None)
            return [*seen, await can_enter(rig, url, station, PASSWORD), await can_enter(rig, url, station, new)]

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        assert run_on("uvloop", story()) == [True, True, grace is not None, True]
    assert ("against A01.FR.03" in caplog.text or "deviation from A01.FR.03" in caplog.text) is (grace is not None)
