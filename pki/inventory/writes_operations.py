"""Typed writes on queued issuance and on operations: leases with fencing numbers, attempts, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from chargepki.pki.errors import Conflict, StateError
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.reads import decode_issuance
from chargepki.pki.inventory.records import (
    AttemptRecord,
    IssuanceRecord,
    IssuanceState,
    OperationRecord,
    OperationState,
)
from chargepki.pki.inventory.writes import Writes

__all__ = ["OperationWrites"]


class OperationWrites(Writes):
    """Mixin of `Transaction`. Leases are coordination, not evidence: taking or dropping one needs no audit entry."""

    __slots__ = ()

    # -- queued issuance ----------------------------------------------------------------------------------------

    def queue_issuance(self, record: IssuanceRecord) -> None:
        """Queue a request for `authority serve`.

        Raises:
            Conflict: the id is taken.
            StateError: the record is not in state QUEUED.
        """
        if record.state is not IssuanceState.QUEUED:
            raise StateError("an issuance request enters the inventory as queued")
        self._add(codec.ISSUANCE, record, "the issuance request")

    def take_issuances(self, owner: str, lease: datetime, now: datetime, limit: int) -> list[IssuanceRecord]:
        """Lease up to *limit* open requests that nobody holds at *now*, oldest first.

        Args:
            lease: until when *owner* may work on them, exclusive.
        """
        rows = self._rows("issuances_free", {"now": encode_time(now), "limit": limit})
        taken = []
        for row in rows:
            record = decode_issuance(row)
            self._put_lease("issuance", record.id, owner, lease, record.fence + 1, IssuanceState.TAKEN)
            taken.append(self.get_issuance(record.id))
        return taken

    def release_issuance(self, issuance_id: str, *, fence: int) -> None:
        """Give a leased request back to the queue.

        Raises:
            Conflict: the lease was lost to somebody else.
        """
        self._check_fence("issuance", issuance_id, fence)
        self._put_lease("issuance", issuance_id, None, None, fence, IssuanceState.QUEUED)

    def finish_issuance(
        self,
        issuance_id: str,
        *,
        fence: int,
        state: IssuanceState,
        certificate: str | None = None,
        refusal: Mapping[str, object] | None = None,
    ) -> IssuanceRecord:
        """Record the outcome of a leased request.

        Args:
            state: ISSUED (with *certificate*, its id) or REFUSED (with *refusal*: code, what, why, fix).

        Raises:
            Conflict: the lease was lost to somebody else.
            StateError: it is finished already, or *state* is not final.
        """
        if state not in (IssuanceState.ISSUED, IssuanceState.REFUSED):
            raise StateError(f"{state} is not an outcome of an issuance request")
        before = self._stored(codec.ISSUANCE, "issuance request", id=issuance_id)
        self._check_fence("issuance", issuance_id, fence)
        if before["state"] != IssuanceState.QUEUED:
            raise StateError(f"the issuance request {issuance_id} was finished already")
        after = {
            **before,
            "state": str(state),
            "certificate": certificate,
            "refusal": None if refusal is None else codec.dump_json(dict(refusal), "the refusal"),
        }
        self._update(codec.ISSUANCE, before, after)
        self._put_lease("issuance", issuance_id, None, None, fence, state)
        return self.get_issuance(issuance_id)

    # -- operations ---------------------------------------------------------------------------------------------

    def create_operation(self, record: OperationRecord) -> None:
        """Store a new operation on a station.

        Raises:
            Conflict: the id is taken.
            NotFound: there is no such station.
            StateError: the record is not in state QUEUED.
        """
        if record.state is not OperationState.QUEUED:
            raise StateError("an operation enters the inventory as queued")
        self.get_station(record.station)
        self._add(codec.OPERATION, record, "the operation")

    def lease_operation(
        self,
        *,
        owner: str,
        until: datetime,
        now: datetime,
        station: str | None = None,
        id: str | None = None,
        only: Callable[[str], bool] | None = None,
    ) -> OperationRecord | None:
        """Lease the oldest open operation of a station, or the one with this id; a second call by the owner extends.

        Returns ``None`` while somebody else holds it: the operations of one station never overtake each other.
        An operation whose last attempt has no answer comes back as UNKNOWN: read the station before sending again.
        One past its deadline is leased too, so that somebody can record that it expired.

        Args:
            until: exclusive end of the lease.
            only: with a station, the kinds to choose from; those never overtake each other.
        """
        if (station is None) == (id is None):
            raise TypeError("lease_operation() takes a station or an id")
        if id is not None:
            record = self.find_operation(id)
        else:
            waiting = self.list_operations(station=station, open_only=True, limit=1 if only is None else 1000)
            record = next((item for item in waiting if only is None or only(item.kind)), None)
        if record is None or record.state.is_final:
            return None
        held = record.lease_owner is not None and record.lease_until is not None and record.lease_until > now
        if held and record.lease_owner != owner:
            return None
        attempts = self.list_attempts(record.id)
        unanswered = bool(attempts) and attempts[-1].answered_at is None
        state = (
            OperationState.UNKNOWN if unanswered or record.state is OperationState.UNKNOWN else OperationState.RUNNING
        )
        fence = record.fence if held else record.fence + 1
        self._put_lease("operation", record.id, owner, until, fence, state)
        return self.get_operation(record.id)

    def release_operation(self, operation_id: str, *, fence: int, unknown: bool = False) -> None:
        """Give a leased operation back; *unknown* says that an attempt may or may not have reached the station.

        Raises:
            Conflict: the lease was lost to somebody else.
        """
        self._check_fence("operation", operation_id, fence)
        state = OperationState.UNKNOWN if unknown else OperationState.QUEUED
        self._put_lease("operation", operation_id, None, None, fence, state)

    def mark_operation(self, operation_id: str, *, fence: int, state: OperationState) -> OperationRecord:
        """Say whether a leased operation is RUNNING or UNKNOWN.

        Raises:
            Conflict: the lease was lost to somebody else.
            StateError: another state (`finish_operation` records outcomes).
        """
        if state not in (OperationState.RUNNING, OperationState.UNKNOWN):
            raise StateError(f"{state} is not a state of an operation at work")
        self._check_fence("operation", operation_id, fence)
        record = self.get_operation(operation_id)
        self._put_lease("operation", operation_id, record.lease_owner, record.lease_until, fence, state)
        return self.get_operation(operation_id)

    def record_attempt(self, operation_id: str, *, fence: int, action: str, now: datetime) -> AttemptRecord:
        """Record that *action* is about to be sent; commit before sending. Needs an audit entry.

        Raises:
            Conflict: the lease was lost to somebody else.
        """
        self._check_fence("operation", operation_id, fence)
        number = len(self.list_attempts(operation_id)) + 1
        record = AttemptRecord(operation=operation_id, number=number, sent_at=now, action=action)
        self._add(codec.ATTEMPT, record, "the attempt")
        return record

    def record_answer(
        self, operation_id: str, number: int, *, fence: int, now: datetime, answer: Mapping[str, object]
    ) -> AttemptRecord:
        """Record the station's answer to an attempt. Needs an audit entry.

        Args:
            answer: JSON data without secrets.

        Raises:
            Conflict: the lease was lost to somebody else.
            NotFound: there is no such attempt.
        """
        self._check_fence("operation", operation_id, fence)
        before = self._stored(codec.ATTEMPT, "attempt", operation=operation_id, number=number)
        return self._change(codec.ATTEMPT, before, {"answered_at": now, "answer": dict(answer)})

    def finish_operation(
        self, operation_id: str, fence: int, state: OperationState, outcome: Mapping[str, object]
    ) -> OperationRecord:
        """Record how an operation ended and erase its secret parameters. Needs an audit entry.

        Raises:
            Conflict: the lease was lost to somebody else.
            StateError: it is finished already, or *state* is not final.
        """
        if not state.is_final:
            raise StateError(f"{state} is not an outcome of an operation")
        before = self._stored(codec.OPERATION, "operation", id=operation_id)
        self._check_fence("operation", operation_id, fence)
        if OperationState(str(before["state"])).is_final:
            raise StateError(f"the operation {operation_id} was finished already")
        after = {
            **before,
            "state": str(state),
            "outcome": codec.dump_json(dict(outcome), "the outcome"),
            "sealed": None,
        }
        self._update(codec.OPERATION, before, after)
        self._put_lease("operation", operation_id, None, None, fence, state)
        return self.get_operation(operation_id)

    # -- leases -------------------------------------------------------------------------------------------------

    def _put_lease(
        self, kind: str, item: str, owner: str | None, until: datetime | None, fence: int, state: str
    ) -> None:
        parameters: dict[str, object] = {
            "kind": kind,
            "item": item,
            "owner": owner,
            "until": None if until is None else encode_time(until),
            "fence": fence,
            "state": str(state),
        }
        self._rows("lease_put", parameters)

    def _check_fence(self, kind: str, item: str, fence: int) -> None:
        rows = self._rows("lease_fence", {"kind": kind, "item": item})
        current = int(rows[0][0]) if rows else 0
        if current != fence:
            raise Conflict(
                f"the lease on {kind} {item} was lost",
                why=f"its fencing number is {current}, this worker's is {fence}",
                fix="leave the work to the process that holds the lease now",
            )
