"""The step function of `get-log`: ask for a log, wait for it and for the station's last word about it (N01)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.log_requests import LogStatus, build_get_log, is_failure, outcome_of
from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step, Wait
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.event_records import RequestedLogRecord
from chargepki.pki.inventory.records import OperationState

__all__ = ["log_step"]

_MAX_ATTEMPTS: Final = 3
_ASK_AGAIN_AFTER: Final = timedelta(seconds=60)
_LAST_WORD = timedelta(seconds=20)
"""How long the station may take to say that an upload is complete, or a complete one to arrive."""


def log_step(snapshot: Snapshot, now: datetime) -> Step:
    """Ask for the log, then wait for it and for the station's last word about it (N01)."""
    log, deadline = snapshot.log, snapshot.operation.deadline
    if log is None:
        return Finish(OperationState.FAILED, {"why": "the request is not on record"})
    here = outcome_of(log)
    if here is not None:
        told_until = (log.received_at or now) + _LAST_WORD
        if log.status == LogStatus.UPLOADING and now < told_until:
            return Wait("the log is here; the station has not said so yet", told_until)
        return Finish(OperationState.DONE, {**here, "status": log.status})
    if is_failure(log.status):
        return Finish(OperationState.FAILED, {"why": f"the station reported {log.status}"})
    if log.status == LogStatus.UPLOADED and log.status_at is not None:
        if now < log.status_at + _LAST_WORD:
            return Wait("the station says that it has uploaded the log", log.status_at + _LAST_WORD)
        return Finish(OperationState.FAILED, {"why": "the station reported Uploaded, and nothing has arrived"})
    if not snapshot.attempts:
        return _ask_for_log(snapshot, log)
    if snapshot.replaced:
        return Finish(OperationState.FAILED, {"why": "replaced by a newer request"})
    last = snapshot.attempts[-1]
    status, error = (last.answer or {}).get("status"), (last.answer or {}).get("error")
    if status in ("Accepted", "AcceptedCanceled") or log.status is not None:
        return Wait("the upload is waited for", deadline)
    if status is not None or (error is not None and is_unprocessed(str(error))):
        return Finish(OperationState.FAILED, {"why": f"the station answered {status or error}"})
    # Its status or the log itself reads the station back; asking again is harmless.
    again_at = last.sent_at + _ASK_AGAIN_AFTER
    if snapshot.sent_here and now < again_at:
        return Wait("no usable answer to the request", again_at, OperationState.UNKNOWN)
    if len(snapshot.attempts) >= _MAX_ATTEMPTS:
        return Wait("the request stayed unanswered several times", deadline, OperationState.UNKNOWN)
    return _ask_for_log(snapshot, log)


def _ask_for_log(snapshot: Snapshot, log: RequestedLogRecord) -> Step:
    if snapshot.log_location is None:
        why = "the CSMS process of this station takes no uploads; start csms serve with --upload-listen"
        return Finish(OperationState.FAILED, {"why": why})
    try:
        call = build_get_log(snapshot.version, snapshot.operation.parameters, log, snapshot.log_location)
    except InputError as error:
        return Finish(OperationState.FAILED, {"why": str(error)})
    return SendAttempt(call.action, call.payload)
