"""The gate before memory: what it forgets, and when it relies on memory while the inventory is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import AuditEntry
from chargepki.pki.services.gate import ChangeGate
from chargepki.pki.services.reliance import Reliance
from testkit.databases import end_all_connections, postgresql_server, postgresql_url
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that answers late is not away."""
    monkeypatch.setattr("chargepki.pki.services.gate._PATIENCE_SECONDS", 60.0)


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


def test_memory_is_kept_without_the_inventory_only_while_it_is_relied_upon(postgresql_url: str) -> None:
    distrusted: list[bool] = []

    async def run(inventory: Inventory) -> None:
        gate = ChangeGate(inventory, lambda _: None, lambda: distrusted.append(True))
        assert await gate.pass_through()
        await until(lambda: gate._reliance.holds)

        def gone() -> tuple[int, int]:
            raise UnavailableError("gone")

        gate._mark.read = gone  # type: ignore[method-assign]  # the server is away
        assert not await gate.pass_through()
        assert distrusted == []
        gate._reliance.holds = False
        assert not await gate.pass_through()
        assert distrusted
        await asyncio.to_thread(gate.close)

    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        asyncio.run(run(inventory))
