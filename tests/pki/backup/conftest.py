"""Fixtures of the tests of backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.backups import World
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url

__all__ = ["database_url", "postgresql_server", "postgresql_url", "sqlite_url"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return who may open backups here."""
    return World(tmp_path)
