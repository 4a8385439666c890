"""Many stations in one process: mixed versions and profiles against our CSMS, and trouble that stays where it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.station import FleetMember, Milestone, Progress, RetryPolicy, StationFleet, parse_conduct
from chargepki.ocpp_security.station.fleet_plan import fleet_names, parse_share, plan_members
from chargepki.ocpp_security.station.simulator import StationSimulator
from chargepki.ocpp_security.station.store import StationStore
from chargepki.pki.errors import InputError
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for

VERSIONS = ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"]
FAST = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.2))


def builder(rig: Rig, wrong: frozenset[str] = frozenset()) -> Callable[..., StationSimulator]:
    def build(member: FleetMember, told: Callable[[Progress], None], gate: Any) -> StationSimulator:
        store = StationStore(rig.folder / "fleet" / member.identity)
        store.set_trust(rig.root_pem.encode())
        store.set_password(b"wrong-password-01" if member.identity in wrong else PASSWORD)
        return StationSimulator(
            member.url, member.identity, store, member.version, organization="Example CSO", retry=FAST,
            enrol=member.enrol, conduct=member.conduct, gate=gate, progress=told,
        )  # fmt: skip

    return build


def test_twenty_stations_of_three_versions_enrol_come_back_and_stop(rig: Rig) -> None:
    names = fleet_names("F", 20)
    for name in names:
        rig.add_station(name)

    async def story() -> None:
        async with rig.server(2, 3) as server:
            planned = plan_members("F", 20, [rig.url_of(server)], VERSIONS, [], stays="20%")
            fleet = StationFleet(planned, builder(rig), at_once=4)
            stop = asyncio.Event()
            running = asyncio.create_task(fleet.run(stop=stop))

            def settled() -> bool:
                wanted = Counter({3: 16, 2: 4})
                return Counter(tally.profile for tally in fleet.tallies if tally.connected) == wanted

            await wait_for(settled)
            # The server drops everybody: they come back by themselves.
            before = [tally.reached[Milestone.CONNECTED] for tally in fleet.tallies]
            for held in list(server.registry):
                held.link.close_soon(1012, "restart")
            pairs = list(zip(fleet.tallies, before, strict=True))
            await wait_for(lambda: settled() and all(tally.reached[Milestone.CONNECTED] > n for tally, n in pairs))
            stop.set()
            assert await running is False
            assert fleet.totals == {"stations": 20, "connected": 0, "booted": 20, "certified": 16, "ended": 0}
            assert not [tally.bug for tally in fleet.tallies if tally.bug]

    run_on("uvloop", story())
    keys = [path.read_bytes() for path in (rig.folder / "fleet").glob("F-*/keys/*.pem")]
    assert len(keys) == len(set(keys)) == 16
    seen = {presence.station: presence.protocol for presence in rig.inventory.list_presence()}
    assert Counter(seen[name] for name in names) == {"ocpp1.6": 7, "ocpp2.0.1": 7, "ocpp2.1": 6}


def test_trouble_of_some_is_counted_and_ends_no_other(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for name in (*fleet_names("T", 4), "T-bug"):
        rig.add_station(name)
    build = builder(rig, wrong=frozenset({"T-2"}))

    def build_most(member: FleetMember, told: Callable[[Progress], None], gate: Any) -> StationSimulator:
        if member.identity == "T-4":
            raise InputError("its store is broken")
        if member.identity == "T-bug":
            raise ZeroDivisionError("a bug")
        return build(member, told, gate)

    async def story() -> None:
        async with rig.server(2, 3) as server:
            planned = plan_members("T", 4, [rig.url_of(server)], VERSIONS, ["csr-ca=3"])
            planned.append(FleetMember("T-bug", rig.url_of(server), "ocpp2.1"))
            fleet = StationFleet(planned, build_most)
            # Nobody stops it: it ends because each is there or never will be.
            assert await fleet.run(until=Milestone.CERTIFICATE_PROVEN) is False
            honest, denied, forger, broken, bug = fleet.tallies
            assert honest.reached[Milestone.CERTIFICATE_PROVEN] == 1 and not honest.troubles and honest.ended is None
            assert denied.troubles == {"the CSMS refused the connection: HTTP 401": 3}
            assert "refused the request: Rejected (InvalidCSR" in (forger.ended or "")
            assert broken.ended == "its store is broken"
            assert (bug.ended, type(bug.bug)) == ("ZeroDivisionError", ZeroDivisionError)

    run_on("asyncio", story())
    assert "Traceback" not in caplog.text


def test_versions_and_addresses_are_dealt_out_and_misbehaviour_goes_to_a_share() -> None:
    planned = plan_members("S-{}", 12, ["ws://a", "wss://b"], VERSIONS, ["serial-decimal=50%", "csr-storm=2,11-12"])
    assert [member.identity for member in planned][::11] == ["S-01", "S-12"]
    assert len({(member.url, member.version) for member in planned}) == 6
    assert sum(bool(member.conduct.hash_defects) for member in planned) == 6
    assert [at for at, member in enumerate(planned, 1) if member.conduct.own] == [2, 11, 12]
    (alone,) = plan_members("CS-{}", None, ["ws://a"], ["ocpp2.1"], ["firmware-silent"])
    assert (alone.identity, alone.conduct) == ("CS-{}", parse_conduct(["firmware-silent"]))


@pytest.mark.parametrize("text", ["", "0", "11", "3-2", "101%", "x", "1,,2", "-1", "1-"])
def test_a_share_that_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names no stations of 10"):
        parse_share(text, 10)
    assert parse_share("0%", 10) == frozenset() and len(parse_share("100%", 10)) == 10


@pytest.mark.parametrize("name", ["", "csr", "refuse", "CSR-CA"])
def test_an_unknown_misbehaviour_is_refused_with_where_to_look(name: str) -> None:
    with pytest.raises(InputError, match="no misbehaviour is called") as refused:
        parse_conduct([name])
    assert "station misbehaviours" in refused.value.fix


def test_a_fleet_that_is_stopped_before_anybody_connected_ends(tmp_path: Path) -> None:
    def build(member: FleetMember, told: Callable[[Progress], None], gate: Any) -> StationSimulator:
        store = StationStore(tmp_path / member.identity)
        store.set_password(PASSWORD)
        return StationSimulator("ws://127.0.0.1:1", member.identity, store, member.version, gate=gate, progress=told)

    async def story() -> None:
        fleet = StationFleet(plan_members("N", 3, ["ws://127.0.0.1:1"], VERSIONS, []), build)
        stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(stop=stop))
        await wait_for(lambda: all(tally.reached[Milestone.UNREACHABLE] for tally in fleet.tallies))
        stop.set()
        assert await running is False

    run_on("asyncio", story())
