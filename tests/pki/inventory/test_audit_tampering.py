"""Tests that every way of tampering with log or rows is found, each under a name of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chargepki.pki.errors import StateError
from chargepki.pki.inventory import AuditKey, Checkpoint, Inventory, LogHead, traits, verify_log
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, entry_hash
from chargepki.pki.inventory.codec import AUDITED, CERTIFICATE, RowKind
from testkit.inventories import ACTOR, NOW, add_station, do, fill
from testkit.tampering import KEY, Victim

HEAD_COLUMNS = ("log_id", "count", "hash", "at", "key_id", "signature")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill one inventory for all tests of this module; they work on copies."""
    path = tmp_path_factory.mktemp("template") / "inventory.db"
    with Inventory.open(f"sqlite:///{path}", log_key=KEY) as inventory:
        fill(inventory)
    return path


@pytest.fixture
def victim(template: Path, tmp_path: Path) -> Victim:
    path = tmp_path / "inventory.db"
    shutil.copy(template, path)
    return Victim(f"sqlite:///{path}", path)


def test_an_untouched_log_has_no_findings(victim: Victim) -> None:
    assert victim.codes(victim.checkpoint()) == set()


OTHER_VALUES = {
    "seq": "99",
    "at": "'2026-03-01T12:00:00.000251Z'",
    "actor_name": "'mallory'",
    "actor_kind": "'operator'",
    "actor_authenticated": "1",
    "action": "'certificate.void'",
    "subject": "'t@1:61'",
    "outcome": "'refused'",
    "artefact_sha256": f"'{'0' * 64}'",
    "details": "'{\"a\":1}'",
    "effects": "'[]'",
    "preconditions": '\'[["ca","t@1","00"]]\'',
    "previous_hash": f"'{'0' * 64}'",
    "entry_hash": f"'{'0' * 64}'",
}


def test_every_column_of_an_entry_is_tried() -> None:
    assert tuple(OTHER_VALUES) == ENTRY_COLUMNS


@pytest.mark.parametrize("column", ENTRY_COLUMNS[1:])
@pytest.mark.parametrize("seq", [1, 6, -1], ids=["first", "middle", "last"])
def test_an_edited_field_of_an_entry_is_found(victim: Victim, column: str, seq: int) -> None:
    where = seq if seq > 0 else victim.checkpoint().head.count
    victim.sql(f"UPDATE audit_entry SET {column} = {OTHER_VALUES[column]} WHERE seq = {where}")
    findings = victim.report().findings
    assert ("entry-changed", where) in {(str(finding.code), finding.seq) for finding in findings}


def test_an_edited_number_of_an_entry_is_found(victim: Victim) -> None:
    victim.sql("UPDATE audit_entry SET seq = 99 WHERE seq = 6")
    assert {"entry-missing", "entry-moved"} <= victim.codes()


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
def test_a_nulled_field_of_an_entry_is_found(victim: Victim, column: str) -> None:
    if column == "artefact_sha256":
        victim.sql("UPDATE audit_entry SET artefact_sha256 = 'x' WHERE seq = 6")
    else:
        victim.loosen("audit_entry")
        victim.sql(f"UPDATE audit_entry SET {column} = NULL WHERE seq = 6")
    expected = "hash-missing" if column.endswith("_hash") else "entry-changed"
    assert expected in victim.codes()


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
def test_a_value_of_another_kind_in_an_entry_is_found_and_breaks_nothing(victim: Victim, column: str) -> None:
    victim.loosen("audit_entry")
    assert victim.read("SELECT seq FROM audit_entry WHERE rowid = 6") == [(6,)]
    for value in ("3.5", "9e999", "x'00ff'", "CAST(x'ff' AS TEXT)", "''", "'[1]'", "9223372036854775807"):
        victim.sql(f"UPDATE audit_entry SET {column} = {value} WHERE rowid = 6")
        assert victim.codes(), value


@pytest.mark.parametrize("column", HEAD_COLUMNS)
@pytest.mark.parametrize("value", ["NULL", "'x'", "7", "x'00'", "3.5", "9e999"])
def test_an_edited_field_of_the_head_is_found(victim: Victim, column: str, value: str) -> None:
    victim.loosen("audit_head")
    victim.sql(f"UPDATE audit_head SET {column} = {value}")
    expected = "head-key-unknown" if column == "key_id" else "head-signature"
    assert expected in victim.codes()


def test_a_missing_head_is_found(victim: Victim) -> None:
    victim.sql("DELETE FROM audit_head")
    assert victim.codes() == {"head-missing"}


