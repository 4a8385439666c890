"""Tests that works of many threads and of several processes are durable, whole and in one order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction, verify_log
from chargepki.pki.inventory.combiner import Combiner, Job
from chargepki.pki.inventory.records import StationRecord
from testkit.inventories import ACTOR, NOW, add_station, station_record

LIBRARY = Path(__file__).parents[2] / "lib"


def _station(number: int) -> StationRecord:
    return station_record(f"CS-{number:05d}")


def _add(number: int, *, fail: bool = False) -> object:
    def work(tx: Transaction) -> int:
        tx.add_station(_station(number))
        seq = tx.audit(ACTOR, "station.add", f"CS-{number:05d}", now=NOW).seq
        if fail:
            raise LookupError(number)
        return seq

    return work


def test_works_of_many_threads_get_their_own_results(inventory: Inventory, log_key: AuditKey) -> None:
    with ThreadPoolExecutor(16) as pool:
        sequence = list(pool.map(lambda number: inventory.write(_add(number)), range(200)))  # type: ignore[arg-type,var-annotated]  # an untyped work
    assert sorted(sequence) == list(range(1, 201))
    assert len(list(inventory.list_stations())) == 200
    assert verify_log(inventory, pinned_keys=[log_key.public]).ok


def test_a_failing_work_of_a_group_takes_no_other_with_it(inventory: Inventory, log_key: AuditKey) -> None:
    def one(number: int) -> bool:
        try:
            inventory.write(_add(number, fail=number % 3 == 0))  # type: ignore[arg-type]  # an untyped work
        except LookupError as exc:
            assert exc.args == (number,)
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(one, range(150)))
    assert outcomes == [number % 3 != 0 for number in range(150)]
    assert len(list(inventory.list_stations())) == 100
    assert verify_log(inventory, pinned_keys=[log_key.public]).ok


def test_gathered_works_are_one_group_and_each_has_its_own_outcome(inventory: Inventory, log_key: AuditKey) -> None:
    works = [cast("Callable[[Transaction], int]", _add(number, fail=number % 3 == 0)) for number in range(30)]
    outcomes = inventory.write_all(works)
    assert [isinstance(outcome, LookupError) for outcome in outcomes] == [number % 3 == 0 for number in range(30)]
    sequence = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert sequence == list(range(1, 21)) and inventory.write_all([]) == []
    assert verify_log(inventory, pinned_keys=[log_key.public]).ok


def test_gathered_works_of_many_threads_all_come_to_an_end() -> None:
    def run(batch: Sequence[Job[int]]) -> None:
        for job in batch:
            if job.work % 7 == 0:
                raise ZeroDivisionError
            job.succeed(job.work)

    combiner: Combiner[int] = Combiner(run)

    def submit(number: int) -> int:
        try:
            return len(combiner.submit_all([10 * number + step for step in range(5)]))
        except ZeroDivisionError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        outcomes = [future.result(20) for future in [pool.submit(submit, number) for number in range(40)]]
    assert set(outcomes) == {0, 5} and combiner.submit(8) == 8


def test_works_that_wait_together_share_one_commit() -> None:
    batches: list[int] = []
    first_runs, release = threading.Event(), threading.Event()

    def run(batch: Sequence[Job[int]]) -> None:
        batches.append(len(batch))
        first_runs.set()
        assert release.wait(60)
        for job in batch:
            job.succeed(job.work * 2)

    combiner: Combiner[int] = Combiner(run)
    with ThreadPoolExecutor(21) as pool:
        leader = pool.submit(combiner.submit, 1)
        assert first_runs.wait(60)
        followers = [pool.submit(combiner.submit, number) for number in range(20)]
        while len(combiner._queue) < 20:
            time.sleep(0.001)
        release.set()
        assert leader.result(10) == 2
        assert [follower.result(10) for follower in followers] == [number * 2 for number in range(20)]
    assert batches == [1, 20]


def test_a_bug_in_the_leader_is_its_own_and_the_others_go_on() -> None:
    first_runs, release = threading.Event(), threading.Event()
    runs = 0

    def run(batch: Sequence[Job[int]]) -> None:
        nonlocal runs
        runs += 1
        first_runs.set()
        assert release.wait(60)
        if runs == 2:
            raise ZeroDivisionError
        for job in batch:
            job.succeed(job.work)

    combiner: Combiner[int] = Combiner(run)

    def submit(number: int) -> object:
        try:
            return combiner.submit(number)
        except ZeroDivisionError:
            return "mine"

    with ThreadPoolExecutor(6) as pool:
        leader = pool.submit(submit, 0)
        assert first_runs.wait(60)
        followers = [pool.submit(submit, number) for number in range(1, 6)]
        while len(combiner._queue) < 5:
            time.sleep(0.001)
        release.set()
        assert leader.result(10) == 0
        outcomes = [follower.result(10) for follower in followers]
    assert outcomes.count("mine") == 1
    assert all(outcome in (number, "mine") for number, outcome in enumerate(outcomes, 1))
    assert combiner.submit(7) == 7


WRITER = """
import sys
from pathlib import Path
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.inventories import add_station
url, key, name, count = sys.argv[1:]
with Inventory.open(url, log_key=AuditKey.load_or_create(Path(key))) as inventory:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        add_station(inventory, f"{name}-{number:04d}")
        print(number, flush=True)
