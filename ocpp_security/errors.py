"""Refusals on the OCPP side: what the peer is told, kept apart from what the operator is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from chargepki.pki.errors import ChargePkiError, InputError

if TYPE_CHECKING:
    from chargepki.ocpp_security.events import SecurityEvent

__all__ = [
    "CallErrorAnswer",
    "OcppRefusal",
    "PeerAnswer",
    "RpcErrorCode",
    "SchemaViolation",
    "StatusAnswer",
]


class RpcErrorCode(StrEnum):
    """Error codes of a CALLERROR in the spelling of OCPP 2.x; `versions.spell_error` gives the one of 1.6.

    Clause: OCPP-J 2.1 part 4, 4.3; OCPP-J 1.6, 4.2.3.
    """

    FORMAT_VIOLATION = "FormatViolation"
    GENERIC_ERROR = "GenericError"
    INTERNAL_ERROR = "InternalError"
    MESSAGE_TYPE_NOT_SUPPORTED = "MessageTypeNotSupported"
    NOT_IMPLEMENTED = "NotImplemented"
    """The action is not known."""
    NOT_SUPPORTED = "NotSupported"
    """The action is known and not supported."""
    OCCURRENCE_CONSTRAINT_VIOLATION = "OccurrenceConstraintViolation"
    PROPERTY_CONSTRAINT_VIOLATION = "PropertyConstraintViolation"
    PROTOCOL_ERROR = "ProtocolError"
    RPC_FRAMEWORK_ERROR = "RpcFrameworkError"
    SECURITY_ERROR = "SecurityError"
    TYPE_CONSTRAINT_VIOLATION = "TypeConstraintViolation"


@dataclass(frozen=True, slots=True)
class CallErrorAnswer:
    """The peer is answered with a CALLERROR."""

    code: RpcErrorCode
    description: str = ""
    """At most 255 characters; names no path, secret or other station."""


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The peer is answered with a CALLRESULT whose status says no."""

    status: str
    """Wire spelling, for example ``Rejected``."""
    reason_code: str | None = None
    """``statusInfo.reasonCode``, at most 20 characters; left out in 1.6, which has no statusInfo."""
    additional_info: str | None = None
    """``statusInfo.additionalInfo``; names no path, secret or other station."""


PeerAnswer = CallErrorAnswer | StatusAnswer


class OcppRefusal(ChargePkiError):
    """A message or connection that is refused: `answer` is for the peer, *what/why/fix* for the operator.

    The two texts are never mixed: an operator's text may name files and other stations, the peer's may not.
    """

    code: ClassVar[str] = "ocpp-refusal"

    def __init__(
        self,
        what: str,
        *,
        answer: PeerAnswer,
        why: str = "",
        fix: str = "",
        event: SecurityEvent | None = None,
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.answer = answer
        self.event = event


class SchemaViolation(InputError):
    """A payload that its OCPP schema does not allow; carries the code that a CALLERROR about it would have.

    `path` names only members that the schema itself names, never text of the payload.
    """

    code: ClassVar[str] = "schema"

    def __init__(self, what: str, *, rpc_code: RpcErrorCode, path: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.rpc_code = rpc_code
        self.path = path
