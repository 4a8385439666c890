"""Reads in an event loop: the same answers as elsewhere, at once or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.audit import AuditKey
from testkit.inventories import fill


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    key = AuditKey.load_or_create(tmp_path / "audit.key")
    return Inventory.open(f"sqlite:///{tmp_path / 'inventory.db'}", log_key=key)


def test_quick_reads_see_what_was_committed_and_that_something_was(inventory: Inventory) -> None:
    quick = inventory.quick_reads()
    assert quick is not None
    with contextlib.closing(inventory), contextlib.closing(quick):
        quick.open()
        before = quick.version()
        assert list(quick.list_stations()) == []
        assert quick.version() == before
        fill(inventory)
        assert quick.version() != before
        assert list(quick.list_stations()) == list(inventory.list_stations()) != []


def test_quick_read_waits_for_no_lock(inventory: Inventory) -> None:
    quick = inventory.quick_reads()
    assert quick is not None
    with contextlib.closing(inventory), contextlib.closing(quick):
        quick.open()
        assert quick._open_session.execute("PRAGMA busy_timeout") == [(0,)]


def test_quick_reads_that_are_not_open_say_so(inventory: Inventory) -> None:
    quick = inventory.quick_reads()
    assert quick is not None
    with contextlib.closing(inventory):
        with pytest.raises(UnavailableError, match="not open"):
            quick.version()
        quick.open()
        quick.close()
        quick.close()
        with pytest.raises(UnavailableError, match="not open"):
            quick.find_station("CS-1")
