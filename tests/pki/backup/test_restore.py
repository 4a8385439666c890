"""A backup holds everything, a restore replaces nothing before it has judged, and no number is ever used twice."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chargepki.pki.authority import IssueOrder
from chargepki.pki.backup import carry_out, read_journal, restore
from chargepki.pki.backup.restoring import crl_floor
from chargepki.pki.errors import InputError, SignerError, StateError, UnavailableError
from chargepki.pki.inventory import Inventory, verify_log
from chargepki.pki.inventory.audit import Checkpoint
from chargepki.pki.inventory.codec import AUDITED
from chargepki.pki.inventory.dump import dump_parts
from chargepki.pki.inventory.records import CertificateState, OperationState
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, log_findings, make_csr, ocpp_authority
from testkit.backups import World, settings_of
from testkit.command_line import snapshot
from testkit.databases import libpq
from testkit.inventories import fill

LATER = NOW + timedelta(days=30)
CHANGED = {"audit_entry", "audit_head", "restoration", "certificate", "operation", "lease", "campaign", "alembic"}
"""What a restore changes itself: the log goes on, reservations are voided, orders to stations ended."""


def rows(inventory: Inventory) -> dict[str, bytes]:
    """Return all rows by table."""
    found: dict[str, list[bytes]] = {}
    with inventory.snapshot() as session:
        for table, text in dump_parts(session):
            found.setdefault(table, []).extend(text.splitlines()[1:])
    return {table: b"\n".join(sorted(lines)) for table, lines in found.items()}


def test_a_backup_of_either_database_is_restored_into_the_other(
    world: World, database_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "home", database_url)
    with world.open(settings) as inventory:
        fill(inventory)
        (settings.home / "keys").mkdir(mode=0o700)
        (settings.home / "keys" / "t@1.key").write_bytes(b"an encrypted key")
        before = rows(inventory)
    backup = world.back_up(settings)
    into_file = database_url.startswith("postgresql")
    target = settings_of(tmp_path / "new", None if into_file else request.getfixturevalue("postgresql_url"))
    with backup.open("rb") as stream:
        done = restore(stream, world.order(target))
    assert (target.home / "keys" / "t@1.key").read_bytes() == b"an encrypted key"
    assert {path.stat().st_mode & 0o077 for path in target.home.rglob("*")} == {0}
    assert (target.home / "audit.key").read_bytes() == (settings.home / "audit.key").read_bytes()
    with world.open(target) as inventory:
        assert log_findings(inventory, target.home) == []
        after = rows(inventory)
        assert {name for name in before if before[name] != after[name]} <= CHANGED
        assert before.keys() == after.keys() and all(before[kind.table] for kind in AUDITED)
        assert [record.state for record in inventory.list_reserved()] == []
        assert done.ended == 1 and inventory.get_operation("o1").state is OperationState.EXPIRED
        (entry,) = [each for each in inventory.list_audit() if each.action == "workspace.restore"]
        assert entry.details["backup"] == done.header.id and entry.details["crl_floor"] == done.crl_floor
    assert not list(target.home.glob(".restore-*")) and not (target.home / "restore.json").exists()


def test_what_was_used_after_the_backup_is_never_used_again(world: World, tmp_path: Path) -> None:
    settings, keystore = settings_of(tmp_path / "home"), MemoryKeyStore()
    with world.open(settings) as inventory:
        authority = ocpp_authority(inventory, keystore=keystore)
        authority.publish_crl("t-sub")
        # A reservation whose bytes are signed after the backup was made.
        reserve = inventory.get_certificate
        order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr())
        reserved_id = _reserve_only(authority, order)
        backup = world.back_up(settings)
        (settled,) = authority.recover("t-sub")
        assert settled.id == reserved_id and reserve(reserved_id).state is CertificateState.ISSUED
        used = {record.serial for record in inventory.list_certificates()}
        numbers = [authority.publish_crl("t-sub").number for _ in range(3)]
        seal = Checkpoint.of(inventory)
    with backup.open("rb") as stream:
        restore(stream, world.order(settings, replace=True))
    with world.open(settings) as inventory:
        # The clock of the restored machine stands still where it stood before.
        authority = ocpp_authority_again(inventory, keystore)
        assert inventory.get_certificate(reserved_id).state is CertificateState.VOIDED
        assert authority.recover() == []
        again = authority.issue(order)
        assert again.record.serial not in used
        number = authority.publish_crl("t-sub").number
        assert number > max(numbers) and number >> 20 >= int(LATER.timestamp() * 1000)
        assert authority.publish_crl("t-sub").number == number + 1
        key = inventory_key(settings.home)
        codes = {finding.code for finding in verify_log(inventory, checkpoint=seal, pinned_keys=[key]).findings}
        assert codes & {"checkpoint-truncated", "checkpoint-mismatch"}
        assert verify_log(inventory, pinned_keys=[key]).ok
    # A restore from the same old backup once more goes on above what the first one has given out.
    with backup.open("rb") as stream:
        second = restore(stream, world.order(settings, replace=True, now=LATER + timedelta(milliseconds=20)))
    assert second.crl_floor > number + 1


def _reserve_only(authority: Any, order: IssueOrder) -> str:
    """Reserve as a process does that is killed before it signs."""
    from chargepki.pki.authority import issuance

    issuer = authority.open_issuer(order.ca)
    prepared = issuance.prepare(
        order, issuer, authority.inventory, actor=authority.actor, now=NOW, policy=authority.policy
    )
    return str(authority.inventory.write(lambda tx: issuance.reserve(tx, prepared, actor=authority.actor, now=NOW)).id)


def ocpp_authority_again(inventory: Inventory, keystore: MemoryKeyStore) -> Any:
    from testkit.authorities import make_authority

    return make_authority(inventory, keystore=keystore)


def inventory_key(home: Path) -> Any:
    from chargepki.pki.inventory import AuditKey

    return AuditKey.load(home / "audit.key").public


@pytest.fixture
def backed_up(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """A small workspace and its backup."""
    settings = settings_of(tmp_path / "home")
    with world.open(settings) as inventory:
        ocpp_authority(inventory)
    (settings.home / "chargepki.toml").write_text('public_url = "http://pki.example"\n')
    return settings.home, world.back_up(settings)


@pytest.mark.parametrize(
    ("damage", "error", "word"),
    [
        (lambda data: data[: len(data) // 2], InputError, "cut short"),
        (lambda data: data[:-1], InputError, "cut short"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], InputError, "changed"),
        (lambda data: b"", InputError, "no age file"),
        (lambda data: b"SQLite format 3\0" * 100, InputError, "no age file"),
    ],
    ids=["half", "last octet", "one bit", "empty", "another file"],
)
def test_a_damaged_backup_is_one_clear_refusal_and_touches_nothing(
    world: World, backed_up: tuple[Path, Path], damage: Any, error: type[Exception], word: str, tmp_path: Path
) -> None:
    home, backup = backed_up
    backup.write_bytes(damage(backup.read_bytes()))
    before = snapshot(home)
    for settings, replace in ((settings_of(tmp_path / "new"), False), (settings_of(home), True)):
        with backup.open("rb") as stream, pytest.raises(error, match=word):
            restore(stream, world.order(settings, replace=replace))
    assert not (tmp_path / "new").exists()
    assert snapshot(home).items() - before.items() <= {(str(home / "restore.lock"), (0o100600, b""))}


def test_another_identity_does_not_open_it(world: World, backed_up: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = World(tmp_path / "other")
    with backed_up[1].open("rb") as stream, pytest.raises(SignerError, match="none of the identities"):
        restore(stream, stranger.order(settings_of(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_a_workspace_is_never_mixed_with_another_one(
    world: World, backed_up: tuple[Path, Path], tmp_path: Path
) -> None:
    home, backup = backed_up
    before = snapshot(home)
    with backup.open("rb") as stream, pytest.raises(StateError, match="there is a workspace already"):
        restore(stream, world.order(settings_of(home)))
    (tmp_path / "new").mkdir()
    with sqlite3.connect(tmp_path / "new" / "inventory.db") as foreign:
        foreign.execute("CREATE TABLE somebody (x)")
    foreign.close()
    with backup.open("rb") as stream, pytest.raises(StateError):
        restore(stream, world.order(settings_of(tmp_path / "new")))
    assert snapshot(home) == before


def test_what_is_replaced_is_set_aside_whole(world: World, backed_up: tuple[Path, Path]) -> None:
    home, backup = backed_up
    settings = settings_of(home)
    (home / "password").write_text("of somebody")
    with world.open(settings) as inventory:
        ocpp_authority_count = len(list(inventory.list_cas()))
        with backup.open("rb") as stream, pytest.raises(StateError, match="another process has the inventory"):
            restore(stream, world.order(settings, replace=True))
    old = (home / "audit.key").read_bytes()
    with backup.open("rb") as stream:
        restore(stream, world.order(settings, replace=True))
    (aside,) = home.glob("replaced-*")
    assert (aside / "audit.key").read_bytes() == old and (aside / "chargepki.toml").exists()
    with Inventory.open(f"sqlite:///{aside / 'inventory.db'}", log_key=None, create=False) as inventory:
        assert len(list(inventory.list_cas())) == ocpp_authority_count
    assert (home / "password").read_text() == "of somebody"


def test_tables_of_postgresql_are_replaced_in_one_transaction_and_set_aside(
    world: World, backed_up: tuple[Path, Path], postgresql_url: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "new", postgresql_url)
    with backed_up[1].open("rb") as stream:
        restore(stream, world.order(settings))
    with backed_up[1].open("rb") as stream, pytest.raises(StateError, match="there is a workspace already"):
        restore(stream, world.order(settings))
    with backed_up[1].open("rb") as stream:
        done = restore(stream, world.order(settings, replace=True))
    with world.open(settings) as inventory:
        assert log_findings(inventory, settings.home) == []
        assert [each.id for each in inventory.list_restorations()] == [done.id]
    with psycopg.connect(libpq(postgresql_url)) as connection:
        kept = connection.execute(f"SELECT id FROM {done.set_aside_schema}.restoration").fetchall()
        assert len(kept) == 1 and kept[0][0] != done.id
        loose = "SELECT count(*) FROM pg_constraint WHERE condeferrable AND connamespace = 'public'::regnamespace"
        row = connection.execute(loose).fetchone()
        assert row is not None and row[0] == 0, "references are checked at once again"


def test_a_process_that_is_connected_to_postgresql_is_named_and_stops_a_restore(
    world: World, backed_up: tuple[Path, Path], postgresql_url: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "new", postgresql_url)
    world.open(settings).close()
    serving = Inventory.open(postgresql_url, log_key=None, create=False, process="chargepki csms serve")
    with serving, backed_up[1].open("rb") as stream, pytest.raises(StateError, match="chargepki csms serve from") as no:
        restore(stream, world.order(settings, replace=True))
    assert "on every machine" in no.value.fix and not (settings.home / "restore.json").exists()
    # Whoever only looks on from outside hinders nobody.
    with psycopg.connect(libpq(postgresql_url), autocommit=True), backed_up[1].open("rb") as stream:
        restore(stream, world.order(settings, replace=True))


@pytest.mark.parametrize("on_postgresql", [False, True], ids=["sqlite", "postgresql"])
def test_a_process_that_lost_its_connections_does_not_go_on_after_a_restore(
    world: World, backed_up: tuple[Path, Path], request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    """A server that had no connection just then would believe what it remembers, and nobody could refuse it."""
    home, backup = backed_up
    settings = settings_of(home, request.getfixturevalue("postgresql_url") if on_postgresql else None)
    for _ in range(1 if on_postgresql else 2):  # the second time the inventory has been restored before
        with world.open(settings) as serving:
            serving.write(lambda tx: tx.audit(ACTOR, "test.look", "x", now=NOW))
            mark = serving.change_mark()
            mark.read()
            mark.close()
            while serving._database._idle:
                serving._database._idle.pop().close()
            with backup.open("rb") as stream:
                restore(stream, world.order(settings, replace=True))
            for use in (
                lambda: list(serving.list_cas()),
                lambda: serving.write(lambda tx: tx.audit(ACTOR, "test.look", "x", now=NOW)),
                mark.read,
            ):
                with pytest.raises(UnavailableError, match="replaced by a restore while this process ran"):
                    use()
        with world.open(settings) as fresh:
            fresh.write(lambda tx: tx.audit(ACTOR, "test.look", "x", now=NOW))


@pytest.mark.parametrize("on_postgresql", [False, True], ids=["sqlite", "postgresql"])
def test_a_restore_that_stops_anywhere_is_completed_by_resuming_it(
    world: World,
    backed_up: tuple[Path, Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    on_postgresql: bool,
) -> None:
    """Each move fails once; the kills at every system call are in tests/crash."""
    home, backup = backed_up
    settings = settings_of(home, request.getfixturevalue("postgresql_url") if on_postgresql else None)
    moves = iter(range(100))
    rename = os.rename

    def failing(source: str, target: str) -> None:
        if next(moves) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with backup.open("rb") as stream, pytest.raises(UnavailableError, match="cannot move"):
        restore(stream, world.order(settings, replace=True))
    with backup.open("rb") as stream, pytest.raises(StateError, match="interrupted"):
        restore(stream, world.order(settings, replace=True))
    journal = read_journal(home)
    assert journal is not None
    with pytest.raises(StateError, match="not"):
        carry_out(home, journal, f"sqlite:///{home / 'another.db'}")
    carry_out(home, journal, settings.database)
    assert read_journal(home) is None
    with world.open(settings) as inventory:
        assert [each.id for each in inventory.list_restorations()] == [journal.restoration]
        assert log_findings(inventory, home) == []


def test_a_clock_that_is_behind_the_backup_is_refused(
    world: World, backed_up: tuple[Path, Path], tmp_path: Path
) -> None:
    for now in (datetime(1970, 1, 1, tzinfo=UTC), NOW - timedelta(hours=1)):
        with backed_up[1].open("rb") as stream, pytest.raises(StateError, match="the clock says"):
            restore(stream, world.order(settings_of(tmp_path / "new"), now=now))
    assert not (tmp_path / "new").exists()


def test_numbers_go_on_and_fit_into_the_database_in_any_year() -> None:
    floors = [crl_floor(datetime(year, 2, 7, 6, 28, 16, tzinfo=UTC), 0) for year in (2026, 2038, 2049, 2050, 2106)]
    assert floors == sorted(set(floors)) and floors[-1] < 1 << 63
    # Above every number that is milliseconds, the newest there can be before 2109 included.
    assert floors[0] > 1 << 42


def test_a_configuration_that_leads_to_another_database_is_not_put_in_place(world: World, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    with world.open(settings):
        (settings.home / "chargepki.toml").write_text('database = "postgresql+psycopg://prod/pki"\n')
    backup = world.back_up(settings)
    drill = settings_of(tmp_path / "drill")
    with backup.open("rb") as stream:
        done = restore(stream, world.order(drill))
    assert not (drill.home / "chargepki.toml").exists()
    assert done.unplaced_config == str(drill.home / "chargepki.toml.restored")


def test_a_damaged_inventory_is_restored_only_when_that_is_asked_for(world: World, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    with world.open(settings) as inventory:
        ocpp_authority(inventory)
    with sqlite3.connect(settings.home / "inventory.db") as connection:
        connection.execute("UPDATE certificate SET subject = 'CN=other' WHERE subject LIKE '%Root%'")
    connection.close()
    backup = world.back_up(settings)
    target = settings_of(tmp_path / "new")
    with backup.open("rb") as stream, pytest.raises(StateError, match="the backup is damaged: audit: row-"):
        restore(stream, world.order(target))
    with backup.open("rb") as stream:
        restore(stream, world.order(target, accept_findings=True))
    with world.open(target) as inventory:
        (entry,) = [each for each in inventory.list_audit() if each.action == "workspace.restore"]
        assert "row-" in str(entry.details["findings"])
