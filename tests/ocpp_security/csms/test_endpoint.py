"""Foreign stations over real TLS sockets: enrolment, use, revocation, replacement."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets

from chargepki.ocpp_security.csms import CsmsServer, DuplicatePolicy
from chargepki.pki import aio
from chargepki.pki.authority import IssuedCertificate, IssueOrder
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import AuditEntry, CertificateState, Delivery
from testkit.commands import forked_python
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, subject_of, wait_for
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
ORGANIZATION = "Example CSO"


def deliveries(rig: Rig, station: str) -> dict[str, Delivery | None]:
    return {record.id: record.delivery for record in rig.inventory.list_certificates(station=station)}


async def enrol(rig: Rig, url: str, station: str, version: str) -> Credential:
    credential = Credential()
    async with foreign_station(url, station, version, password=PASSWORD, tls=rig.client_tls()) as peer:
        assert await peer.boot(station) == "Accepted"
        csr = build_station_csr(credential.key, station, ORGANIZATION)
        assert await peer.send_csr(csr, request_id=17) == "Accepted"
        credential.chain_pem = await peer.next_chain()
        await wait_for(lambda: Delivery.DELIVERED in deliveries(rig, station).values())
    return credential


@pytest.mark.parametrize("version", VERSIONS)
def test_a_foreign_station_enrols_renews_and_is_cut_off_by_revocation(rig: Rig, loop: str, version: str) -> None:
    station = f"F-{loop}-{version}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            first = await enrol(rig, url, station, version)
            assert subject_of(first.chain_pem) == f"CN={station},O={ORGANIZATION}"
            second = Credential()
            async with foreign_station(url, station, version, tls=rig.client_tls(first)) as peer:
                assert await peer.boot(station) == "Accepted"
                assert Delivery.IN_USE in deliveries(rig, station).values()
                assert await peer.send_csr(build_station_csr(second.key, station, ORGANIZATION)) == "Accepted"
                second.chain_pem = await peer.next_chain()
            async with foreign_station(url, station, version, tls=rig.client_tls(second)) as peer:
                assert await peer.boot(station) == "Accepted"
                states = deliveries(rig, station)
                assert sorted(str(state) for state in states.values()) == ["in-use", "superseded"]
                used = next(key for key, state in states.items() if state is Delivery.IN_USE)
                await asyncio.to_thread(rig.authority.revoke, used, "keyCompromise")
                await peer.socket.wait_closed()
                assert (peer.socket.close_code, peer.socket.close_reason) == (1008, "certificate revoked")
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(url, station, protocols=(version,), tls=rig.client_tls(second))
            assert refused.value.response.status_code == 403

    run_on(loop, story())


REVOKER = """
import sys, datetime, time
from pathlib import Path
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import Actor, ActorKind
url, key, *certificates = sys.argv[1:]
with Inventory.open(url, log_key=AuditKey.load_or_create(Path(key))) as inventory:
    for certificate in certificates:
        now = datetime.datetime.now(datetime.timezone.utc)
        def work(tx):
            tx.revoke_certificate(certificate, now, 'keyCompromise')
            tx.audit(Actor('x', ActorKind.OS_USER, False), 'certificate.revoke', certificate, now=now)
        inventory.write(work)
        print(time.time(), flush=True)
        time.sleep(0.1)
