"""Alerts, their outbox and requested logs in the inventory, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chargepki.pki.errors import Conflict, NotFound
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.event_records import (
    AlertDeliveryRecord,
    AlertState,
    DeliveryState,
    LogRequestState,
)
from testkit.inventories import NOW, add_station, alert_record, do, requested_log_record

MINUTE = timedelta(minutes=1)


def test_alerts_are_found_by_state_scope_and_time_and_acknowledged(inventory: Inventory) -> None:
    for number in (1, 2, 3):
        record = alert_record(f"al-{number}", cause=number, scope=f"CS-{number}", raised_at=NOW + number * MINUTE)
        do(inventory, lambda tx, record=record: tx.add_alert(record))  # type: ignore[misc]  # a default binds the loop's value
    assert [alert.id for alert in inventory.list_alerts()] == ["al-3", "al-2", "al-1"]
    do(inventory, lambda tx: tx.acknowledge_alert("al-2", by="alice", now=NOW, note="a\x1b[2Jb"))
    assert [alert.id for alert in inventory.list_alerts(state=AlertState.OPEN)] == ["al-3", "al-1"]
    assert [alert.id for alert in inventory.list_alerts(scope="CS-1")] == ["al-1"]
    assert [alert.id for alert in inventory.list_alerts(since=NOW + 3 * MINUTE)] == ["al-3"]
    assert len(inventory.list_alerts(limit=1)) == 1
    seen = inventory.find_alert("al-2")
    assert seen is not None
    assert (seen.acknowledged_by, seen.acknowledged_at, seen.note) == ("alice", NOW, "a\\x1b[2Jb")
    assert inventory.last_alert_at("tampering", "CS-3") == NOW + 3 * MINUTE
    assert inventory.last_alert_at("tampering", "CS-9") is None
    with pytest.raises(NotFound):
        do(inventory, lambda tx: tx.acknowledge_alert("al-9", by="alice", now=NOW))
    with pytest.raises(Conflict):
        do(inventory, lambda tx: tx.add_alert(alert_record("al-1")))


def test_a_delivery_is_taken_by_one_and_only_its_own_outcome_counts(inventory: Inventory) -> None:
    do(inventory, lambda tx: tx.add_alert(alert_record()))
    first = AlertDeliveryRecord("al-1", "hook", DeliveryState.PENDING, 0, NOW)
    inventory.write(lambda tx: tx.put_alert_delivery(first))
    (due,) = inventory.list_due_deliveries(NOW)
    taken = inventory.write(lambda tx: tx.take_alert_delivery(due, now=NOW, lease=MINUTE))
    assert taken is not None
    assert (taken.attempts, taken.next_at) == (1, NOW + MINUTE)
    assert inventory.write(lambda tx: tx.take_alert_delivery(due, now=NOW, lease=MINUTE)) is None
    assert inventory.list_due_deliveries(NOW) == ()
    # Its process was slow, the lease ended, and another has tried meanwhile: the late outcome says nothing any more.
    again = inventory.write(lambda tx: tx.take_alert_delivery(taken, now=NOW + MINUTE, lease=MINUTE))
    assert again is not None
    inventory.write(lambda tx: tx.finish_alert_delivery(taken, DeliveryState.FAILED, now=NOW, error="late"))
    assert inventory.list_alert_deliveries("al-1")[0].state is DeliveryState.PENDING
    inventory.write(lambda tx: tx.finish_alert_delivery(again, DeliveryState.DELIVERED, now=NOW + MINUTE))
    (done,) = inventory.list_alert_deliveries("al-1")
    assert (done.state, done.done_at, done.attempts) == (DeliveryState.DELIVERED, NOW + MINUTE, 2)


def test_the_position_of_the_rules_is_kept(inventory: Inventory) -> None:
    assert inventory.alert_position("alerts") is None
    assert inventory.last_event_change() == 0
    for position in (3, 7):
        inventory.write(lambda tx, position=position: tx.set_alert_position("alerts", position))  # type: ignore[misc]  # a default binds the loop's value
    assert inventory.alert_position("alerts") == 7


def test_a_requested_log_is_found_by_token_and_request_and_received_once(inventory: Inventory) -> None:
    add_station(inventory)
    assert inventory.write(lambda tx: tx.next_log_request("CS-1")) == 1
    do(inventory, lambda tx: tx.add_requested_log(requested_log_record("o1")))
    do(inventory, lambda tx: tx.add_requested_log(requested_log_record("o2", request_id=2, created_at=NOW + MINUTE)))
    assert inventory.write(lambda tx: tx.next_log_request("CS-1")) == 3
    assert [log.id for log in inventory.list_requested_logs()] == ["o2", "o1"]
    assert inventory.list_requested_logs(station="CS-2") == ()
    found = inventory.find_requested_log_by_token("o1-digest")
    assert found is not None and found == inventory.find_requested_log_by_request("CS-1", 1)
    assert [log.id for log in inventory.list_open_log_requests("CS-1")] == ["o1", "o2"]
    received = LogRequestState.RECEIVED
    do(inventory, lambda tx: tx.update_requested_log("o1", state=received, size=2**40, received_at=NOW))
    assert inventory.get_requested_log("o1").size == 2**40
    for state in (LogRequestState.RECEIVED,):
        with pytest.raises(Conflict):
            do(inventory, lambda tx, state=state: tx.update_requested_log("o1", state=state))  # type: ignore[misc]  # a default binds the loop's value
    do(inventory, lambda tx: tx.update_requested_log("o2", state=LogRequestState.CLOSED))
    with pytest.raises(Conflict):
        do(inventory, lambda tx: tx.update_requested_log("o2", state=LogRequestState.RECEIVED))
    assert inventory.list_open_log_requests("CS-1") == ()
    with pytest.raises(NotFound):
        inventory.get_requested_log("o3")
