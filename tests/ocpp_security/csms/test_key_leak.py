"""When a sub-CA is compromised: the guide's commands over real connections, from the first to the last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import websockets

from chargepki.ocpp_security.station import RetryPolicy, StationSimulator, StationStore
from testkit.command_line import CommandLine, Done
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.ocpp_peers import open_socket

LEAK = ("campaign", "replace", "leak", "--ca", "t-cso-sub", "--by", "t-cso-sub2", "--reason", "cACompromise")


@pytest.fixture
def command(rig: Rig) -> CommandLine:
    """The command, on the workspace of the CSMS."""
    (rig.folder / "passphrase").write_bytes(b"test passphrase")
    (rig.folder / "passphrase").chmod(0o600)
    settings = {
        "CHARGEPKI_DATABASE": rig.url,
        "CHARGEPKI_PASSPHRASE_FILE": str(rig.folder / "passphrase"),
        "CHARGEPKI_PUBLIC_URL": "http://pki.example",
    }
    return CommandLine(rig.folder, settings)


@contextlib.asynccontextmanager
async def fleet(rig: Rig, url: str, stations: dict[str, str]) -> AsyncIterator[None]:
    """Stations of ours, each with its version; they enrol with their password and come back with a certificate."""
    tasks = []
    for name, version in stations.items():
        store = StationStore(rig.folder / "stations" / name)
        store.set_trust(rig.root_pem.encode())
        store.set_password(PASSWORD)
        retry = RetryPolicy(timedelta(seconds=0.05), timedelta(seconds=0.1))
        station = StationSimulator(url, name, store, version, organization="Example CSO", retry=retry)
        tasks.append(asyncio.create_task(station.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_compromised_sub_ca_from_the_first_dry_run_to_the_last_revocation(rig: Rig, command: CommandLine) -> None:
    """A02.FR.08, A02.FR.10, A00.FR.407: replaced in waves, then revoked; who was away is listed, then cut off."""
    here = {"HERE-1": "ocpp1.6", "HERE-2": "ocpp2.1"}
    for name in (*here, "AWAY"):
        rig.add_station(name)
    away, away_id = rig.credential("AWAY")

    async def does(*words: str, code: int = 0) -> Done:
        return await asyncio.to_thread(command.run, *words) if code else await asyncio.to_thread(command, *words)

    async def rows(*words: str) -> dict[str, dict[str, Any]]:
        found = (await does(*words, "--json")).json()
        return {row["station"]: row for row in found.get("stations", found.get("certificates", []))}

    def on_3(name: str) -> bool:
        seen = rig.inventory.find_presence(name)
        return seen is not None and seen.connected and seen.security_profile == 3

    async def story() -> None:
        async with rig.server(2, 3) as server, fleet(rig, rig.url_of(server), here):
            await wait_for(lambda: all(map(on_3, here)))
            subject = ("--subject", "CN=t-cso-sub2,O=Example CSO,C=DE")
            await does("ca", "create", "t-cso-sub2", "--profile", "ocpp/cso-sub", "--issuer", "t-cso-root", *subject)
            planned = await rows(*LEAK, "--dry-run")
            assert {name: row["verdict"] for name, row in planned.items()} == {
                "HERE-1": "ready", "HERE-2": "ready", "AWAY": "later",
            }  # fmt: skip
            told = await does(*LEAK, "--wave", "1", "--ends-in", "1h")
            # The certificate of the CSMS is affected, too, and nobody's but ours to replace.
            assert "ocpp/csms" in told.stderr and "it replaces 3 certificates" in told.stderr
            (await does("campaign", "revoke-rest", "leak", "--yes", code=3)).check_one_error(3)
            async with asyncio.timeout(60):
                while set(await rows("campaign", "stations", "leak", "--state", "done")) != set(here):
                    await asyncio.sleep(0.1)
            await does("campaign", "cancel", "leak")
            await wait_for(lambda: rig.inventory.get_campaign("leak").state.is_final)
            (left,) = (await rows("campaign", "stations", "leak", "--state", "cancelled")).items()
            assert left[0] == "AWAY" and left[1]["cut_off_by"] == [away_id]
            rest = await rows("campaign", "revoke-rest", "leak", "--dry-run")
            assert {name: row["certificate"] for name, row in rest.items()} == {"AWAY": away_id}
            await does("campaign", "revoke-rest", "leak", "--yes")
            with pytest.raises((websockets.InvalidStatus, websockets.InvalidMessage)):
                await open_socket(rig.url_of(server), "AWAY", tls=rig.client_tls(away))
            assert all(map(on_3, here))

    run_on("asyncio", story())
    for name in here:
        by_state: dict[str, list[str]] = {}
        for item in rig.inventory.list_certificates(station=name):
            by_state.setdefault(item.state.value, []).append(item.ca)
        assert by_state == {"revoked": ["t-cso-sub@1"], "issued": ["t-cso-sub2@1"]}, name