def test_a_second_head_is_found(victim: Victim) -> None:
    victim.loosen("audit_head")
    victim.sql("INSERT INTO audit_head SELECT * FROM audit_head")
    assert victim.codes() == {"head-duplicate"}


def test_a_missing_first_entry_is_found(victim: Victim) -> None:
    victim.sql("DELETE FROM audit_entry WHERE seq = 1")
    assert "first-entry-missing" in victim.codes()


def test_a_missing_entry_between_others_is_found_and_named(victim: Victim) -> None:
    victim.sql("DELETE FROM audit_entry WHERE seq IN (5, 6)")
    found = next(finding for finding in victim.report().findings if finding.code == "entry-missing")
    assert found.what == "entries 5 to 6 are missing"


def test_a_missing_tail_is_found(victim: Victim) -> None:
    victim.sql("DELETE FROM audit_entry WHERE seq = (SELECT max(seq) FROM audit_entry)")
    assert "tail-missing" in victim.codes()


def test_an_emptied_log_is_found(victim: Victim) -> None:
    victim.sql("DELETE FROM audit_entry")
    assert {"tail-missing", "row-added"} <= victim.codes()


def test_a_removed_entry_whose_followers_are_renumbered_is_found(victim: Victim) -> None:
    victim.loosen("audit_entry")
    victim.sql("DELETE FROM audit_entry WHERE seq = 5", "UPDATE audit_entry SET seq = seq - 1 WHERE seq > 5")
    assert {"entry-missing", "tail-missing"} <= victim.codes()


def test_an_entry_inserted_between_others_is_found_and_named(victim: Victim) -> None:
    victim.loosen("audit_entry")
    victim.sql(
        "UPDATE audit_entry SET seq = seq + 1 WHERE seq >= 6",
        "INSERT INTO audit_entry SELECT 6, at, 'mallory', actor_kind, actor_authenticated, action, subject, outcome,"
        " artefact_sha256, details, '[]', '[]', previous_hash, entry_hash FROM audit_entry WHERE seq = 7",
    )
    findings = victim.report().findings
    assert ("entry-inserted", 6) in {(str(finding.code), finding.seq) for finding in findings}


def test_an_entry_put_after_the_head_is_found(victim: Victim) -> None:
    count = victim.checkpoint().head.count
    victim.sql(
        f"INSERT INTO audit_entry SELECT {count + 1}, at, actor_name, actor_kind, actor_authenticated, action, subject,"
        f" outcome, artefact_sha256, details, '[]', '[]', entry_hash, '' FROM audit_entry WHERE seq = {count}"
    )
    victim.rehash(count + 1)
    assert victim.codes() == {"entry-after-head"}


@pytest.mark.parametrize(("one", "other"), [(3, 4), (3, 7), (1, 2), (1, 9)])
def test_two_entries_that_changed_places_are_found_and_named(victim: Victim, one: int, other: int) -> None:
    victim.sql(
        f"UPDATE audit_entry SET seq = -1 WHERE seq = {one}",
        f"UPDATE audit_entry SET seq = {one} WHERE seq = {other}",
        f"UPDATE audit_entry SET seq = {other} WHERE seq = -1",
    )
    moved = {finding.seq for finding in victim.report().findings if finding.code == "entry-moved"}
    assert {one, other} == moved


def test_the_last_two_entries_that_changed_places_are_found(victim: Victim) -> None:
    last = victim.checkpoint().head.count
    victim.sql(
        f"UPDATE audit_entry SET seq = -1 WHERE seq = {last}",
        f"UPDATE audit_entry SET seq = {last} WHERE seq = {last - 1}",
        f"UPDATE audit_entry SET seq = {last - 1} WHERE seq = -1",
    )
    assert "entry-moved" in victim.codes()


@pytest.mark.parametrize("same_number", [True, False])
def test_a_fork_by_two_writers_is_found(victim: Victim, tmp_path: Path, same_number: bool) -> None:
    other = Victim(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "other.db")
    shutil.copy(victim.path, other.path)
    victim.write_more("CS-8")
    other.write_more("CS-9")
    count = victim.checkpoint().head.count
    victim.loosen("audit_entry")
    victim.sql(
        f"ATTACH '{other.path}' AS other",
        f"INSERT INTO audit_entry SELECT * FROM other.audit_entry WHERE seq = {count}",
        "INSERT INTO station SELECT * FROM other.station WHERE id = 'CS-9'",
    )
    if not same_number:
        # The second writer numbered its entry behind the first one's, but went on from the older state.
        columns = ", ".join(ENTRY_COLUMNS)
        row = other.read(f"SELECT {columns} FROM audit_entry WHERE seq = {count}")[0]
        hashed = entry_hash([count + 1, *row[1:-1]])
        victim.sql(
            f"UPDATE audit_entry SET seq = {count + 1}, entry_hash = '{hashed}' WHERE entry_hash = '{row[-1]}'",
        )
    assert "fork" in victim.codes()


