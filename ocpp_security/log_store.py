"""Requested logs in the inventory: asked for, reported on by the station, received once, closed; all audited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from chargepki.ocpp_security.log_requests import is_failure, may_follow, token_digest, upload_token
from chargepki.pki.errors import printable
from chargepki.pki.inventory import SealingKey, Transaction
from chargepki.pki.inventory.event_records import LogRequestState, RequestedLogRecord
from chargepki.pki.inventory.records import Actor, OperationRecord

__all__ = ["ReceivedLog", "close_log", "note_filename", "note_status", "record_received", "register_log"]

MAX_FILENAME = 255


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log that is durable in the folder of received logs."""

    size: int
    sha256: str
    """Lower-case hex."""
    file: str


def register_log(sealing: SealingKey, *, max_bytes: int) -> Callable[[Transaction, OperationRecord], None]:
    """Return what `OperationStore.create` runs with the operation: it stores what may be uploaded, and until when."""

    def work(tx: Transaction, operation: OperationRecord) -> None:
        draft = RequestedLogRecord(
            id=operation.id,
            station=operation.station,
            request_id=tx.next_log_request(operation.station),
            log_type=str(operation.parameters["type"]),
            token_sha256="",
            max_bytes=max_bytes,
            state=LogRequestState.REQUESTED,
            created_at=operation.created_at,
            expires_at=operation.deadline,
        )
        tx.add_requested_log(replace(draft, token_sha256=token_digest(upload_token(sealing, draft))))

    return work


def note_filename(tx: Transaction, log: str, filename: str) -> None:
    """Keep the name that the station gave in its answer; the caller audits."""
    tx.update_requested_log(log, filename=printable(filename)[:MAX_FILENAME])


def note_status(
    tx: Transaction, station: str, request_id: int | None, status: str, actor: Actor, now: datetime
) -> str | None:
    """Take a LogStatusNotification; return why it does not fit what was asked and reported before, if so.

    Nothing is changed then: a replayed or invented status cannot undo an upload.

    Clause: N01.FR.07, N01.FR.13 (requestId), N01.FR.08-10 (order).
    """
    if request_id is None:
        # Triggered while idle; and some stations leave the id out while there is but one upload it can be about.
        waiting = tx.list_open_log_requests(station)
        if status == "Idle" or len(waiting) != 1:
            return None if status == "Idle" else f"{status} names no request"
        log = waiting[0]
    else:
        found = tx.find_requested_log_by_request(station, request_id)
        if found is None:
            return f"{status} is about request {request_id}, which was never made"
        log = found
    if log.status == status and status == "Uploading":
        return None
    if not may_follow(log.status, status):
        return f"{status} cannot follow {log.status or 'nothing'} for request {log.request_id}"
    tx.update_requested_log(log.id, status=status, status_at=now)
    if is_failure(status) and log.state is LogRequestState.REQUESTED:
        tx.update_requested_log(log.id, state=LogRequestState.CLOSED)
    tx.audit(actor, "log.status", log.id, now=now, details={"station": station, "status": status})
    return None


def record_received(tx: Transaction, log: str, received: ReceivedLog, actor: Actor, now: datetime) -> None:
    """Record that a log is here; the first upload wins.

    Raises:
        Conflict: it was received already, or nothing is taken any more.
    """
    record = tx.update_requested_log(
        log,
        state=LogRequestState.RECEIVED,
        received_at=now,
        size=received.size,
        sha256=received.sha256,
        file=received.file,
    )
    details = {"station": record.station, "request_id": record.request_id, "size": received.size}
    tx.audit(actor, "log.receive", log, now=now, artefact_sha256=received.sha256, details=details)


def close_log(tx: Transaction, operation: OperationRecord) -> None:
    """Take nothing any more for an operation that has ended; the caller audits."""
    record = tx.find_requested_log(operation.id)
    if record is not None and record.state is LogRequestState.REQUESTED:
        tx.update_requested_log(operation.id, state=LogRequestState.CLOSED)