"""


def test_a_revocation_by_another_process_closes_the_connection_within_half_a_second(rig: Rig, loop: str) -> None:
    stations = [f"ELSEWHERE-{loop}-{number}" for number in range(5)]
    for station in stations:
        rig.add_station(station, profile=3)
    credentials = [rig.credential(station) for station in stations]

    async def connect(server: CsmsServer, station: str, credential: Credential) -> websockets.ClientConnection:
        return await open_socket(rig.url_of(server), station, tls=rig.client_tls(credential))

    async def closed(socket: websockets.ClientConnection) -> float:
        await socket.wait_closed()
        return time.time()

    async def story() -> list[float]:
        async with rig.server(3) as server:
            sockets = [await connect(server, name, one) for name, (one, _) in zip(stations, credentials, strict=True)]
            other = await asyncio.create_subprocess_exec(
                forked_python(), "-c", REVOKER, rig.url, str(rig.folder / "audit.key"),
                *(one for _, one in credentials), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            ended = await asyncio.gather(*(closed(socket) for socket in sockets))
            output, _ = await other.communicate()
            assert {socket.close_reason for socket in sockets} == {"certificate revoked"}
        return [end - float(committed) for end, committed in zip(ended, output.split(), strict=True)]

    # The median, since a busy machine may hold up any single one.
    assert statistics.median(run_on(loop, story())) < 0.5


def test_a_revocation_between_admission_and_registration_is_not_missed(rig: Rig) -> None:
    rig.add_station("RACE", profile=3)
    credential, certificate_id = rig.credential("RACE")

    async def story() -> None:
        async with rig.server(3) as server:
            enter = server.registry.enter

            def enter_late(connection: Any) -> Any:
                rig.authority.revoke(certificate_id, "keyCompromise")
                time.sleep(0.2)  # the change feed has seen it before the connection is known
                return enter(connection)

            server.registry.enter = enter_late  # type: ignore[method-assign]  # only this one is late
            socket = await open_socket(rig.url_of(server), "RACE", tls=rig.client_tls(credential))
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1008, "certificate revoked")

    run_on("asyncio", story())


def test_a_newer_connection_replaces_the_first_and_a_war_raises_an_alert(
    rig: Rig, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    station = f"TWICE-{loop}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            sockets = [await open_socket(url, station, password=PASSWORD, tls=tls) for _ in range(4)]
            for replaced in sockets[:3]:
                await replaced.wait_closed()
                assert replaced.close_code == 1008
                assert "replaced" in (replaced.close_reason or "")
            assert len(server.registry) == 1
            await sockets[3].close()

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on(loop, story())
    events = {event.type: event for event in rig.inventory.list_security_events(station=station)}
    assert "ConnectionReplaced" in events
    assert events["ConnectionsDisplaceEachOther"].critical
    assert "give each device its own identity" in caplog.text


def test_two_servers_on_one_inventory_keep_one_connection_of_a_station(rig: Rig) -> None:
    rig.add_station("ROAMER")

    async def story() -> None:
        with Inventory.open(rig.url, log_key=rig.log_key) as second_inventory:
            async with rig.server(2) as one, rig.server(2, inventory=second_inventory) as two:
                first = await open_socket(rig.url_of(one), "ROAMER", password=PASSWORD, tls=rig.client_tls())
                await wait_for(lambda: rig.inventory.find_presence("ROAMER"))
                second = await open_socket(rig.url_of(two), "ROAMER", password=PASSWORD, tls=rig.client_tls())
                await first.wait_closed()
                assert first.close_code == 1008
                await wait_for(lambda: len(one.registry) == 0)
                presence = rig.inventory.find_presence("ROAMER")
                assert presence is not None and presence.connected and presence.owner == two.config.owner
                await second.close()

    run_on("asyncio", story())


def test_with_probe_a_second_connection_is_refused_while_the_first_answers_pings(rig: Rig) -> None:
    rig.add_station("PROBED")

    async def story() -> None:
        async with rig.server(2) as server:
            # As SIGHUP does after the file was changed.
            server.reload(tls=server.tls, duplicate=DuplicatePolicy.PROBE)
            url = rig.url_of(server)
            first = await open_socket(url, "PROBED", password=PASSWORD, tls=rig.client_tls())
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(url, "PROBED", password=PASSWORD, tls=rig.client_tls())
            assert refused.value.response.status_code == 409
            await first.close()
            await wait_for(lambda: len(server.registry) == 0)
            second = await open_socket(url, "PROBED", password=PASSWORD, tls=rig.client_tls())
            await second.close()

    run_on("asyncio", story())


def test_a_refused_certificate_is_marked_undelivered_and_revoked(rig: Rig) -> None:
    rig.add_station("PICKY")

    async def story() -> None:
        async with (
            rig.server(2) as server,
            foreign_station(rig.url_of(server), "PICKY", "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls()) as peer,
        ):
            peer.verdict = "Rejected"
            await peer.boot("PICKY")
            await peer.send_csr(build_station_csr(Credential().key, "PICKY", ORGANIZATION))
            await peer.next_chain()

            def settled() -> bool:
                (record,) = rig.inventory.list_certificates(station="PICKY")
                return record.delivery is Delivery.UNDELIVERED and record.state is CertificateState.REVOKED

            await wait_for(settled)

    run_on("asyncio", story())


@pytest.mark.parametrize(
    ("common_name", "ask_ca", "reason"),
    [("GREEDY", True, "CA:TRUE"), ("VICTIM", False, "serial number")],
)
def test_a_csr_for_a_ca_or_for_another_station_is_refused_and_audited(
    rig: Rig, caplog: pytest.LogCaptureFixture, common_name: str, ask_ca: bool, reason: str
) -> None:
    station = "GREEDY" if ask_ca else "THIEF"
    rig.add_station(station)

    async def story() -> None:
        async with (
            rig.server(2) as server,
            foreign_station(rig.url_of(server), station, "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls()) as peer,
        ):
            csr = build_station_csr(Credential().key, common_name, ORGANIZATION, ask_ca=ask_ca)
            assert await peer.send_csr(csr) == "Rejected"
            await wait_for(lambda: [e for e in rig.inventory.list_audit(limit=10_000) if _is_refusal(e, station)])

    with caplog.at_level(logging.WARNING, "chargepki.csms"):
        run_on("asyncio", story())
    assert list(rig.inventory.list_certificates(station=station)) == []
    assert f"{station} from" in caplog.text and reason in caplog.text


def _is_refusal(entry: AuditEntry, station: str) -> bool:
    return (entry.subject, entry.outcome, entry.action) == (station, "refused", "certificate.request")


def test_a_csms_without_ca_keys_issues_through_the_queue(rig: Rig, loop: str) -> None:
    station = f"QUEUED-{loop}"
    rig.add_station(station)

    async def authority_serve(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.to_thread(rig.authority.serve_queue_once, "authority")
            await asyncio.sleep(0.05)

    async def story() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(authority_serve(stop))
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with rig.server(2, 3, issuer=issuer) as server:
            credential = await enrol(rig, rig.url_of(server), station, "ocpp2.0.1")
            socket = await open_socket(rig.url_of(server), station, tls=rig.client_tls(credential))
            await socket.close()
        await issuer.aclose()
        stop.set()
        await serving

    run_on(loop, story())


def test_a_certificate_that_is_issued_after_the_link_dropped_is_delivered_on_the_next(rig: Rig) -> None:
    rig.add_station("DROPPED")
    gate = asyncio.Event()

    class SlowIssuer(aio.Authority):
        async def submit(self, order: IssueOrder) -> asyncio.Future[IssuedCertificate]:
            async def late() -> IssuedCertificate:
                await gate.wait()
                return await self.issue(order)

            return asyncio.ensure_future(late())

    async def story() -> None:
        issuer = SlowIssuer(rig.authority)
        async with rig.server(2, 3, issuer=issuer) as server:
            url, tls, credential = rig.url_of(server), rig.client_tls(), Credential()
            async with foreign_station(url, "DROPPED", "ocpp1.6", password=PASSWORD, tls=tls) as peer:
                csr = build_station_csr(credential.key, "DROPPED", ORGANIZATION)
                assert await peer.send_csr(csr) == "Accepted"
            await wait_for(lambda: len(server.registry) == 0)
            gate.set()
            await wait_for(lambda: deliveries(rig, "DROPPED"))
            await asyncio.sleep(0.1)
            async with foreign_station(url, "DROPPED", "ocpp1.6", password=PASSWORD, tls=tls) as peer:
                credential.chain_pem = await peer.next_chain()
                await wait_for(lambda: Delivery.DELIVERED in deliveries(rig, "DROPPED").values())
        await issuer.aclose()

    run_on("asyncio", story())


async def superseded_and_successor(rig: Rig, url: str, station: str) -> tuple[tuple[Credential, str], str]:
    """Let *station* use one certificate and then another; return the older with its id, and the newer's id."""
    old, old_id = await asyncio.to_thread(rig.credential, station)
    new, new_id = await asyncio.to_thread(rig.credential, station)
    for credential in (old, new):
        async with foreign_station(url, station, "ocpp2.0.1", tls=rig.client_tls(credential)) as peer:
            assert await peer.boot(station) == "Accepted"
    assert deliveries(rig, station) == {old_id: Delivery.SUPERSEDED, new_id: Delivery.IN_USE}
    return (old, old_id), new_id


