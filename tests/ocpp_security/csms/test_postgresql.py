"""The same endpoint on PostgreSQL: announced by NOTIFY, shared by two processes' worth of servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chargepki.pki.inventory import Inventory
from testkit.csms_rig import PASSWORD, Rig, run_on, wait_for
from testkit.databases import postgresql_server, postgresql_url
from testkit.ocpp_peers import foreign_station, open_socket

__all__ = ["postgresql_server", "postgresql_url"]


@pytest.fixture
def shared(postgresql_url: str, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path, postgresql_url) as opened:
        yield opened


def test_two_servers_share_one_database_and_a_revocation_is_heard_in_time(shared: Rig) -> None:
    shared.add_station("PG", profile=2)
    credential, certificate_id = shared.credential("PG")

    async def story() -> None:
        with Inventory.open(shared.url, log_key=shared.log_key) as second:
            async with shared.server(2, 3) as one, shared.server(2, 3, inventory=second) as two:
                url, tls = shared.url_of(one), shared.client_tls()
                first = await open_socket(url, "PG", password=PASSWORD, tls=tls)
                await wait_for(lambda: shared.inventory.find_presence("PG"))
                tls = shared.client_tls(credential)
                async with foreign_station(shared.url_of(two), "PG", "ocpp2.0.1", tls=tls) as peer:
                    await first.wait_closed()
                    assert first.close_code == 1008
                    await peer.boot("PG")
                    await asyncio.to_thread(shared.authority.revoke, certificate_id, "keyCompromise")
                    committed = time.perf_counter()
                    await peer.socket.wait_closed()
                    assert time.perf_counter() - committed < 0.5
                    assert peer.socket.close_reason == "certificate revoked"

    run_on("uvloop", story())
