"""The vocabulary of operations on stations: their kinds, what a step function sees, and the steps that it answers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from chargepki.ocpp_security.passwords import generate_password, hash_password
from chargepki.ocpp_security.sign_certificate import Payload
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.event_records import RequestedLogRecord
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    OperationRecord,
    OperationState,
    StationRecord,
)

if TYPE_CHECKING:
    from chargepki.ocpp_security.operations_firmware import FirmwareFacts
    from chargepki.ocpp_security.operations_trust import TrustFacts

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
    "new_password",
]


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
    unsecured: bool = False
    """A change of certificates or roots that goes out without TLS, as an operator has allowed."""


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
    allowed_unsecured: bool = False
    """Whether the endpoint allows changes of certificates and roots without TLS for this station."""
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
