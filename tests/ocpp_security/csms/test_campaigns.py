"""Campaigns carried out by an endpoint: waves over connected stations, one leader, pause, cancel, and lost leaders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.ocpp_security.campaign_store import ROLE, CampaignStore
from chargepki.ocpp_security.campaigns import Begin, CampaignStep, Pace, Settle, Settlement, next_campaign_steps
from chargepki.pki.errors import Conflict, NotFound, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.campaign_records import CampaignRecord, CampaignState, CampaignStationState
from testkit.csms_rig import ACTOR, PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import Credential, ForeignStation, build_station_csr, foreign_station

S = CampaignStationState
RENEW = {"use": "ChargingStationCertificate"}


def store(rig: Rig) -> CampaignStore:
    return CampaignStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)


def start(rig: Rig, name: str, stations: list[str], kind: str = "trigger-renewal", **options: object) -> CampaignRecord:
    now = datetime.now(UTC)
    given: dict[str, object] = {"ends_at": now + timedelta(minutes=5), **options}
    pace = given.pop("pace", Pace())
    parameters = RENEW if kind == "trigger-renewal" else {}
    return store(rig).create(name, kind, parameters, stations, pace, now=now, **given)  # type: ignore[arg-type]  # by name


def states(rig: Rig, name: str) -> dict[str, CampaignStationState]:
    return {item.station: item.state for item in rig.inventory.list_campaign_stations(name)}


def state(rig: Rig, name: str) -> CampaignState:
    return rig.inventory.get_campaign(name).state


@contextlib.asynccontextmanager
async def renewing(rig: Rig, url: str, *stations: str) -> AsyncIterator[dict[str, ForeignStation]]:
    """Connect stations that answer every trigger with a CSR and take what comes."""

    async def obey(peer: ForeignStation, station: str) -> None:
        while True:
            await peer.next_trigger()
            await peer.send_csr(build_station_csr(Credential().key, station, "Example CSO"))
            await peer.next_chain()

    async with contextlib.AsyncExitStack() as stack:
        tasks, peers = [], {}
        for station in stations:
            peers[station] = await stack.enter_async_context(
                foreign_station(url, station, "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls())
            )
            tasks.append(asyncio.ensure_future(obey(peers[station], station)))
        try:
            yield peers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_a_campaign_goes_in_waves_and_takes_a_late_station_when_it_connects(rig: Rig) -> None:
    stations = [f"WAVE-{number}" for number in range(1, 5)]
    for station in stations:
        rig.add_station(station)
    start(rig, "waves", stations, pace=Pace(waves=(1, 1)))

    async def story() -> None:
        async with rig.server(2) as server, renewing(rig, rig.url_of(server), *stations[:3]):
            await wait_for(lambda: list(states(rig, "waves").values()).count(S.DONE) == 3)
            assert states(rig, "waves")["WAVE-4"] is S.WAITING
            assert state(rig, "waves") is CampaignState.RUNNING
            async with renewing(rig, rig.url_of(server), "WAVE-4"):
                await wait_for(lambda: state(rig, "waves") is CampaignState.DONE)

    run_on("asyncio", story())
    assert set(states(rig, "waves").values()) == {S.DONE}
    began = {item.station: item.began_at for item in rig.inventory.list_campaign_stations("waves")}
    ended = {item.station: item.ended_at for item in rig.inventory.list_campaign_stations("waves")}
    assert ended["WAVE-1"] <= began["WAVE-2"] and ended["WAVE-2"] <= began["WAVE-3"]  # type: ignore[operator]  # all began
    told = [entry.action for entry in rig.inventory.list_audit(limit=100_000) if entry.subject == "waves"]
    assert told.count("campaign.begin") == told.count("campaign.settle") == 4
    assert told.count("campaign.wave") == 2
    assert told[-1] == "campaign.finish"


def test_every_station_gets_one_operation_though_two_processes_want_to_lead(rig: Rig) -> None:
    stations = [f"LEAD-{number}" for number in range(1, 4)]
    for station in stations:
        rig.add_station(station)

    async def story(other: Inventory) -> None:
        async with (
            rig.server(2) as one,
            rig.server(2, inventory=other) as two,
            renewing(rig, rig.url_of(one), *stations[:2]),
            renewing(rig, rig.url_of(two), stations[2]),
        ):
            start(rig, "leaders", stations)
            await wait_for(lambda: state(rig, "leaders") is CampaignState.DONE)

    with Inventory.open(rig.url, log_key=rig.log_key) as other:
        run_on("asyncio", story(other))
    assert set(states(rig, "leaders").values()) == {S.DONE}
    for station in stations:
        operations = rig.inventory.list_operations(station=station)
        assert len(operations) == 1 and len(rig.inventory.list_attempts(operations[0].id)) == 1


def test_a_paused_campaign_begins_nothing_until_it_is_resumed(rig: Rig) -> None:
    rig.add_station("PAUSED")
    start(rig, "paused", ["PAUSED"], paused=True)

    async def story() -> None:
        async with rig.server(2) as server, renewing(rig, rig.url_of(server), "PAUSED"):
            await asyncio.sleep(0.5)
            assert states(rig, "paused") == {"PAUSED": S.WAITING}
            store(rig).resume("paused", now=datetime.now(UTC))
            await wait_for(lambda: state(rig, "paused") is CampaignState.DONE)

    run_on("asyncio", story())


def test_a_cancelled_campaign_withdraws_what_was_not_sent(rig: Rig) -> None:
    """The operation exists and nobody has sent anything: it ends, and nothing is sent when the station comes."""
    rig.add_station("GONE")
    rig.add_station("NEVER")
    start(rig, "cancelled", ["GONE", "NEVER"], kind="set-password")
    fence = lead(rig)
    now = datetime.now(UTC)
    campaign = rig.inventory.get_campaign("cancelled")
    store(rig).perform(campaign, (Begin(("GONE",)),), fence=fence, now=now)
    operation = rig.inventory.list_operations(station="GONE")[0]
    assert operation.sealed is not None
    store(rig).cancel("cancelled", "no need", now=now)
    carry_on(rig, "cancelled", fence)
    assert states(rig, "cancelled") == {"GONE": S.CANCELLED, "NEVER": S.CANCELLED}
    assert state(rig, "cancelled") is CampaignState.CANCELLED
    assert rig.inventory.get_operation(operation.id).sealed is None
    with pytest.raises(StateError, match="is cancelled"):
        store(rig).resume("cancelled", now=now)


def test_a_campaign_that_stopped_and_was_resumed_goes_on_until_so_many_have_failed_again(rig: Rig) -> None:
    stations = [f"STOP-{number}" for number in range(1, 7)]
    for station in stations:
        rig.add_station(station)
    start(rig, "stops", stations, kind="set-password", pace=Pace(stop_percent=50, stop_after=2))
    fence, now = lead(rig), datetime.now(UTC)

    def fail(*names: str) -> None:
        nonlocal now
        now += timedelta(seconds=1)
        steps: tuple[CampaignStep, ...] = (
            Begin(names),
            *(Settle(name, Settlement(S.FAILED, {"why": "broken"})) for name in names),
        )
        store(rig).perform(rig.inventory.get_campaign("stops"), steps, fence=fence, now=now)
        carry_on(rig, "stops", fence, now=now)

    fail(*stations[:2])
    assert state(rig, "stops") is CampaignState.STOPPED
    store(rig).resume("stops", now=now)
    carry_on(rig, "stops", fence, now=now)
    assert state(rig, "stops") is CampaignState.RUNNING, "what was looked at does not stop it once more"
    fail(stations[2])
    assert state(rig, "stops") is CampaignState.RUNNING
    fail(stations[3])
    assert state(rig, "stops") is CampaignState.STOPPED
    assert rig.inventory.get_campaign("stops").why == "2 of 2 stations failed, which reaches 50 %"
    store(rig).cancel("stops", "end of test", now=now)
    carry_on(rig, "stops", fence, now=now)


def lead(rig: Rig) -> int:
    now = datetime.now(UTC)
    owner, until = "other", now + timedelta(seconds=15)
    fence = rig.inventory.write(lambda tx: tx.take_leadership(ROLE, owner=owner, until=until, now=now))
    assert fence is not None
    return fence


def carry_on(rig: Rig, name: str, fence: int, *, now: datetime | None = None) -> None:
    while steps := next_campaign_steps(
        store(rig).view(rig.inventory.get_campaign(name), at := now or datetime.now(UTC)), at
    ):
        store(rig).perform(rig.inventory.get_campaign(name), steps, fence=fence, now=at)


def test_a_leader_that_was_succeeded_changes_nothing(rig: Rig) -> None:
    rig.add_station("FENCED")
    start(rig, "fenced", ["FENCED"])
    old = lead(rig)
    rig.inventory.write(lambda tx: tx.resign_leadership(ROLE, old))
    new = lead(rig)
    campaign, now = rig.inventory.get_campaign("fenced"), datetime.now(UTC)
    with pytest.raises(Conflict):
        store(rig).perform(campaign, (Begin(("FENCED",)),), fence=old, now=now)
    assert rig.inventory.list_operations(station="FENCED") == ()
    for _ in range(2):  # the same step twice has one effect
        store(rig).perform(campaign, (Begin(("FENCED",)),), fence=new, now=now)
    assert len(rig.inventory.list_operations(station="FENCED")) <= 1
    store(rig).cancel("fenced", "end of test", now=now)
    carry_on(rig, "fenced", new)


def test_stations_that_never_come_are_listed_with_what_cut_them_off_and_may_be_tried_again(rig: Rig) -> None:
    rig.add_station("ABSENT-1")
    now = datetime.now(UTC)
    start(rig, "absent", ["ABSENT-1"], ends_at=now + timedelta(seconds=60))
    fence = lead(rig)
    carry_on(rig, "absent", fence, now=now + timedelta(seconds=61))
    member = rig.inventory.find_campaign_station("absent", "ABSENT-1")
    assert member is not None and member.outcome == {"why": "the station has never connected"}
    assert state(rig, "absent") is CampaignState.DONE
    _record, number = store(rig).retry("absent", [S.UNREACHED], now=now, ends_at=now + timedelta(minutes=1))
    assert number == 1 and states(rig, "absent") == {"ABSENT-1": S.WAITING}
    assert state(rig, "absent") is CampaignState.RUNNING
    store(rig).cancel("absent", "end of test", now=now)
    carry_on(rig, "absent", fence)


def test_a_campaign_with_an_unknown_station_stores_nothing(rig: Rig) -> None:
    with pytest.raises(NotFound):
        start(rig, "unknown", ["NOBODY-KNOWS"])
    assert rig.inventory.find_campaign("unknown") is None
