"""A release over a fleet with bad actors: dry run, waves, stop, pause, the endpoint killed, resume."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.campaign_kinds import KINDS
from chargepki.ocpp_security.station import StationSimulator
from chargepki.ocpp_security.station.firmware import FirmwareFault
from chargepki.ocpp_security.station.misbehaviour import Conduct
from chargepki.pki.inventory import verify_log
from chargepki.pki.inventory.campaign_records import CampaignStationState
from chargepki.pki.inventory.firmware_records import StationFirmwareRecord
from testkit.command_line import CommandLine
from testkit.csms_rig import ACTOR, Rig, wait_for
from testkit.databases import postgresql_server, postgresql_url
from testkit.firmware import serving_images
from testkit.firmware_plant import Plant, running

__all__ = ["postgresql_server", "postgresql_url"]

S = CampaignStationState
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")
FAULTS = (
    FirmwareFault.CORRUPT, FirmwareFault.DOWNLOAD, FirmwareFault.REFUSE, FirmwareFault.VERIFICATION,
    FirmwareFault.INSTALLATION, FirmwareFault.SILENT,
)  # fmt: skip
NAME = "fleet"
TRIGGERS = ("TriggerMessage", "ExtendedTriggerMessage")


@dataclass(frozen=True, slots=True)
class Member:
    """A station of the fleet, and how it must end."""

    name: str
    version: str
    end: CampaignStationState
    firmware: str = "1.0.0"
    model: str = "Simulator"
    fault: FirmwareFault | None = None


def fleet(count: int) -> list[Member]:
    """Return *count* stations: one in twenty does wrong, and two of the first four; three in ten need no update."""
    members = []
    for number in range(count):
        member = Member(f"F-{number:03}", VERSIONS[number % 3], S.DONE)
        is_bad = number in (0, 2) or (number % 20 == 12 and count > 20)
        match number % 10:
            case _ if is_bad:
                member = replace(member, end=S.FAILED, fault=FAULTS[number // 2 % len(FAULTS)])
            case 7:
                member = replace(member, end=S.SKIPPED, firmware="v2.0.0")
            case 8:
                member = replace(member, end=S.SKIPPED, model="Other")
            case 9:
                member = replace(member, end=S.SKIPPED, firmware="2.1.0")
        members.append(member)
    return members


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Endpoint = Callable[[Rig, int], contextlib.AbstractAsyncContextManager[object]]


@contextlib.asynccontextmanager
async def in_this_process(rig: Rig, port: int) -> AsyncIterator[object]:
    """Serve, and vanish without a word to anybody at the end."""
    async with rig.server(1, port=port) as server:
        yield server


@contextlib.asynccontextmanager
async def in_a_process_that_is_killed(rig: Rig, port: int) -> AsyncIterator[object]:
    """Run the command, and kill it at the end."""
    log = rig.folder / "csms.log"
    words = ["csms", "serve", "--listen", f"127.0.0.1:{port}", "--security-profile", "1"]
    environment = {**os.environ, "CHARGEPKI_HOME": str(rig.folder), "CHARGEPKI_DATABASE": rig.url}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "chargepki"), *words], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=output,
        )  # fmt: skip
    try:
        await wait_for(lambda: "ready" in log.read_text(errors="replace"), seconds=60)
        yield process
    finally:
        process.kill()
        process.wait()


class Story:
    """One campaign over one fleet."""

    def __init__(self, plant: Plant, members: list[Member], serve: Endpoint, *, patience: float) -> None:
        self.plant, self.members, self.serve, self.patience = plant, members, serve, patience
        self.inventory = plant.rig.inventory
        self.command = CommandLine(plant.rig.folder, {"CHARGEPKI_DATABASE": plant.rig.url})
        self.port = free_port()
        # Few enough for the pause and the kill to fall into the middle.
        self.at_once = str(max(1, len(members) // 20))

    def stations(self) -> Iterator[StationSimulator]:
        """Yield the simulators; called again they are the same stations after a restart."""
        for member in self.members:
            yield self.plant.simulator(
                f"ws://127.0.0.1:{self.port}", member.name, member.version, model=member.model,
                firmware_version=member.firmware, conduct=Conduct(firmware=frozenset(filter(None, [member.fault]))),
            )  # fmt: skip

    def count(self, state: CampaignStationState) -> int:
        return sum(each.get(state, 0) for each in self.inventory.count_campaign_stations(NAME).values())

    async def tell(self, *words: str) -> Any:
        """Run a command beside the loop, which the stations need."""
        return (await asyncio.to_thread(self.command, *words, "--json")).json()

    def create(self, base: str, *more: str) -> tuple[str, ...]:
        settings = ("--set", "release=good", "--set", f"base-url={base}")
        pace = ("--wave", "4", "--stop-share", "40%", "--stop-after", "3", "--deadline", f"{int(self.patience)}s")
        return ("campaign", "create", NAME, "--kind", "update-firmware", "--all", *settings, *pace, *more)

    async def run(self) -> None:
        """Live through it."""
        for member in self.members:
            self.plant.rig.add_station(member.name, profile=1)
        async with (
            serving_images(self.inventory, self.plant.rig.folder, self.plant.rig.sealing_key) as base,
            running(*self.stations()),
        ):
            async with self.serve(self.plant.rig, self.port):
                await self.begin(base)
            assert self.inventory.get_campaign(NAME).state.value == "running"
            # Whatever was under way has lost its endpoint; the next one leads, and goes on.
            async with self.serve(self.plant.rig, self.port):
                await self.finish()

    async def begin(self, base: str) -> None:
        """Dry run, first wave, stop by itself, pause, resume; ends in the middle of the fleet."""
        known = self.inventory.find_station_firmware
        await wait_for(lambda: all(known(member.name) for member in self.members), seconds=self.patience)
        plan = await self.tell(*self.create(base, "--dry-run"))
        verdicts = {row["station"]: row["verdict"] for row in plan["stations"]}
        assert verdicts == {m.name: "skipped" if m.end is S.SKIPPED else "ready" for m in self.members}
        assert self.inventory.find_campaign(NAME) is None and not self.inventory.list_operations()
        await self.tell(*self.create(base))
        await wait_for(lambda: self.inventory.get_campaign(NAME).state.value == "stopped", seconds=self.patience)
        # Two of the first four do wrong; nobody outside of this wave was asked.
        assert {item.wave for item in self.inventory.list_campaign_stations(NAME) if item.began_at} == {1}
        shown = await self.tell("campaign", "show", NAME)
        assert shown["failed"] == 2 and "2 of" in shown["why"]
        await self.tell("campaign", "resume", NAME, "--stop-share", "90%", "--max-in-flight", self.at_once)
        third = len(self.members) // 3
        await wait_for(lambda: self.count(S.DONE) >= third, seconds=self.patience)
        await self.tell("campaign", "pause", NAME)
        await wait_for(lambda: self.count(S.RUNNING) == 0 or self.has_silent(), seconds=self.patience)
        begun = self.begun()
        await asyncio.sleep(1)
        assert self.begun() == begun
        await self.tell("campaign", "resume", NAME)
        await wait_for(lambda: self.begun() > begun, seconds=self.patience)

    def has_silent(self) -> bool:
        left = {item.station for item in self.inventory.list_campaign_stations(NAME, state=S.RUNNING)}
        return left <= {member.name for member in self.members if member.fault is FirmwareFault.SILENT}

    def begun(self) -> int:
        return sum(item.began_at is not None for item in self.inventory.list_campaign_stations(NAME))

    async def finish(self) -> None:
        await wait_for(lambda: self.inventory.get_campaign(NAME).state.is_final, seconds=3 * self.patience)
        shown = await self.tell("campaign", "show", NAME)
        assert (shown["state"], shown["ended"]) == ("done", len(self.members))

    def check(self) -> None:
        """Every station ended as it must, did an update once at most, and never the insecure way."""
        found = {item.station: item for item in self.inventory.list_campaign_stations(NAME)}
        interrupted = 0
        for member in self.members:
            item = found[member.name]
            assert item.state is member.end, (member, item)
            operations = self.inventory.list_operations(station=member.name)
            assert len(operations) == (member.end is not S.SKIPPED), member
            for operation in operations:
                actions = [attempt.action for attempt in self.inventory.list_attempts(operation.id)]
                secure = "SignedUpdateFirmware" if member.version == "ocpp1.6" else "UpdateFirmware"
                if actions.count(secure) == 2:
                    # Its endpoint died over the request: sent again when the station had said that it does nothing.
                    assert actions[0] == secure and actions[-2] in TRIGGERS, (member, actions)
                    interrupted += 1
                else:
                    assert actions.count(secure) == 1, (member, actions)
                assert member.version != "ocpp1.6" or "UpdateFirmware" not in actions
                statuses = [record.status for record in self.inventory.list_firmware_statuses(operation.id)]
                assert statuses.count("Installed") == (member.end is S.DONE), (member, statuses)
                assert statuses.count("Downloading") <= 1, (member, statuses)
                assert "out_of_order" not in (operation.outcome or {}), (member, operation.outcome)
        assert interrupted <= int(self.at_once)
        for member, simulator in zip(self.members, self.stations(), strict=True):
            runs = simulator.firmware.store.state.version
            assert runs == ("2.0.0" if member.end is S.DONE else member.firmware), member
        report = verify_log(self.inventory, checkpoint=None, pinned_keys=[self.plant.rig.log_key.public])
        assert report.findings == ()


def live(story: Story, seconds: float) -> None:
    asyncio.run(asyncio.wait_for(story.run(), seconds))
    story.check()


def test_a_release_goes_over_a_small_fleet_on_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    with Rig(tmp_path, postgresql_url) as rig:
        plant = Plant.of(rig)
        plant.release("good")
        story = Story(plant, fleet(12), in_this_process, patience=30)
        live(story, 85)
        check_that_the_word_of_a_station_is_not_enough(story)


def check_that_the_word_of_a_station_is_not_enough(story: Story) -> None:
    """Installed, but after the reboot it tells the old version: first waited for, then a failure."""
    inventory = story.inventory
    (operation,) = inventory.list_operations(station="F-001")
    settle, now = KINDS["update-firmware"].settle, datetime.now(UTC)
    settled = settle(inventory, {}, operation, now)
    assert settled is not None and settled.state is S.DONE
    lie = StationFirmwareRecord("F-001", "chargepki", "Simulator", "1.0.0", now)

    def work(tx: Any) -> None:
        tx.put_station_firmware(lie)
        tx.audit(ACTOR, "test", "F-001", now=now)

    inventory.write(work)
    assert settle(inventory, {}, operation, now) is None
    late = settle(inventory, {}, operation, now + timedelta(minutes=11))
    assert late is not None and late.state is S.FAILED and "runs 1.0.0" in str(late.outcome["why"])


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_a_release_goes_over_300_stations_and_the_endpoint_is_killed(tmp_path: Path) -> None:
    members = fleet(300)
    assert Counter(member.fault is not None for member in members)[True] >= 15
    with Rig(tmp_path) as rig:
        plant = Plant.of(rig)
        plant.release("good")
        live(Story(plant, members, in_a_process_that_is_killed, patience=300), 1700)
