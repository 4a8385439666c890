"""`chargepki station events`: filters, formats, and what a peer wrote cannot steer the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.command_line import CommandLine
from testkit.inventories import ACTOR

EVENT_FIELDS = {
    "id", "at", "received_at", "station", "source", "type", "critical", "tech_info", "count", "last_at",
    "last_received_at",
}  # fmt: skip
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def events(run: CommandLine) -> CommandLine:
    log_key = AuditKey.load_or_create(run.home / "audit.key")
    with Inventory.open(f"sqlite:///{run.home / 'inventory.db'}", log_key=log_key) as inventory:
        for number, (station, source, kind, critical, text) in enumerate(
            [
                ("CS-0001", "station", "InvalidCentralSystemCertificate", True, "root unknown"),
                ("CS-0001", "station", "InvalidCsmsCertificate", True, "root unknown"),
                ("CS-0001", "csms", "InvalidMessages", False, "bad \x1b[2J call"),
                ("CS-0001", "csms", "InvalidMessages", False, "bad \x1b[2J call"),
                (None, "csms", "CsmsFailedToAuthenticate", False, "nobody"),
            ]
        ):
            at = NOW + timedelta(minutes=number)
            occurrence = Occurrence(station, source, kind, critical, text, at, at)
            inventory.write(lambda tx, o=occurrence: record_event(tx, o, ACTOR, "security-event.raise"))  # type: ignore[misc]
    return run


def test_events_of_a_station_are_listed_oldest_first_with_their_counts(events: CommandLine) -> None:
    document = events("station", "events", "CS-0001", "--json").json()
    assert (document["schema"], document["schema_version"]) == ("chargepki/security-event-list", 2)
    rows = document["events"]
    assert [row["count"] for row in rows] == [1, 1, 2]
    assert rows[0].keys() == EVENT_FIELDS
    assert rows[2]["last_received_at"] == "2026-03-01T12:03:00Z"
    assert "\x1b" not in events("station", "events", "CS-0001").out


def test_events_are_filtered(events: CommandLine) -> None:
    def ids(*words: str) -> list[int]:
        rows = events("station", "events", *words, "--json").json()["events"]
        return [row["id"] for row in rows]

    # A name means the event, however the version spells it.
    assert ids("CS-0001", "--type", "InvalidCsmsCertificate") == [1, 2]
    assert ids("CS-0001", "--criticality", "non-critical") == [3]
    assert ids("CS-0001", "--source", "station", "--limit", "1") == [2]
    assert ids("CS-0001", "--since", "2026-03-01T12:03:00Z") == [3]
    assert ids("--all") == [1, 2, 3, 4]
    lines = events("station", "events", "--all", "--json-lines").out.splitlines()
    assert len(lines) == 4


def test_events_of_nothing_or_of_two_things_are_a_usage_error(events: CommandLine) -> None:
    events.run("station", "events").check_one_error(2)
    events.run("station", "events", "CS-0001", "--all").check_one_error(2)
    events.run("station", "events", "CS-9999").check_one_error(3)
