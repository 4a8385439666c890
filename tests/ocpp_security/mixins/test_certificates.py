"""Certificates, events and operations over a team's own connections, with stations of the plain `ocpp` package."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from chargepki.ocpp_security.csms.embedding import CertificateFate
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.passwords import verify_password
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import aio
from chargepki.pki.authority import IssuedCertificate, IssueOrder
from chargepki.pki.inventory.records import CertificateState, Delivery, OperationState
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, ForeignStation, build_station_csr, foreign_station
from testkit.own_csms import OwnCsms, own_csms
from testkit.station_files import queue_operation


def peer(
    rig: Rig, team: OwnCsms, identity: str, version: str, *, credential: Credential | None = None
) -> AbstractAsyncContextManager[ForeignStation]:
    password = PASSWORD if credential is None else None
    return foreign_station(team.url, identity, version, password=password, tls=rig.client_tls(credential))


RENEWAL = {"use": CertificateUse.CHARGING_STATION.value}
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_station_enrols_and_comes_back_with_its_certificate(rig: Rig, version: str) -> None:
    identity = f"E-{version}"
    rig.add_station(identity)

    async def story() -> None:
        credential = Credential()
        async with own_csms(rig) as team:
            async with peer(rig, team, identity, version) as station:
                assert await station.boot(identity) == "Accepted"
                csr = build_station_csr(credential.key, identity, ORGANIZATION)
                assert await station.send_csr(csr, request_id=7) == "Accepted"
                credential.chain_pem = await station.next_chain()
                assert await station.heartbeat()
                if version == "ocpp2.1":
                    assert station.signed[0]["request_id"] == 7
                await wait_for(lambda: team.certificates)
            assert [news.fate for news in team.certificates] == [CertificateFate.DELIVERED]
            delivered = team.certificates[0].certificate_id
            assert delivered is not None
            async with peer(rig, team, identity, version, credential=credential) as station:
                assert await station.boot(identity) == "Accepted"
                assert rig.inventory.get_certificate(delivered).delivery is Delivery.IN_USE
                presence = rig.inventory.find_presence(identity)
                assert presence is not None and (presence.connected, presence.security_profile) == (True, 3)
                rig.authority.revoke(delivered, "keyCompromise")
                await asyncio.wait_for(station.socket.wait_closed(), 60)
                assert (station.socket.close_code, station.socket.close_reason) == (1008, "certificate revoked")
            assert len(team.boots) == 2 and team.after_boots == 2

    run_on("asyncio", story())


def test_a_rejected_certificate_is_recorded_and_told(rig: Rig) -> None:
    rig.add_station("REJECTS")

    async def story() -> None:
        async with own_csms(rig) as team:
            async with foreign_station(
                team.url, "REJECTS", "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls()
            ) as one:
                one.verdict = "Rejected"
                await one.boot("REJECTS")
                await one.send_csr(build_station_csr(Credential().key, "REJECTS", ORGANIZATION))
                await wait_for(lambda: team.certificates)
            (news,) = team.certificates
            assert news.fate is CertificateFate.UNDELIVERED and news.certificate_id is not None
            record = rig.inventory.get_certificate(news.certificate_id)
            assert (record.delivery, record.state) == (Delivery.UNDELIVERED, CertificateState.REVOKED)

    run_on("asyncio", story())


def test_a_csr_for_another_station_is_rejected_and_told(rig: Rig) -> None:
    rig.add_station("ASKS")

    async def story() -> None:
        async with own_csms(rig) as team:
            async with peer(rig, team, "ASKS", "ocpp2.1") as one:
                await one.boot("ASKS")
                assert await one.send_csr(build_station_csr(Credential().key, "VICTIM", ORGANIZATION)) == "Rejected"
                await wait_for(lambda: team.certificates)
            assert team.certificates[0].fate is CertificateFate.REFUSED
            assert "ASKS asked for CN 'VICTIM'" in team.certificates[0].why

    run_on("asyncio", story())


class Absent:
    """An authority that never answers: the process dies while the station waits."""

    def __init__(self, rig: Rig) -> None:
        self._queue = aio.QueueIssuer(rig.inventory, actor=ACTOR)

    async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
        return await self._queue.submit(order)

    async def resume(self) -> None:
        return

    async def aclose(self) -> None:
        await self._queue.aclose()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_accepted_csr_outlives_the_process_that_took_it(rig: Rig, version: str) -> None:
    identity = f"L-{version}"
    rig.add_station(identity)

    async def story() -> None:
        credential = Credential()
        absent = Absent(rig)
        async with own_csms(rig, issuer=absent) as first, peer(rig, first, identity, version) as one:
            await one.boot(identity)
            assert await one.send_csr(build_station_csr(credential.key, identity, ORGANIZATION)) == "Accepted"
        await absent.aclose()
        async with own_csms(rig) as second:
            async with peer(rig, second, identity, version) as one:
                await one.boot(identity)
                assert "BEGIN CERTIFICATE" in await one.next_chain()
                await wait_for(lambda: second.certificates)
            assert second.certificates[0].fate is CertificateFate.DELIVERED

    run_on("asyncio", story())


@pytest.mark.parametrize("version", VERSIONS)
def test_operations_of_the_inventory_run_over_the_team_connection(
    rig: Rig, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    identity = f"O-{version}"
    rig.add_station(identity)
    password = b"new-password-5678"
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        renewal = queue_operation(
            rig, OperationKind.TRIGGER_RENEWAL, identity, {"use": CertificateUse.CHARGING_STATION.value}
        )
        async with own_csms(rig) as team, peer(rig, team, identity, version) as one:
            await one.boot(identity)
            assert await one.next_trigger() in ("SignChargePointCertificate", "SignChargingStationCertificate")
            await one.send_csr(build_station_csr(Credential().key, identity, ORGANIZATION))
            await one.next_chain()
            await wait_for(lambda: rig.inventory.get_operation(renewal).state is OperationState.DONE)
            change = queue_operation(rig, OperationKind.SET_PASSWORD, identity, {}, password=password)
            told = await one.next_trigger()
            expected = password.hex().upper() if version == "ocpp1.6" else password.decode()
            assert told.lower().endswith("=" + expected.lower())
            await wait_for(lambda: rig.inventory.get_operation(change).state is OperationState.DONE)
        stored = rig.inventory.get_station(identity).password_hash
        assert stored is not None and verify_password(stored, password)

    run_on("asyncio", story())
    # The station's own WebSocket library logs what it likes.
    logged = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("team", "chargepki"))
    )
    assert "send message" in logged
    assert password.decode() not in logged and password.hex() not in logged.lower() and PASSWORD.decode() not in logged


@pytest.mark.parametrize("version", VERSIONS)
def test_a_security_event_is_stored_and_told(rig: Rig, version: str) -> None:
    identity = f"S-{version}"
    rig.add_station(identity)

    async def story() -> None:
        async with own_csms(rig) as team:
            async with peer(rig, team, identity, version) as one:
                await one.boot(identity)
                await one.report("TamperDetectionActivated", "2026-03-01T12:00:00Z", "cover")
                await wait_for(lambda: team.events)
            (news,) = team.events
            assert (news.type, news.critical, news.tech_info) == ("TamperDetectionActivated", True, "cover")
            assert news.at == datetime(2026, 3, 1, 12, tzinfo=UTC)
            stored: Any = rig.inventory.list_security_events(station=identity)
            assert [event.type for event in stored] == ["TamperDetectionActivated"]

    run_on("asyncio", story())
