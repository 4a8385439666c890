"""What a station needs before its security profile is raised, fetched in order: CSMS root, password, certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.ocpp_security import password_change
from chargepki.ocpp_security.operation_steps import (
    Finish,
    PasswordChange,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Step,
    Wait,
)
from chargepki.ocpp_security.operations_renewal import renewal_step
from chargepki.ocpp_security.operations_trust import read_trust_answer, trust_step
from chargepki.ocpp_security.password_change import PasswordAnswer
from chargepki.ocpp_security.passwords import check_password
from chargepki.ocpp_security.profile_slots import gives_slot_password
from chargepki.ocpp_security.sign_certificate import is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    CertificateState,
    Delivery,
    OperationRecord,
    OperationState,
)

__all__ = [
    "ASK_AGAIN_AFTER",
    "ask",
    "fetch_first",
    "is_expiring",
    "read_need_answer",
    "root_order",
    "with_password_on_record",
]

ASK_AGAIN_AFTER: Final = timedelta(seconds=60)
MAX_ATTEMPTS: Final = 3
_SOON: Final = timedelta(days=7)
_TRIGGERS: Final = frozenset({"TriggerMessage", "ExtendedTriggerMessage"})
_TRUST: Final = (
    "GetInstalledCertificateIds(",
    "InstallCertificate(",
    "GetConfiguration(settings)",
    "GetVariables(settings)",
)
_PASSWORD: Final = "(password)"  # noqa: S105 - how attempts are labelled, not a password


def root_order(operation: OperationRecord) -> OperationRecord | None:
    """Return the part of a `set-profile` that installs a CSMS root, as the operation that it would be by itself."""
    root = operation.parameters.get("root")
    if root is None:
        return None
    return replace(operation, kind="install-root", parameters={"use": RootUse.CSMS.value, "certificate": root})


def read_need_answer(version: OcppVersion, label: str, payload: Mapping[str, Any]) -> dict[str, object] | None:
    """Return what to record of an answer to an attempt of `fetch_first`; ``None`` for any other attempt's."""
    if label.startswith(_TRUST):
        return read_trust_answer(label, payload)
    if label.endswith(_PASSWORD):
        meaning, status = password_change.read_set_password_answer(version, payload)
        return {"status": status, "meaning": meaning.value}
    return None


def fetch_first(snapshot: Snapshot, wanted: int, now: datetime) -> Step | None:
    """Say what to do about the first thing that is missing; ``None`` when the profile itself may be changed.

    In this order: without the root a station could judge no server over TLS, its password has to be on record before
    it is demanded, and the certificate is the last because it takes longest and may expire.

    Clause: A05.FR.02, A05.FR.03 (1.6: A05.FR.02 to FR.04).
    """
    return (
        _root_first(snapshot, wanted, now)
        or _password_first(snapshot, wanted, now)
        or (_certificate_first(snapshot, now) if wanted == 3 else None)
    )


def _root_first(snapshot: Snapshot, wanted: int, now: datetime) -> Step | None:
    order = root_order(snapshot.operation)
    if order is None:
        return None
    attempts = _of(snapshot, _TRUST)
    step = trust_step(replace(snapshot, operation=order, attempts=attempts), now)
    if not isinstance(step, Finish):
        return step
    if step.state is OperationState.DONE or (attempts and _cannot_install(attempts[-1])):
        # One that knows no InstallCertificate has what it was built with: it judges that itself (A05.FR.02).
        return None
    return _failed(f"profile {wanted} needs a CSMS root first", step)


def _cannot_install(last: AttemptRecord) -> bool:
    error = (last.answer or {}).get("error")
    return last.action.startswith("InstallCertificate(") and error is not None and is_unprocessed(str(error))


