"""Our own station against our own CSMS, over real TLS sockets and a real store on disk."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import websockets
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.passwords import hash_password
from chargepki.ocpp_security.station import (
    CsrForgery,
    Milestone,
    Progress,
    RetryPolicy,
    StationSimulator,
    StationStore,
)
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory.records import Delivery, OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import make_node

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))


def new_store(rig: Rig, identity: str, *, password: bytes | None = PASSWORD) -> StationStore:
    store = StationStore(rig.folder / "stations" / identity)
    store.set_trust(rig.root_pem.encode())
    if password is not None:
        store.set_password(password)
    return store


def new_station(rig: Rig, url: str, identity: str, version: str = "ocpp2.0.1", **options: Any) -> StationSimulator:
    store = options.pop("store", None) or new_store(rig, identity)
    return StationSimulator(url, identity, store, version, organization="Example CSO", retry=FAST, **options)


def reaches(milestone: Milestone, *, profile: int | None = None) -> Any:
    return lambda event: event.milestone is milestone and profile in (None, event.profile)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_enrols_renews_and_is_cut_off(rig: Rig, loop: str, version: str) -> None:
    identity = f"SIM-{loop}-{version}"
    rig.add_station(identity)
    told: list[Progress] = []

    async def story() -> None:
        async with rig.server(2, 3) as server:
            station = new_station(rig, rig.url_of(server), identity, version, progress=told.append)
            await station.run(reaches(Milestone.BOOTED, profile=3))
            now = datetime.now(UTC)
            OperationStore(rig.inventory, rig.sealing_key, owner="t", actor=ACTOR).create(
                OperationKind.TRIGGER_RENEWAL,
                identity,
                {"use": "ChargingStationCertificate"},
                operation_id=new_operation_id(),
                actor=ACTOR,
                now=now,
                deadline=now + timedelta(seconds=30),
            )
            await station.run(reaches(Milestone.CERTIFICATE_PROVEN))
            await wait_for(lambda: [r for r in records() if r.delivery is Delivery.SUPERSEDED])
            begun = len(told)
            running = asyncio.create_task(station.run(reaches(Milestone.REFUSED)))
            # The registry may still hold its last connection: only its own word says that the new one is up.
            await wait_for(lambda: Milestone.BOOTED in {event.milestone for event in told[begun:]})
            for record in records():
                await asyncio.to_thread(rig.authority.revoke, record.id, "keyCompromise")
            refused = await running
            assert refused is not None and refused.status == 403

    def records() -> list[Any]:
        return list(rig.inventory.list_certificates(station=identity))

    run_on(loop, story())
    closed = [event for event in told if event.milestone is Milestone.DISCONNECTED and event.status == 1008]
    assert "revoked" in closed[0].text
    assert PASSWORD.decode() not in "".join(event.text for event in told)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_password_is_used_and_the_old_one_given_up_after_it_worked(rig: Rig, version: str) -> None:
    identity, new = f"SIMPW-{version}", b"another-password-01"
    rig.add_station(identity)

    async def story() -> None:
        async with rig.server(2) as server:
            now = datetime.now(UTC)
            store = OperationStore(rig.inventory, rig.sealing_key, owner="t", actor=ACTOR)
            operation = store.create(
                OperationKind.SET_PASSWORD,
                identity,
                {},
                operation_id=new_operation_id(),
                actor=ACTOR,
                now=now,
                deadline=now + timedelta(seconds=30),
                secret=PasswordSecret(new, hash_password(new)),
            )
            station = new_station(rig, rig.url_of(server), identity, version, enrol=False)
            await station.run(reaches(Milestone.PASSWORD_PROVEN))
            assert station.store.passwords() == (new,)
            await wait_for(lambda: rig.inventory.get_operation(operation.id).state is OperationState.DONE)

    run_on("asyncio", story())


def test_a_password_that_does_not_work_is_followed_by_the_old_one(rig: Rig) -> None:
    rig.add_station("FALLBACK")

    async def story() -> None:
        async with rig.server(2) as server:
            station = new_station(rig, rig.url_of(server), "FALLBACK", enrol=False)
            station.store.offer_password(b"never-told-to-csms")
            await station.run(reaches(Milestone.BOOTED))
            assert station.store.passwords() == (PASSWORD,)

    run_on("asyncio", story())


def test_a_new_certificate_that_opens_nothing_gives_way_to_the_old_one(rig: Rig) -> None:
    rig.add_station("KEEPS")

    async def story() -> None:
        async with rig.server(2, 3) as server:
            station = new_station(rig, rig.url_of(server), "KEEPS")
            await station.run(reaches(Milestone.CERTIFICATE_PROVEN))
            old = station.flow.installed[0].sha256
            now = datetime.now(UTC)
            OperationStore(rig.inventory, rig.sealing_key, owner="t", actor=ACTOR).create(
                OperationKind.TRIGGER_RENEWAL,
                "KEEPS",
                {"use": "ChargingStationCertificate"},
                operation_id=new_operation_id(),
                actor=ACTOR,
                now=now,
                deadline=now + timedelta(seconds=30),
            )
            await station.run(reaches(Milestone.CERTIFICATE_INSTALLED))
            (unproven,) = (item.sha256 for item in station.flow.installed if not item.proven)
            newest = rig.inventory.find_certificate_by_sha256(unproven)
            assert newest is not None
            await asyncio.to_thread(rig.authority.revoke, newest.id, "superseded")
            await station.run(reaches(Milestone.BOOTED, profile=3))
            assert [item.sha256 for item in station.flow.installed] == [old]

    run_on("asyncio", story())


@pytest.mark.parametrize("forgery", [CsrForgery(ca=True), CsrForgery(common_name="SOMEBODY-ELSE")])
def test_a_forged_csr_is_refused_and_the_station_told_why(rig: Rig, forgery: CsrForgery) -> None:
    identity = "FORGER-CA" if forgery.ca else "FORGER-CN"
    rig.add_station(identity)

    async def story() -> None:
        async with rig.server(2, 3) as server:
            station = new_station(rig, rig.url_of(server), identity, forgery=forgery)
            refused = await station.run(reaches(Milestone.CSR_REFUSED))
            assert refused is not None
            assert "InvalidCSR" in refused.text

    run_on("asyncio", story())
    assert list(rig.inventory.list_certificates(station=identity)) == []


def test_it_does_not_send_its_password_to_a_server_it_does_not_trust(rig: Rig, tmp_path: Path) -> None:
    rig.add_station("CAREFUL")
    store = StationStore(tmp_path / "careful")
    store.set_trust(make_node("Other root", None, ca=True).certificate.public_bytes(Encoding.PEM))
    store.set_password(PASSWORD)

    async def story() -> None:
        async with rig.server(2) as server:
            station = new_station(rig, rig.url_of(server), "CAREFUL", store=store)
            refused = await station.run(reaches(Milestone.REFUSED))
            assert refused is not None and "not accepted" in refused.text

    run_on("asyncio", story())
    assert [event.type for event in store.state.events] == ["StartupOfTheDevice", "InvalidCsmsCertificate"]


def test_events_queued_while_offline_arrive_with_the_next_connection(rig: Rig) -> None:
    rig.add_station("QUEUES")

    async def story() -> None:
        async with rig.server(2) as server:
            station = new_station(rig, rig.url_of(server), "QUEUES", enrol=False)
            running = asyncio.create_task(station.run())
            await wait_for(lambda: rig.inventory.list_security_events(station="QUEUES"))
            running.cancel()

    run_on("asyncio", story())
    (event,) = rig.inventory.list_security_events(station="QUEUES")
    assert (event.type, event.source, event.critical) == ("StartupOfTheDevice", "station", True)


def test_what_is_behind_the_station_can_call_over_its_connection(rig: Rig) -> None:
    rig.add_station("SPEAKS")
    told: list[Progress] = []

    async def story() -> None:
        async with rig.server(2) as server:
            station = new_station(rig, rig.url_of(server), "SPEAKS", enrol=False, progress=told.append)
            with pytest.raises(StateError, match="not connected"):
                await station.call("Heartbeat", {})
            running = asyncio.create_task(station.run())
            await wait_for(lambda: any(event.milestone is Milestone.BOOTED for event in told))
            assert "currentTime" in await station.call("Heartbeat", {})
            running.cancel()

    run_on("asyncio", story())


def test_it_does_not_follow_a_redirect(rig: Rig) -> None:
    async def story() -> None:
        async def redirect(connection: Any, request: Any) -> Any:
            response = connection.respond(302, "")
            response.headers["Location"] = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/elsewhere"
            seen.append(request.path)
            return response

        async def nobody(_: Any) -> None:
            raise AssertionError("connected")

        seen: list[str] = []
        async with websockets.serve(nobody, "127.0.0.1", 0, process_request=redirect) as server:
            port = server.sockets[0].getsockname()[1]
            station = new_station(rig, f"ws://127.0.0.1:{port}", "REDIRECTED")
            refused = await station.run(reaches(Milestone.REFUSED))
            assert refused is not None and refused.status == 302
        assert seen == ["/ocpp/REDIRECTED"]

    run_on("asyncio", story())


@pytest.mark.parametrize("url", ["", "http://x", "wss://", "wss://user:pw@x", "ftp://x", "x"])
def test_a_url_that_is_none_is_refused(rig: Rig, url: str) -> None:
    with pytest.raises(InputError, match="URL"):
        new_station(rig, url, "URLS")


def test_without_any_credential_it_says_so(rig: Rig, tmp_path: Path) -> None:
    store = StationStore(tmp_path / "bare")
    store.set_trust(rig.root_pem.encode())

    async def story() -> None:
        await new_station(rig, "wss://localhost:1", "BARE", store=store).run()

    with pytest.raises(InputError, match="neither a certificate nor a password"):
        run_on("asyncio", story())


def test_the_waits_double_up_to_the_maximum() -> None:
    policy = RetryPolicy(timedelta(seconds=1), timedelta(seconds=10))
    assert 1 <= policy.wait(1) <= 1.2
    assert 4 <= policy.wait(3) <= 4.8
    assert 10 <= policy.wait(1000) <= 12


def test_the_tls_module_is_used_with_verification(rig: Rig) -> None:
    station = new_station(rig, "wss://localhost:1", "VERIFIES")
    context = station.dialler.tls(None)
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


def test_a_station_whose_only_certificate_is_refused_for_good_enrols_again_if_it_is_told_to(rig: Rig) -> None:
    rig.add_station("ENROLS-AGAIN")
    told: list[Progress] = []

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            await new_station(rig, url, "ENROLS-AGAIN").run(reaches(Milestone.CERTIFICATE_PROVEN))
            (first,) = rig.inventory.list_certificates(station="ENROLS-AGAIN")
            await asyncio.to_thread(rig.authority.revoke, first.id, "keyCompromise")
            again = new_station(rig, url, "ENROLS-AGAIN", enrol_again=True, progress=told.append)
            await again.run(reaches(Milestone.CERTIFICATE_PROVEN))

    run_on("asyncio", story())
    tries = [(e.profile, e.milestone) for e in told if e.milestone in (Milestone.REFUSED, Milestone.CONNECTED)]
    assert tries == [*[(3, Milestone.REFUSED)] * 3, (2, Milestone.CONNECTED), (3, Milestone.CONNECTED)]
    assert len(list(rig.inventory.list_certificates(station="ENROLS-AGAIN"))) == 2
