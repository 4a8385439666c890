"""Tests of queued issuance and of operations: leases, fencing numbers, attempts, outcomes."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from chargepki.pki.errors import Conflict, NotFound, StateError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.records import IssuanceRecord, IssuanceState, OperationRecord, OperationState
from testkit.inventories import NOW, add_ca, add_station, do, issuance_record, issue, operation_record

MINUTE = timedelta(minutes=1)


def _queue(inventory: Inventory, *names: str) -> None:
    add_ca(inventory)
    for number, name in enumerate(names):
        record = dataclasses.replace(issuance_record(name), created_at=NOW + timedelta(seconds=number))
        do(inventory, lambda tx, record=record: tx.queue_issuance(record))  # type: ignore[misc]  # bound early


def _take(inventory: Inventory, owner: str, *, at: timedelta = timedelta(0), limit: int = 10) -> list[IssuanceRecord]:
    now = NOW + at
    return inventory.write(lambda tx: tx.take_issuances(owner, now + MINUTE, now, limit))


def test_a_queued_request_is_taken_by_one_worker_at_a_time(inventory: Inventory) -> None:
    _queue(inventory, "i2", "i1", "i3")
    assert [record.id for record in _take(inventory, "one", limit=2)] == ["i2", "i1"]
    taken = inventory.get_issuance("i2")
    assert (taken.state, taken.fence, taken.lease_until) == (IssuanceState.TAKEN, 1, NOW + MINUTE)
    assert [record.id for record in _take(inventory, "two")] == ["i3"]
    assert _take(inventory, "two") == []


def test_a_lease_that_ran_out_goes_to_another_worker_and_fences_the_first(inventory: Inventory) -> None:
    _queue(inventory, "i1")
    (first,) = _take(inventory, "one")
    assert _take(inventory, "two", at=MINUTE - timedelta(microseconds=1)) == []
    (second,) = _take(inventory, "two", at=MINUTE)
    assert second.fence == first.fence + 1
    refusal = {"code": "policy"}
    with pytest.raises(Conflict, match="the lease on issuance i1 was lost"):
        do(
            inventory,
            lambda tx: tx.finish_issuance("i1", fence=first.fence, state=IssuanceState.REFUSED, refusal=refusal),
        )
    done = do(
        inventory,
        lambda tx: tx.finish_issuance("i1", fence=second.fence, state=IssuanceState.REFUSED, refusal=refusal),
    )
    assert (done.state, done.refusal) == (IssuanceState.REFUSED, refusal)
    assert inventory.list_issuances(open_only=True) == ()
    assert inventory.list_issuances() == (done,)


def test_an_issued_request_names_its_certificate_and_is_finished_once(inventory: Inventory) -> None:
    _queue(inventory, "i1")
    issue(inventory, "5f")
    (taken,) = _take(inventory, "one")

    def finish() -> IssuanceRecord:
        return do(
            inventory,
            lambda tx: tx.finish_issuance("i1", fence=taken.fence, state=IssuanceState.ISSUED, certificate="t@1:5f"),
        )

    assert finish().certificate == "t@1:5f"
    with pytest.raises(StateError, match="finished already"):
        finish()
    assert _take(inventory, "two", at=timedelta(days=1)) == []


def test_a_released_request_is_free_at_once_under_a_new_fence(inventory: Inventory) -> None:
    _queue(inventory, "i1")
    (taken,) = _take(inventory, "one")
    inventory.write(lambda tx: tx.release_issuance("i1", fence=taken.fence))
    assert inventory.get_issuance("i1").state is IssuanceState.QUEUED
    assert _take(inventory, "two")[0].fence == taken.fence + 1


def test_an_outcome_must_be_one(inventory: Inventory) -> None:
    _queue(inventory, "i1")
    with pytest.raises(StateError, match="is not an outcome"):
        do(inventory, lambda tx: tx.finish_issuance("i1", fence=0, state=IssuanceState.TAKEN))


def _operations(inventory: Inventory, *names: str) -> None:
    add_station(inventory)
    for number, name in enumerate(names):
        record = dataclasses.replace(operation_record(name), created_at=NOW + timedelta(seconds=number))
        do(inventory, lambda tx, record=record: tx.create_operation(record))  # type: ignore[misc]  # bound early


def _lease(inventory: Inventory, owner: str, *, at: timedelta = timedelta(0)) -> OperationRecord | None:
    now = NOW + at
    return inventory.write(lambda tx: tx.lease_operation(owner=owner, until=now + MINUTE, now=now, station="CS-1"))


def test_an_operation_needs_its_station(inventory: Inventory) -> None:
    with pytest.raises(NotFound, match="there is no station CS-1"):
        do(inventory, lambda tx: tx.create_operation(operation_record()))


def test_the_oldest_operation_of_a_station_is_leased_and_never_overtaken(inventory: Inventory) -> None:
    _operations(inventory, "o2", "o1")
    first = _lease(inventory, "one")
    assert first is not None
    assert (first.id, first.state, first.fence, first.lease_owner) == ("o2", OperationState.RUNNING, 1, "one")
    assert _lease(inventory, "two") is None
    again = _lease(inventory, "one", at=MINUTE / 2)
    assert again is not None
    assert (again.id, again.fence, again.lease_until) == ("o2", 1, NOW + MINUTE * 1.5)


def test_an_unanswered_attempt_makes_the_outcome_unknown_to_the_next_worker(inventory: Inventory) -> None:
    _operations(inventory, "o1")
    first = _lease(inventory, "one")
    assert first is not None
    attempt = do(inventory, lambda tx: tx.record_attempt("o1", fence=1, action="TriggerMessage", now=NOW))
    assert (attempt.number, attempt.answered_at) == (1, None)
    second = _lease(inventory, "two", at=MINUTE)
    assert second is not None
    assert (second.state, second.fence) == (OperationState.UNKNOWN, 2)
    with pytest.raises(Conflict, match="was lost"):
        do(inventory, lambda tx: tx.record_answer("o1", 1, fence=1, now=NOW, answer={}))
    answered = do(inventory, lambda tx: tx.record_answer("o1", 1, fence=2, now=NOW, answer={"status": "Accepted"}))
    assert inventory.list_attempts("o1") == (answered,)
    marked = inventory.write(lambda tx: tx.mark_operation("o1", fence=2, state=OperationState.RUNNING))
    assert marked.state is OperationState.RUNNING


def test_an_operation_that_waits_as_unknown_stays_so(inventory: Inventory) -> None:
    _operations(inventory, "o1")
    assert _lease(inventory, "one") is not None
    inventory.write(lambda tx: tx.release_operation("o1", fence=1, unknown=True))
    assert inventory.get_operation("o1").state is OperationState.UNKNOWN
    again = _lease(inventory, "two")
    assert again is not None
    assert again.state is OperationState.UNKNOWN


def test_the_outcome_erases_the_secret_and_the_stale_worker_cannot_write_it(
    inventory: Inventory, log_key: AuditKey
) -> None:
    _operations(inventory, "o1")
    assert _lease(inventory, "one") is not None
    assert _lease(inventory, "two", at=MINUTE) is not None

    def finish(fence: int) -> OperationRecord:
        return do(inventory, lambda tx: tx.finish_operation("o1", fence, OperationState.DONE, {"status": "Accepted"}))

    with pytest.raises(Conflict, match="was lost"):
        finish(1)
    assert inventory.get_operation("o1").sealed == b"sealed"
    done = finish(2)
    assert (done.state, done.sealed, done.outcome) == (OperationState.DONE, None, {"status": "Accepted"})
    with pytest.raises(StateError, match="finished already"):
        finish(2)
    assert _lease(inventory, "one", at=timedelta(days=1)) is None
    assert inventory.list_operations(station="CS-1", open_only=True) == ()
    assert inventory.list_operations(station="CS-1") == (done,)
    assert inventory.list_operations(open_only=True) == ()
    assert verify_log(inventory, pinned_keys=[log_key.public]).ok


def test_an_operation_is_leased_by_its_id(inventory: Inventory) -> None:
    _operations(inventory, "o1", "o2")
    leased = inventory.write(lambda tx: tx.lease_operation(owner="one", until=NOW + MINUTE, now=NOW, id="o2"))
    assert leased is not None
    assert leased.id == "o2"
    with pytest.raises(TypeError, match="a station or an id"):
        inventory.write(lambda tx: tx.lease_operation(owner="one", until=NOW + MINUTE, now=NOW))
