"""The inventory as a table of stations: where its look-ups are done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from chargepki.ocpp_security import station_source
from chargepki.ocpp_security.station_source import InventoryStations
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.audit import AuditKey
from chargepki.pki.inventory.import_records import ForeignRevocation
from chargepki.pki.inventory.quick import QuickReads
from chargepki.pki.inventory.records import Actor, ActorKind, CertificateState, StationRecord, StationState
from testkit.inventories import do, found_certificate, import_run

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_T = TypeVar("_T")


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Inventory]:
    key = AuditKey.load_or_create(tmp_path / "audit.key")
    with Inventory.open(f"sqlite:///{tmp_path / 'inventory.db'}", log_key=key) as opened:

        def add(tx: Transaction) -> None:
            tx.add_station(StationRecord("CS-1", "CS-1", "Example", 2, StationState.ACTIVE, NOW))
            tx.audit(Actor("t", ActorKind.SYSTEM, authenticated=False), "station.add", "CS-1", now=NOW)

        opened.write(add)
        yield opened


class Elsewhere:
    """Counts what is run off the event loop."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, work: Callable[[], _T], /) -> _T:
        self.runs += 1
        return work()


def look_up(stations: InventoryStations, times: int = 1) -> None:
    for _ in range(times):
        found = asyncio.run(stations.find_station("CS-1", ()))
        assert found is not None and found.identity == "CS-1"
        assert asyncio.run(stations.find_station("CS-2", ())) is None


def test_look_up_is_done_in_the_event_loop_where_that_takes_no_time(inventory: Inventory) -> None:
    quick, elsewhere = inventory.quick_reads(), Elsewhere()
    assert quick is not None
    with contextlib.closing(quick):
        quick.open()
        look_up(InventoryStations(inventory, run=elsewhere, quick=quick))
    assert elsewhere.runs == 0


def test_imported_certificate_speaks_for_nobody_unless_it_was_revoked(inventory: Inventory) -> None:
    seen = found_certificate("1")
    do(inventory, lambda tx: tx.import_certificates([seen], import_run(), now=NOW))
    stations = InventoryStations(inventory)
    entry = asyncio.run(stations.find_station("CS-1", (seen.der,)))
    assert entry is not None and entry.certificate is None, "a maker's certificate opens no door by having been seen"
    (record,) = inventory.find_imported_by_serials(["1"])
    do(inventory, lambda tx: tx.note_foreign_revocation(record.id, ForeignRevocation("1", NOW, "keyCompromise")))
    entry = asyncio.run(stations.find_station("CS-1", (seen.der,)))
    assert entry is not None and entry.certificate is not None
    assert entry.certificate.state is CertificateState.REVOKED


def test_look_up_that_would_have_to_wait_is_left_to_a_thread(inventory: Inventory) -> None:
    elsewhere = Elsewhere()
    quick = inventory.quick_reads()
    assert isinstance(quick, QuickReads)
    with pytest.raises(UnavailableError):
        quick.find_station("CS-1")  # it was never opened
    look_up(InventoryStations(inventory, run=elsewhere, quick=quick))
    assert elsewhere.runs == 2


def test_slow_disk_leaves_look_ups_to_threads_for_a_while(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, elsewhere = inventory.quick_reads(), Elsewhere()
    assert quick is not None
    monkeypatch.setattr(station_source, "_SLOW_SECONDS", 0.0)
    with contextlib.closing(quick):
        quick.open()
        stations = InventoryStations(inventory, run=elsewhere, quick=quick)
        look_up(stations, 2)
        assert elsewhere.runs == 1  # the fourth, after three slow ones
