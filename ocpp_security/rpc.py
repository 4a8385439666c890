"""OCPP-J calls and answers over one connection, sans-IO: strict frames, schemas, pending calls, no exceptions."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from types import MappingProxyType

from chargepki.ocpp_security import redact, schemas
from chargepki.ocpp_security.error_frames import MAX_DESCRIPTION, error_texts, is_error_shape
from chargepki.ocpp_security.errors import RpcErrorCode, SchemaViolation
from chargepki.ocpp_security.frames import Limits, encode_frame, is_message_id, parse_frame
from chargepki.ocpp_security.rpc_events import (
    AnswerReceived,
    CallReceived,
    CallTimedOut,
    ErrorReceived,
    Origin,
    OutgoingCall,
    Payload,
    ProtocolViolation,
    ResultErrorReceived,
    RpcEvent,
    SendFrame,
    SendReceived,
    ViolationKind,
)
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import MessageType, OcppVersion, Role, rules_of, spell_error, takes_call
from chargepki.pki.errors import InputError, StateError, printable

__all__ = [
    "AnswerReceived",
    "CallReceived",
    "CallTimedOut",
    "ErrorReceived",
    "Limits",
    "Origin",
    "OutgoingCall",
    "Payload",
    "ProtocolViolation",
    "ResultErrorReceived",
    "RpcEvent",
    "RpcSession",
    "SendFrame",
    "SendReceived",
    "ViolationKind",
    "random_message_id",
]

DEFAULT_TIMEOUT = timedelta(seconds=30)
UNREADABLE_ID = "-1"


@dataclass(slots=True)
class _Pending:
    message_id: str
    action: str
    text: str
    timeout: timedelta
    unchecked: bool = False
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a frame; the reason holds no text of it."""

    code: RpcErrorCode
    reason: str


def random_message_id() -> str:
    """Return a fresh UUID (36 characters)."""
    return str(uuid.uuid4())


_REMEMBERED_CALLS = 8
_SHORT = 1000
"""No schema holds a text to less whose length can be agreed upon."""


@cache
def _callable(version: OcppVersion, role: Role) -> frozenset[str]:
    """Return the actions that an end in *role* may be called with."""
    return frozenset(action for action in schemas.actions(version) if takes_call(version, role, action))


