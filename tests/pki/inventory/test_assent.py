"""The assent to revocations: whoever revokes waits for those who answer from memory, and for nobody else."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.databases import postgresql_server, postgresql_url, sqlite_url
from testkit.inventories import add_ca

__all__ = ["postgresql_server", "postgresql_url", "sqlite_url"]


def end_all_connections(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


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
