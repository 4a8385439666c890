"""Operations in the inventory: durable attempts, fenced leases, erased secrets, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import (
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Wait,
    next_step,
    read_answer,
)
from chargepki.ocpp_security.operations_profile import profile_parameters
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import Conflict, NotFound, SignerError, StateError
from chargepki.pki.inventory import AuditKey, Inventory, SealingKey, Transaction, verify_log
from chargepki.pki.inventory.records import (
    Actor,
    ActorKind,
    OperationRecord,
    OperationState,
    PresenceRecord,
    StationRecord,
)
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url
from testkit.flows import NOW, station_record

__all__ = ["database_url", "postgresql_server", "postgresql_url", "sqlite_url"]  # fixtures

ACTOR = Actor("alice", ActorKind.OS_USER, authenticated=False)
CSMS = Actor("csms-1", ActorKind.SYSTEM, authenticated=True)
USE = {"use": CertificateUse.CHARGING_STATION.value}
MINUTE = timedelta(minutes=1)
SECRET = PasswordSecret(b"new-new-new-new-", "$new")
ACCEPTED = {"setVariableResult": [{"attributeStatus": "Accepted"}]}


@dataclass
class Rig:
    inventory: Inventory
    key: AuditKey
    first: OperationStore
    second: OperationStore

    def create(self, kind: OperationKind, **more: object) -> OperationRecord:
        options: dict[str, object] = {
            "operation_id": new_operation_id(),
            "actor": ACTOR,
            "now": NOW,
            "deadline": NOW + timedelta(hours=1),
            "secret": SECRET if kind is OperationKind.SET_PASSWORD else None,
        }
        parameters = USE if kind is OperationKind.TRIGGER_RENEWAL else {}
        return self.first.create(kind, "CS1", parameters, **{**options, **more})  # type: ignore[arg-type]  # by name

    def snapshot(self, operation: OperationRecord) -> Snapshot:
        return self.first.snapshot(operation, version=OcppVersion.V201, security_profile=2)

    @property
    def station(self) -> StationRecord:
        return self.inventory.get_station("CS1")


@pytest.fixture
def rig(database_url: str, tmp_path: Path) -> Iterator[Rig]:
    key = AuditKey.load_or_create(tmp_path / "log.key")
    sealing = SealingKey.load_or_create(tmp_path / "sealing.key")
    with Inventory.open(database_url, log_key=key) as inventory:

        def add(tx: Transaction) -> None:
            tx.add_station(station_record(password_hash="$old"))
            tx.audit(ACTOR, "station.add", "CS1", now=NOW)

        inventory.write(add)
        yield Rig(
            inventory,
            key,
            OperationStore(inventory, sealing, owner="csms-1", actor=CSMS),
            OperationStore(inventory, sealing, owner="csms-2", actor=CSMS),
        )
        assert verify_log(inventory, checkpoint=None, pinned_keys=[key.public]).findings == ()


def lease(store: OperationStore, minutes: int = 0) -> OperationRecord:
    operation = store.lease("CS1", NOW + minutes * MINUTE, duration=MINUTE)
    assert operation is not None
    return operation


def test_a_password_is_changed_from_request_to_record(rig: Rig) -> None:
    rig.create(OperationKind.SET_PASSWORD)
    operation = lease(rig.first)
    step = next_step(rig.snapshot(operation), NOW)
    assert isinstance(step, SendAttempt)
    attempt = rig.first.begin_attempt(operation, step, NOW)
    assert (rig.station.password_hash, rig.station.pending_password_hash) == ("$old", "$new"), "both, before sending"
    rig.first.record_answer(operation, attempt, read_answer(operation, OcppVersion.V201, ACCEPTED), NOW)
    done = next_step(rig.snapshot(operation), NOW)
    assert isinstance(done, Finish)
    finished = rig.first.finish(operation, done, NOW)
    assert (rig.station.password_hash, rig.station.pending_password_hash) == ("$new", None)
    assert rig.station.password_changed_at == NOW
    assert finished.state is OperationState.DONE and finished.sealed is None, "the secret is erased"


@pytest.mark.parametrize(("seen_on", "expected"), [(3, 3), (2, 2)])
def test_a_lowering_that_runs_out_expects_what_the_station_was_last_seen_on(
    rig: Rig, seen_on: int, expected: int
) -> None:
    presence = PresenceRecord("CS1", True, "csms-1", "l1", "ocpp2.0.1", seen_on, None, "127.0.0.1", NOW, NOW)

    def is_on_3(tx: Transaction) -> None:
        tx.update_station("CS1", security_profile=3)
        tx.audit(ACTOR, "station.add", "CS1", now=NOW)
        tx.set_presence(presence)

    rig.inventory.write(is_on_3)
    operation = rig.first.create(
        OperationKind.SET_PROFILE, "CS1", profile_parameters(2, url="wss://csms.example", downgrade=True),
        operation_id="op-1", actor=ACTOR, now=NOW, deadline=NOW + MINUTE,
    )  # fmt: skip
    rig.first.begin_attempt(lease(rig.first), SendAttempt("Reset", {"type": "OnIdle"}, lets_in=2), NOW)
    assert rig.station.security_profile == 2, "let in from the reset on"
    # The station does not come back in time, and is offline.
    rig.inventory.write(lambda tx: tx.clear_presence("CS1", "l1", now=NOW))
    (expired,) = rig.second.expire_due(NOW + 2 * MINUTE)
    assert (expired.id, expired.state) == (operation.id, OperationState.EXPIRED)
    assert rig.station.security_profile == expected
    told = [entry.details for entry in rig.inventory.list_audit() if entry.action == "station.change"]
    assert [item["security_profile"] for item in told if item] == ([2] if expected == 2 else [2, 3])


def test_no_secret_is_stored_in_the_clear(rig: Rig, tmp_path: Path) -> None:
    created = rig.create(OperationKind.SET_PASSWORD)
    assert created.sealed is not None and SECRET.password not in created.sealed
    for entry in rig.inventory.list_audit():
        assert "new-new" not in str(entry)
    other = OperationStore(rig.inventory, SealingKey(bytes(32)), owner="x", actor=CSMS)
    with pytest.raises(SignerError):
        other.snapshot(created, version=OcppVersion.V201, security_profile=2)


def test_two_processes_never_act_on_one_operation(rig: Rig) -> None:
    rig.create(OperationKind.TRIGGER_RENEWAL)
    operation = lease(rig.first)
    assert rig.second.lease("CS1", NOW, duration=MINUTE) is None
    step = next_step(rig.snapshot(operation), NOW)
    assert isinstance(step, SendAttempt)
    taken = lease(rig.second, 2)
    assert taken.fence == operation.fence + 1
    with pytest.raises(Conflict, match="lease"):
        rig.first.begin_attempt(operation, step, NOW + 2 * MINUTE)
    with pytest.raises(Conflict, match="lease"):
        rig.first.finish(operation, Finish(OperationState.DONE, {}), NOW + 2 * MINUTE)
    assert rig.inventory.list_attempts(operation.id) == ()


def test_an_attempt_without_answer_makes_the_next_process_see_an_unknown_outcome(rig: Rig) -> None:
    rig.create(OperationKind.SET_PASSWORD)
    operation = lease(rig.first)
    step = next_step(rig.snapshot(operation), NOW)
    assert isinstance(step, SendAttempt)
    rig.first.begin_attempt(operation, step, NOW)
    # The first process dies here.
    taken = lease(rig.second, 2)
    assert taken.state is OperationState.UNKNOWN
    rig.second.record_answer(taken, rig.inventory.list_attempts(taken.id)[0], None, NOW)
    assert not isinstance(next_step(rig.snapshot(taken), NOW + 2 * MINUTE), SendAttempt), "not before it is read back"
    assert rig.second.password_used("CS1", "$new", NOW).password_hash == "$new"
    done = next_step(rig.snapshot(taken), NOW + 2 * MINUTE)
    assert isinstance(done, Finish) and done.state is OperationState.DONE


def test_a_connection_with_the_old_password_changes_nothing_on_record(rig: Rig) -> None:
    assert rig.first.password_used("CS1", "$old", NOW).password_hash == "$old"
    assert rig.first.password_used("CS1", "$other", NOW).password_hash == "$old"


def test_an_operation_that_is_open_already_is_not_created_again(rig: Rig) -> None:
    rig.create(OperationKind.TRIGGER_RENEWAL)
    with pytest.raises(StateError, match="under way"):
        rig.create(OperationKind.TRIGGER_RENEWAL)
    rig.create(OperationKind.SET_PASSWORD)


def test_an_unknown_or_removed_station_and_a_passed_deadline_are_refused(rig: Rig) -> None:
    with pytest.raises(NotFound):
        rig.first.create(
            OperationKind.TRIGGER_RENEWAL, "CS9", USE, operation_id="op-9", actor=ACTOR, now=NOW, deadline=NOW + MINUTE
        )
    with pytest.raises(StateError, match="deadline"):
        rig.create(OperationKind.TRIGGER_RENEWAL, deadline=NOW)

    def remove(tx: Transaction) -> None:
        tx.remove_station("CS1")
        tx.audit(ACTOR, "station.remove", "CS1", now=NOW)

    rig.inventory.write(remove)
    with pytest.raises(StateError, match="removed"):
        rig.create(OperationKind.TRIGGER_RENEWAL)
    assert rig.inventory.list_operations() == ()


def test_operations_of_offline_stations_expire_at_their_deadline(rig: Rig) -> None:
    created = rig.create(OperationKind.SET_PASSWORD)
    assert rig.first.expire_due(NOW + timedelta(minutes=59)) == []
    (expired,) = rig.first.expire_due(NOW + timedelta(hours=1))
    assert expired.id == created.id and expired.state is OperationState.EXPIRED and expired.sealed is None
    assert rig.first.expire_due(NOW + timedelta(hours=2)) == []


def test_a_record_only_change_wins_over_a_pending_one_that_is_dropped_later(rig: Rig) -> None:
    rig.create(OperationKind.SET_PASSWORD)
    operation = lease(rig.first)
    step = next_step(rig.snapshot(operation), NOW)
    assert isinstance(step, SendAttempt)
    rig.first.begin_attempt(operation, step, NOW)
    rig.first.record_password("CS1", "$typed", actor=ACTOR, now=NOW)
    dropped = Finish(OperationState.FAILED, {}, PasswordChange(PasswordStep.DROP, "$new"))
    rig.first.finish(operation, dropped, NOW)
    assert (rig.station.password_hash, rig.station.pending_password_hash) == ("$typed", None)


def test_what_an_operation_waits_in_is_recorded_and_a_lease_is_given_back(rig: Rig) -> None:
    created = rig.create(OperationKind.TRIGGER_RENEWAL)
    operation = lease(rig.first)
    rig.first.mark(operation, Wait("x", NOW, OperationState.UNKNOWN))
    assert rig.inventory.get_operation(created.id).state is OperationState.UNKNOWN
    rig.first.release(operation, unknown=False)
    assert lease(rig.second).id == replace(created).id
