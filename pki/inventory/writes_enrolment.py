"""Typed writes on EST accounts and on enrolment requests that wait for an approval."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.errors import NotFound, StateError
from chargepki.pki.inventory import codec
from chargepki.pki.inventory.records import EstAccountRecord, EstAccountState, EstRequestRecord, EstRequestState
from chargepki.pki.inventory.writes import Writes

__all__ = ["EnrolmentWrites"]


class EnrolmentWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def add_est_account(self, record: EstAccountRecord) -> EstAccountRecord:
        """Store a new account; a removed one of that name comes back with the new record's contents.

        Raises:
            Conflict: an active account has this name.
        """
        before = self.find_est_account(record.id)
        if before is None or before.state is EstAccountState.ACTIVE:
            self._add(codec.EST_ACCOUNT, record, "the EST account")
            return record
        fields = {name: getattr(record, name) for name in codec.EST_ACCOUNT.columns if name != "id"}
        return self._change(codec.EST_ACCOUNT, self._stored(codec.EST_ACCOUNT, "EST account", id=record.id), fields)

    def remove_est_account(self, name: str) -> EstAccountRecord:
        """Let an account enrol no more and forget its password; its history stays.

        Raises:
            NotFound: there is no active account of this name.
        """
        found = self.find_est_account(name)
        if found is None or found.state is EstAccountState.REMOVED:
            raise NotFound(f"there is no EST account {name}", fix="list the accounts with: chargepki est account list")
        changes = {
            "state": EstAccountState.REMOVED,
            "password_hash": None,
            "certificate_sha256": None,
            "certificate_der": None,
        }
        return self._change(codec.EST_ACCOUNT, self._stored(codec.EST_ACCOUNT, "EST account", id=name), changes)

    def add_est_request(self, record: EstRequestRecord) -> None:
        """Store a request that waits.

        Raises:
            Conflict: the id is taken.
            StateError: the record is not in state WAITING.
        """
        if record.state is not EstRequestState.WAITING:
            raise StateError("an enrolment request enters the inventory as waiting")
        self._add(codec.EST_REQUEST, record, "the enrolment request")

    def decide_est_request(
        self, request_id: str, state: EstRequestState, *, now: datetime, decided_by: str, reason: str | None = None
    ) -> EstRequestRecord:
        """Approve or reject a request that waits.

        Raises:
            NotFound: there is none.
            StateError: it was decided already, or *state* is no decision.
        """
        if state is EstRequestState.WAITING:
            raise StateError("waiting is no decision")
        before = self._stored(codec.EST_REQUEST, "enrolment request", id=request_id)
        found = self.find_est_request(request_id)
        assert found is not None
        if found.state is not EstRequestState.WAITING:
            raise StateError(
                f"the enrolment request {request_id} was {found.state} already",
                why=f"by {found.decided_by} at {found.decided_at}",
                fix="list what waits with: chargepki est request list",
            )
        changes = {"state": state, "decided_at": now, "decided_by": decided_by, "reason": reason}
        return self._change(codec.EST_REQUEST, before, changes)
