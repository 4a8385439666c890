"""Operations on stations: kinds, and the pure step function that says what to do next."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from chargepki.ocpp_security import wire
from chargepki.ocpp_security.deliveries import received_at
from chargepki.ocpp_security.log_requests import check_log_parameters
from chargepki.ocpp_security.operations_firmware import FirmwareFacts, check_firmware_parameters, firmware_step
from chargepki.ocpp_security.operations_log import log_step
from chargepki.ocpp_security.operations_profile import check_profile_parameters, profile_step, read_profile_answer
from chargepki.ocpp_security.operations_trust import TrustFacts, check_trust_parameters, read_trust_answer, trust_step
from chargepki.ocpp_security.passwords import check_password, generate_password, hash_password
from chargepki.ocpp_security.sign_certificate import Payload, is_unprocessed
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, PasswordAnswer
from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.event_records import RequestedLogRecord
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    CertificateState,
    Delivery,
    OperationRecord,
    OperationState,
    StationRecord,
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
_ASK_AGAIN_AFTER = timedelta(seconds=60)
"""How long a triggered CSR is waited for when the trigger itself stayed unanswered."""


class OperationKind(StrEnum):
    """What can be done to a station; the values are stored."""

    TRIGGER_RENEWAL = "trigger-renewal"
    SET_PASSWORD = "set-password"  # noqa: S105 - a name, not a password
    UPDATE_FIRMWARE = "update-firmware"
    GET_LOG = "get-log"
    SET_PROFILE = "set-profile"
    INSTALL_ROOT = "install-root"
    DELETE_ROOT = "delete-root"
    LIST_ROOTS = "list-roots"


TRUST_KINDS = frozenset({OperationKind.INSTALL_ROOT, OperationKind.DELETE_ROOT, OperationKind.LIST_ROOTS})
"""Those about the roots of a station."""


@dataclass(frozen=True, slots=True)
class PasswordSecret:
    """The sealed parameters of `set-password`."""

    password: bytes = field(repr=False)
    """As it will stand in the Authorization header."""
    password_hash: str = field(repr=False)
    """Made when the operation is created, so that no step needs a slow computation."""

    def to_bytes(self) -> bytes:
        """Return the octets that are sealed."""
        text = {"password": base64.b64encode(self.password).decode("ascii"), "hash": self.password_hash}
        return json.dumps(text, sort_keys=True).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> PasswordSecret:
        """Read what `to_bytes` made.

        Raises:
            InputError: something else; never repeats it.
        """
        try:
            text = json.loads(data)
            return cls(base64.b64decode(text["password"], validate=True), str(text["hash"]))
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise InputError("the sealed parameters of the operation cannot be read") from None  # they are secret


class PasswordStep(StrEnum):
    """What happens to a station's passwords on record."""

    PEND = "pend"
    """Both are accepted from now on, before the station is told."""
    PROMOTE = "promote"
    """The new one is on record, the old one is refused (A01.FR.03)."""
    DROP = "drop"
    """The new one is forgotten, the old one stays (A01.FR.04)."""


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """A change of a station's passwords that is recorded in the transaction of its step."""

    step: PasswordStep
    new_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendAttempt:
    """Record an attempt and the change of password durably; then send the CALL and record its answer."""

    action: str
    payload: Payload = field(repr=False)
    password: PasswordChange | None = None
    recorded: str = ""
    """What the attempt is recorded as, where the action alone does not say what it was about."""
    unchecked: bool = False
    """Not held to its schema, nor its answer: what a station gets wrong is to be read, and repeated to it."""
    lets_in: int | None = None
    """Profile that is expected of the station from this attempt on, although it is lower than before (A05.FR.08)."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to send: look again when something happens to the station, or at `until`."""

    why: str
    until: datetime
    state: OperationState = OperationState.RUNNING
    """RUNNING or UNKNOWN, for `mark_operation`."""


@dataclass(frozen=True, slots=True)
class AskReconnect:
    """Close the station's connection (1012), so that it comes back and shows which password it holds.

    Whether a connection is newer than an attempt or a password is never read off two clocks, which may be those of two
    machines: `sent_here`, `password_sent_here` and `admitted_pending` of `Snapshot` are facts about the connection.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Record the outcome, and the change of password or of the expected profile in the same transaction."""

    state: OperationState
    outcome: Mapping[str, object]
    password: PasswordChange | None = None
    security_profile: int | None = None
    """Profile below which the station is never let in again; a higher one on record stays."""