class RpcSession:
    """One end of one OCPP-J connection.

    `receive` never raises for what a peer sends. Not safe for use by several threads at once.

    Args:
        handles: actions that this end answers; others that it knows are refused as NotSupported. ``None``
            means all that its role may be called with.
        message_ids: makes the ids of our calls, each 1 to 36 characters and unique.
        unchecked: actions whose payloads are not held to their schema, in either direction: for peers that are known to
            break it. Frames are checked all the same.
        long_answers: actions with the text field of our answers whose length is the caller's business: for peers that
            say how much they take.
    """

    def __init__(
        self,
        version: OcppVersion,
        *,
        role: Role | str,
        limits: Limits | None = None,
        handles: Collection[str] | None = None,
        message_ids: Callable[[], str] = random_message_id,
        unchecked: Collection[str] = (),
        long_answers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.version = version
        self.role = Role(role)
        self.limits = limits or Limits()
        self._rules = rules_of(version)
        self._actions = schemas.actions(version)
        own = _callable(version, self.role)
        self._handles = own if handles is None else own & set(handles)
        self._new_id = message_ids
        self._unchecked, self._long_answers = frozenset(unchecked), long_answers
        self._outstanding: _Pending | None = None
        # A list and not a deque: it is short, and there are ten thousand sessions.
        self._queue: list[_Pending] = []
        self._open: dict[str, str] = {}
        self._seen: OrderedDict[str, str] = OrderedDict()
        # Those of our latest calls: a peer may echo them late, or in another answer.
        self._secrets: tuple[frozenset[str], ...] = ()

    # Calls of ours

    def call(
        self,
        action: str,
        payload: Payload,
        now: datetime,
        timeout: timedelta = DEFAULT_TIMEOUT,
        *,
        unchecked: bool = False,
    ) -> OutgoingCall:
        """Take a call to the peer; one is outstanding at a time, others wait their turn.

        Args:
            now: timezone-aware.
            timeout: counted from the moment the call is sent.
            unchecked: hold neither the payload nor its answer to their schemas.

        Raises:
            InputError: this version or the peer's role has no such action.
            SchemaViolation: the payload does not satisfy the schema.
            StateError: too many calls wait already.
            TypeError: *now* is naive.
        """
        _check_aware(now)
        peer = Role.STATION if self.role is Role.CSMS else Role.CSMS
        self._check_action(action, peer, sends=False)
        unchecked = unchecked or action in self._unchecked
        if not unchecked:
            schemas.check_payload(self.version, action, Kind.REQUEST, payload, sending=True)
        if len(self._queue) >= self.limits.max_queued_calls:
            raise StateError(
                f"{len(self._queue)} calls already wait for this connection",
                why="OCPP allows one outstanding call, and the peer is slow to answer",
                fix="try again later",
            )
        message_id = self._new_id()
        text = self._encode(MessageType.CALL, message_id, action, payload)
        secrets = redact.secret_values(payload) if redact.may_hold_secrets(text) else frozenset()
        if secrets:
            self._secrets = (*self._secrets, secrets)[-_REMEMBERED_CALLS:]
        pending = _Pending(message_id, action, text, timeout, unchecked)
        if self._outstanding is not None:
            self._queue.append(pending)
            return OutgoingCall(message_id, None)
        self._start(pending, now)
        return OutgoingCall(message_id, text)

    def send(self, action: str, payload: Payload) -> str:
        """Return the frame of an unconfirmed message (2.1, SEND).

        Raises:
            InputError: this version or role has no such action.
            SchemaViolation: the payload does not satisfy the schema.
        """
        peer = Role.STATION if self.role is Role.CSMS else Role.CSMS
        self._check_action(action, peer, sends=True)
        schemas.check_payload(self.version, action, Kind.REQUEST, payload, sending=True)
        return self._encode(MessageType.SEND, self._new_id(), action, payload)

    def due(self, now: datetime) -> list[RpcEvent]:
        """Return the calls that have timed out at *now*, and the next queued call if that frees the way."""
        _check_aware(now)
        events: list[RpcEvent] = []
        pending = self._outstanding
        if pending is not None and pending.deadline is not None and pending.deadline <= now:
            self._outstanding = None
            events.append(CallTimedOut(pending.message_id, pending.action))
            events.extend(self._next(now))
        return events

    def next_due(self) -> datetime | None:
        """Return when `due` has something to say at the earliest; ``None``: not before the next call."""
        return self._outstanding.deadline if self._outstanding else None

    def abandon(self) -> list[CallTimedOut]:
        """Give up every call of ours because the connection has ended."""
        lost = []
        if self._outstanding is not None:
            lost.append(CallTimedOut(self._outstanding.message_id, self._outstanding.action))
        lost.extend(CallTimedOut(pending.message_id, pending.action, sent=False) for pending in self._queue)
        self._outstanding = None
        self._queue.clear()
        self._open.clear()
        return lost

    # Answers of ours

    def answer(self, message_id: str, payload: Payload) -> str:
        """Return the CALLRESULT for a call of the peer.

        Raises:
            StateError: no call with this id is open.
            SchemaViolation: the payload does not satisfy the schema; the call stays open.
        """
        action = self._get_open(message_id)
        if action not in self._unchecked:
            schemas.check_payload(self.version, action, Kind.RESPONSE, self._shortened(action, payload), sending=True)
        text = self._encode(MessageType.CALLRESULT, message_id, payload)
        del self._open[message_id]
        return text

    def _shortened(self, action: str, payload: Payload) -> Payload:
        """Return the answer as its schema would have it, for the sake of everything else in it."""
        field = self._long_answers.get(action)
        text = payload.get(field) if field is not None else None
        if field is None or not isinstance(text, str):
            return payload
        return {**payload, field: text[:_SHORT]}

    def refuse(self, message_id: str, code: RpcErrorCode, description: str = "") -> str:
        """Return the CALLERROR for a call of the peer; details stay empty, so nothing is echoed.

        Raises:
            StateError: no call with this id is open.
        """
        self._get_open(message_id)
        del self._open[message_id]
        return self._error_frame(MessageType.CALLERROR, message_id, code, description)

    def for_log(self, frame: str | bytes) -> str:
        """Return *frame* as it may be written to a log; see `redact.log_form`.

        The secrets of our latest calls are taken out of it too, in case the peer echoes them.
        """
        if len(frame) > self.limits.max_frame_bytes:
            return f"<frame of {len(frame)} {'bytes' if isinstance(frame, bytes) else 'characters'}>"
        return redact.log_form(frame, secrets=self._told())

    def _told(self) -> frozenset[str]:
        return frozenset().union(*self._secrets) if self._secrets else frozenset()

    # What the peer sends

    def receive(self, frame: str | bytes, now: datetime) -> list[RpcEvent]:
        """Judge one WebSocket message and return what follows from it; never raises for what a peer sends.

        Raises:
            TypeError: *now* is naive.
        """
        _check_aware(now)
        parsed = parse_frame(frame, self.limits)
        elements = parsed.elements
        if not elements:
            return self._unreadable(parsed.problem or "an empty array")
        kind = elements[0]
        if type(kind) is not int or kind not in self._rules.message_types:
            return self._unknown_type(elements)
        message_id = elements[1] if len(elements) > 1 else None
        if not isinstance(message_id, str) or not is_message_id(message_id):
            if kind == MessageType.CALL:
                return self._unreadable("the message id is not a string of 1 to 36 characters")
            return [ProtocolViolation("an answer without a usable message id", ViolationKind.BAD_ANSWER)]
        fault = _Fault(parsed.code, parsed.problem) if parsed.problem else None
        if kind in (MessageType.CALL, MessageType.SEND):
            return self._receive_call(kind, message_id, elements, fault)
        if kind == MessageType.CALLRESULTERROR:
            return self._receive_result_error(message_id, elements)
        return self._receive_answer(kind, message_id, elements, fault, now)

    def _receive_call(self, kind: int, message_id: str, elements: list[object], fault: _Fault | None) -> list[RpcEvent]:
        """Judge a CALL or a SEND; only a CALL is answered."""
        judged = self._judge_call(kind, elements, fault)
        if isinstance(judged, _Fault):
            events: list[RpcEvent] = [ProtocolViolation(judged.reason, ViolationKind.BAD_CALL)]
            # An id that is still open belongs to an earlier call: a CALLERROR would be taken for its answer.
            if kind == MessageType.CALL and message_id not in self._open:
                text = self._error_frame(MessageType.CALLERROR, message_id, judged.code, judged.reason)
                events.append(SendFrame(text))
            return events
        action, payload = judged
        if kind == MessageType.SEND:
            return [SendReceived(message_id, action, payload)]
        return self._accept_call(message_id, action, payload)

    def _judge_call(
        self, kind: int, elements: list[object], fault: _Fault | None
    ) -> tuple[str, dict[str, object]] | _Fault:
        """Return action and payload of a sound CALL or SEND, else what is wrong with it."""
        if len(elements) != 4:
            return _Fault(RpcErrorCode.RPC_FRAMEWORK_ERROR, "a call has four elements")
        action, payload = elements[2], elements[3]
        if not isinstance(action, str):
            return _Fault(RpcErrorCode.RPC_FRAMEWORK_ERROR, "the action is not a string")
        if fault:
            return fault
        if action not in self._actions:
            return _Fault(RpcErrorCode.NOT_IMPLEMENTED, "the action is not known")
        if action not in self._handles or (action in self._rules.sends) != (kind == MessageType.SEND):
            return _Fault(RpcErrorCode.NOT_SUPPORTED, f"{action} is not supported here")
        if payload is None:
            payload = {}  # "null or an empty object" stand for no payload (part 4, 4.1.5)
        if not isinstance(payload, dict):
            return _Fault(RpcErrorCode.FORMAT_VIOLATION, "the payload is not an object")
        violation = self._find_violation(action, Kind.REQUEST, payload)
        return violation or (action, payload)

    def _accept_call(self, message_id: str, action: str, payload: dict[str, object]) -> list[RpcEvent]:
        if message_id in self._open:
            # The answer to the first one serves both; answering twice would leave one answer unsolicited.
            return [ProtocolViolation("the id of a call that is still open was used again", ViolationKind.REPEATED_ID)]
        if len(self._open) >= self.limits.max_open_calls:
            error = self._error_frame(
                MessageType.CALLERROR, message_id, RpcErrorCode.GENERIC_ERROR, "too many calls wait for an answer"
            )
            return [
                ProtocolViolation(f"{len(self._open)} calls already wait for an answer", ViolationKind.TOO_MANY_CALLS),
                SendFrame(error),
            ]
        events: list[RpcEvent] = []
        repeated = message_id in self._seen
        if repeated:
            events.append(ProtocolViolation("a message id was used again", ViolationKind.REPEATED_ID))
            del self._seen[message_id]
        elif len(self._seen) >= self.limits.remembered_ids:
            self._seen.popitem(last=False)
        self._seen[message_id] = action
        self._open[message_id] = action
        events.append(CallReceived(message_id, action, payload, repeated))
        return events

    def _receive_answer(
        self, kind: int, message_id: str, elements: list[object], fault: _Fault | None, now: datetime
    ) -> list[RpcEvent]:
        """Judge a CALLRESULT or CALLERROR; whatever it is, it ends the call that it names."""
        pending = self._outstanding
        if pending is None or pending.message_id != message_id:
            return [ProtocolViolation("an answer to no outstanding call", ViolationKind.UNSOLICITED_ANSWER)]
        self._outstanding = None
        if kind == MessageType.CALLERROR:
            events = self._judge_error(pending, elements, fault)
        else:
            events = self._judge_result(pending, elements, fault)
        return [*events, *self._next(now)]

    def _judge_result(self, pending: _Pending, elements: list[object], fault: _Fault | None) -> list[RpcEvent]:
        payload = elements[2] if len(elements) == 3 else None
        if len(elements) != 3:
            fault = _Fault(RpcErrorCode.RPC_FRAMEWORK_ERROR, "a result has three elements")
        elif payload is None:
            payload = {}
        if not fault and not isinstance(payload, dict):
            fault = _Fault(RpcErrorCode.FORMAT_VIOLATION, "the payload is not an object")
        if not fault and not pending.unchecked:
            fault = self._find_violation(pending.action, Kind.RESPONSE, payload)
        if not fault and isinstance(payload, dict):
            return [AnswerReceived(pending.message_id, pending.action, payload)]
        assert fault is not None  # a payload that is no object has been given its fault above
        return self._bad_answer(pending, fault)

    def _bad_answer(self, pending: _Pending, fault: _Fault) -> list[RpcEvent]:
        events: list[RpcEvent] = [
            ProtocolViolation(fault.reason, ViolationKind.BAD_ANSWER),
            ErrorReceived(
                pending.message_id, spell_error(self.version, fault.code), fault.reason, pending.action, Origin.LOCAL
            ),
        ]
        if MessageType.CALLRESULTERROR in self._rules.message_types:
            text = self._error_frame(MessageType.CALLRESULTERROR, pending.message_id, fault.code, fault.reason)
            events.append(SendFrame(text))
        return events

    def _judge_error(self, pending: _Pending, elements: list[object], fault: _Fault | None) -> list[RpcEvent]:
        events: list[RpcEvent] = []
        if fault:
            events.append(ProtocolViolation(fault.reason, ViolationKind.BAD_ANSWER))
        elif not is_error_shape(elements):
            reason = "a CALLERROR is [4, id, code, description, details]"
            events.append(ProtocolViolation(reason, ViolationKind.BAD_ANSWER))
        # A malformed CALLERROR is a CALLERROR all the same: nobody should wait for the timeout.
        code, description = error_texts(elements, self._told())
        events.append(ErrorReceived(pending.message_id, code, description, pending.action))
        return events

    def _receive_result_error(self, message_id: str, elements: list[object]) -> list[RpcEvent]:
        action = self._seen.get(message_id)
        if action is None or message_id in self._open:
            return [ProtocolViolation("an error about no answer of ours", ViolationKind.UNSOLICITED_ANSWER)]
        events: list[RpcEvent] = []
        if not is_error_shape(elements):
            reason = "a CALLRESULTERROR is [5, id, code, description, details]"
            events.append(ProtocolViolation(reason, ViolationKind.BAD_ANSWER))
        code, description = error_texts(elements, self._told())
        events.append(ResultErrorReceived(message_id, action, code, description))
        return events

    def _unreadable(self, reason: str) -> list[RpcEvent]:
        events: list[RpcEvent] = [ProtocolViolation(reason, ViolationKind.UNREADABLE)]
        if self._rules.answers_unreadable:
            code = RpcErrorCode.RPC_FRAMEWORK_ERROR
            events.append(SendFrame(self._error_frame(MessageType.CALLERROR, UNREADABLE_ID, code, reason)))
        return events

    def _unknown_type(self, elements: list[object]) -> list[RpcEvent]:
        """Answer a message of a type that this version lacks in 2.x; 1.6 ignores it (OCPP-J 1.6, 4.1.3)."""
        if type(elements[0]) is not int:
            return self._unreadable("the message type is not a number")
        reason = "a message type that this version does not have"
        events: list[RpcEvent] = [ProtocolViolation(reason, ViolationKind.UNKNOWN_TYPE)]
        if self._rules.answers_unreadable:
            message_id = elements[1] if len(elements) > 1 else None
            echoed = message_id if isinstance(message_id, str) and is_message_id(message_id) else UNREADABLE_ID
            code = RpcErrorCode.MESSAGE_TYPE_NOT_SUPPORTED
            if echoed not in self._open:
                events.append(SendFrame(self._error_frame(MessageType.CALLERROR, echoed, code, reason)))
        return events

    # Helpers

    def _find_violation(self, action: str, kind: Kind, payload: object) -> _Fault | None:
        if action in self._unchecked:
            return None
        try:
            schemas.check_payload(self.version, action, kind, payload, sending=False)
        except SchemaViolation as violation:
            return _Fault(violation.rpc_code, violation.what)
        return None

    def _check_action(self, action: str, peer: Role, *, sends: bool) -> None:
        if action not in self._actions:
            raise InputError(
                f"{self.version.value} has no action {action[:50]!r}",
                fix="actions are spelled as in the standard, for example TriggerMessage",
            )
        if not takes_call(self.version, peer, action) or (action in self._rules.sends) != sends:
            raise InputError(f"{action} is not sent as a {'message' if sends else 'call'} to a {peer.value}")

    def _get_open(self, message_id: str) -> str:
        action = self._open.get(message_id)
        if action is None:
            raise StateError("no call with this message id waits for an answer", why="answered already, or never came")
        return action

    def _encode(self, *elements: object) -> str:
        try:
            return encode_frame(elements)
        except TypeError:  # what an open part of a schema let pass: integers beyond 64 bits, values that are no JSON
            # "from None": the chained error may quote the payload.
            raise SchemaViolation(
                "the payload cannot be written as JSON", rpc_code=RpcErrorCode.FORMAT_VIOLATION, path=""
            ) from None

    def _error_frame(self, kind: int, message_id: str, code: RpcErrorCode, description: str) -> str:
        spelled = spell_error(self.version, code)
        return encode_frame([kind, message_id, spelled, printable(description)[:MAX_DESCRIPTION], {}])

    def _start(self, pending: _Pending, now: datetime) -> None:
        pending.deadline = now + pending.timeout
        self._outstanding = pending

    def _next(self, now: datetime) -> list[RpcEvent]:
        if not self._queue:
            return []
        pending = self._queue.pop(0)
        self._start(pending, now)
        return [SendFrame(pending.text)]


def _check_aware(now: datetime) -> None:
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