def test_an_entry_rewritten_with_its_own_hash_breaks_the_link(victim: Victim) -> None:
    columns = ", ".join(ENTRY_COLUMNS)
    row = victim.read(f"SELECT {columns} FROM audit_entry WHERE seq = 6")[0]
    values = [*row[:2], "mallory", *row[3:-1]]
    victim.sql(f"UPDATE audit_entry SET actor_name = 'mallory', entry_hash = '{entry_hash(values)}' WHERE seq = 6")
    assert victim.codes() == {"link-broken"}


def test_a_log_rewritten_to_its_end_without_the_key_is_found(victim: Victim) -> None:
    victim.sql("UPDATE audit_entry SET actor_name = 'mallory' WHERE seq = 6")
    victim.rehash(6)
    assert victim.codes() == {"head-mismatch"}


def _rewrite(victim: Victim, key: AuditKey, claimed: str) -> None:
    """Rewrite log and head completely, the head signed with a key of the attacker's."""
    victim.sql("UPDATE audit_entry SET actor_name = 'mallory'")
    genesis = victim.read("SELECT previous_hash FROM audit_entry WHERE seq = 1")[0][0]
    columns = ", ".join(ENTRY_COLUMNS)
    previous = genesis
    for row in victim.read(f"SELECT {columns} FROM audit_entry ORDER BY seq"):
        hashed = entry_hash([*row[:-2], previous])
        victim.sql(f"UPDATE audit_entry SET previous_hash='{previous}', entry_hash='{hashed}' WHERE seq = {row[0]}")
        previous = hashed
    victim.sql(f"UPDATE audit_head SET hash = '{previous}', key_id = '{claimed}'")
    head = LogHead.from_row(victim.read(f"SELECT {', '.join(HEAD_COLUMNS)} FROM audit_head")[0])
    victim.sql(f"UPDATE audit_head SET signature = '{LogHead.sign(head.state, key).signature}'")


def test_a_complete_rewriting_under_another_key_is_found(victim: Victim) -> None:
    stranger = AuditKey.generate()
    _rewrite(victim, stranger, stranger.key_id)
    assert victim.codes() == {"head-key-unknown"}


def test_a_complete_rewriting_that_names_our_key_is_found(victim: Victim) -> None:
    _rewrite(victim, AuditKey.generate(), KEY.key_id)
    assert victim.codes() == {"head-signature"}


def test_a_complete_rewriting_with_the_stolen_key_is_found_by_a_checkpoint_only(victim: Victim) -> None:
    kept = victim.checkpoint()
    _rewrite(victim, KEY, KEY.key_id)
    assert victim.codes() == set()
    assert victim.codes(kept) == {"checkpoint-mismatch"}


