"""An inventory on each database, and an OCPP authority over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority
from chargepki.pki.inventory import Inventory
from testkit.authorities import MemoryKeyStore, ocpp_authority, open_inventory
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url

__all__ = ["authority", "database_url", "inventory", "keystore", "postgresql_server", "postgresql_url", "sqlite_url"]


@pytest.fixture
def inventory(database_url: str, tmp_path: Path) -> Iterator[Inventory]:
    """An empty inventory."""
    opened = open_inventory(database_url, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def keystore() -> MemoryKeyStore:
    """The keys of one machine."""
    return MemoryKeyStore()


@pytest.fixture
def authority(inventory: Inventory, keystore: MemoryKeyStore) -> Authority:
    """The CAs t-root and t-sub."""
    return ocpp_authority(inventory, keystore=keystore)
