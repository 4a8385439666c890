"""Tests that a watcher wakes soon after any commit, and only then."""

from __future__ import annotations

import threading
import time

import pytest

from chargepki.pki.inventory import AuditKey, Inventory
from testkit.databases import end_all_connections
from testkit.inventories import add_station


def test_commits_wake_the_watcher_and_silence_does_not(inventory: Inventory) -> None:
    with inventory.watch() as watcher:
        assert not watcher.wait(0.05)
        add_station(inventory, "CS-1")
        add_station(inventory, "CS-2")
        assert watcher.wait(60)
        # The notice of the second commit may come by itself; then it is quiet.
        assert sum(watcher.wait(0.3) for _ in range(4)) <= 1


def test_a_commit_of_another_opener_wakes_within_100_ms(database_url: str, log_key: AuditKey) -> None:
    with (
        Inventory.open(database_url, log_key=log_key) as ours,
        Inventory.open(database_url, log_key=log_key) as theirs,
        ours.watch() as watcher,
    ):
        add_station(theirs, "CS-0")
        assert watcher.wait(60)
        delays = []
        for number in range(1, 6):
            woken: list[float] = []
            thread = threading.Thread(
                target=lambda woken=woken: woken.append(time.monotonic() if watcher.wait(60) else 0)
            )
            thread.start()
            time.sleep(0.03)
            add_station(theirs, f"CS-{number}")
            committed = time.monotonic()
            thread.join()
            delays.append(woken[0] - committed)
        # The median, since a busy machine may hold up any single one.
        assert sorted(delays)[2] < 0.1


def test_a_work_that_fails_wakes_nobody(inventory: Inventory) -> None:
    with inventory.watch() as watcher:
        with pytest.raises(ZeroDivisionError):
            inventory.write(lambda tx: 1 // 0)
        assert not watcher.wait(0.1)


def test_closing_ends_a_wait(inventory: Inventory) -> None:
    watcher = inventory.watch()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watcher.wait(600)))
    thread.start()
    time.sleep(0.05)
    watcher.close()
    thread.join(60)
    assert answers == [False]
    assert not watcher.wait(600)


def test_a_lost_connection_is_made_again_and_counts_as_a_change(postgresql_url: str, log_key: AuditKey) -> None:
    with Inventory.open(postgresql_url, log_key=log_key) as inventory, inventory.watch() as watcher:
        end_all_connections(postgresql_url)
        assert watcher.wait(60)
        add_station(inventory)
        assert watcher.wait(60)
