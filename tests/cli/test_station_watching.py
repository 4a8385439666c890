"""`chargepki station events`, `get-log` and `logs`: filters, formats, files; peers cannot steer the terminal."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.ocpp_security.log_store import ReceivedLog, record_received
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.command_line import CommandLine, snapshot
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
            inventory.write(lambda tx, o=occurrence: record_event(tx, o, ACTOR, "security-event.raise"))  # type: ignore[misc]  # a default binds the loop's value
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


def _received(run: CommandLine, operation: str, content: bytes) -> None:
    """Do what the endpoint for uploads does with a log that came."""
    folder = run.home / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / f"{operation}.log").write_bytes(content)
    log = ReceivedLog(len(content), hashlib.sha256(content).hexdigest(), f"{operation}.log")
    log_key = AuditKey.load_or_create(run.home / "audit.key")
    with Inventory.open(f"sqlite:///{run.home / 'inventory.db'}", log_key=log_key) as inventory:
        inventory.write(lambda tx: record_received(tx, operation, log, ACTOR, NOW))


def test_a_log_is_asked_for_listed_shown_and_saved(run: CommandLine, tmp_path: Path) -> None:
    words = ("station", "get-log", "CS-0001", "--type", "security", "--from", "2026-01-01")
    before = snapshot(run.home)
    run(*words, "--dry-run")
    assert snapshot(run.home) == before
    queued = run(*words, "--json").json()
    assert (queued["kind"], queued["state"]) == ("get-log", "queued")
    assert queued["parameters"] == {"type": "SecurityLog", "from": "2026-01-01T00:00:00.000Z"}
    operation = queued["id"]
    (row,) = run("station", "logs", "list", "CS-0001", "--json").json()["logs"]
    assert (row["id"], row["request_id"], row["state"], row["max_bytes"]) == (operation, 1, "requested", 64 << 20)
    early = run.run("station", "logs", "save", operation, "--out", tmp_path / "x")
    assert "has not come" in early.check_one_error(3).stderr

    _received(run, operation, b"one line\n")
    shown = run("station", "logs", "show", operation, "--json").json()
    assert (shown["schema"], shown["state"], shown["size"]) == ("chargepki/station-log", "received", 9)
    run("station", "logs", "save", operation, "--out", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"one line\n"
    run.run("station", "logs", "save", operation, "--out", tmp_path / "x").check_one_error(3)  # never overwritten
    assert run("station", "logs", "save", operation, "--out", "-").out == "one line\n"
    (run.home / "logs" / f"{operation}.log").write_bytes(b"another\n")
    changed = run.run("station", "logs", "save", operation, "-o", "-")
    assert "not what the station sent" in changed.check_one_error(4).stderr
    run("audit", "verify")


def test_a_second_request_gets_another_number_and_wrong_ones_are_refused(run: CommandLine) -> None:
    for _ in range(2):
        run("station", "get-log", "CS-0001", "--type", "diagnostics")
    rows = run("station", "logs", "list", "--json").json()["logs"]
    assert sorted(row["request_id"] for row in rows) == [1, 2]
    run.run("station", "get-log", "CS-0001", "--type", "secrets").check_one_error(2)
    run.run("station", "get-log", "CS-9999", "--type", "security").check_one_error(3)
    interval = ("--from", "2026-02-01", "--to", "2026-01-01")
    run.run("station", "get-log", "CS-0001", "--type", "security", *interval).check_one_error(3)
    run.run("station", "logs", "show", "op-none").check_one_error(3)


@pytest.mark.parametrize("url", ["ftp://x", "https://u:p@x", "https://", "https://x:0", "x"])
def test_an_upload_url_that_is_none_is_a_usage_error(run: CommandLine, url: str) -> None:
    words = ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1", "--upload-listen", "127.0.0.1:0")
    assert "--upload-url" in run.run(*words, "--upload-url", url).check_one_error(2).stderr
