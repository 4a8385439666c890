"""A05, end to end: a foreign station and ours are raised from profile 1 to 2 and to 3, and never let in lower again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.passwords import hash_password, verify_password
from chargepki.ocpp_security.station import Milestone, RetryPolicy, StationSimulator, StationStore
from chargepki.ocpp_security.station.misbehaviour import HONEST, Conduct, Misbehaviour
from chargepki.ocpp_security.trust_facts import add_root, known_certificates
from chargepki.ocpp_security.trust_reconcile import reconcile
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.hierarchy import make_node
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
URL = "wss://csms.example/ocpp"


def order(
    rig: Rig, station: str, profile: int, version: str, url: str = URL, *, secret: bytes | None = None, **more: Any
) -> str:
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    now = datetime.now(UTC)
    return store.create(
        OperationKind.SET_PROFILE,
        station,
        profile_parameters(profile, url=None if version == "ocpp1.6" else url, **more),
        operation_id=new_operation_id(),
        actor=ACTOR,
        now=now,
        deadline=now + timedelta(minutes=1),
        secret=PasswordSecret(secret, hash_password(secret)) if secret is not None else None,
    ).id


@pytest.mark.parametrize("version", VERSIONS)
def test_a_station_is_raised_from_profile_1_to_2_and_never_let_in_lower_again(rig: Rig, version: str) -> None:
    """A05.FR.05 to FR.07, 1.6 A05.FR.09; TC_A_19."""
    station = f"UP-{version}"
    rig.add_station(station, profile=1)

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2) as secure:
            operation = order(rig, station, 2, version)
            async with foreign_station(rig.url_of(plain), station, version, password=PASSWORD) as peer:
                if version == "ocpp1.6":
                    assert await peer.next_trigger() == "SecurityProfile=2"
                else:
                    assert await peer.next_trigger() == "NetworkConfigurationPriority?"
                    assert await peer.next_trigger() == f"slot 2: profile 2 at {URL}"
                    assert await peer.next_trigger() == "NetworkConfigurationPriority=2,1"
                    assert await peer.next_trigger() == "reset OnIdle"
            assert rig.inventory.get_station(station).security_profile == 1
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(secure), station, version, password=PASSWORD, tls=tls):
                await wait_for(lambda: rig.inventory.get_operation(operation).state is OperationState.DONE)
            assert rig.inventory.get_station(station).security_profile == 2
            with pytest.raises(websockets.InvalidStatus) as refused:
                await open_socket(rig.url_of(plain), station, protocols=(version,), password=PASSWORD)
            assert refused.value.response.status_code == 403

    run_on("asyncio", story())


def test_profile_3_is_reached_with_a_certificate_that_is_fetched_first(rig: Rig) -> None:
    """A05.FR.03: the certificate comes before the profile; A05.FR.07 afterwards."""
    rig.add_station("UP-3")
    credential = Credential()

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            operation = order(rig, "UP-3", 3, "ocpp2.0.1")
            async with foreign_station(url, "UP-3", "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls()) as peer:
                assert await peer.next_trigger() == "SignChargingStationCertificate"
                await peer.send_csr(build_station_csr(credential.key, "UP-3", "Example CSO"))
                credential.chain_pem = await peer.next_chain()
                assert await peer.next_trigger() == "NetworkConfigurationPriority?"
                for _ in range(3):
                    last = await peer.next_trigger()
                assert last == "reset OnIdle"
            async with foreign_station(url, "UP-3", "ocpp2.0.1", tls=rig.client_tls(credential)):
                await wait_for(lambda: rig.inventory.get_operation(operation).state is OperationState.DONE)
            with pytest.raises(websockets.InvalidStatus):
                await open_socket(url, "UP-3", password=PASSWORD, tls=rig.client_tls())

    run_on("asyncio", story())
    assert rig.inventory.get_station("UP-3").security_profile == 3


def test_a_station_moves_from_16_to_201_with_password_and_certificate_and_back(rig: Rig) -> None:
    """One endpoint for both versions: whatever the station holds opens it in either."""
    rig.add_station("MOVE")
    credential = Credential()

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            async with foreign_station(url, "MOVE", "ocpp1.6", password=PASSWORD, tls=tls) as peer:
                await peer.send_csr(build_station_csr(credential.key, "MOVE", "Example CSO"))
                credential.chain_pem = await peer.next_chain()
            for version in ("ocpp2.0.1", "ocpp1.6"):
                async with foreign_station(url, "MOVE", version, password=PASSWORD, tls=tls):
                    await wait_for(lambda: speaks("MOVE") == (version, 2))  # noqa: B023 - called within its round
            for version in ("ocpp2.0.1", "ocpp1.6"):
                async with foreign_station(url, "MOVE", version, tls=rig.client_tls(credential)):
                    await wait_for(lambda: speaks("MOVE") == (version, 3))  # noqa: B023 - called within its round

    def speaks(station: str) -> tuple[str, int] | None:
        seen = rig.inventory.find_presence(station)
        return None if seen is None or not seen.connected else (seen.protocol, seen.security_profile)

    run_on("asyncio", story())


def test_our_station_takes_roots_password_and_certificate_from_16_to_201_and_back(rig: Rig) -> None:
    """One store, one endpoint: a root that was installed in one version is in step in the other, and deleted there.

    In 1.6 the V2G root came in a DataTransfer.
    """
    rig.add_station("CARRY")
    v2g = make_node("V2G Root", None, ca=True).certificate.public_bytes(Encoding.DER)

    def put_on_record(tx: Transaction) -> None:
        now = datetime.now(UTC)
        tx.audit(ACTOR, "root.add", add_root(tx, v2g, actor_name="tester", now=now), now=now)

    rig.inventory.write(put_on_record)
    roots = {"csms": rig.root_der, "v2g": v2g}

    async def asked(kind: OperationKind, parameters: dict[str, object]) -> None:
        store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
        now = datetime.now(UTC)
        made = store.create(
            kind, "CARRY", parameters, operation_id=new_operation_id(), actor=ACTOR, now=now,
            deadline=now + timedelta(minutes=1),
        )  # fmt: skip
        await wait_for(lambda: rig.inventory.get_operation(made.id).state.is_final)
        assert rig.inventory.get_operation(made.id).state is OperationState.DONE, rig.inventory.get_operation(made.id)

    def shown() -> dict[str, str]:
        facts = rig.inventory.list_station_roots("CARRY"), rig.inventory.list_root_reports("CARRY")
        return {each.use: each.finding.value for each in reconcile(*facts, known_certificates(rig.inventory, "CARRY"))}

    def connected() -> tuple[str, int] | None:
        seen = rig.inventory.find_presence("CARRY")
        return None if seen is None or not seen.connected else (seen.protocol, seen.security_profile)

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            async with running(our_station(rig, "CARRY", url, "ocpp1.6")):
                # It enrols with its password, and comes back with its certificate.
                await wait_for(lambda: connected() == ("ocpp1.6", 3))
                for use, der in roots.items():
                    sha256 = hashlib.sha256(der).hexdigest()
                    await asked(OperationKind.INSTALL_ROOT, {"use": use, "certificate": sha256})
            async with running(our_station(rig, "CARRY", url, "ocpp2.0.1")):
                await wait_for(lambda: connected() == ("ocpp2.0.1", 3))
                await asked(OperationKind.LIST_ROOTS, {"uses": ["csms", "v2g"]})
                assert shown() == {"csms": "in-step", "v2g": "in-step"}
                gone: dict[str, object] = {"use": "v2g", "certificate": hashlib.sha256(v2g).hexdigest()}
                await asked(OperationKind.DELETE_ROOT, gone)
            async with running(our_station(rig, "CARRY", url, "ocpp1.6")):
                await wait_for(lambda: connected() == ("ocpp1.6", 3))
                await asked(OperationKind.LIST_ROOTS, {"uses": ["csms", "v2g"]})
                assert shown() == {"csms": "in-step"}

    run_on("asyncio", story())


def test_a_station_that_falls_back_keeps_its_old_profile_and_gets_its_old_order_again(rig: Rig) -> None:
    """B10.FR.07."""
    rig.add_station("BACK", profile=1)

    async def story() -> None:
        async with rig.server(1) as server:
            url = rig.url_of(server)
            operation = order(rig, "BACK", 2, "ocpp2.0.1")
            async with foreign_station(url, "BACK", "ocpp2.0.1", password=PASSWORD) as peer:
                for _ in range(4):
                    await peer.next_trigger()
            async with foreign_station(url, "BACK", "ocpp2.0.1", password=PASSWORD) as peer:
                await peer.boot("BACK")
                assert await peer.next_trigger() == "NetworkConfigurationPriority=1"
                await wait_for(lambda: rig.inventory.get_operation(operation).state is OperationState.FAILED)
            assert "came back on profile 1" in str(rig.inventory.get_operation(operation).outcome)

    run_on("asyncio", story())
    assert rig.inventory.get_station("BACK").security_profile == 1


def our_station(rig: Rig, identity: str, url: str, version: str, **options: Any) -> StationSimulator:
    store = StationStore(rig.folder / "stations" / identity)
    store.set_trust(rig.root_pem.encode())
    store.set_password(PASSWORD)
    retry = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.1))
    return StationSimulator(url, identity, store, version, organization="Example CSO", retry=retry, **options)


@contextlib.asynccontextmanager
async def running(station: StationSimulator) -> AsyncIterator[None]:
    task = asyncio.create_task(station.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.1"])
def test_tc_083_and_tc_a_19_our_station_goes_from_profile_1_to_3_and_stays_there(rig: Rig, version: str) -> None:
    """A05.FR.05 to FR.07 (1.6: FR.06, FR.07, FR.09) from both ends: slots or key, reboot, no way back."""
    identity = f"OURS-{version}"
    rig.add_station(identity, profile=1)

    async def raised(profile: int, url: str) -> None:
        operation = order(rig, identity, profile, version, url)
        await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final, seconds=80)
        assert rig.inventory.get_operation(operation).state is OperationState.DONE

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2, 3) as secure:
            url, secure_url = rig.url_of(plain), rig.url_of(secure)
            async with running(our_station(rig, identity, url, version, secure_url=secure_url)):
                await raised(2, secure_url)
                await raised(3, secure_url)
            # A new process with the address that it was commissioned with.
            again = our_station(rig, identity, url, version, secure_url=secure_url)
            shown = await again.run(lambda event: event.milestone in (Milestone.BOOTED, Milestone.REFUSED))
            assert shown is not None and (shown.milestone, shown.profile) == (Milestone.BOOTED, 3)
            values = again.device.values()
            assert (values["SecurityProfile"], values["NetworkConfigurationPriority"]) == (
                "3", values["ActiveNetworkProfile"],
            )  # fmt: skip

    run_on("asyncio", story())
    assert rig.inventory.get_station(identity).security_profile == 3


@pytest.mark.parametrize("by", ["message", "variables"])
def test_tc_b_100_a_slot_with_its_own_password_opens_the_next_profile(rig: Rig, by: str) -> None:
    """B09.FR.14, FR.18 from both ends: SetNetworkProfile, or NetworkConfiguration where that is not known."""
    identity, secret = f"SLOT-{by}", b"the-password-of-slot-2"
    rig.add_station(identity, profile=1)

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2) as secure:
            conduct = Conduct(frozenset({Misbehaviour.NETWORK_BY_VARIABLES})) if by == "variables" else HONEST
            station = our_station(rig, identity, rig.url_of(plain), "ocpp2.1", enrol=False, conduct=conduct)
            async with running(station):
                operation = order(rig, identity, 2, "ocpp2.1", rig.url_of(secure), secret=secret)
                await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final, seconds=80)
                assert rig.inventory.get_operation(operation).state is OperationState.DONE
            assert station.network.slots[2].password == secret.decode()
            sent = [each.action for each in rig.inventory.list_attempts(operation)]
            assert ("SetVariables(slot)" in sent) is (by == "variables")
            with pytest.raises(websockets.InvalidStatus):
                await open_socket(rig.url_of(secure), identity, password=PASSWORD, tls=rig.client_tls())

    run_on("asyncio", story())
    record = rig.inventory.get_station(identity)
    assert record.security_profile == 2 and record.pending_password_hash is None
    assert record.password_hash is not None and verify_password(record.password_hash, secret)


def test_a_station_that_ignores_the_password_of_its_slot_keeps_the_one_on_record(rig: Rig) -> None:
    """It comes in all the same, and nothing is accepted beside what it uses."""
    rig.add_station("IGNORES", profile=1)

    async def story() -> None:
        async with rig.server(1) as plain, rig.server(2) as secure:
            conduct = Conduct(frozenset({Misbehaviour.SLOT_PASSWORD_IGNORED}))
            station = our_station(rig, "IGNORES", rig.url_of(plain), "ocpp2.1", enrol=False, conduct=conduct)
            async with running(station):
                operation = order(rig, "IGNORES", 2, "ocpp2.1", rig.url_of(secure), secret=b"the-password-of-slot-2")
                await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final, seconds=80)
            outcome = rig.inventory.get_operation(operation)
            assert outcome.state is OperationState.DONE and "old password" in str(outcome.outcome)

    run_on("asyncio", story())
    record = rig.inventory.get_station("IGNORES")
    assert record.pending_password_hash is None and verify_password(str(record.password_hash), PASSWORD)


def test_a05_fr_08_our_station_is_lowered_from_3_to_2_and_comes_back_on_it(rig: Rig) -> None:
    """A05.FR.08 from both ends; without its AllowSecurityProfileDowngrade nothing changes (A05.FR.10)."""
    rig.add_station("DOWN")

    async def story() -> None:
        async with rig.server(2, 3) as server:
            url = rig.url_of(server)
            station = our_station(rig, "DOWN", url, "ocpp2.1")
            async with running(station):
                await wait_for(lambda: station.store.state.security_profile == 3, seconds=80)
                await done("DOWN", 3, url, OperationState.DONE)
                await done("DOWN", 2, url, OperationState.FAILED)
                station.device.put("AllowSecurityProfileDowngrade", "true")
                await done("DOWN", 2, url, OperationState.DONE)
            assert station.device.values()["SecurityProfile"] == "2"

    async def done(identity: str, profile: int, url: str, expected: OperationState) -> None:
        operation = order(rig, identity, profile, "ocpp2.1", url, downgrade=profile == 2)
        await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final, seconds=80)
        assert rig.inventory.get_operation(operation).state is expected, rig.inventory.get_operation(operation)
        is_lowered = expected is OperationState.DONE and profile == 2
        assert rig.inventory.get_station(identity).security_profile == (2 if is_lowered else 3)

    run_on("asyncio", story())


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1"])
def test_tc_b_49_our_station_comes_back_when_nobody_answers_on_the_new_profile(rig: Rig, version: str) -> None:
    """B10.FR.07, 1.6 A05.FR.08: the operation fails, and what worked goes on to work."""
    identity, nobody = f"RETURNS-{version}", "wss://localhost:1"
    rig.add_station(identity, profile=1)

    async def story() -> None:
        async with rig.server(1) as server:
            station = our_station(rig, identity, rig.url_of(server), version, secure_url=nobody)
            async with running(station):
                operation = order(rig, identity, 2, version, nobody)
                await wait_for(lambda: rig.inventory.get_operation(operation).state.is_final, seconds=80)
                assert "came back on profile 1" in str(rig.inventory.get_operation(operation).outcome)
                assert station.network.order_text() == "1"

    run_on("asyncio", story())
    assert rig.inventory.get_station(identity).security_profile == 1