def test_a_superseded_certificate_is_no_way_round_the_revocation_of_its_successor(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("BACK-DOOR", profile=3)

    async def story() -> None:
        async with rig.server(3) as server:
            url = rig.url_of(server)
            (old, old_id), new_id = await superseded_and_successor(rig, url, "BACK-DOOR")
            await asyncio.to_thread(rig.authority.revoke, new_id, "keyCompromise")
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(url, "BACK-DOOR", protocols=("ocpp2.0.1",), tls=rig.client_tls(old))
            assert refused.value.response.status_code == 403
            assert deliveries(rig, "BACK-DOOR")[old_id] is Delivery.SUPERSEDED

    run_on("asyncio", story())
    assert "was superseded, and the later certificate" in caplog.text
    # Its password alone opens nothing on profile 3, and the cure must not say so.
    assert "chargepki station set-profile BACK-DOOR 2 --record-only" in caplog.text
    events = [event.type for event in rig.inventory.list_security_events(station="BACK-DOOR")]
    assert "InvalidChargingStationCertificate" in events


def test_a_superseded_certificate_stays_a_fallback_until_its_successor_is_revoked(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("FALLS-BACK", profile=3)

    async def story() -> None:
        async with rig.server(3) as server:
            url = rig.url_of(server)
            (old, old_id), new_id = await superseded_and_successor(rig, url, "FALLS-BACK")
            async with foreign_station(url, "FALLS-BACK", "ocpp2.0.1", tls=rig.client_tls(old)) as peer:
                assert await peer.boot("FALLS-BACK") == "Accepted"
                # It does not become the one in use again, or it would outlive what is revoked next.
                assert deliveries(rig, "FALLS-BACK") == {old_id: Delivery.SUPERSEDED, new_id: Delivery.IN_USE}
                await asyncio.to_thread(rig.authority.revoke, new_id, "keyCompromise")
                await peer.socket.wait_closed()
                assert (peer.socket.close_code, peer.socket.close_reason) == (
                    1008, "superseded certificate, and its successor is revoked",
                )  # fmt: skip

    with caplog.at_level(logging.INFO, "chargepki.csms"):
        run_on("asyncio", story())
    (said,) = [record for record in caplog.records if "connected with the superseded" in record.getMessage()]
    assert said.levelno == logging.WARNING and "trigger-renewal FALLS-BACK" in said.getMessage()
    assert sum("taken into use" in record.getMessage() for record in caplog.records) == 2


def test_the_log_tells_of_a_certificate_from_its_csr_to_its_use(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.add_station("TOLD")

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            credential = await enrol(rig, url, "TOLD", "ocpp2.0.1")
            async with foreign_station(url, "TOLD", "ocpp2.0.1", tls=rig.client_tls(credential)) as peer:
                assert await peer.boot("TOLD") == "Accepted"

    with caplog.at_level(logging.INFO, "chargepki.csms"):
        run_on("asyncio", story())
    (made,) = deliveries(rig, "TOLD")
    steps = [line.getMessage() for line in caplog.records if "CSR" in line.getMessage() or made in line.getMessage()]
    assert steps == [
        "TOLD: CSR for a ChargingStationCertificate received",
        f"TOLD: certificate {made} issued for its CSR",
        f"TOLD: certificate {made} delivered",
        f"TOLD: certificate {made} taken into use",
    ]


def test_a_queue_that_nobody_answers_is_complained_about_once_a_minute(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.add_station("PATIENT", profile=1)
    ahead = timedelta(0)

    async def story() -> None:
        nonlocal ahead
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with (
            rig.server(1, issuer=issuer, clock=lambda: datetime.now(UTC) + ahead) as server,
            foreign_station(rig.url_of(server), "PATIENT", "ocpp2.0.1", password=PASSWORD) as peer,
        ):
            await peer.boot("PATIENT")
            assert await peer.send_csr(build_station_csr(Credential().key, "PATIENT", ORGANIZATION)) == "Accepted"
            await asyncio.sleep(2.5)
            assert complaints() == []
            ahead = timedelta(seconds=15)
            await wait_for(complaints)
            await asyncio.sleep(2.5)
        await issuer.aclose()

    def complaints() -> list[str]:
        return [line.getMessage() for line in caplog.records if "has been queued" in line.getMessage()]

    run_on("asyncio", story())
    rig.authority.serve_queue_once("authority")
    (complaint,) = complaints()
    assert complaint.startswith("PATIENT: ") and "chargepki authority serve" in complaint


def test_a_busy_station_without_heartbeats_stays_present(rig: Rig) -> None:
    rig.add_station("BUSY", profile=1)
    ahead = timedelta(0)

    async def story() -> None:
        nonlocal ahead
        async with (
            rig.server(1, clock=lambda: datetime.now(UTC) + ahead) as server,
            foreign_station(rig.url_of(server), "BUSY", "ocpp2.0.1", password=PASSWORD) as peer,
        ):
            await peer.boot("BUSY")
            before = seen()
            ahead = timedelta(minutes=6)
            await peer.boot("BUSY")
            await wait_for(lambda: seen() > before + timedelta(minutes=5))

    def seen() -> datetime:
        presence = rig.inventory.find_presence("BUSY")
        assert presence is not None
        return presence.last_seen_at

    run_on("asyncio", story())
