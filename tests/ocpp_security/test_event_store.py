"""Tests of chargepki.ocpp_security.event_store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.ocpp_security import event_store
from chargepki.ocpp_security.event_store import FLOOD, Occurrence, record_event
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.records import Actor, ActorKind
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url
from testkit.inventories import add_station

__all__ = ["database_url", "postgresql_server", "postgresql_url", "sqlite_url"]

NOW = datetime(2026, 3, 1, 12, 0, 10, tzinfo=UTC)
ACTOR = Actor("CS-1", ActorKind.STATION, authenticated=True)
EVENT = Occurrence("CS-1", "station", "TamperDetectionActivated", True, "door 1", NOW, NOW)


@pytest.fixture
def log_key() -> AuditKey:
    return AuditKey.generate()


@pytest.fixture
def inventory(database_url: str, log_key: AuditKey) -> Iterator[Inventory]:
    opened = Inventory.open(database_url, log_key=log_key)
    yield opened
    opened.close()


def record(inventory: Inventory, occurrence: Occurrence) -> bool:
    return inventory.write(lambda tx: record_event(tx, occurrence, ACTOR, "security-event.report"))


def later(occurrence: Occurrence, seconds: float, **changes: object) -> Occurrence:
    at = occurrence.received_at + timedelta(seconds=seconds)
    return replace(occurrence, at=at, received_at=at, **changes)  # type: ignore[arg-type]  # fields of Occurrence


def test_an_event_is_stored_with_the_time_of_the_station_and_of_its_receipt(
    inventory: Inventory, log_key: AuditKey
) -> None:
    add_station(inventory)
    assert record(inventory, replace(EVENT, at=NOW - timedelta(days=2)))
    (series,) = inventory.list_event_series(station="CS-1")
    assert (series.event.at, series.event.received_at, series.count) == (NOW - timedelta(days=2), NOW, 1)
    assert verify_log(inventory, checkpoint=None, pinned_keys=[log_key.public]).findings == ()


def test_repetitions_are_counted_and_leave_one_row_and_one_audit_entry(inventory: Inventory) -> None:
    add_station(inventory)
    record(inventory, EVENT)
    entries = len(inventory.list_audit())
    for number in range(1, 100):
        assert not record(inventory, later(EVENT, number))
    (series,) = inventory.list_event_series(station="CS-1")
    assert (series.count, series.last_received_at) == (100, NOW + timedelta(seconds=99))
    assert sum(series.recent.values()) == 100
    assert len(series.recent) == 2
    assert len(inventory.list_audit()) == entries


def test_what_says_something_else_or_comes_much_later_is_an_event_of_its_own(inventory: Inventory) -> None:
    add_station(inventory)
    record(inventory, EVENT)
    assert record(inventory, later(EVENT, 1, tech_info="door 2"))
    assert record(inventory, later(EVENT, 2, source="csms"))
    assert record(inventory, later(EVENT, 3, station=None))
    assert record(inventory, later(EVENT, 3601))
    assert len(inventory.list_event_series()) == 5


def test_a_flood_of_different_events_is_folded_by_type_and_then_altogether(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store, "MAX_EVENTS", 10)
    add_station(inventory)
    for number in range(60):
        record(inventory, later(EVENT, number / 100, tech_info=f"door {number}"))
    for number in range(60):
        record(inventory, later(EVENT, 3 + number / 100, type=f"Made{number}", critical=False))
    found = inventory.list_event_series(station="CS-1", limit=1000)
    assert len(found) == 11
    assert sum(series.count for series in found) == 120
    (flood,) = [series for series in found if series.event.type == FLOOD]
    assert (flood.count, flood.event.source, flood.event.critical) == (60, "csms", True)


def test_a_secret_in_the_text_of_an_event_is_not_stored(inventory: Inventory) -> None:
    add_station(inventory)
    text = "could not log in at wss://CS-1:hunter22@csms.example with password=correct-horse"
    record(inventory, replace(EVENT, tech_info=text))
    stored = repr(inventory.list_event_series()) + repr(inventory.list_audit())
    assert "hunter22" not in stored
    assert "correct-horse" not in stored


def test_filters_and_order(inventory: Inventory) -> None:
    add_station(inventory)
    for number, kind in enumerate(["A", "B", "A"]):
        record(inventory, later(EVENT, number, type=kind, tech_info=str(number), critical=kind == "A"))
    ids = [series.event.id for series in inventory.list_event_series(station="CS-1")]
    assert ids == sorted(ids, reverse=True)
    assert [s.event.type for s in inventory.list_event_series(type="B")] == ["B"]
    assert [s.event.type for s in inventory.list_event_series(critical=False)] == ["B"]
    assert len(inventory.list_event_series(critical=True)) == 2
    assert len(inventory.list_event_series(since=NOW + timedelta(seconds=1))) == 2
    assert [s.event.id for s in inventory.list_event_series(limit=1)] == [ids[0]]
    assert inventory.list_event_series(before=ids[0], limit=1)[0].event.id == ids[1]
    assert inventory.list_event_series(station="nobody") == ()
    assert [s.event.tech_info for s in inventory.list_changed_events(after=1)] == ["1", "2"]
