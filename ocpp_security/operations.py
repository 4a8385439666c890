"""Operations on stations: kinds, and the pure step function that says what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from chargepki.ocpp_security import password_change, wire
from chargepki.ocpp_security.log_requests import check_log_parameters
from chargepki.ocpp_security.operation_steps import (
    TRUST_KINDS,
    AskReconnect,
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Step,
    Wait,
    new_password,
)
from chargepki.ocpp_security.operations_firmware import check_firmware_parameters, firmware_step
from chargepki.ocpp_security.operations_log import log_step
from chargepki.ocpp_security.operations_profile import check_profile_parameters, profile_step, read_profile_answer
from chargepki.ocpp_security.operations_renewal import renewal_step
from chargepki.ocpp_security.operations_trust import check_trust_parameters, read_trust_answer, trust_step
from chargepki.ocpp_security.password_change import PasswordAnswer
from chargepki.ocpp_security.passwords import check_password
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.unsecured import ALLOW, check_allowance, guard_step
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.records import (
    AttemptRecord,
    OperationRecord,
    OperationState,
)

__all__ = [
    "TRUST_KINDS",
    "AskReconnect",
    "Finish",
    "OperationKind",
    "PasswordChange",
    "PasswordSecret",
    "PasswordStep",
    "SendAttempt",
    "Snapshot",
    "Step",
    "Wait",
    "check_parameters",
    "expire",
    "new_password",
    "next_step",
    "read_answer",
    "renewal_step",
]

_MAX_ATTEMPTS = 3
_MAY_BE_UNSECURED = frozenset(
    {
        OperationKind.DELETE_ROOT,
        OperationKind.INSTALL_ROOT,
        OperationKind.SET_PROFILE,
        OperationKind.TRIGGER_RENEWAL,
    }
)


def check_parameters(kind: OperationKind, parameters: Mapping[str, object], secret: PasswordSecret | None) -> None:
    """Refuse parameters that the kind does not take.

    `trigger-renewal`: ``use`` (a `CertificateUse` value), optionally ``evse`` (integer > 0). `set-password`: none,
    and a sealed `PasswordSecret`. Those that change certificates or roots: optionally ``allow_unsecured`` (true), with
    which they may do so over a connection without TLS.

    Raises:
        InputError: unknown, missing or wrong parameters.
    """
    if kind in _MAY_BE_UNSECURED and ALLOW in parameters:
        check_allowance(parameters)
        parameters = {name: value for name, value in parameters.items() if name != ALLOW}
    if kind is OperationKind.UPDATE_FIRMWARE:
        check_firmware_parameters(parameters)
        return
    if kind is OperationKind.GET_LOG:
        check_log_parameters(parameters)
        return
    if kind is OperationKind.SET_PROFILE:
        check_profile_parameters(parameters)
        if secret is not None:
            _check_fits_some_version(secret.password)
        return
    if kind in TRUST_KINDS:
        check_trust_parameters(kind.value, parameters)
        return
    allowed = {"use", "evse"} if kind is OperationKind.TRIGGER_RENEWAL else set()
    unknown = sorted(set(parameters) - allowed)
    if unknown:
        raise InputError(f"{kind.value} takes no parameter {unknown[0]!r}")
    if (secret is not None) != (kind is OperationKind.SET_PASSWORD):
        raise InputError(f"{kind.value} {'takes no' if secret is not None else 'needs a'} password")
    if secret is not None:
        _check_fits_some_version(secret.password)
    if kind is OperationKind.TRIGGER_RENEWAL:
        use, evse = parameters.get("use"), parameters.get("evse")
        if use not in [known.value for known in CertificateUse]:
            raise InputError(
                f"unknown certificate use {use!r}", fix=f"one of {', '.join(known.value for known in CertificateUse)}"
            )
        if evse is not None and (not isinstance(evse, int) or isinstance(evse, bool) or evse < 1):
            raise InputError("evse is a number from 1 on")


def next_step(snapshot: Snapshot, now: datetime) -> Step:
    """Say what to do next for the operation that *snapshot* shows; the station is connected.

    Pure: the same snapshot and time give the same step, in any process, so that whoever leases the operation goes on
    where the last one stopped. An attempt without an answer is never repeated before the station has shown what it
    has done with it.

    Raises:
        TypeError: *now* is naive.
        InputError: the kind of the operation is unknown to this release.
    """
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
    try:
        kind = OperationKind(snapshot.operation.kind)
    except ValueError:
        raise InputError(
            f"operation {snapshot.operation.id} is of the unknown kind {snapshot.operation.kind!r}",
            fix="run the release that made it",
        ) from None
    step = guard_step(_STEPS[kind](snapshot, now), snapshot)
    if isinstance(step, Finish) or now < snapshot.operation.deadline:
        return step
    return expire(snapshot.operation, snapshot.attempts)


def expire(operation: OperationRecord, attempts: tuple[AttemptRecord, ...]) -> Finish:
    """Return the outcome of an operation whose deadline has passed, for a station that is offline too.

    After an unanswered `set-password` both passwords stay accepted: the station holds one of them (A01.FR.04).
    """
    if not attempts:
        return Finish(OperationState.EXPIRED, {"why": "the deadline passed before the station could be asked"})
    if attempts[-1].answered_at is None:
        return Finish(
            OperationState.EXPIRED,
            {"why": "the station did not answer, and did not show what it has done", "attempts": len(attempts)},
        )
    return Finish(
        OperationState.EXPIRED,
        {"why": "the station answered, and the effect did not show in time", "attempts": len(attempts)},
    )


def read_answer(
    operation: OperationRecord,
    version: OcppVersion,
    payload: Mapping[str, object] | None,
    error: str | None = None,
    *,
    recorded: str = "",
) -> dict[str, object] | None:
    """Return what to record of a station's answer (never a secret), or ``None`` when there was none.

    Args:
        payload: of the CALLRESULT (schema-checked); ``None`` with an error or without an answer.
        error: code of the CALLERROR.
        recorded: of the attempt (`SendAttempt.recorded`).
    """
    if error is not None:
        return {"error": printable(error)[:60]}
    if payload is None:
        return None
    if operation.kind in TRUST_KINDS:
        return read_trust_answer(recorded, payload)
    if operation.kind == OperationKind.SET_PASSWORD:
        meaning, status = password_change.read_set_password_answer(version, payload)
        return {"status": status, "meaning": meaning.value}
    if operation.kind == OperationKind.SET_PROFILE:
        return read_profile_answer(version, recorded, payload)
    status = wire.read_status(payload)
    if operation.kind == OperationKind.TRIGGER_RENEWAL:
        use = CertificateUse(str(operation.parameters["use"]))
        status = wire.read_status(wire.unwrap_answer(wire.build_trigger(version, use), payload))
    answer: dict[str, object] = {"status": status}
    filename = payload.get("filename")
    if operation.kind == OperationKind.GET_LOG and isinstance(filename, str):
        answer["filename"] = printable(filename)[:255]
    return answer


# --- set-password ----------------------------------------------------------------------------------------------------


def _step_password(snapshot: Snapshot, now: datetime) -> Step:
    secret, station = snapshot.secret, snapshot.station
    if secret is None:
        return Finish(OperationState.FAILED, {"why": "the new password is not available any more"})
    if not snapshot.attempts:
        return _first_password_attempt(snapshot, secret)
    if station.password_hash == secret.password_hash:
        # It has connected with the new password; `OperationStore.password_used` has put that on record.
        return Finish(OperationState.DONE, {"password": "changed", "shown_by": "connection"})
    last, deadline = snapshot.attempts[-1], snapshot.operation.deadline
    answer = last.answer or {}
    meaning, error = answer.get("meaning"), answer.get("error")
    if meaning == PasswordAnswer.ACCEPTED:
        # A01.FR.03: from now on the old one is refused.
        return Finish(
            OperationState.DONE,
            {"password": "changed", "status": answer.get("status")},
            PasswordChange(PasswordStep.PROMOTE, secret.password_hash),
        )
    if meaning == PasswordAnswer.REBOOT_REQUIRED:
        return Wait("the station takes the password after a reboot; both count until it has reconnected", deadline)
    if meaning is not None or (error is not None and is_unprocessed(str(error))):
        # A01.FR.04: the old one stays.
        return Finish(
            OperationState.FAILED,
            {"password": "unchanged", "why": f"the station answered {answer.get('status') or error}"},
            PasswordChange(PasswordStep.DROP, secret.password_hash),
        )
    return _unknown_password(snapshot, secret, last, now)


def _first_password_attempt(snapshot: Snapshot, secret: PasswordSecret) -> Step:
    station = snapshot.station
    try:
        check_password(secret.password, snapshot.version)
    except InputError as error:
        return Finish(OperationState.FAILED, {"password": "unchanged", "why": str(error)})
    leftover = station.pending_password_hash not in (None, secret.password_hash)
    # A connection that was authenticated when the leftover was accepted already, and did not use it, has shown enough.
    shown = snapshot.admitted_pending == station.pending_password_hash and not snapshot.password_sent_here
    unresolved = leftover and not shown
    if unresolved and _uses_password(snapshot):
        # An earlier change stayed unanswered and the station may hold that password: overwriting it could lock the
        # station out. A fresh connection shows which one it holds.
        return AskReconnect("an earlier password change is unresolved")
    return _send_password(snapshot.version, secret)


def _send_password(version: OcppVersion, secret: PasswordSecret) -> SendAttempt:
    call = password_change.build_set_password(version, secret.password)
    return SendAttempt(call.action, call.payload, PasswordChange(PasswordStep.PEND, secret.password_hash))


def _unknown_password(snapshot: Snapshot, secret: PasswordSecret, last: AttemptRecord, now: datetime) -> Step:
    """Resolve an unanswered change: the password is write-only, so only a connection shows which one holds."""
    deadline = snapshot.operation.deadline
    if not _uses_password(snapshot):
        return Wait(
            "no usable answer, and a profile-3 connection does not show the password; both stay accepted",
            deadline,
            OperationState.UNKNOWN,
        )
    # Authenticated before both passwords counted, the connection shows nothing either, whoever sent the attempt.
    unseen = snapshot.admitted_pending != snapshot.station.pending_password_hash == secret.password_hash
    if snapshot.sent_here or unseen:
        return AskReconnect("no usable answer to the password change; a new connection shows which one holds")
    # It has come back with the old password: the change did not take place.
    if len(snapshot.attempts) < _MAX_ATTEMPTS and now < deadline:
        return _send_password(snapshot.version, secret)
    return Finish(
        OperationState.FAILED,
        {"password": "unchanged", "why": f"the station kept its old password after {len(snapshot.attempts)} attempts"},
        PasswordChange(PasswordStep.DROP, secret.password_hash),
    )


def _uses_password(snapshot: Snapshot) -> bool:
    return snapshot.security_profile in (1, 2)


def _check_fits_some_version(password: bytes) -> None:
    try:
        check_password(password, OcppVersion.V16)
    except InputError:
        check_password(password, OcppVersion.V201)


_STEPS: Mapping[OperationKind, Callable[[Snapshot, datetime], Step]] = {
    OperationKind.TRIGGER_RENEWAL: renewal_step,
    OperationKind.SET_PASSWORD: _step_password,
    OperationKind.UPDATE_FIRMWARE: firmware_step,
    OperationKind.GET_LOG: log_step,
    OperationKind.SET_PROFILE: profile_step,
    OperationKind.INSTALL_ROOT: trust_step,
    OperationKind.DELETE_ROOT: trust_step,
    OperationKind.LIST_ROOTS: trust_step,
}
