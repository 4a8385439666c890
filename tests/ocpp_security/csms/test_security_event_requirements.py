"""A04: what is reported, queued, answered and logged, by requirement id, against a real endpoint and a real store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from chargepki.ocpp_security.events import SecurityEvent, event_name, is_sent
from chargepki.ocpp_security.station import StationSimulator, StationStore
from chargepki.ocpp_security.versions import OcppVersion
from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.desk import desk_with
from testkit.ocpp_peers import open_socket


def station(folder: Path, version: OcppVersion) -> StationSimulator:
    return StationSimulator("ws://localhost:1", "CS-1", StationStore(folder), version)


@pytest.mark.parametrize("version", OcppVersion)
def test_a04_fr_01_and_04_every_event_is_logged_and_the_critical_ones_are_queued(
    tmp_path: Path, version: OcppVersion
) -> None:
    one = station(tmp_path / "s", version)
    for event in SecurityEvent:
        one.raise_event(event, event.value)
    names = [event_name(version, event) for event in SecurityEvent]
    assert [json.loads(text)["type"] for _, text in one.store.security_log()] == names
    sent = [event_name(version, event) for event in SecurityEvent if is_sent(version, event)]
    assert [event.type for event in one.store.state.events] == sent


@pytest.mark.parametrize("version", OcppVersion)
def test_a04_fr_02_queue_and_log_outlive_the_station_process(tmp_path: Path, version: OcppVersion) -> None:
    station(tmp_path / "s", version).raise_event(SecurityEvent.TAMPER_DETECTION_ACTIVATED, "door")
    again = station(tmp_path / "s", version).store
    assert [event.type for event in again.state.events] == ["TamperDetectionActivated"]
    assert len(again.security_log()) == 1


def test_a04_fr_02_each_queued_event_is_sent_once_and_not_before_the_boot(tmp_path: Path) -> None:
    """Others sent theirs twice, and before they were accepted; who asks for several at once gets each event once."""
    details = ["door", "window", "simulator started"]

    async def story() -> list[str]:
        async with desk_with(tmp_path) as (desk, station, _):
            for detail in details[:2]:
                station.raise_event(SecurityEvent.TAMPER_DETECTION_ACTIVATED, detail)
            seen: list[str] = []
            while details[-1] not in seen:
                action, payload = await asyncio.wait_for(desk.calls.get(), 60)
                seen.append(payload.get("techInfo", action))
            await desk.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
            while seen[-1] != "Heartbeat":
                action, payload = await asyncio.wait_for(desk.calls.get(), 60)
                seen.append(payload.get("techInfo", action))
            return seen

    seen = run_on("asyncio", story())
    assert seen[0] == "BootNotification"
    assert [each for each in seen if each in details] == details


def test_a04_fr_04_the_log_rolls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.station.store._MAX_LOGGED", 3)
    one = station(tmp_path / "s", OcppVersion.V201)
    for number in range(5):
        one.raise_event(SecurityEvent.INVALID_MESSAGES, f"number {number}")
    kept = [json.loads(text)["techInfo"] for _, text in one.store.security_log()]
    assert kept == ["number 2", "number 3", "number 4"]


@pytest.mark.parametrize("version", OcppVersion)
def test_a04_fr_03_every_notification_is_answered_empty_and_stored_unknown_types_too(
    rig: Rig, version: OcppVersion
) -> None:
    name = f"A04-{version.value}"
    rig.add_station(name, profile=1)
    kinds = [event_name(version, SecurityEvent.INVALID_CSMS_CERTIFICATE), "AVendorsOwn"]

    async def story() -> None:
        async with rig.server(1) as server:
            socket = await open_socket(rig.url_of(server), name, protocols=(version.value,), password=PASSWORD)
            for number, kind in enumerate(kinds):
                payload = {"type": kind, "timestamp": "2026-03-01T00:00:00Z", "techInfo": "x" * 255}
                await socket.send(json.dumps([2, str(number), "SecurityEventNotification", payload]))
                assert json.loads(await asyncio.wait_for(socket.recv(), 60)) == [3, str(number), {}]
            await socket.close()

    run_on("asyncio", story())
    found = {series.event.type: series.event for series in rig.inventory.list_event_series(station=name)}
    assert set(kinds) <= set(found)
    # 1.6 calls it non-critical although it is to be sent (TC_078); 2.x calls it critical.
    assert found[kinds[0]].critical is (version is not OcppVersion.V16)
    assert found["AVendorsOwn"].critical is False
    assert found[kinds[0]].at < found[kinds[0]].received_at
