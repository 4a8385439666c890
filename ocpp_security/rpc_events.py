"""What an `RpcSession` reports: one frozen value per thing that happened on the connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "AnswerReceived",
    "CallReceived",
    "CallTimedOut",
    "ErrorReceived",
    "Origin",
    "OutgoingCall",
    "Payload",
    "ProtocolViolation",
    "ResultErrorReceived",
    "RpcEvent",
    "SendFrame",
    "SendReceived",
    "ViolationKind",
]

Payload = Mapping[str, object]


class ViolationKind(StrEnum):
    """What kind of rule of OCPP-J a frame broke; for counting, alerts and security events."""

    UNREADABLE = "unreadable"
    """No OCPP-J frame at all: binary, no JSON, wrong shape, no message id."""
    UNKNOWN_TYPE = "unknown-type"
    BAD_CALL = "bad-call"
    BAD_ANSWER = "bad-answer"
    UNSOLICITED_ANSWER = "unsolicited-answer"
    """An answer to nothing that is outstanding, one after its timeout included."""
    REPEATED_ID = "repeated-id"
    TOO_MANY_CALLS = "too-many-calls"


class Origin(StrEnum):
    """Who says that a call failed."""

    PEER = "peer"
    LOCAL = "local"
    """We do: the peer's answer was malformed. The peer may well have acted on the call."""


@dataclass(frozen=True, slots=True)
class CallReceived:
    """The peer calls; answer with `RpcSession.answer` or `RpcSession.refuse`."""

    message_id: str
    action: str
    payload: dict[str, object]
    repeated: bool = False
    """The id was used before on this connection: a retry (2.x allows that), a careless peer, or a replay."""


@dataclass(frozen=True, slots=True)
class SendReceived:
    """The peer tells something and expects no answer (2.1, message type SEND)."""

    message_id: str
    action: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """The answer to a call of ours; it satisfies its schema."""

    message_id: str
    action: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    """A call of ours failed."""

    message_id: str
    code: str
    """As the peer spelled it, at most 50 printable characters."""
    description: str
    """Printable, at most 255 characters, without the secrets of the call."""
    action: str = ""
    origin: Origin = Origin.PEER


@dataclass(frozen=True, slots=True)
class ResultErrorReceived:
    """The peer could not process an answer of ours (2.1, CALLRESULTERROR)."""

    message_id: str
    action: str
    code: str
    description: str


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send this text now: an error of ours, or a call of ours that waited for its turn."""

    text: str


@dataclass(frozen=True, slots=True)
class ProtocolViolation:
    """The peer broke a rule of OCPP-J; *reason* holds no text of the frame."""

    reason: str
    kind: ViolationKind = ViolationKind.UNREADABLE


@dataclass(frozen=True, slots=True)
class CallTimedOut:
    """A call of ours was not answered in time, or its connection ended."""

    message_id: str
    action: str
    sent: bool = True
    """False: it was still queued, so the peer has never seen it."""


RpcEvent = (
    CallReceived
    | SendReceived
    | AnswerReceived
    | ErrorReceived
    | ResultErrorReceived
    | SendFrame
    | ProtocolViolation
    | CallTimedOut
)


class OutgoingCall(NamedTuple):
    """A call that was taken."""

    message_id: str
    text: str | None
    """Send it now; ``None``: it is queued, and a `SendFrame` follows when its turn has come."""
