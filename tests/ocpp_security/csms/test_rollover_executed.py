"""`ca rollover-plan` carried out on stations that connect over TLS, 1.6 and 2.0.1, until its day has passed.

Nobody is cut off when each step is taken; a step that is left out cuts off the stations that the plan names, and no
other. Time is the real one: the cross-certificates end within minutes. Each station verifies the server as OpenSSL does
with the roots in its store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.ocpp_security.station import Milestone, Progress, RetryPolicy, StationSimulator, StationStore
from testkit.commands import forked_program
from testkit.csms_rig import PASSWORD, wait_for

pytestmark = [pytest.mark.campaign, pytest.mark.slow, pytest.mark.timeout(1800)]

STATIONS: Mapping[str, str] = {
    "A": "ocpp1.6", "B": "ocpp2.0.1", "C": "ocpp1.6", "D": "ocpp2.0.1",
}  # fmt: skip
LATE = "E"
"""A 2.0.1 station that comes after the rollover, with the new root alone."""
CROSS = 300 + 150
"""Seconds from notBefore, which lies five minutes back, to the end of the cross-certificates."""
FAST = RetryPolicy(timedelta(seconds=0.2), timedelta(seconds=1))
PATIENCE = 120.0


class Site:
    """A workspace, its `csms serve` on one port, and stations that come back whenever they lose it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "passphrase").write_text("correct horse battery staple\n")
        (folder / "password").write_bytes(PASSWORD)
        for name in ("passphrase", "password"):
            (folder / name).chmod(0o600)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHARGEPKI_")},
            "CHARGEPKI_HOME": str(folder / "home"),
            "CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"),
            "CHARGEPKI_PUBLIC_URL": "http://pki.test",
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.told: dict[str, list[Progress]] = {}
        self.tasks: dict[str, asyncio.Future[Progress | None]] = {}

    async def run(self, *words: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        """Run one command and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            forked_program(), *words, env=self.environment, cwd=self.folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, said = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode in codes, (words, process.returncode, said.decode())
        return out.decode()

    async def plan(self) -> dict[str, Any]:
        """Return the plan of now; it ends with 1 while something breaks."""
        found: dict[str, Any] = json.loads(await self.run("ca", "rollover-plan", "t-cso-root", "--json", codes=(0, 1)))
        return found

    @contextlib.asynccontextmanager
    async def csms(self) -> AsyncIterator[None]:
        """Run `csms serve` for the block."""
        words = ("--security-profile", "2,3", "--tls-ca", "t-cso-sub", "--dns", "localhost", "--issue-here")
        process = await asyncio.create_subprocess_exec(
            forked_program(), "csms", "serve", "--listen", f"127.0.0.1:{self.port}", *words,
            "--issue", "ChargingStationCertificate=t-cso-sub:ocpp/charging-station",
            env=self.environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        said = b""
        while b"ready" not in said:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, said.decode()
            said += line
        drained = asyncio.ensure_future(process.stderr.read())
        try:
            yield
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 60)
            await drained

    def start(self, name: str, version: str, root: Path) -> None:
        """Let a station come in, enrol, and come back whenever it loses its connection."""
        store = StationStore(self.folder / name)
        store.set_trust(root.read_bytes())
        store.set_password(PASSWORD)
        self.told[name] = []
        station = StationSimulator(
            f"wss://localhost:{self.port}", name, store, version,
            organization="Acme Charging", retry=FAST, progress=self.told[name].append,
        )  # fmt: skip
        self.tasks[name] = asyncio.ensure_future(station.run())

    async def proven(self, *names: str, since: datetime) -> None:
        """Wait until each station has come in with a certificate."""
        for name in names:
            await self.heard(name, Milestone.CERTIFICATE_PROVEN, since)

    async def heard(self, name: str, milestone: Milestone, since: datetime, *, times: int = 1) -> None:
        """Wait until a station has told of something."""

        def is_told() -> bool:
            return len(self.saw(name, milestone, since)) >= times

        try:
            await wait_for(is_told, seconds=PATIENCE)
        except AssertionError as error:
            last = [f"{each.milestone}: {each.text}" for each in self.told[name][-4:]]
            raise AssertionError(f"{name} did not tell {milestone}; last: {last}") from error

    def saw(self, name: str, milestone: Milestone, since: datetime) -> list[Progress]:
        """Return what a station has told of that kind since then."""
        return [each for each in self.told[name] if each.milestone is milestone and each.at >= since]

    async def stop(self) -> None:
        """End the stations."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def carry_out(site: Site, command: str) -> None:
    """Do what a step says; a campaign is waited for."""
    words = shlex.split(command)[1:]
    await site.run(*words)
    if words[:2] == ["campaign", "create"]:
        deadline = time.monotonic() + PATIENCE
        while json.loads(await site.run("campaign", "show", words[2], "--json"))["state"] != "done":
            assert time.monotonic() < deadline, words
            await asyncio.sleep(0.5)


async def prepared(site: Site) -> None:
    await site.run("ca", "create-hierarchy", "ocpp", "--prefix", "t", "--organization", "Acme Charging",
                   "--country", "DE")  # fmt: skip
    await site.run("ca", "chain", "t-cso-root", "--out", "root1.pem")
    for name in (*STATIONS, LATE):
        await site.run("station", "add", name, "--organization", "Acme Charging", "--security-profile", "2",
                       "--password-file", "password")  # fmt: skip


def named(plan: dict[str, Any]) -> dict[str, str]:
    """Return station and reason of those that the plan says to break."""
    return {each["station"]: each["reason"] for each in plan["stations"] if each["use"] == "csms"}


async def up_to_the_plan(site: Site) -> dict[str, Any]:
    """Let the stations come in, ask them, roll the root over, let the late one come; return the plan of then."""
    began = datetime.now(UTC)
    async with site.csms():
        for name, version in STATIONS.items():
            site.start(name, version, site.folder / "root1.pem")
        await site.proven(*STATIONS, since=began)
        # The first step asks one station of many whose roots nobody knows.
        while (first := (await site.plan())["steps"][0])["kind"] == "ask-stations":
            await carry_out(site, first["command"]) if first["command"].split()[3] != LATE else None
            if first["command"].split()[3] == LATE:
                break
        plan = await site.plan()
        assert set(named(plan).values()) == {"root-ends"} and set(named(plan)) == set(STATIONS)
        (roll,) = [each for each in plan["steps"] if each["kind"] == "roll-over"]
        assert plan["steps"].index(roll) < min(
            place for place, each in enumerate(plan["steps"]) if each["kind"] == "install-root"
        )
        await carry_out(site, f"{roll['command']} --cross-validity {CROSS}s")
    await site.run("ca", "chain", "t-cso-root", "--out", "root2.pem")
    again = datetime.now(UTC)
    async with site.csms():
        site.start(LATE, "ocpp2.0.1", site.folder / "root2.pem")
        for name in (*STATIONS, LATE):
            await site.heard(name, Milestone.BOOTED, again)
        await site.run("station", "roots", LATE, "--refresh")
        return await site.plan()


async def story(site: Site, *, without: str) -> None:
    await prepared(site)
    plan = await up_to_the_plan(site)
    assert named(plan) == {**dict.fromkeys(STATIONS, "path-ends"), LATE: "no-way-back"}, plan
    (day,) = {each["breaks_at"] for each in plan["stations"]}
    cut_off: set[str] = set()
    async with site.csms():
        for step in plan["steps"]:
            command = step["command"]
            if step["kind"] == "delete-root":
                assert step["after"] is not None, "not before what is below the old root has ended"
                continue
            if step["kind"] == without == "install-root":
                # Done for two of four: the others stay named.
                command = command.replace(" --station C", "").replace(" --station D", "")
            elif step["kind"] == without:
                continue
            await carry_out(site, command)
        left = await site.plan()
        cut_off = set(named(left))
        assert cut_off == {"": set(), "install-root": {"C", "D"}, "move-sub-ca": {LATE}}[without], left["stations"]
        if without != "move-sub-ca":
            renewing = datetime.now(UTC)
            await site.run("campaign", "create", "renew", "--kind", "trigger-renewal", "--all")
            await site.proven(*STATIONS, LATE, since=renewing)
    rest = (datetime.fromisoformat(day) - datetime.now(UTC)).total_seconds()
    await asyncio.sleep(max(0.0, rest) + 1)
    after = datetime.now(UTC)
    async with site.csms():
        for name in (*STATIONS, LATE):
            if name in cut_off:
                await site.heard(name, Milestone.REFUSED, after, times=3)
                assert not site.saw(name, Milestone.CONNECTED, after), f"{name} was to be cut off"
            else:
                await site.heard(name, Milestone.BOOTED, after)
        # Who came in has renewed below the new root, and needs no cross-certificate any more.
        rows = json.loads(await site.run("cert", "list", "--state", "issued", "--json"))["certificates"]
        issuers = {row["ca"] for row in rows if row["profile"] == "ocpp/charging-station"}
        assert issuers == ({"t-cso-sub@1"} if without == "move-sub-ca" else {"t-cso-sub@1", "t-cso-sub@2"})
    refusals = [each.text for name in cut_off for each in site.saw(name, Milestone.REFUSED, after)]
    assert all("certificate" in text for text in refusals), refusals


@pytest.mark.parametrize("without", ["", "install-root", "move-sub-ca"])
def test_the_steps_of_the_plan_keep_everybody_and_one_left_out_cuts_off_who_is_named(
    without: str, tmp_path: Path
) -> None:
    async def limited() -> None:
        site = Site(tmp_path)
        try:
            await story(site, without=without)
        finally:
            await site.stop()

    asyncio.run(asyncio.wait_for(limited(), 1500))
