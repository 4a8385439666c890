"""Nothing that was accepted is lost: a CSMS process dies at any point, and the next one hands the certificate over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.csms import CsmsLimits
from chargepki.pki import aio
from chargepki.pki.authority import Authority
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, IssuanceState
from testkit.commands import forked_python
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig, run_on, wait_for
from testkit.databases import postgresql_server, postgresql_url
from testkit.ocpp_peers import Credential, ForeignStation, build_station_csr, foreign_station

__all__ = ["postgresql_server", "postgresql_url"]

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
QUICK = CsmsLimits(silence=timedelta(seconds=0.2))
SLOW = CsmsLimits(silence=timedelta(minutes=5))

# A CSMS of its own process, which kills itself at the named point: no handler, no finally, no flush runs.
DOOMED = """
import asyncio, os, signal, sys
from pathlib import Path
from chargepki.ocpp_security.csms import CsmsConfig, CsmsServer
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.renewal import Renewal
from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import aio
from chargepki.pki.authority import Authority
from chargepki.pki.csr import parse_csr
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.signer import SoftwareKeyStore

url, folder, point = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
actor = Actor("doomed", ActorKind.OS_USER, authenticated=False)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def die_when_answered(self, effects, ticket, answered):
    await answered.wait()
    await asyncio.sleep(0.05)
    die()

call = StationConnection.call

async def die_before_sending(self, action, payload, timeout=None, **options):
    if action == "CertificateSigned":
        die()
    return await call(self, action, payload, timeout, **options)

if point in ("accepted", "queue"):
    Renewal._follow = die_when_answered
elif point == "issuing":
    Authority.issue_many = die
elif point == "issued":
    CsmsCertificateFlow.issued = die
elif point == "begun":
    StationConnection.call = die_before_sending
elif point == "answered":
    CsmsCertificateFlow.answered = die

