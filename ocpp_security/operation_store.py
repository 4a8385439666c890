"""Operations on stations in the inventory: create, lease, record each attempt before it is sent, finish."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from chargepki.ocpp_security.firmware_facts import firmware_facts
from chargepki.ocpp_security.log_store import close_log, note_filename
from chargepki.ocpp_security.operations import (
    TRUST_KINDS,
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Wait,
    check_parameters,
    expire,
)
from chargepki.ocpp_security.password_record import promote_password
from chargepki.ocpp_security.profile_needs import root_order
from chargepki.ocpp_security.trust_facts import note_trust_answer, trust_facts
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory, SealingKey, Transaction
from chargepki.pki.inventory.records import (
    Actor,
    AttemptRecord,
    CertificateRecord,
    OperationRecord,
    OperationState,
    StationRecord,
    StationState,
)

__all__ = ["Lane", "OperationStore", "add_operation", "end_operation", "new_operation_id"]


class Lane(StrEnum):
    """Operations of one station that are carried out in turn."""

    ORDINARY = "ordinary"
    FIRMWARE = "firmware"
    """An update takes hours or days; a renewal or a log must not wait for it."""

    def holds(self, kind: str) -> bool:
        """Say whether operations of *kind* belong here."""
        return (kind == OperationKind.UPDATE_FIRMWARE) is (self is Lane.FIRMWARE)


def new_operation_id() -> str:
    """Return a random operation id (for the outermost shells; everything else takes it as an argument)."""
    return f"op-{secrets.token_hex(8)}"


class OperationStore:
    """The durable side of operations; every method is one transaction and blocks until its commit.

    Order of work for the process that holds a station's connection: `lease`, `snapshot`, `operations.next_step`, then
    `begin_attempt` before sending and `record_answer` after it, or `finish`; then again from `snapshot`.
    """

    def __init__(self, inventory: Inventory, sealing: SealingKey, *, owner: str, actor: Actor) -> None:
        """Set up.

        Args:
            owner: name of this process in leases, unique among all that share the inventory.
            actor: who carries operations out, for the audit log; `create` names who asked.
        """
        self._inventory = inventory
        self._sealing = sealing
        self._owner = owner
        self._actor = actor

    def create(
        self,
        kind: OperationKind,
        station: str,
        parameters: Mapping[str, object],
        *,
        operation_id: str,
        actor: Actor,
        now: datetime,
        deadline: datetime,
        secret: PasswordSecret | None = None,
        within: Callable[[Transaction, OperationRecord], None] | None = None,
    ) -> OperationRecord:
        """Queue an operation; it waits for the station to connect, until its deadline.

        Args:
            within: runs in the same transaction, after the operation was stored.

        Raises:
            InputError: wrong parameters.
            NotFound: no such station.
            StateError: the station is removed, the deadline has passed, or the same operation is open already.
        """
        record = self.build(
            kind,
            station,
            parameters,
            operation_id=operation_id,
            actor=actor,
            now=now,
            deadline=deadline,
            secret=secret,
        )
        return self._inventory.write(lambda tx: add_operation(tx, record, actor=actor, now=now, within=within))

    def build(
        self,
        kind: OperationKind,
        station: str,
        parameters: Mapping[str, object],
        *,
        operation_id: str,
        actor: Actor,
        now: datetime,
        deadline: datetime,
        secret: PasswordSecret | None = None,
    ) -> OperationRecord:
        """Return an operation that may be stored with `add_operation`; its secret is sealed.

        Raises:
            InputError: wrong parameters.
            StateError: the deadline has passed.
        """
        check_parameters(kind, parameters, secret)
        if deadline <= now:
            raise StateError("the deadline of the operation has passed already", fix="give it more time")
        return OperationRecord(
            id=operation_id,
            kind=kind.value,
            station=station,
            parameters=dict(parameters),
            state=OperationState.QUEUED,
            requester=actor.name,
            created_at=now,
            deadline=deadline,
            sealed=self._sealing.seal(secret.to_bytes(), operation_id) if secret is not None else None,
        )

    def lease(
        self, station: str, now: datetime, *, duration: timedelta, lane: Lane = Lane.ORDINARY
    ) -> OperationRecord | None:
        """Lease the station's oldest open operation, or extend our lease on it; ``None`` if there is none to have.

        Args:
            lane: of which; those of one lane are carried out in turn, and lanes do not wait for each other.
        """
        return self._inventory.write(
            lambda tx: tx.lease_operation(
                owner=self._owner, until=now + duration, now=now, station=station, only=lane.holds
            )
        )

    def has_open(self, station: str, lane: Lane) -> bool:
        """Say whether anything waits in *lane*, without writing."""
        return any(lane.holds(item.kind) for item in self._inventory.list_operations(station=station, open_only=True))

    def release(self, operation: OperationRecord, *, unknown: bool) -> None:
        """Give a lease back, for example because the connection was lost."""
        self._inventory.write(lambda tx: tx.release_operation(operation.id, fence=operation.fence, unknown=unknown))

    def snapshot(
        self,
        operation: OperationRecord,
        *,
        version: OcppVersion,
        security_profile: int,
        allowed_unsecured: bool = False,
        sent_here: bool = False,
        booted_here: bool = False,
        password_sent_here: bool = False,
        admitted_pending: str | None = None,
        profile: str | None = None,
        delivered: str | None = None,
        refusal: str | None = None,
        now: datetime | None = None,
    ) -> Snapshot:
        """Read what `operations.next_step` needs.

        Args:
            allowed_unsecured: see `Snapshot`, as for `sent_here`, `booted_here`, `password_sent_here` and
                `admitted_pending`.
            profile: id of the certificate profile that the triggered use is issued under, for `trigger-renewal`
                and `set-profile`.
            delivered: see `Snapshot.delivered`.
            refusal: see `Snapshot.refusal`.
            now: when releases are judged; the present unless given.

        Raises:
            SignerError: the secret was sealed under another workspace's key.
        """
        certificates: tuple[CertificateRecord, ...] = ()
        if operation.kind in (OperationKind.TRIGGER_RENEWAL, OperationKind.SET_PROFILE) and profile is not None:
            certificates = tuple(self._inventory.list_certificates(station=operation.station, profile=profile))
        secret = None
        if operation.sealed is not None:
            secret = PasswordSecret.from_bytes(self._sealing.open(operation.sealed, operation.id))
        firmware = None
        if operation.kind == OperationKind.UPDATE_FIRMWARE:
            firmware = firmware_facts(self._inventory, self._sealing, operation, version, now or datetime.now(UTC))
        about_roots = _about_roots(operation)
        return Snapshot(
            operation=operation,
            attempts=self._inventory.list_attempts(operation.id),
            station=self._inventory.get_station(operation.station),
            version=version,
            security_profile=security_profile,
            allowed_unsecured=allowed_unsecured,
            sent_here=sent_here,
            booted_here=booted_here,
            password_sent_here=password_sent_here,
            admitted_pending=admitted_pending,
            secret=secret,
            certificates=certificates,
            delivered=delivered,
            refusal=refusal,
            firmware=firmware,
            trust=trust_facts(self._inventory, about_roots) if about_roots is not None else None,
        )

    def begin_attempt(self, operation: OperationRecord, step: SendAttempt, now: datetime) -> AttemptRecord:
        """Record that the CALL of *step* is about to be sent; send it only after this has returned.

        Raises:
            Conflict: another process has the lease now; nothing may be sent.
        """

        def work(tx: Transaction) -> AttemptRecord:
            attempt = tx.record_attempt(
                operation.id, fence=operation.fence, action=step.recorded or step.action, now=now
            )
            if step.password is not None:
                _apply(tx, operation.station, step.password, now)
            if step.lets_in is not None:
                _expect(tx, operation, step.lets_in, actor=self._actor, now=now)
            tx.audit(
                self._actor,
                "operation.attempt",
                operation.id,
                now=now,
                details={
                    "station": operation.station,
                    "number": attempt.number,
                    "action": attempt.action,
                    **({"unsecured": True} if step.unsecured else {}),
                },
            )
            return attempt

        return self._inventory.write(work)

    def record_answer(
        self, operation: OperationRecord, attempt: AttemptRecord, answer: Mapping[str, object] | None, now: datetime
    ) -> None:
        """Record the answer to an attempt, as `operations.read_answer` gives it; ``None`` leaves it unanswered.

        Raises:
            Conflict: another process has the lease now.
        """

        def work(tx: Transaction) -> None:
            if answer is None:
                tx.mark_operation(operation.id, fence=operation.fence, state=OperationState.UNKNOWN)
                return
            tx.record_answer(operation.id, attempt.number, fence=operation.fence, now=now, answer=answer)
            if operation.kind == OperationKind.GET_LOG and isinstance(answer.get("filename"), str):
                note_filename(tx, operation.id, str(answer["filename"]))
            about_roots = _about_roots(operation)
            if about_roots is not None:
                note_trust_answer(tx, about_roots, attempt, answer, now)
            tx.audit(
                self._actor,
                "operation.answer",
                operation.id,
                now=now,
                details={"station": operation.station, "number": attempt.number, "answer": dict(answer)},
            )

        self._inventory.write(work)

    def mark(self, operation: OperationRecord, step: Wait) -> None:
        """Record what the operation waits in: RUNNING, or UNKNOWN."""
        self._inventory.write(lambda tx: tx.mark_operation(operation.id, fence=operation.fence, state=step.state))

    def finish(self, operation: OperationRecord, step: Finish, now: datetime) -> OperationRecord:
        """Record the outcome, erase the secret, and change the station's passwords in the same transaction.

        Raises:
            Conflict: another process has the lease now.
        """

        return self._inventory.write(lambda tx: end_operation(tx, operation, step, actor=self._actor, now=now))

    def expire_due(self, now: datetime) -> list[OperationRecord]:
        """Finish every operation whose deadline has passed and that nobody works on; offline stations included."""
        finished = []
        for candidate in self._inventory.list_operations(open_only=True):
            if now < candidate.deadline:
                continue
            leased = self._inventory.write(
                lambda tx, id=candidate.id: tx.lease_operation(  # type: ignore[misc]  # mypy cannot infer the default
                    owner=self._owner, until=now + timedelta(seconds=30), now=now, id=id
                )
            )
            if leased is not None:
                finished.append(self.finish(leased, expire(leased, self._inventory.list_attempts(leased.id)), now))
        return finished

    def password_used(self, station: str, matched_hash: str, now: datetime) -> StationRecord:
        """Take the evidence that a station connected with the password of *matched_hash*.

        When that is the pending one, it goes on record and the old one is refused from now on.

        Clause: A01.FR.03.
        """

        def work(tx: Transaction) -> StationRecord:
            before = tx.get_station(station)
            if before.pending_password_hash != matched_hash:
                return before
            after = _apply(tx, station, PasswordChange(PasswordStep.PROMOTE, matched_hash), now)
            tx.audit(self._actor, "station.password", station, now=now, details={"shown_by": "connection"})
            return after

        return self._inventory.write(work)

    def record_password(self, station: str, password_hash: str, *, actor: Actor, now: datetime) -> StationRecord:
        """Correct the record without talking to the station (`--record-only`); a pending password is forgotten."""

        def work(tx: Transaction) -> StationRecord:
            after = tx.update_station(
                station, password_hash=password_hash, pending_password_hash=None, password_changed_at=now
            )
            tx.audit(actor, "station.password", station, now=now, details={"record_only": True})
            return after

        return self._inventory.write(work)


def add_operation(
    tx: Transaction,
    record: OperationRecord,
    *,
    actor: Actor,
    now: datetime,
    within: Callable[[Transaction, OperationRecord], None] | None = None,
) -> OperationRecord:
    """Store a new operation, with its audit entry; whatever refuses it does so before anything is written.

    Args:
        within: runs after the operation was stored, and before its audit entry.

    Raises:
        NotFound: no such station.
        StateError: the station is removed, or the same operation is open already.
    """
    if tx.get_station(record.station).state is not StationState.ACTIVE:
        raise StateError(
            f"station {record.station} is removed", fix=f"bring it back with `station add {record.station}`"
        )
    for other in tx.list_operations(station=record.station, open_only=True):
        same = dict(other.parameters) == dict(record.parameters)
        if record.kind == OperationKind.UPDATE_FIRMWARE:
            # Two updates at once make no sense on a station, unless one shall take the other's place.
            same = not record.parameters.get("replace")
        if record.kind == OperationKind.GET_LOG:
            # A newer request for a log replaces the older one (N01.FR.12).
            same = False
        if other.kind == record.kind and same:
            raise StateError(
                f"{record.kind} is under way on {record.station} already ({other.id})",
                why=f"it is {other.state.value} until {other.deadline:%Y-%m-%d %H:%M:%S} UTC",
                fix="wait for its outcome"
                + ("; or pass --replace" if record.kind == OperationKind.UPDATE_FIRMWARE else ""),
            )
    tx.create_operation(record)
    if within is not None:
        within(tx, record)
    tx.audit(actor, "operation.create", record.id, now=now, details={"kind": record.kind, "station": record.station})
    return record


def end_operation(
    tx: Transaction, operation: OperationRecord, step: Finish, *, actor: Actor, now: datetime
) -> OperationRecord:
    """Record the outcome of a leased operation and what it means for passwords and logs, with its audit entry.

    Raises:
        Conflict: another process has the lease now.
    """
    if step.password is not None:
        _apply(tx, operation.station, step.password, now)
    shown = step.security_profile if step.security_profile is not None else _shown_profile(tx, operation, step)
    if shown is not None:
        expected = tx.get_station(operation.station).security_profile
        _expect(tx, operation, max(expected, shown), actor=actor, now=now)
    finished = tx.finish_operation(operation.id, operation.fence, step.state, step.outcome)
    if operation.kind == OperationKind.GET_LOG:
        close_log(tx, operation)
    tx.audit(
        actor,
        "operation.finish",
        operation.id,
        now=now,
        outcome="done" if step.state is OperationState.DONE else "refused",
        details={"station": operation.station, "state": step.state.value, **step.outcome},
    )
    return finished


def _about_roots(operation: OperationRecord) -> OperationRecord | None:
    """Return the operation about roots that *operation* is or begins with."""
    if operation.kind in TRUST_KINDS:
        return operation
    return root_order(operation) if operation.kind == OperationKind.SET_PROFILE else None


def _shown_profile(tx: Transaction, operation: OperationRecord, step: Finish) -> int | None:
    """Return what a station that was to be lowered is expected on when nothing has shown that it was.

    With the reset the lower profile was let in. One that ends without having seen the station there, by its deadline
    for one, expects what the last connection was made on. A station that is lowered after all keeps its old slot
    behind the new one (B10.FR.03), and comes back on it.

    Clause: A05.FR.07.
    """
    is_lowering = operation.kind == OperationKind.SET_PROFILE and bool(operation.parameters.get("downgrade"))
    if not is_lowering or step.state is OperationState.DONE:
        return None
    presence = tx.find_presence(operation.station)
    return presence.security_profile if presence is not None else None


def _expect(tx: Transaction, operation: OperationRecord, profile: int, *, actor: Actor, now: datetime) -> None:
    before = tx.get_station(operation.station).security_profile
    if before != profile:
        tx.update_station(operation.station, security_profile=profile)
        details = {"security_profile": profile, "before": before, "operation": operation.id}
        tx.audit(actor, "station.change", operation.station, now=now, details=details)


def _apply(tx: Transaction, station: str, change: PasswordChange, now: datetime) -> StationRecord:
    # Computed from the record inside the transaction: an operator's --record-only may have come in between.
    match change.step:
        case PasswordStep.PEND:
            return tx.update_station(station, pending_password_hash=change.new_hash)
        case PasswordStep.PROMOTE:
            return promote_password(tx, station, change.new_hash, now)
        case PasswordStep.DROP:
            record = tx.get_station(station)
            if record.pending_password_hash != change.new_hash:
                return record
            return tx.update_station(station, pending_password_hash=None)
