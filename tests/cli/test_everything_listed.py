"""Everything in one place: CAs, stations, operations, events and firmware are listed, filtered, shown and exported."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.records import OperationRecord
from chargepki.pki.inventory.row_fields import ROW_FIELDS, ListedKind, keep_rows
from testkit.command_line import CommandLine
from testkit.inventories import NOW, add_station, do, fill, operation_record

LISTS: dict[ListedKind, tuple[list[str], str]] = {
    ListedKind.CA: (["ca", "list"], "cas"),
    ListedKind.STATION: (["station", "list"], "stations"),
    ListedKind.OPERATION: (["station", "operations"], "operations"),
    ListedKind.EVENT: (["station", "events", "--all"], "events"),
    ListedKind.RELEASE: (["firmware", "list"], "releases"),
}
AT = ("--at", "2026-03-08T12:00:00Z")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """An inventory with rows of every kind, and seven operations and three events more."""
    home = tmp_path_factory.mktemp("filled")
    log_key = AuditKey.load_or_create(home / "audit.key")
    with Inventory.open(f"sqlite:///{home}/inventory.db", log_key=log_key) as inventory:
        fill(inventory)
        add_station(inventory, "CS-2")
        for operation in operations():
            do(inventory, lambda tx, new=operation: tx.create_operation(new))  # type: ignore[misc]  # bound per turn
        other = dataclasses.replace(inventory.get_release("r1"), id="r2", version="0.1")
        do(inventory, lambda tx: tx.add_release(other))
        for hours in range(3):
            told = {"type": "SettingSystemTime", "critical": False, "tech_info": f"{hours}", "source": "csms"}
            at = NOW + timedelta(hours=hours + 2)
            do(
                inventory,
                lambda tx, at=at, told=told: tx.add_security_event(station="CS-2", at=at, received_at=at, **told),  # type: ignore[misc]  # bound per turn
            )
    return CommandLine(home)


def operations() -> Iterator[OperationRecord]:
    for number in range(7):
        base = operation_record(f"n{number}", station=f"CS-{1 + number % 2}")
        # Two at one instant: the id decides then.
        yield dataclasses.replace(base, created_at=NOW + timedelta(days=number // 2 + 1), requester=f"who-{number}")


def rows(run: CommandLine, kind: ListedKind, *words: str) -> list[dict[str, Any]]:
    command, key = LISTS[kind]
    found: list[dict[str, Any]] = run(*command, *words, "--json").json()[key]
    return found


@pytest.mark.parametrize("kind", list(ListedKind))
def test_each_field_is_printed_and_can_be_asked_for(filled: CommandLine, kind: ListedKind) -> None:
    everything = rows(filled, kind)
    for name in ROW_FIELDS[kind]:
        assert all(name in row for row in everything), name
        asked = parse_filter(f"{name} is null", now=NOW, fields=ROW_FIELDS[kind])
        assert list(keep_rows(everything, asked)) == [row for row in everything if row[name] is None]


@pytest.mark.parametrize(
    ("kind", "where", "expected"),
    [
        (ListedKind.CA, "key like 'FILE:%' and generation = 1", ["t@1"]),
        (ListedKind.STATION, "firmware_version = '0.9' and connected = 'no'", ["CS-1"]),
        (ListedKind.STATION, "last_seen_at is null and vendor is null", ["CS-2"]),
        (ListedKind.OPERATION, "created_at > now - 132h and station = 'CS-2'", ["n5", "n3"]),
        (ListedKind.OPERATION, "state = 'running' or requester in ('who-1', 'who-2')", ["n2", "n1", "o1"]),
        (ListedKind.EVENT, "critical = 'yes'", [1]),
        (ListedKind.EVENT, "not critical = 'yes' and tech_info != '1' and id < 4", [2]),
        (ListedKind.RELEASE, "state = 'approved' and size >= 3", [None, None]),
        (ListedKind.RELEASE, "running_on > 0", []),
    ],
)
def test_rows_are_chosen_by_a_filter(
    filled: CommandLine, kind: ListedKind, where: str, expected: list[str | int | None]
) -> None:
    assert [row.get("id") for row in rows(filled, kind, "--where", where, *AT)] == expected
    plain = filled(*LISTS[kind][0], "--where", where, *AT).out
    assert len(plain.splitlines()) == len(expected) + 1, "a person is shown the same"


def test_newest_operations_come_first_page_by_page(filled: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ["n6", "n5", "n4", "n3", "n2", "n1", "n0", "o1"]
    for size in (1, 2, 3, 500):
        monkeypatch.setattr("chargepki.pki.inventory.reads._PAGE", size)
        assert [row["id"] for row in rows(filled, ListedKind.OPERATION)] == expected
    assert [row["id"] for row in rows(filled, ListedKind.OPERATION, "--limit", "2")] == expected[:2]
    assert [row["id"] for row in rows(filled, ListedKind.OPERATION, "CS-2", "--limit", "2")] == ["n5", "n3"]
    assert "there is no station" in filled.run("station", "operations", "CS-9").check_one_error(3).stderr
    monkeypatch.setattr("chargepki.pki.inventory.reads_events._PAGE", 2)
    assert [row["id"] for row in rows(filled, ListedKind.EVENT)] == [1, 2, 3, 4]
    assert [row["id"] for row in rows(filled, ListedKind.EVENT, "--limit", "2")] == [3, 4]


@pytest.mark.parametrize("kind", [None, *ListedKind], ids=str)
def test_pages_follow_one_another_to_the_end(filled: CommandLine, kind: ListedKind | None) -> None:
    command, key = LISTS[kind] if kind is not None else (["cert", "list"], "certificates")
    command = [*command, "--foreign"] if kind is ListedKind.CA else command
    everything = filled(*command, "--json").json()
    assert everything["next"] is None and len(everything[key]) > 1
    goes_back = kind is ListedKind.EVENT
    found: list[dict[str, Any]] = []
    words: tuple[str, ...] = ()
    for left in range(len(everything[key]) - 1, -1, -1):
        done = filled(*command, "--limit", "1", *words, "--json")
        page = done.json()
        found = page[key] + found if goes_back else found + page[key]
        words = ("--before" if goes_back else "--after", str(page["next"]))
        assert ("go on with" in done.stderr) == (left > 0) == (page["next"] is not None)
        assert left == 0 or f"go on with {shlex.join(words)}, " in done.stderr
    assert found == everything[key]
    lines = filled(*command, "--limit", "1", "--json-lines")
    assert len(lines.out.splitlines()) == 1 and "go on with" in lines.stderr


def test_nothing_comes_behind_what_is_not_there(filled: CommandLine) -> None:
    for kind in (ListedKind.OPERATION, ListedKind.RELEASE):
        assert "there is no" in filled.run(*LISTS[kind][0], "--after", "x'--").check_one_error(3).stderr


def test_query_of_each_kind_is_saved_shown_and_used_in_its_list_alone(filled: CommandLine) -> None:
    kinds = filled.run("query", "save", "q", "id = 'x'", "--kind", "nothing").stderr
    for kind in ListedKind:
        assert f"'{kind}'" in kinds
        field = next(iter(ROW_FIELDS[kind]))
        name, text = f"q-{kind}", f"not {field} is null"
        filled("query", "save", name, text, "--kind", kind.value)
        expected = rows(filled, kind)
        assert rows(filled, kind, "--query", name) == expected
        assert not rows(filled, kind, "--query", name, "--where", f"{field} is null")
        shown = filled("query", "show", name, "--json").json()
        assert (shown["kind"], shown["matches"]) == (kind, len(expected))
        for other in set(ListedKind) - {kind}:
            refused = filled.run(*LISTS[other][0], "--query", name).check_one_error(3)
            assert f"is of kind {kind}, not {other}" in refused.stderr
        for command in ("cert list", "cert count", "inventory check", "inventory export", "inventory report"):
            refused = filled.run(*command.split(), "--query", name).check_one_error(3)
            assert f"is of kind {kind}, not certificate" in refused.stderr
    assert filled.run("inventory", "check", "--where", "id = ").code == 3, "1 would say: there are findings"
    # A name can go over to another kind, and the log names both.
    filled("query", "save", "q-ca", "state = 'active'", "--kind", "station", code=3)
    filled("query", "save", "q-ca", "state = 'active'", "--kind", "station", "--replace")
    assert [row["id"] for row in rows(filled, ListedKind.STATION, "--query", "q-ca")] == ["CS-1", "CS-2"]
    filled("query", "save", "q-ca", "state = 'issued'", "--replace")
    assert filled("query", "show", "q-ca", "--json").json()["certificates"] == 2
    filled("audit", "verify")


@pytest.mark.parametrize("kind", list(ListedKind))
def test_wrong_filter_is_pointed_at_and_nothing_listed(filled: CommandLine, kind: ListedKind) -> None:
    refused = filled(*LISTS[kind][0], "--where", "nothing = 'x'", code=3)
    assert "at column 1" in refused.stderr and next(iter(ROW_FIELDS[kind])) in refused.stderr
    assert not refused.out and "not_after < now + 30d" not in refused.stderr, "no advice about certificates"
    refused = filled(*LISTS[kind][0], "--where", "' or 1=1 --", code=3)
    assert "without its closing quote" in refused.stderr


def test_operation_is_shown_with_what_was_sent_and_answered(filled: CommandLine) -> None:
    for document in (
        filled("inventory", "show", "o1", "--json").json(),
        next(row for row in rows(filled, ListedKind.OPERATION) if row["id"] == "o1"),
    ):
        (attempt,) = document["attempts"]
        assert (attempt["action"], attempt["answer"]) == ("ChangeConfiguration", {"status": "Accepted"})
    assert filled("inventory", "show", "r1", "--json").json()["schema"] == "chargepki/firmware-release"


def test_station_is_shown_with_what_is_installed_and_runs_on_it(filled: CommandLine) -> None:
    shown = filled("station", "show", "CS-1", "--json").json()
    assert (shown["vendor"], shown["model"], shown["firmware_version"]) == ("V", "M", "0.9")
    assert [(row["use"], row["finding"]) for row in shown["roots"]] == [("csms", "missing")]
    assert [row["id"] for row in shown["operations"]] == ["n6", "n4", "n2", "n0", "o1"]
    text = filled("station", "show", "CS-1").out
    assert "missing" in text and "0.9" in text


def test_everything_is_counted_and_exported(filled: CommandLine, tmp_path: Path) -> None:
    counted = filled("inventory", "list", "--json").json()
    expected = {"operations": 8, "open_operations": 8, "security_events": 4, "firmware_releases": 2, "open_alerts": 1}
    assert {name: counted[name] for name in expected} == expected
    filled("inventory", "export", "--out", tmp_path / "all.ndjson")
    lines = [json.loads(line) for line in (tmp_path / "all.ndjson").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "ca": 2,
        "certificate": 3,
        "station": 2,
        "firmware-release": 2,
        "operation": 8,
        "security-event": 4,
    }
    assert {line["operation"] for line in lines if line["kind"] == "operation"} == {"set-password"}
    whole = filled("inventory", "export", "--json").json()
    assert [len(whole[name]) for name in ("firmware_releases", "operations", "security_events")] == [2, 8, 4]
    chosen = filled("inventory", "export", "--where", "state = 'revoked'").out.splitlines()
    assert [json.loads(line)["kind"] for line in chosen] == ["certificate"]


def test_report_counts_them_with_the_command_that_lists_them(filled: CommandLine) -> None:
    words = ("inventory", "report", "--findings", "questions")
    figures = {each["name"]: each for each in filled(*words, "--format", "json").json()["figures"]}
    for name in ("stations", "operations", "open_operations", "security_events", "firmware_releases", "open_alerts"):
        command = shlex.split(figures[name]["command"])
        assert command[0] == "chargepki"
        (listed,) = (value for value in filled(*command[1:], "--json").json().values() if isinstance(value, list))
        assert len(listed) == figures[name]["value"] > 0, name
    page = filled(*words).out
    assert "Also on record: " in page and "4 security events" in page


def test_guide_names_every_field() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "ask-the-inventory.md").read_text()
    for kind, fields in ROW_FIELDS.items():
        for field in fields.values():
            known = "".join(f" `{each}`" for each in field.known)
            assert f"| {kind} | `{field.name}` | {field.kind} | {field.what}{known} |" in guide, (kind, field.name)