async def main():
    with Inventory.open(url, log_key=AuditKey.load_or_create(folder / "audit.key")) as inventory:
        keys = SoftwareKeyStore(folder / "keys", lambda: b"test passphrase")
        authority = Authority(inventory, keys, actor=actor, public_url="http://pki.example")
        issuer = aio.QueueIssuer(inventory, actor=actor) if point == "queue" else aio.Authority(authority)
        plans = {CertificateUse.CHARGING_STATION: IssuePlan("t-cso-sub", "ocpp/charging-station")}
        config = CsmsConfig(security_profiles=frozenset({1}), plans=plans, allow_unsecured=("*",))
        async with CsmsServer(config, inventory, issuer) as server:
            print(server.port, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def doomed(rig: Rig, point: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    process = await asyncio.create_subprocess_exec(
        forked_python(), "-c", DOOMED, rig.url, str(rig.folder), point, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 60))
        yield f"ws://localhost:{port}", process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask_and_lose_the_process(rig: Rig, station: str, version: str, point: str, *csrs: str) -> None:
    """Send *csrs* to a CSMS that dies of the last one."""
    async with (
        doomed(rig, point) as (url, process),
        foreign_station(url, station, version, password=PASSWORD) as peer,
    ):
        assert await peer.boot(station) == "Accepted"
        for number, csr in enumerate(csrs, 1):
            asking = asyncio.create_task(peer.send_csr(csr, request_id=40 + number))
        await asyncio.wait_for(process.wait(), 60)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def the_certificate(rig: Rig, station: str) -> CertificateRecord:
    (record,) = rig.inventory.list_certificates(station=station)
    return record


async def is_settled(rig: Rig, station: str, delivery: Delivery) -> CertificateRecord:
    await wait_for(lambda: the_certificate(rig, station).delivery is delivery)
    return the_certificate(rig, station)


def later_authority(rig: Rig) -> Authority:
    """An authority for which the leases of the dead process have ended."""
    ahead = timedelta(seconds=90)
    return Authority(
        rig.inventory,
        rig.keystore,
        actor=ACTOR,
        public_url="http://pki.example",
        clock=lambda: (datetime.now(UTC) + ahead).replace(microsecond=0),
    )


@contextlib.asynccontextmanager
async def back_at(
    rig: Rig, station: str, version: str, *, issuer: aio.Issuer | None = None, limits: CsmsLimits = SLOW
) -> AsyncIterator[ForeignStation]:
    """The same station at a new CSMS process's worth of server; it asks for nothing."""
    async with (
        rig.server(1, issuer=issuer, limits=limits) as server,
        foreign_station(rig.url_of(server), station, version, password=PASSWORD) as peer,
    ):
        yield peer


def check_fields(peer: ForeignStation, version: str, request_id: int = 41) -> None:
    (fields,) = peer.signed
    kind = fields.get("certificate_type")
    assert kind == (None if version == "ocpp1.6" else "ChargingStationCertificate")
    assert fields.get("request_id") == (request_id if version == "ocpp2.1" else None)


@pytest.mark.parametrize(
    ("point", "version"),
    [
        ("accepted", "ocpp1.6"),
        ("issuing", "ocpp1.6"),
        ("issued", "ocpp1.6"),
        ("begun", "ocpp1.6"),
        ("answered", "ocpp1.6"),
        ("issued", "ocpp2.0.1"),
        ("issued", "ocpp2.1"),
    ],
)
def test_a_csms_that_issues_itself_dies_and_the_next_one_delivers(rig: Rig, point: str, version: str) -> None:
    station = f"DIES-{point}-{version}"
    rig.add_station(station, profile=1)
    credential = Credential()

    async def story() -> None:
        csr = build_station_csr(credential.key, station, ORGANIZATION)
        await ask_and_lose_the_process(rig, station, version, point, csr)
        issuer = aio.Authority(later_authority(rig))
        async with back_at(rig, station, version, issuer=issuer) as peer:
            await peer.boot(station)
            credential.chain_pem = await peer.next_chain()
            check_fields(peer, version)
            await is_settled(rig, station, Delivery.DELIVERED)
        await issuer.aclose()
        assert peer.chains.empty()

    run_on("asyncio", story())
    assert the_certificate(rig, station).state is CertificateState.ISSUED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("connected", [True, False], ids=["while it is connected", "before it is back"])
def test_a_queued_request_that_is_answered_after_the_csms_died_is_delivered(
    rig: Rig, version: str, connected: bool
) -> None:
    station = f"Q-{connected}-{version}"
    rig.add_station(station, profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, station, ORGANIZATION)
        await ask_and_lose_the_process(rig, station, version, "queue", csr)
        assert list(rig.inventory.list_certificates(station=station)) == []
        if not connected:
            assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 1
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with back_at(rig, station, version, issuer=issuer) as peer:
            await peer.boot(station)
            if connected:
                await asyncio.sleep(0.3)
                assert peer.chains.empty()
                assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 1
            await peer.next_chain()
            check_fields(peer, version)
            await is_settled(rig, station, Delivery.DELIVERED)
        await issuer.aclose()

    run_on("asyncio", story())


@pytest.fixture
def shared(postgresql_url: str, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, postgresql_url) as opened:
        yield opened


def test_on_postgresql_a_queued_request_of_a_dead_process_is_delivered_by_whoever_holds_the_connection(
    shared: Rig,
) -> None:
    shared.add_station("PG-Q", profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, "PG-Q", ORGANIZATION)
        await ask_and_lose_the_process(shared, "PG-Q", "ocpp1.6", "queue", csr)
        issuer = aio.QueueIssuer(shared.inventory, actor=ACTOR)
        with Inventory.open(shared.url, log_key=shared.log_key) as second:
            async with (
                shared.server(1, issuer=issuer, limits=SLOW),
                shared.server(1, issuer=issuer, limits=SLOW, inventory=second) as two,
                foreign_station(shared.url_of(two), "PG-Q", "ocpp1.6", password=PASSWORD) as peer,
            ):
                await peer.boot("PG-Q")
                assert await asyncio.to_thread(shared.authority.serve_queue_once, "authority") == 1
                await peer.next_chain()
                await is_settled(shared, "PG-Q", Delivery.DELIVERED)
                assert len(peer.signed) == 1
        await issuer.aclose()

    run_on("uvloop", story())


def test_a_station_that_lost_the_key_rejects_and_the_certificate_is_undelivered_and_revoked(rig: Rig) -> None:
    rig.add_station("LOSTKEY", profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, "LOSTKEY", ORGANIZATION)
        await ask_and_lose_the_process(rig, "LOSTKEY", "ocpp1.6", "issued", csr)
        async with back_at(rig, "LOSTKEY", "ocpp1.6") as peer:
            peer.verdict = "Rejected"
            await peer.boot("LOSTKEY")
            await is_settled(rig, "LOSTKEY", Delivery.UNDELIVERED)

    run_on("asyncio", story())
    record = the_certificate(rig, "LOSTKEY")
    assert (record.state, record.revocation_reason) == (CertificateState.REVOKED, "cessationOfOperation")


def test_a_station_that_may_have_it_already_and_rejects_keeps_a_valid_certificate(rig: Rig) -> None:
    rig.add_station("HASIT", profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, "HASIT", ORGANIZATION)
        await ask_and_lose_the_process(rig, "HASIT", "ocpp1.6", "answered", csr)
        async with back_at(rig, "HASIT", "ocpp1.6") as peer:
            peer.verdict = "Rejected"
            await peer.boot("HASIT")
            await peer.next_chain()
            await wait_for(lambda: "given_up" in the_certificate(rig, "HASIT").verdict["delivery"])
        async with back_at(rig, "HASIT", "ocpp1.6") as peer:
            await peer.boot("HASIT")
            await asyncio.sleep(0.3)
            assert peer.chains.empty(), "it is not asked again on each connection"

    run_on("asyncio", story())
    record = the_certificate(rig, "HASIT")
    assert (record.state, record.delivery) == (CertificateState.ISSUED, Delivery.PENDING)


def test_of_two_requests_of_a_dead_process_only_the_newer_one_is_delivered(rig: Rig) -> None:
    rig.add_station("TWO", profile=1)
    csrs = [build_station_csr(Credential().key, "TWO", ORGANIZATION) for _ in range(2)]

    async def story() -> None:
        for csr in csrs:
            await ask_and_lose_the_process(rig, "TWO", "ocpp2.0.1", "queue", csr)
        assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 2
        async with back_at(rig, "TWO", "ocpp2.0.1") as peer:
            await peer.boot("TWO")
            await peer.next_chain()

            def settled() -> bool:
                states = {record.delivery for record in rig.inventory.list_certificates(station="TWO")}
                return states == {Delivery.DELIVERED, Delivery.UNDELIVERED}

            await wait_for(settled)
            assert len(peer.signed) == 1

    run_on("asyncio", story())
    by_delivery = {record.delivery: record for record in rig.inventory.list_certificates(station="TWO")}
    assert by_delivery[Delivery.UNDELIVERED].state is CertificateState.REVOKED
    assert by_delivery[Delivery.DELIVERED].csr == parse_csr(csrs[1]).der


def test_a_revoked_certificate_is_not_delivered_and_neither_is_an_expired_one(rig: Rig) -> None:
    for station in ("REVOKED", "EXPIRED"):
        rig.add_station(station, profile=1)

    async def story() -> None:
        for station in ("REVOKED", "EXPIRED"):
            csr = build_station_csr(Credential().key, station, ORGANIZATION)
            await ask_and_lose_the_process(rig, station, "ocpp1.6", "issued", csr)
        rig.authority.revoke(the_certificate(rig, "REVOKED").id, "keyCompromise")
        async with back_at(rig, "REVOKED", "ocpp1.6") as peer:
            await peer.boot("REVOKED")
            await asyncio.sleep(0.3)
            assert peer.chains.empty()
        far = timedelta(days=10_000)
        async with (
            rig.server(1, clock=lambda: datetime.now(UTC) + far) as server,
            foreign_station(rig.url_of(server), "EXPIRED", "ocpp1.6", password=PASSWORD) as peer,
        ):
            await peer.boot("EXPIRED")
            await asyncio.sleep(0.3)
            assert peer.chains.empty()

    run_on("asyncio", story())


def test_a_revocation_between_issuing_and_sending_stops_the_delivery(rig: Rig) -> None:
    rig.add_station("LATE", profile=1)

    class RevokingIssuer(aio.Authority):
        async def submit(self, order):  # type: ignore[no-untyped-def]  # as its base
            issued = await (await super().submit(order))
            await self.revoke(issued.record.id, "keyCompromise")
            future = asyncio.get_running_loop().create_future()
            future.set_result(issued)
            return future

    async def story() -> None:
        issuer = RevokingIssuer(rig.authority)
        async with back_at(rig, "LATE", "ocpp1.6", issuer=issuer) as peer:
            await peer.boot("LATE")
            await peer.send_csr(build_station_csr(Credential().key, "LATE", ORGANIZATION))
            await asyncio.sleep(0.5)
            assert peer.chains.empty()
        await issuer.aclose()

    run_on("asyncio", story())


def test_nothing_is_delivered_before_boot_notification_unless_the_station_stays_silent(rig: Rig) -> None:
    rig.add_station("SILENT", profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, "SILENT", ORGANIZATION)
        await ask_and_lose_the_process(rig, "SILENT", "ocpp1.6", "issued", csr)
        async with back_at(rig, "SILENT", "ocpp1.6") as peer:
            await asyncio.sleep(0.4)
            assert peer.chains.empty()
        # One that only lost its link sends no BootNotification, and perhaps nothing else for a while.
        async with back_at(rig, "SILENT", "ocpp1.6", limits=QUICK) as peer:
            await peer.next_chain()
            await is_settled(rig, "SILENT", Delivery.DELIVERED)

    run_on("asyncio", story())


def test_another_message_than_boot_notification_shows_that_the_station_is_up(rig: Rig) -> None:
    rig.add_station("BEATS", profile=1)

    async def story() -> None:
        csr = build_station_csr(Credential().key, "BEATS", ORGANIZATION)
        await ask_and_lose_the_process(rig, "BEATS", "ocpp2.1", "issued", csr)
        async with back_at(rig, "BEATS", "ocpp2.1") as peer:
            await peer.heartbeat()
            await peer.next_chain()

    run_on("asyncio", story())


def test_the_same_csr_again_at_the_new_process_is_answered_with_the_newest_request_id_and_once(rig: Rig) -> None:
    rig.add_station("AGAIN", profile=1)
    csr = build_station_csr(Credential().key, "AGAIN", ORGANIZATION)

    async def story() -> None:
        await ask_and_lose_the_process(rig, "AGAIN", "ocpp2.1", "queue", csr)
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with back_at(rig, "AGAIN", "ocpp2.1", issuer=issuer) as peer:
            await peer.boot("AGAIN")
            assert await peer.send_csr(csr, request_id=77) == "Accepted"
            assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 2
            await peer.next_chain()
            await is_settled(rig, "AGAIN", Delivery.DELIVERED)
            await asyncio.sleep(0.3)
            check_fields(peer, "ocpp2.1", 77)
        await issuer.aclose()

    run_on("asyncio", story())


def test_a_station_that_moves_to_another_process_gets_it_there_and_only_there(rig: Rig) -> None:
    rig.add_station("MOVES", profile=1)

    async def story() -> None:
        first, second = (aio.QueueIssuer(rig.inventory, actor=ACTOR) for _ in range(2))
        async with rig.server(1, issuer=first) as one, rig.server(1, issuer=second, limits=SLOW) as two:
            async with foreign_station(rig.url_of(one), "MOVES", "ocpp1.6", password=PASSWORD) as peer:
                await peer.boot("MOVES")
                await peer.send_csr(build_station_csr(Credential().key, "MOVES", ORGANIZATION))
            async with foreign_station(rig.url_of(two), "MOVES", "ocpp1.6", password=PASSWORD) as peer:
                await peer.boot("MOVES")
                assert await asyncio.to_thread(rig.authority.serve_queue_once, "authority") == 1
                await peer.next_chain()
                await is_settled(rig, "MOVES", Delivery.DELIVERED)
            async with foreign_station(rig.url_of(one), "MOVES", "ocpp1.6", password=PASSWORD) as peer:
                await peer.boot("MOVES")
                await asyncio.sleep(0.3)
                assert peer.chains.empty(), "the first process has it in memory still"
        await first.aclose()
        await second.aclose()

    run_on("asyncio", story())


@pytest.mark.parametrize(("version", "status"), [("ocpp1.6", "Rejected"), ("ocpp2.0.1", "Accepted")])
def test_a_csr_that_cannot_be_made_durable_is_only_accepted_where_the_station_asks_again(
    rig: Rig, version: str, status: str
) -> None:
    station = f"FULL-{version}"
    rig.add_station(station, profile=1)

    class FullDisk(aio.QueueIssuer):
        async def submit(self, order):  # type: ignore[no-untyped-def]  # as its base
            raise UnavailableError("the database cannot grow: the disk is full")

    async def story() -> None:
        issuer = FullDisk(rig.inventory, actor=ACTOR)
        async with back_at(rig, station, version, issuer=issuer) as peer:
            assert await peer.send_csr(build_station_csr(Credential().key, station, ORGANIZATION)) == status
        await issuer.aclose()

    run_on("asyncio", story())


def test_stopping_while_the_authority_is_away_is_quick_and_refuses_nothing(rig: Rig) -> None:
    rig.add_station("PATIENT", profile=1)

    async def story() -> float:
        issuer = aio.QueueIssuer(rig.inventory, actor=ACTOR)
        async with back_at(rig, "PATIENT", "ocpp1.6", issuer=issuer) as peer:
            await peer.boot("PATIENT")
            await peer.send_csr(build_station_csr(Credential().key, "PATIENT", ORGANIZATION))
            begun = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - begun
        await issuer.aclose()
        return took

    assert run_on("asyncio", story()) < 30
    (row,) = [row for row in rig.inventory.list_issuances() if row.station == "PATIENT"]
    assert row.state is IssuanceState.QUEUED
    refused = [e for e in rig.inventory.list_audit(limit=100_000) if e.subject == "PATIENT" and e.outcome == "refused"]
    assert refused == []
    rig.authority.serve_queue_once("authority")
