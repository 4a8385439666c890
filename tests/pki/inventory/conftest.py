"""Fixtures of the inventory's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chargepki.pki.inventory import AuditKey, Inventory
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url

__all__ = ["database_url", "postgresql_server", "postgresql_url", "sqlite_url"]


@pytest.fixture
def log_key() -> AuditKey:
    """Make a log key."""
    return AuditKey.generate()


@pytest.fixture
def inventory(database_url: str, log_key: AuditKey) -> Iterator[Inventory]:
    """Open a new inventory, once on SQLite and once on PostgreSQL."""
    with Inventory.open(database_url, log_key=log_key) as opened:
        yield opened