def _password_first(snapshot: Snapshot, wanted: int, now: datetime) -> Step | None:
    """Give the station the sealed password; a connection that uses none cannot be locked out by it."""
    secret = snapshot.secret
    if secret is None or snapshot.station.password_hash == secret.password_hash or gives_slot_password(snapshot):
        return None
    need = f"profile {wanted} needs a password first"
    try:
        check_password(secret.password, snapshot.version)
        call = password_change.build_set_password(snapshot.version, secret.password)
    except InputError as unfit:
        return Finish(OperationState.FAILED, {"profile": "unchanged", "why": f"{need}: {unfit}"})
    last = _last_password(snapshot)
    answer = (last.answer if last is not None else None) or {}
    meaning, error = answer.get("meaning"), answer.get("error")
    if meaning in (PasswordAnswer.ACCEPTED, PasswordAnswer.REBOOT_REQUIRED):
        return None
    if meaning is not None or (error is not None and is_unprocessed(str(error))):
        # A01.FR.04: it did not take it, so it is not accepted either.
        why = f"{need}: the station answered {answer.get('status') or error}"
        drop = PasswordChange(PasswordStep.DROP, secret.password_hash)
        return Finish(OperationState.FAILED, {"profile": "unchanged", "why": why}, drop)
    pend = PasswordChange(PasswordStep.PEND, secret.password_hash)
    send = SendAttempt(call.action, call.payload, pend, recorded=f"{call.action}{_PASSWORD}")
    # The same password again changes nothing: nothing that the station holds is overwritten by it.
    return ask(snapshot, send, last, now)


def with_password_on_record(step: Step, snapshot: Snapshot) -> Step:
    """Put the password that the station has taken on record with whatever comes next (A01.FR.03)."""
    last, secret = _last_password(snapshot), snapshot.secret
    taken = last is not None and (last.answer or {}).get("meaning") == PasswordAnswer.ACCEPTED
    if secret is None or not taken or snapshot.station.password_hash == secret.password_hash:
        return step
    if isinstance(step, SendAttempt | Finish) and step.password is None:
        return replace(step, password=PasswordChange(PasswordStep.PROMOTE, secret.password_hash))
    return step


def _last_password(snapshot: Snapshot) -> AttemptRecord | None:
    return next((item for item in reversed(snapshot.attempts) if item.action.endswith(_PASSWORD)), None)


def is_expiring(certificate: CertificateRecord, now: datetime) -> bool:
    """Say whether so little is left of a certificate that a station should not change its profile with it."""
    lifetime = certificate.not_after - certificate.not_before
    return certificate.not_after - now < min(_SOON, lifetime / 3)


def _certificate_first(snapshot: Snapshot, now: datetime) -> Step | None:
    """Have the station fetch the certificate that profile 3 needs (A05.FR.03, 1.6 A05.FR.04); ``None``: it has one."""
    held = (Delivery.DELIVERED, Delivery.IN_USE)
    for item in snapshot.certificates:
        is_valid = item.state is CertificateState.ISSUED and item.not_before <= now < item.not_after
        if is_valid and item.delivery in held and not is_expiring(item, now):
            return None
    triggers = tuple(item for item in snapshot.attempts if item.action in _TRIGGERS)
    step = renewal_step(replace(snapshot, attempts=triggers), now)
    if not isinstance(step, Finish):
        return step
    return None if step.state is OperationState.DONE else _failed("profile 3 needs a certificate first", step)


def _failed(need: str, step: Finish) -> Finish:
    why = f"{need}: {step.outcome.get('why')}"
    return replace(step, outcome={**step.outcome, "profile": "unchanged", "why": why})


def _of(snapshot: Snapshot, labels: tuple[str, ...]) -> tuple[AttemptRecord, ...]:
    return tuple(item for item in snapshot.attempts if item.action.startswith(labels))


def ask(snapshot: Snapshot, call: SendAttempt, last: AttemptRecord | None, now: datetime) -> Step:
    """Send *call*, or wait for what an unanswered one has done."""
    if last is None:
        return call
    again_at = last.sent_at + ASK_AGAIN_AFTER
    if snapshot.sent_here and now < again_at:
        return Wait(f"no usable answer to {call.action}", again_at, OperationState.UNKNOWN)
    label = call.recorded or call.action
    if _count(snapshot.attempts, label) >= MAX_ATTEMPTS:
        why = f"{call.action} stayed unanswered several times"
        return Wait(why, snapshot.operation.deadline, OperationState.UNKNOWN)
    return call


def _count(attempts: Sequence[AttemptRecord], label: str) -> int:
    return sum(item.action == label for item in attempts)