"""


def _writer(url: str, key: Path, name: str, count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(key), name, str(count)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_open_a_new_inventory_at_once_all_write_to_it(database_url: str, tmp_path: Path) -> None:
    key = tmp_path / "audit.key"
    writers = [_writer(database_url, key, name, 25) for name in ("a", "b")]
    for writer in writers:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first == "ready\n", writer.communicate()[1]
    for writer in writers:
        _, errors = writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0, errors
    with Inventory.open(database_url, log_key=AuditKey.load_or_create(key), create=False) as inventory:
        assert len(list(inventory.list_stations())) == 50
        assert [entry.seq for entry in inventory.list_audit()] == list(range(1, 51))
        assert verify_log(inventory, pinned_keys=[AuditKey.load(key).public]).ok


def test_what_a_killed_process_was_told_is_there_and_whole(database_url: str, tmp_path: Path) -> None:
    key = tmp_path / "audit.key"
    for name in ("a", "b"):
        writer = _writer(database_url, key, name, 10_000)
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("go\n")
        writer.stdin.flush()
        told = [int(writer.stdout.readline()) for _ in range(7)]
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate(timeout=60)
        # The last line may have been cut by the kill, so only whole ones count as told.
        told += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        with Inventory.open(database_url, log_key=AuditKey.load(key), create=False) as inventory:
            assert all(inventory.find_station(f"{name}-{number:04d}") for number in told)
            assert verify_log(inventory, pinned_keys=[AuditKey.load(key).public]).ok
            add_station(inventory, f"after-{name}")


def test_a_lock_held_by_another_process_is_waited_for_and_then_named(database_url: str, log_key: AuditKey) -> None:
    with (
        Inventory.open(database_url, log_key=log_key) as holder,
        Inventory.open(database_url, log_key=log_key, busy_timeout=0.2) as waiter,
    ):
        entered, leave = threading.Event(), threading.Event()

        def hold(tx: Transaction) -> None:
            entered.set()
            assert leave.wait(60)

        with ThreadPoolExecutor(2) as pool:
            held = pool.submit(holder.write, hold)
            assert entered.wait(60)
            with pytest.raises(UnavailableError, match="is locked by another process"):
                add_station(waiter)
            # Readers are never held up.
            assert waiter.find_station("CS-1") is None
            leave.set()
            held.result(20)
        add_station(waiter)
        assert holder.find_station("CS-1") is not None


def test_an_interrupt_in_a_work_changes_nothing_and_frees_the_inventory(inventory: Inventory) -> None:
    def work(tx: Transaction) -> None:
        tx.add_station(_station(1))
        tx.audit(ACTOR, "station.add", "x", now=NOW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inventory.write(work)
    assert not list(inventory.list_stations())
    add_station(inventory)


def test_a_closed_inventory_says_so(inventory: Inventory) -> None:
    inventory.close()
    with pytest.raises(UnavailableError, match="was closed"):
        inventory.find_station("CS-1")
    with contextlib.suppress(UnavailableError):
        add_station(inventory)
