"""A station that the team's BootNotification handler does not accept: what it may send, and what reaches it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.pki.inventory.records import OperationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import open_socket
from testkit.own_csms import own_csms

BOOT = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}
STATUS = {"timestamp": "2026-03-01T00:00:00Z", "connectorStatus": "Available", "evseId": 1, "connectorId": 1}
REPORT = {"requestId": 1, "generatedAt": "2026-03-01T00:00:00Z", "seqNo": 0}


async def ask(socket: ClientConnection, action: str, payload: dict[str, Any]) -> Any:
    """Send a call and return the answer; what the CSMS calls meanwhile is accepted."""
    await socket.send(json.dumps([2, "asked", action, payload]))
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if frame[0] != 2:
            return frame
        await socket.send(json.dumps([3, frame[1], {"status": "Accepted"}]))


async def next_call(socket: ClientConnection) -> str:
    frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
    await socket.send(json.dumps([3, frame[1], {"status": "Accepted"}]))
    return str(frame[2])


def is_security_error(answer: Any) -> bool:
    return bool(answer[0] == 4 and answer[2] == "SecurityError")


@pytest.mark.parametrize("version", ["ocpp2.0.1", "ocpp2.1"])
def test_b01_fr_10_b02_fr_09_a_station_in_pending_may_send_what_it_is_asked_for_alone(rig: Rig, version: str) -> None:
    identity = f"PENDING-{version}"
    rig.add_station(identity)

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await open_socket(
                team.url, identity, protocols=(version,), password=PASSWORD, tls=rig.client_tls()
            )
            team.boot_status = "Pending"
            assert (await ask(socket, "BootNotification", BOOT))[2]["status"] == "Pending"
            for action, payload in (("StatusNotification", STATUS), ("NotifyReport", REPORT), ("Heartbeat", {})):
                assert is_security_error(await ask(socket, action, payload)), action
            # B02.FR.06: neither end hangs up because of it; B02.FR.01: what the CSMS asks for comes.
            station = team.stations[identity]
            wanted: dict[str, dict[str, Any]] = {
                "TriggerMessage": {"requestedMessage": "Heartbeat"},
                "GetBaseReport": {"requestId": 1, "reportBase": "FullInventory"},
            }
            for action, request in wanted.items():
                calling = asyncio.create_task(station.station_connection.call(action, request))
                assert await next_call(socket) == action
                await calling
            assert (await ask(socket, "Heartbeat", {}))[0] == 3
            # Asked for, and only without a handler in this team's class.
            assert not is_security_error(await ask(socket, "NotifyReport", REPORT))
            assert is_security_error(await ask(socket, "StatusNotification", STATUS))
            team.boot_status = "Accepted"
            assert (await ask(socket, "BootNotification", BOOT))[2]["status"] == "Accepted"
            assert not is_security_error(await ask(socket, "StatusNotification", STATUS))
            await socket.close()

    run_on("asyncio", story())


def test_b03_fr_03_and_fr_07_tc_b_30_a_rejected_station_is_answered_security_error_and_not_called(rig: Rig) -> None:
    rig.add_station("REJECTED")
    now = datetime.now(UTC)

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await open_socket(team.url, "REJECTED", password=PASSWORD, tls=rig.client_tls())
            team.boot_status = "Rejected"
            assert (await ask(socket, "BootNotification", BOOT))[2]["status"] == "Rejected"
            for action, payload in (
                ("Heartbeat", {}),
                ("StatusNotification", STATUS),
                ("SignCertificate", {"csr": "x"}),
            ):
                assert is_security_error(await ask(socket, action, payload)), action
            store = OperationStore(rig.inventory, rig.sealing_key, owner="t", actor=ACTOR)
            operation = store.create(
                OperationKind.TRIGGER_RENEWAL,
                "REJECTED",
                {"use": "ChargingStationCertificate"},
                operation_id=new_operation_id(),
                actor=ACTOR,
                now=now,
                deadline=now + timedelta(minutes=5),
            )
            # Longer than the endpoint takes to sweep what waits.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 3)
            assert rig.inventory.get_operation(operation.id).state is OperationState.QUEUED
            team.boot_status = "Accepted"
            assert (await ask(socket, "BootNotification", BOOT))[2]["status"] == "Accepted"
            assert await next_call(socket) == "TriggerMessage"
            await wait_for(lambda: rig.inventory.get_operation(operation.id).state is not OperationState.QUEUED)
            await socket.close()

    run_on("asyncio", story())


def test_1_6_leaves_it_to_the_station_to_keep_quiet(rig: Rig) -> None:
    rig.add_station("QUIET-16")

    async def story() -> None:
        async with own_csms(rig) as team:
            socket = await open_socket(
                team.url, "QUIET-16", protocols=("ocpp1.6",), password=PASSWORD, tls=rig.client_tls()
            )
            team.boot_status = "Pending"
            boot = {"chargePointVendor": "V", "chargePointModel": "M"}
            assert (await ask(socket, "BootNotification", boot))[2]["status"] == "Pending"
            assert (await ask(socket, "Heartbeat", {}))[0] == 3
            await socket.close()

    run_on("asyncio", story())
