"""The assent to revocations: whoever revokes waits for those who answer from memory, and for nobody else."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.assent import Assent
from chargepki.pki.inventory.engine import Database, Session
from testkit.databases import end_all_connections, libpq, postgresql_server, postgresql_url, sqlite_url
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url", "sqlite_url"]


def test_a_holder_is_asked_and_waited_for(postgresql_url: str) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        assent = inventory.assent()
        assent.connect()
        assent.take()
        assert not inventory.wait_for_assent(timeout=0.1)

        let_go = threading.Event()

        def hold() -> None:
            while not assent.wait(5):
                pass
            let_go.set()
            assent.release()

        while assent.wait(0):  # what was asked above
            pass
        holder = threading.Thread(target=hold)
        holder.start()
        assert inventory.wait_for_assent(timeout=20)
        assert let_go.is_set()
        holder.join()
        assent.take()
        assert not inventory.wait_for_assent(timeout=0.1)
        assent.close()
        assert inventory.wait_for_assent(timeout=20)


def test_two_holders_do_not_wait_for_each_other_and_both_are_waited_for(postgresql_url: str) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory, contextlib.ExitStack() as stack:
        first, second = inventory.assent(), inventory.assent()
        for each in (first, second):
            stack.callback(each.close)
            each.connect()
            each.take()
        first.release()
        assert not inventory.wait_for_assent(timeout=0.1)
        second.release()
        assert inventory.wait_for_assent(timeout=20)


def test_a_holder_whose_connection_ended_is_told_and_is_in_nobodys_way(postgresql_url: str) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        assent = inventory.assent()
        assent.connect()
        assent.take()
        end_all_connections(postgresql_url)
        with pytest.raises(UnavailableError):
            assent.wait(5)
        assert inventory.wait_for_assent(timeout=20)
        assent.connect()
        assent.take()
        assert not inventory.wait_for_assent(timeout=0.1)
        assent.close()


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen before use", "seen in use"])
def test_whoever_revokes_goes_on_when_the_connection_he_had_has_ended(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        end_all_connections(postgresql_url)
        if not is_seen:  # the server ends it when it has been taken already
            monkeypatch.setattr(Session, "has_hung_up", False)
        assert inventory.wait_for_assent(timeout=20)


def test_whoever_revokes_is_told_when_a_new_connection_has_ended_too(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        monkeypatch.setattr(Session, "has_hung_up", False)
        connect = Database.connect

        def connect_in_vain(database: Database) -> Session:
            session = connect(database)
            end_all_connections(postgresql_url)
            return session

        monkeypatch.setattr(Database, "connect", connect_in_vain)
        end_all_connections(postgresql_url)
        with pytest.raises(UnavailableError):
            inventory.wait_for_assent(timeout=20)


def enter(inventory: Inventory) -> Assent:
    assent = inventory.assent()
    assent.connect()
    assent.enter()
    assent.take()
    return assent


def on_record(url: str) -> list[str]:
    with psycopg.connect(libpq(url)) as connection:
        return [row[0] for row in connection.execute("SELECT item FROM lease WHERE kind = 'assent'")]


def test_a_holder_that_lost_its_connection_is_waited_for_until_it_is_back(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargepki.pki.inventory.assent.SETTLE_SECONDS", 600.0)
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        assent = enter(inventory)
        end_all_connections(postgresql_url)
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(inventory.wait_for_assent, timeout=60)
            with pytest.raises(TimeoutError):
                told.result(0.3)
            assent.connect()
            assent.enter()
            assert told.result(60)
        assert len(on_record(postgresql_url)) == 1
        assent.leave()
        assert on_record(postgresql_url) == []


def test_a_holder_that_does_not_come_back_is_waited_for_once(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chargepki.pki.inventory.assent.SETTLE_SECONDS", 0.4)
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        enter(inventory).close()
        began = time.monotonic()
        assert inventory.wait_for_assent(timeout=60)
        assert time.monotonic() >= began + 0.4
        assert on_record(postgresql_url) == []
        monkeypatch.setattr("chargepki.pki.inventory.assent.SETTLE_SECONDS", 600.0)
        assert inventory.wait_for_assent(timeout=60)


def test_nobody_is_told_by_a_server_that_lets_a_lost_holder_not_in(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(database: Database) -> Session:
        raise UnavailableError("the server is shutting down")

    monkeypatch.setattr("chargepki.pki.inventory.assent.SETTLE_SECONDS", 0.0)
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        enter(inventory).close()
        monkeypatch.setattr(Database, "connect", refuse)
        with pytest.raises(UnavailableError):
            inventory.wait_for_assent(timeout=60)
        assert len(on_record(postgresql_url)) == 1


def test_a_holder_that_may_not_write_its_record_knows_it(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        assent = inventory.assent()
        assent.connect()
        assert assent._session is not None
        assent._session.execute("SET default_transaction_read_only = on")
        assent.enter()
        assert not assent.is_recorded and "table lease" in caplog.text
        assent.leave()


def test_on_sqlite_there_is_nothing_to_wait_for(sqlite_url: str) -> None:
    with Inventory.open(sqlite_url, log_key=AuditKey.generate()) as inventory:
        assert not inventory.assent().is_needed
        assert inventory.wait_for_assent(timeout=0)


def test_reads_pass_over_idle_connections_that_were_ended(postgresql_url: str) -> None:
    # A responder that took one of them for an absent database would go on denying what was revoked since.
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        add_ca(inventory)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(inventory.snapshot())
        end_all_connections(postgresql_url)
        for _ in range(4):
            assert inventory.list_audit(after_seq=0, limit=1)
            assert inventory.change_count() > 0


def test_reads_writes_and_snapshots_go_on_when_the_connection_ends_under_them(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "has_hung_up", False)
    with Inventory.open(postgresql_url, log_key=AuditKey.generate()) as inventory:
        end_all_connections(postgresql_url)
        add_ca(inventory)
        end_all_connections(postgresql_url)
        assert inventory.change_count() > 0
        end_all_connections(postgresql_url)
        with inventory.snapshot() as session:
            assert session.run("change_count", {})
