"""The gate before memory: what it forgets, and when it relies on memory while the inventory is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import psycopg
import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.assent import LEASE_SECONDS, SETTLE_SECONDS
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.gate import ChangeGate
from chargepki.pki.services.reliance import _LONGEST_PAUSE, Reliance
from testkit.databases import (
    end_all_connections,
    end_connections,
    libpq,
    postgresql_server,
    postgresql_url,
    sqlite_url,
)
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url", "sqlite_url"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that answers late is not away."""
    monkeypatch.setattr("chargepki.pki.services.gate._PATIENCE_SECONDS", 60.0)
    # Nor is a thread that gets no turn on a busy machine one that has been stopped.
    monkeypatch.setattr("chargepki.pki.services.reliance.LEASE_SECONDS", 600.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_connections_that_were_ended_hide_no_change(postgresql_url: str) -> None:
    told: list[Sequence[AuditEntry] | None] = []

    async def run(inventory: Inventory) -> None:
        gate = ChangeGate(inventory, told.append, lambda: None)
        assert await gate.pass_through()
        add_ca(inventory)
        end_all_connections(postgresql_url)
        told.clear()
        assert await gate.pass_through()
        assert told and told[-1]
        await asyncio.to_thread(gate.close)

    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        asyncio.run(run(inventory))


def test_a_revocation_is_acknowledged_after_a_look_that_sees_it(postgresql_url: str) -> None:
    seen: list[int] = []

    async def run(inventory: Inventory) -> None:
        async def look() -> bool:
            seen.append(await asyncio.to_thread(inventory.change_count))
            return True

        reliance = Reliance(inventory, look)
        reliance.start()
        await until(lambda: reliance.holds)
        for _ in range(5):
            await asyncio.to_thread(add_ca, inventory, f"ca-{inventory.change_count()}")
            count = inventory.change_count()
            assert await asyncio.to_thread(inventory.wait_for_assent, timeout=20.0)
            # Asked now whether memory may be relied upon, it either says no or has seen the change.
            assert max(seen) >= count or not reliance.holds
        await until(lambda: reliance.holds)
        assert max(seen) == inventory.change_count()
        await asyncio.to_thread(reliance.close)

    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        asyncio.run(run(inventory))


def test_memory_is_kept_without_the_inventory_only_while_it_is_relied_upon(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    distrusted: list[bool] = []

    async def run(inventory: Inventory) -> None:
        gate = ChangeGate(inventory, lambda _: None, lambda: distrusted.append(True))
        assert await gate.pass_through()
        await until(lambda: gate._reliance.holds)

        def gone() -> tuple[int, int]:
            raise UnavailableError("gone")

        monkeypatch.setattr(gate._mark, "read", gone)  # the server is away
        assert not await gate.pass_through()
        assert distrusted == []
        gate._reliance._until = 0.0
        assert not await gate.pass_through()
        assert distrusted
        await asyncio.to_thread(gate.close)

    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        asyncio.run(run(inventory))


def test_nothing_is_relied_upon_once_a_server_is_there_that_refuses_us(postgresql_url: str) -> None:
    # Others may revoke there meanwhile, and their revocations wait for this process only for a short time.
    name = postgresql_url.partition("@/")[2].partition("?")[0]

    async def run(inventory: Inventory) -> None:
        async def look() -> bool:
            return True

        reliance = Reliance(inventory, look)
        reliance.start()
        await until(lambda: reliance.holds)
        with psycopg.connect(libpq(postgresql_url).replace(f"@/{name}", "@/postgres"), autocommit=True) as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            end_connections(other, f"datname = '{name}'")
            # The reliance would also end by itself, so that no revocation could be denied: here it ends at once.
            await until(lambda: not reliance.holds)
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        await until(lambda: reliance.holds)
        await asyncio.to_thread(reliance.close)

    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        asyncio.run(run(inventory))


ATTEMPTS = {
    "refused": ('connection to server at "10.0.0.1", port 5432 failed: Connection refused', True),
    "no socket": ('connection to server on socket "/run/x" failed: No such file or directory', True),
    "host gone": ("connection timeout expired", True),
    "starting": ("connection failed: FATAL:  the database system is starting up", True),
    "stopping": ("connection failed: FATAL:  the database system is shutting down", True),
    "full": ("connection failed: FATAL:  sorry, too many clients already", False),
    "another language": ("connection failed: FATAL:  Datenbanksystem startet", False),
}


@pytest.mark.parametrize(("said", "holds"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_attempt_to_be_back_that_finds_no_server_prolongs_what_is_relied_upon(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, said: str, holds: bool
) -> None:
    def connect() -> None:
        raise UnavailableError("gone") from psycopg.OperationalError(said)

    with Inventory.open(sqlite_url, log_key=AuditKey.generate()) as inventory:
        reliance = Reliance(inventory, lambda: asyncio.sleep(0, True))
        monkeypatch.setattr(reliance._assent, "connect", connect)
        reliance._until = soon = time.monotonic() + 60
        with pytest.raises(UnavailableError):
            reliance._connect()
        assert reliance.holds is holds
        assert reliance._until != soon


def test_what_is_relied_upon_ends_by_itself_and_an_unclear_attempt_prolongs_nothing(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "server closed the connection unexpectedly"

    def connect() -> None:
        raise UnavailableError("gone") from psycopg.OperationalError(words)

    with Inventory.open(sqlite_url, log_key=AuditKey.generate()) as inventory:
        reliance = Reliance(inventory, lambda: asyncio.sleep(0, True))
        monkeypatch.setattr(reliance._assent, "connect", connect)
        reliance._until = soon = time.monotonic() + 60
        with pytest.raises(UnavailableError):
            reliance._connect()
        assert reliance._until == soon
        # Too late: a thread that got no turn for so long cannot know what was acknowledged meanwhile.
        reliance._until = time.monotonic()
        words = "Connection refused"
        with pytest.raises(UnavailableError):
            reliance._connect()
        assert not reliance.holds


def test_who_is_back_relies_on_nothing_before_those_who_revoke_take_him_for_back(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relied: list[bool] = []
    with Inventory.open(sqlite_url, log_key=AuditKey.generate()) as inventory:
        reliance = Reliance(inventory, lambda: asyncio.sleep(0, True))
        monkeypatch.setattr(reliance._assent, "connect", lambda: None)
        monkeypatch.setattr(reliance._assent, "enter", lambda: relied.append(reliance.holds))
        reliance._until = time.monotonic() + 60
        reliance._connect()
        assert relied == [False]


@pytest.mark.parametrize("is_recorded", [True, False])
def test_who_is_not_on_record_relies_on_nothing_without_his_connection(sqlite_url: str, is_recorded: bool) -> None:
    with Inventory.open(sqlite_url, log_key=AuditKey.generate()) as inventory:
        reliance = Reliance(inventory, lambda: asyncio.sleep(0, True))
        reliance._assent.is_recorded = is_recorded
        reliance._until = time.monotonic() + 60
        reliance._lose(UnavailableError("the connection has ended"))
        assert reliance.holds is is_recorded


def test_whoever_revokes_waits_longer_for_a_lost_holder_than_that_relies_on_its_memory() -> None:
    assert SETTLE_SECONDS > LEASE_SECONDS > 2 * _LONGEST_PAUSE