def test_an_old_database_put_back_is_found_by_a_checkpoint_only(victim: Victim, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(victim.path, old)
    victim.write_more("CS-8")
    kept = victim.checkpoint()
    shutil.copy(old, victim.path)
    assert victim.codes() == set()
    assert victim.codes(kept) == {"checkpoint-truncated"}


def test_an_old_head_on_a_truncated_log_betrays_itself_by_the_rows(victim: Victim, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(victim.path, old)
    victim.write_more("CS-8")
    count = victim.checkpoint().head.count
    victim.sql(
        f"ATTACH '{old}' AS old",
        f"DELETE FROM audit_entry WHERE seq = {count}",
        "DELETE FROM audit_head",
        "INSERT INTO audit_head SELECT * FROM old.audit_head",
    )
    assert victim.codes() == {"row-added"}


def test_a_log_begun_anew_is_found_by_a_checkpoint(victim: Victim) -> None:
    kept = victim.checkpoint()
    victim.path.unlink()
    with Inventory.open(victim.url, log_key=KEY) as inventory:
        fill(inventory)
    assert victim.codes() == set()
    assert {"checkpoint-other-log", "checkpoint-mismatch"} <= victim.codes(kept)


def test_a_checkpoint_of_an_unknown_key_or_with_a_wrong_signature_proves_nothing(victim: Victim) -> None:
    kept = victim.checkpoint()
    foreign = Checkpoint(LogHead.sign(kept.head.state, AuditKey.generate()))
    assert victim.codes(foreign) == {"checkpoint-key-unknown"}
    text = kept.to_json().replace(f'"count": {kept.head.count}', '"count": 2')
    assert victim.codes(Checkpoint.parse(text)) == {"checkpoint-signature"}


KEYS = {kind.table: kind.key for kind in AUDITED}


@pytest.mark.parametrize("kind", AUDITED, ids=lambda kind: kind.table)
def test_every_changed_field_of_a_row_is_found(victim: Victim, kind: RowKind[Any]) -> None:
    row = f"rowid = (SELECT min(rowid) FROM {kind.table})"
    derived = (traits.COLUMN,) if kind is CERTIFICATE else ()
    for column in (column for column in (*kind.columns, *derived) if column not in kind.key):
        ((before,),) = victim.read(f"SELECT quote({column}) FROM {kind.table} WHERE {row}")
        victim.sql(f"UPDATE {kind.table} SET {column} = 'tampered' WHERE {row}")
        findings = victim.report().findings
        assert [str(finding.code) for finding in findings] == ["row-changed"], column
        assert findings[0].what.startswith(f"the {kind.table} "), column
        victim.sql(f"UPDATE {kind.table} SET {column} = {before} WHERE {row}")
    assert victim.codes() == set()


def test_an_infinite_number_in_place_of_nothing_is_found(victim: Victim) -> None:
    # JSON has no word for it and would write null, as for the value that was there.
    victim.sql("UPDATE audit_entry SET artefact_sha256 = 9e999 WHERE seq = 3")
    assert victim.codes() == {"entry-changed"}
    victim.sql("UPDATE audit_entry SET artefact_sha256 = NULL WHERE seq = 3")
    assert victim.codes() == set()
    victim.loosen("ca")
    victim.sql("UPDATE ca SET public_url = 9e999")
    assert victim.codes() == {"row-changed"}


@pytest.mark.parametrize("table", KEYS)
def test_a_changed_key_of_a_row_is_found(victim: Victim, table: str) -> None:
    victim.loosen(table)
    victim.sql(f"UPDATE {table} SET {KEYS[table][0]} = 'tampered' WHERE rowid = (SELECT min(rowid) FROM {table})")
    assert victim.codes() == {"row-added", "row-missing"}


@pytest.mark.parametrize("table", KEYS)
def test_a_removed_row_is_found(victim: Victim, table: str) -> None:
    victim.sql(f"DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})")
    findings = victim.report().findings
    assert [str(finding.code) for finding in findings] == ["row-missing"]
    assert f"the {table} " in findings[0].what


@pytest.mark.parametrize("table", KEYS)
def test_an_added_row_is_found(victim: Victim, table: str) -> None:
    victim.loosen(table)
    key = KEYS[table][-1]
    victim.sql(
        f"CREATE TABLE copy AS SELECT * FROM {table} LIMIT 1",
        f"UPDATE copy SET {key} = 77",
        f"INSERT INTO {table} SELECT * FROM copy",
        "DROP TABLE copy",
    )
    assert victim.codes() == {"row-added"}


@pytest.mark.parametrize("table", KEYS)
def test_a_row_that_is_there_twice_is_found(victim: Victim, table: str) -> None:
    victim.loosen(table)
    victim.sql(f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1")
    assert victim.codes() == {"row-added"}


@pytest.mark.parametrize("table", ["audit_entry", "audit_head", *KEYS])
def test_a_dropped_table_is_found(victim: Victim, table: str) -> None:
    victim.sql(f"DROP TABLE {table}")
    assert "table-missing" in victim.codes()


def test_a_lawful_change_does_not_whitewash_an_edited_row(victim: Victim) -> None:
    victim.sql("UPDATE station SET security_profile = 0 WHERE id = 'CS-1'")
    with Inventory.open(victim.url, log_key=KEY) as inventory:
        do(inventory, lambda tx: tx.update_station("CS-1", organization="Other"))
    found = victim.report().findings
    assert [str(finding.code) for finding in found] == ["row-changed-earlier"]
    assert "station CS-1" in found[0].what


def test_a_row_removed_and_made_again_is_found(victim: Victim) -> None:
    victim.sql("DELETE FROM station WHERE id = 'CS-1'")
    add = Inventory.open(victim.url, log_key=KEY)
    with add as inventory:
        add_station(inventory, "CS-1")
    assert victim.codes() == {"row-missing"}


@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM audit_entry WHERE seq = (SELECT max(seq) FROM audit_entry)",
        "UPDATE audit_head SET count = count - 1",
        "UPDATE audit_head SET signature = ''",
        "DELETE FROM audit_head",
        "UPDATE audit_entry SET entry_hash = '0' WHERE seq = (SELECT max(seq) FROM audit_entry)",
        "UPDATE audit_entry SET seq = seq + 1 WHERE seq = (SELECT max(seq) FROM audit_entry)",
    ],
)
@pytest.mark.parametrize("already_open", [True, False])
def test_nothing_is_appended_to_a_tampered_log(victim: Victim, tampering: str, already_open: bool) -> None:
    with Inventory.open(victim.url, log_key=KEY) as inventory:
        if already_open:
            add_station(inventory, "CS-8")
        victim.sql(tampering)
        with pytest.raises(StateError, match=r"behind our back|has no head"):
            add_station(inventory, "CS-9")
        assert inventory.find_station("CS-9") is None


def test_a_running_process_notices_that_an_old_state_was_put_back(victim: Victim) -> None:
    columns = ", ".join(HEAD_COLUMNS)
    with Inventory.open(victim.url, log_key=KEY) as inventory:
        add_station(inventory, "CS-8")
        old = victim.read(f"SELECT {columns} FROM audit_head")[0]
        add_station(inventory, "CS-9")
        assignments = ", ".join(f"{name} = '{value}'" for name, value in zip(HEAD_COLUMNS, old, strict=True))
        victim.sql(
            "DELETE FROM audit_entry WHERE seq = (SELECT max(seq) FROM audit_entry)",
            f"UPDATE audit_head SET {assignments}",
        )
        with pytest.raises(StateError, match="but had"):
            add_station(inventory, "CS-10")


def test_another_log_key_may_read_but_not_write(victim: Victim) -> None:
    with Inventory.open(victim.url, log_key=AuditKey.generate()) as inventory:
        assert inventory.get_station("CS-1").id == "CS-1"
        with pytest.raises(StateError, match="signed with another log key") as caught:
            add_station(inventory, "CS-8")
        assert "copy its log key" in caught.value.fix
    assert victim.codes() == set()


def test_without_a_log_key_nothing_audited_is_written(victim: Victim) -> None:
    with (
        Inventory.open(victim.url, log_key=None) as inventory,
        pytest.raises(StateError, match="holds no log key"),
    ):
        add_station(inventory, "CS-8")


def test_a_broken_log_gives_a_bounded_number_of_findings(victim: Victim) -> None:
    with Inventory.open(victim.url, log_key=KEY) as inventory:

        def work(tx: object) -> None:
            for _ in range(1100):
                tx.audit(ACTOR, "test.act", "x", now=NOW)  # type: ignore[attr-defined]  # a Transaction

        inventory.write(work)
    victim.sql("UPDATE audit_entry SET actor_name = 'mallory'")
    report = victim.report()
    assert len(report.findings) == 1000
    assert report.omitted > 100


@pytest.fixture
def postgresql_victim(postgresql_url: str) -> Iterator[tuple[str, psycopg.Connection[tuple[object, ...]]]]:
    with Inventory.open(postgresql_url, log_key=KEY) as inventory:
        fill(inventory)
    with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield postgresql_url, connection


@pytest.mark.parametrize(
    ("tampering", "code"),
    [
        ("UPDATE audit_entry SET actor_authenticated = true WHERE seq = 3", "entry-changed"),
        ("UPDATE audit_entry SET entry_hash = '' WHERE seq = 3", "hash-missing"),
        ("DELETE FROM audit_entry WHERE seq = 3", "entry-missing"),
        ("DELETE FROM audit_entry WHERE seq = (SELECT max(seq) FROM audit_entry)", "tail-missing"),
        ("DELETE FROM audit_head", "head-missing"),
        ("UPDATE audit_head SET count = count + 1", "head-signature"),
        ("UPDATE certificate SET der = 'x'", "row-changed"),
        ("DELETE FROM crl", "row-missing"),
        ("INSERT INTO crl SELECT 't@1/7', ca, 7, this_update, next_update, entries, sha256, der FROM crl", "row-added"),
        ("DROP TABLE attempt", "table-missing"),
    ],
)
def test_tampering_on_postgresql_is_found(
    postgresql_victim: tuple[str, psycopg.Connection[tuple[object, ...]]], tampering: str, code: str
) -> None:
    url, connection = postgresql_victim
    connection.execute(tampering.encode())
    with Inventory.open(url, log_key=None) as inventory:
        report = verify_log(inventory, pinned_keys=[KEY.public])
    assert code in {str(finding.code) for finding in report.findings}
