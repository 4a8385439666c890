"""The same endpoint on PostgreSQL: announced by NOTIFY, shared by two processes' worth of servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from chargepki.pki.inventory import Inventory
from testkit.commands import forked_program
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.databases import postgresql_server, postgresql_url
from testkit.ocpp_peers import foreign_station, open_socket

__all__ = ["postgresql_server", "postgresql_url"]


@pytest.fixture
def shared(postgresql_url: str, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, postgresql_url) as opened:
        yield opened


def test_two_servers_share_one_database_and_a_revocation_is_heard_in_time(shared: Rig) -> None:
    stations = ("PG-1", "PG-2", "PG-3")
    for station in stations:
        shared.add_station(station, profile=2)
    credentials = {station: shared.credential(station) for station in stations}
    took: list[float] = []

    async def story() -> None:
        with Inventory.open(shared.url, log_key=shared.log_key) as second:
            async with shared.server(2, 3) as one, shared.server(2, 3, inventory=second) as two:
                url, tls = shared.url_of(one), shared.client_tls()
                first = await open_socket(url, "PG-1", password=PASSWORD, tls=tls)
                await wait_for(lambda: shared.inventory.find_presence("PG-1"))
                for station, (credential, certificate_id) in credentials.items():
                    tls = shared.client_tls(credential)
                    async with foreign_station(shared.url_of(two), station, "ocpp2.0.1", tls=tls) as peer:
                        await peer.boot(station)
                        await asyncio.to_thread(shared.authority.revoke, certificate_id, "keyCompromise")
                        committed = time.perf_counter()
                        await peer.socket.wait_closed()
                        took.append(time.perf_counter() - committed)
                        assert peer.socket.close_reason == "certificate revoked"
                await first.wait_closed()
                assert first.close_code == 1008

    run_on("uvloop", story())
    # The median, since a busy machine may hold up any single one.
    assert statistics.median(took) < 0.5


NEW = "a-password-for-later"


@contextlib.asynccontextmanager
async def csms_process(environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Run ``csms serve`` and give its URL."""
    process = await asyncio.create_subprocess_exec(
        forked_program(), "--json", "csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        text = b""
        while b"}" not in text:
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, "it ended"
            text += line
        where = json.loads(text)
        # In place of it comes the error document of a start that failed.
        assert "port" in where, where
        yield f"ws://127.0.0.1:{where['port']}"
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_of_two_processes_the_one_that_holds_the_connection_carries_an_operation_out(
    postgresql_url: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "CHARGEPKI_HOME": str(home), "CHARGEPKI_DATABASE": postgresql_url}
    for name, text in (("password", PASSWORD.decode()), ("new", NEW)):
        (tmp_path / name).write_text(text)

    def chargepki(*words: str) -> None:
        done = subprocess.run(
            [forked_program(), *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    for identity in ("HERE", "THERE"):
        secret = ("--security-profile", "1", "--password-file", str(tmp_path / "password"))
        chargepki("station", "add", identity, *secret)

    async def story() -> None:
        async with csms_process(environment) as one, csms_process(environment) as two:
            async with (
                foreign_station(one, "HERE", "ocpp2.0.1", password=PASSWORD) as here,
                foreign_station(two, "THERE", "ocpp1.6", password=PASSWORD) as there,
            ):
                await asyncio.gather(here.boot("HERE"), there.boot("THERE"))
                for identity in ("HERE", "THERE"):
                    words = ("station", "set-password", identity, "--password-file", str(tmp_path / "new"))
                    await asyncio.to_thread(chargepki, *words, "--wait", "30s")
                assert await here.next_trigger() == f"BasicAuthPassword={NEW}"
                assert await there.next_trigger() == f"AuthorizationKey={NEW.encode().hex()}"
                assert here.triggers.empty() and there.triggers.empty()
            # What one process put on record counts at the other.
            socket = await open_socket(two, "HERE", password=NEW.encode())
            await socket.close()

    # Six processes start within it; `run_on` gives three minutes, which a busy machine needs for that alone.
    asyncio.run(asyncio.wait_for(story(), 500))
