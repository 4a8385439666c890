"""Durable operations: waiting for a station, carried out by whoever holds its connection, never twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import websockets

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.passwords import hash_password
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import OperationRecord, OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, build_station_csr, foreign_station, open_socket

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
NEW_PASSWORD = b"a-new-password-20ch."


def order(rig: Rig, station: str, kind: OperationKind, *, password: bytes | None = None, seconds: float = 120) -> str:
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    now = datetime.now(UTC)
    secret = None if password is None else PasswordSecret(password, hash_password(password))
    parameters = {"use": "ChargingStationCertificate"} if kind is OperationKind.TRIGGER_RENEWAL else {}
    record = store.create(
        kind,
        station,
        parameters,
        operation_id=new_operation_id(),
        actor=ACTOR,
        now=now,
        deadline=now + timedelta(seconds=seconds),
        secret=secret,
    )
    return record.id


def outcome(rig: Rig, operation: str) -> OperationRecord:
    return rig.inventory.get_operation(operation)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_renewal_ordered_for_an_offline_station_is_done_when_it_connects(rig: Rig, loop: str, version: str) -> None:
    station = f"OP-{loop}-{version}"
    rig.add_station(station)
    operation = order(rig, station, OperationKind.TRIGGER_RENEWAL)

    async def story() -> None:
        async with rig.server(2) as server:
            assert outcome(rig, operation).state is OperationState.QUEUED
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(server), station, version, password=PASSWORD, tls=tls) as peer:
                wanted = "SignChargePointCertificate" if version == "ocpp1.6" else "SignChargingStationCertificate"
                assert await peer.next_trigger() == wanted
                await peer.send_csr(build_station_csr(Credential().key, station, "Example CSO"), request_id=1)
                await peer.next_chain()
                await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)

    run_on(loop, story())
    done = outcome(rig, operation)
    assert done.outcome is not None and str(done.outcome["certificate"]).startswith("t-cso-sub@1:")
    assert len(rig.inventory.list_attempts(operation)) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_password_is_set_and_the_old_one_refused_afterwards(rig: Rig, version: str) -> None:
    station = f"PW-{version}"
    rig.add_station(station)

    async def story() -> None:
        async with rig.server(2) as server:
            url, tls = rig.url_of(server), rig.client_tls()
            async with foreign_station(url, station, version, password=PASSWORD, tls=tls) as peer:
                operation = order(rig, station, OperationKind.SET_PASSWORD, password=NEW_PASSWORD)
                name = "AuthorizationKey" if version == "ocpp1.6" else "BasicAuthPassword"
                value = NEW_PASSWORD.hex() if version == "ocpp1.6" else NEW_PASSWORD.decode()
                assert await peer.next_trigger() == f"{name}={value}"
                await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)
                assert outcome(rig, operation).sealed is None
            with pytest.raises(websockets.InvalidStatus):
                await open_socket(url, station, protocols=(version,), password=PASSWORD, tls=tls)
            socket = await open_socket(url, station, protocols=(version,), password=NEW_PASSWORD, tls=tls)
            await socket.close()

    run_on("asyncio", story())


def test_an_operation_for_a_station_that_never_comes_expires(rig: Rig) -> None:
    rig.add_station("ABSENT")
    operation = order(rig, "ABSENT", OperationKind.TRIGGER_RENEWAL, seconds=0.5)

    async def story() -> None:
        async with rig.server(2):
            await wait_for(lambda: outcome(rig, operation).state is OperationState.EXPIRED)

    run_on("asyncio", story())


def test_a_csr_that_is_refused_fails_the_operation_with_the_reason(rig: Rig) -> None:
    rig.add_station("REFUSED")
    operation = order(rig, "REFUSED", OperationKind.TRIGGER_RENEWAL)

    async def story() -> None:
        async with rig.server(2) as server:
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(server), "REFUSED", "ocpp2.0.1", password=PASSWORD, tls=tls) as peer:
                await peer.next_trigger()
                await peer.send_csr(build_station_csr(Credential().key, "SOMEBODY", "Example CSO"))
                await wait_for(lambda: outcome(rig, operation).state is OperationState.FAILED)

    run_on("asyncio", story())
    assert "serial number" in str(outcome(rig, operation).outcome)


def test_of_two_servers_only_the_one_with_the_connection_acts(rig: Rig) -> None:
    rig.add_station("SHARED")

    async def story() -> str:
        with Inventory.open(rig.url, log_key=rig.log_key) as other:
            async with rig.server(2), rig.server(2, inventory=other) as two:
                tls = rig.client_tls()
                async with foreign_station(rig.url_of(two), "SHARED", "ocpp2.0.1", password=PASSWORD, tls=tls) as peer:
                    operation = order(rig, "SHARED", OperationKind.TRIGGER_RENEWAL)
                    await peer.next_trigger()
                    await peer.send_csr(build_station_csr(Credential().key, "SHARED", "Example CSO"))
                    await peer.next_chain()
                    await wait_for(lambda: outcome(rig, operation).state is OperationState.DONE)
                    assert peer.triggers.empty()
        return operation

    assert len(rig.inventory.list_attempts(run_on("asyncio", story()))) == 1
