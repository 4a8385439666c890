"""The step function of ``update-firmware``: send once, follow the statuses, read back before sending again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chargepki.ocpp_security.firmware_flow import (
    FINAL_FAILURES,
    FirmwareStatus,
    UpdateRequest,
    build_status_trigger,
    build_update,
    follows,
    update_action,
)
from chargepki.ocpp_security.operation_steps import Finish, SendAttempt, Snapshot, Step, Wait
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.firmware_records import FirmwareReleaseRecord, FirmwareStatusRecord
from chargepki.pki.inventory.records import AttemptRecord, OperationState

__all__ = ["FirmwareFacts", "check_firmware_parameters", "firmware_step"]

_MAX_ATTEMPTS: Final = 3
_ASK_AFTER: Final = timedelta(seconds=30)
"""How long an unanswered request is left alone before the station is asked for its status."""
_PARAMETERS: Final = frozenset(
    {"release", "request_id", "retrieve_at", "install_at", "replace", "base_url", "retries", "retry_interval"}
)


@dataclass(frozen=True, slots=True)
class FirmwareFacts:
    """What the step depends on beside the operation itself."""

    release: FirmwareReleaseRecord | None
    location: str | None
    """URL to send."""
    refused: str | None
    """Why the station would refuse the release, or we may not send it; judged anew before every sending."""
    statuses: tuple[FirmwareStatusRecord, ...]
    """Reported for this operation, oldest first; Idle has no request id and counts for the operation that is open."""
    replaced_by: str | None = None
    """A later operation that shall take this one's place."""


def check_firmware_parameters(parameters: Mapping[str, object]) -> None:
    """Refuse parameters that ``update-firmware`` does not take.

    Raises:
        InputError: says which.
    """
    unknown = sorted(set(parameters) - _PARAMETERS)
    if unknown:
        raise InputError(f"update-firmware takes no parameter {unknown[0]!r}")
    number = parameters.get("request_id")
    if not isinstance(parameters.get("release"), str) or not isinstance(number, int) or not 0 < number < 1 << 31:
        raise InputError("update-firmware needs a release and a request id from 1 to 2147483647")
    for name in ("retrieve_at", "install_at"):
        if parameters.get(name) is not None:
            _instant(parameters[name])
    for name, most in (("retries", 20), ("retry_interval", 86_400)):
        value = parameters.get(name)
        if value is not None and (not isinstance(value, int) or not 0 <= value <= most):
            raise InputError(f"{name} is a number from 0 to {most}")


def _instant(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as exc:
        raise InputError(f"{value!r} is no time") from exc
    if moment.tzinfo is None:
        raise InputError(f"{value!r} names no time zone")
    return moment.astimezone(UTC)


def firmware_step(snapshot: Snapshot, now: datetime) -> Step:
    """Say what to do next; see `operations.next_step`."""
    facts = snapshot.firmware
    assert facts is not None
    if facts.replaced_by is not None:
        return Finish(OperationState.FAILED, _told(facts, why=f"replaced by {facts.replaced_by}"))
    sent = [attempt for attempt in snapshot.attempts if attempt.action == update_action(snapshot.version)]
    if not sent:
        return _send(snapshot, facts, now)
    finished = _shown(facts)
    if finished is not None:
        return finished
    answer = sent[-1].answer
    if answer is not None:
        status, error = answer.get("status"), answer.get("error")
        if status in ("Accepted", "AcceptedCanceled"):
            return Wait("the station has accepted the update; its statuses are followed", snapshot.operation.deadline)
        if error is None or is_unprocessed(str(error)):
            return Finish(OperationState.FAILED, _told(facts, why=_refusal(snapshot.version, status, error)))
    if any(record.status != FirmwareStatus.IDLE for record in facts.statuses):
        return Wait("the station works on the update, though its answer is missing", snapshot.operation.deadline)
    return _read_back(snapshot, facts, sent, now)


def _read_back(snapshot: Snapshot, facts: FirmwareFacts, sent: list[AttemptRecord], now: datetime) -> Step:
    """An unanswered request is sent again only when the station has said that it does nothing."""
    last, deadline = snapshot.attempts[-1], snapshot.operation.deadline
    idle = any(record.status == FirmwareStatus.IDLE and record.at >= sent[-1].sent_at for record in facts.statuses)
    if idle and len(sent) < _MAX_ATTEMPTS:
        return _send(snapshot, facts, now)
    if snapshot.sent_here and now < last.sent_at + _ASK_AFTER:
        until = last.sent_at + _ASK_AFTER
        return Wait("no answer to the update request; its statuses would show it", until, OperationState.UNKNOWN)
    if len(snapshot.attempts) >= 3 * _MAX_ATTEMPTS:
        return Wait("the station says nothing about the update", deadline, OperationState.UNKNOWN)
    call = build_status_trigger(snapshot.version)
    return SendAttempt(call.action, call.payload)


def _send(snapshot: Snapshot, facts: FirmwareFacts, now: datetime) -> Step:
    parameters, release = snapshot.operation.parameters, facts.release
    if facts.refused is not None or release is None or facts.location is None:
        return Finish(OperationState.FAILED, _told(facts, why=facts.refused or "there is no release and location"))
    retrieve = parameters.get("retrieve_at")
    install = parameters.get("install_at")
    request = UpdateRequest(
        request_id=int(parameters["request_id"]),
        location=facts.location,
        retrieve_at=_instant(retrieve) if retrieve is not None else now,
        install_at=_instant(install) if install is not None else None,
        certificate_pem=release.certificate_pem,
        signature=release.signature,
        retries=parameters.get("retries"),
        retry_interval=parameters.get("retry_interval"),
    )
    call = build_update(snapshot.version, request)
    return SendAttempt(call.action, call.payload)


def _shown(facts: FirmwareFacts) -> Step | None:
    """Read the outcome from the last status."""
    reported = [record for record in facts.statuses if record.status != FirmwareStatus.IDLE]
    if not reported:
        return None
    last = FirmwareStatus(reported[-1].status)
    if last is FirmwareStatus.INSTALLED:
        return Finish(OperationState.DONE, _told(facts))
    if last in FINAL_FAILURES:
        return Finish(OperationState.FAILED, _told(facts, why=f"the station reports {last.value}"))
    return None


def _told(facts: FirmwareFacts, *, why: str | None = None) -> dict[str, object]:
    """Return an outcome: what was reported in its order, and what stood out of the standard's order."""
    outcome: dict[str, object] = {} if why is None else {"why": why}
    if facts.release is not None:
        outcome |= {"release": facts.release.id, "version": facts.release.version}
    statuses = [FirmwareStatus(record.status) for record in facts.statuses if record.status != FirmwareStatus.IDLE]
    if statuses:
        outcome["statuses"] = [status.value for status in statuses]
    previous: FirmwareStatus | None = None
    for status in statuses:
        if not follows(previous, status):
            outcome["out_of_order"] = f"{status.value} after {previous.value if previous else 'nothing'}"
        previous = status
    return outcome


def _refusal(version: OcppVersion, status: object, error: object) -> str:
    if error is not None and version is OcppVersion.V16:
        return f"the station answered {error}: it has no secure update, and the plain one is not sent"
    return f"the station answered {status or error}"