Step = SendAttempt | Wait | AskReconnect | Finish


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the next step depends on."""

    operation: OperationRecord
    attempts: tuple[AttemptRecord, ...]
    """Oldest first."""
    station: StationRecord
    version: OcppVersion
    """Of the live connection."""
    security_profile: int
    """Of the live connection."""
    sent_here: bool = False
    """Whether the last attempt went out over this very connection; otherwise the station has come back since."""
    booted_here: bool = False
    """Whether the station sent BootNotification over this connection."""
    password_sent_here: bool = False
    """Whether any operation sent a new password over this connection: the station may have taken it since."""
    admitted_pending: str | None = field(default=None, repr=False)
    """The station's pending password hash as it was on record when this connection was authenticated."""
    secret: PasswordSecret | None = field(default=None, repr=False)
    """`set-password`; `set-profile` of a station that has no password on record."""
    certificates: tuple[CertificateRecord, ...] = ()
    """`trigger-renewal`: this station's certificates of the triggered use, any order."""
    delivered: str | None = None
    """`trigger-renewal`: certificate that this process delivered since the first attempt, if any. A CSR that was sent
    before gets its old certificate again, which `certificates` alone would not show."""
    log: RequestedLogRecord | None = None
    """`get-log`: what was asked for, and what came of it."""
    log_location: str | None = field(default=None, repr=False)
    """`get-log`: where the station may upload it; ``None`` when this CSMS takes no uploads."""
    replaced: bool = False
    """`get-log`: whether a newer request waits, which replaces this one (N01.FR.12)."""
    refusal: str | None = None
    """`trigger-renewal`: why the CSR that came since the first attempt was refused, if it was."""
    firmware: FirmwareFacts | None = None
    """`update-firmware`."""
    trust: TrustFacts | None = None
    """The kinds that concern roots, and `set-profile` where it installs one first."""


def new_password() -> PasswordSecret:
    """Make a random password (A01.FR.06, FR.07) that every version takes, with its hash."""
    password = generate_password().encode()
    return PasswordSecret(password, hash_password(password))


def check_parameters(kind: OperationKind, parameters: Mapping[str, object], secret: PasswordSecret | None) -> None:
    """Refuse parameters that the kind does not take.

    `trigger-renewal`: ``use`` (a `CertificateUse` value), optionally ``evse`` (integer > 0). `set-password`: none,
    and a sealed `PasswordSecret`.

    Raises:
        InputError: unknown, missing or wrong parameters.
    """
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
    step = _STEPS[kind](snapshot, now)
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
        meaning, status = wire.read_set_password_answer(version, payload)
        return {"status": status, "meaning": meaning.value}
    if operation.kind == OperationKind.SET_PROFILE:
        return read_profile_answer(version, recorded, payload)
    answer: dict[str, object] = {"status": wire.read_status(payload)}
    filename = payload.get("filename")
    if operation.kind == OperationKind.GET_LOG and isinstance(filename, str):
        answer["filename"] = printable(filename)[:255]
    return answer


# --- trigger-renewal -------------------------------------------------------------------------------------------------


def renewal_step(snapshot: Snapshot, now: datetime) -> Step:
    """Trigger a CSR and follow its certificate until the station has taken it; see `next_step`."""
    if not snapshot.attempts:
        return _trigger(snapshot)
    shown = _shown_by_certificates(snapshot)
    if shown is not None:
        return shown
    last, deadline = snapshot.attempts[-1], snapshot.operation.deadline
    if last.answer is not None:
        status, error = last.answer.get("status"), last.answer.get("error")
        if status == "Accepted":
            return Wait("the station accepted the trigger; its CSR and certificate are waited for", deadline)
        if error is None or is_unprocessed(str(error)):
            return Finish(OperationState.FAILED, {"why": f"the station answered {status or error}"})
    # The CSR is what reads the station back. Without one after a while, asking again is harmless: a station has one
    # renewal of a use under way, and we keep one request open.
    again_at = last.sent_at + _ASK_AGAIN_AFTER
    if snapshot.sent_here and now < again_at:
        return Wait(
            "no usable answer to the trigger; a CSR would show that it arrived", again_at, OperationState.UNKNOWN
        )
    if len(snapshot.attempts) >= _MAX_ATTEMPTS:
        return Wait("the trigger stayed unanswered several times", deadline, OperationState.UNKNOWN)
    return _trigger(snapshot)


def _trigger(snapshot: Snapshot) -> Step:
    parameters = snapshot.operation.parameters
    evse = parameters.get("evse")
    try:
        call = wire.build_trigger(
            snapshot.version,
            CertificateUse(str(parameters.get("use"))),
            evse=evse if isinstance(evse, int) else None,
        )
    except (InputError, ValueError) as error:
        return Finish(OperationState.FAILED, {"why": str(error)})
    return SendAttempt(call.action, call.payload)


def _shown_by_certificates(snapshot: Snapshot) -> Step | None:
    """Read the outcome from what came of the trigger: a delivered, refused or travelling certificate."""
    if snapshot.delivered is not None:
        return Finish(OperationState.DONE, {"certificate": snapshot.delivered})
    # Reservations know whole seconds; the CSR's arrival is known exactly, and also tells when an old certificate is the
    # answer to a new request.
    since = snapshot.attempts[0].sent_at
    newer = sorted(
        (
            item
            for item in snapshot.certificates
            if received_at(item) >= since and item.state is not CertificateState.VOIDED
        ),
        key=received_at,
    )
    for item in reversed(newer):
        # A superseded one may never have arrived: the station asked for another one, whose fate counts.
        if item.delivery in (Delivery.DELIVERED, Delivery.IN_USE):
            return Finish(OperationState.DONE, {"certificate": item.id})
    if snapshot.refusal is not None:
        return Finish(OperationState.FAILED, {"why": snapshot.refusal})
    if not newer:
        return None
    if newer[-1].delivery is Delivery.UNDELIVERED:
        return Finish(
            OperationState.FAILED, {"certificate": newer[-1].id, "why": "the station refused the certificate"}
        )
    return Wait("the certificate is on its way to the station", snapshot.operation.deadline)


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
    call = wire.build_set_password(version, secret.password)
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
