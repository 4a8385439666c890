"""The frame fuzzer: seeded frames of every action and version, damaged, and what must hold for each of them."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from jsonschema import Draft4Validator

from chargepki.ocpp_security.errors import RpcErrorCode
from chargepki.ocpp_security.rpc import (
    CallReceived,
    ErrorReceived,
    Limits,
    ProtocolViolation,
    ResultErrorReceived,
    RpcSession,
    SendFrame,
    SendReceived,
)
from chargepki.ocpp_security.versions import OcppVersion, Role
from testkit.ocpp_payloads import (
    all_messages,
    caller_of,
    make_payload,
    mutate_payload,
    mutate_text,
    plain_members,
    plant,
    schema_of,
)

__all__ = ["FuzzFrame", "Fuzzer", "Tally", "make_frame", "stands_elsewhere"]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOWEST_SECONDS = 0.5
"""No frame may cost more CPU than that; the largest has 256 KiB."""

_CODES_2X = frozenset(
    {
        "FormatViolation", "GenericError", "InternalError", "MessageTypeNotSupported", "NotImplemented", "NotSupported",
        "OccurrenceConstraintViolation", "PropertyConstraintViolation", "ProtocolError", "RpcFrameworkError",
        "SecurityError", "TypeConstraintViolation",
    }
)  # fmt: skip
_CODES = {
    # OCPP-J 1.6, 4.2.3, with the standard's own spelling of the sixth.
    OcppVersion.V16: frozenset(
        {
            "FormationViolation", "GenericError", "InternalError", "NotImplemented", "NotSupported",
            "OccurenceConstraintViolation", "PropertyConstraintViolation", "ProtocolError", "SecurityError",
            "TypeConstraintViolation",
        }
    ),
    OcppVersion.V201: _CODES_2X,
    OcppVersion.V21: _CODES_2X,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FuzzFrame:
    """One frame, and what is known about it."""

    text: str | bytes
    secret: str
    """Stands somewhere in it where a secret belongs, if `planted`."""
    planted: bool
    pristine: bool
    """Whether it is a sound call for the end that receives it."""
    action: str


@dataclass(slots=True)
class Tally:
    """What a run has seen; printed by the campaign."""

    frames: int = 0
    calls: int = 0
    answered_with: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    with_secret: int = 0
    checked_by_jsonschema: int = 0
    misplaced: int = 0
    slowest: float = 0.0
    slowest_frame: str = ""
    actions: set[tuple[str, str]] = field(default_factory=set)

    def lines(self) -> list[str]:
        """Return the figures as text."""
        return [
            f"{self.frames} frames over {len(self.actions)} actions of three versions, {self.calls} taken as calls, "
            f"{self.with_secret} with a secret in them ({self.misplaced} of these damaged so that it left its field)",
            f"{self.checked_by_jsonschema} verdicts compared with jsonschema",
            f"answered: {dict(sorted(self.answered_with.items()))}",
            f"violations: {dict(sorted(self.violations.items()))}",
            f"slowest frame {self.slowest * 1000:.1f} ms of CPU: {self.slowest_frame}",
        ]


def make_frame(version: OcppVersion, role: Role, random: Random, *, message_id: str = "") -> FuzzFrame:
    """Return a frame for an end in *role*: of any action, sound, damaged as data, or damaged as text."""
    messages = all_messages(version) if random.random() < 0.4 else _calls_for(version, role)
    action, kind = random.choice(messages)
    payload = make_payload(schema_of(version, action, kind), random, full=random.random() < 0.3)
    # Not one of the words that a schema, an error code or the fuzzer itself uses.
    secret = "Zq" + "".join(random.choice("ghjkmnpqrtvwxyz23456789") for _ in range(14))
    planted = random.random() < 0.6 and plant(payload, secret) > 0
    number = message_id or f"f{random.getrandbits(48):x}"
    mode = random.random()
    if mode > 0.25:
        payload = mutate_payload(payload, random) if mode < 0.7 else payload
    elements: list[Any] = [2, number, action, payload] if kind == "request" else [3, number, payload]
    if 0.7 < mode < 0.8:
        elements = _bend(elements, random)
    text: str | bytes = json.dumps(elements, ensure_ascii=random.random() < 0.5)
    assert isinstance(text, str)
    if mode > 0.8:
        text = mutate_text(text, random)
    if random.random() < 0.01:
        text = text.encode("utf-8", "surrogatepass")
    takes = kind == "request" and caller_of(version, action) is not role and mode <= 0.25
    return FuzzFrame(text, secret, planted, takes and isinstance(text, str), action)


@functools.cache
def _calls_for(version: OcppVersion, role: Role) -> tuple[tuple[str, str], ...]:
    return tuple(
        (action, kind)
        for action, kind in all_messages(version)
        if kind == "request" and caller_of(version, action) is not role
    )


def _bend(elements: list[Any], random: Random) -> list[Any]:
    bent = list(elements)
    match random.randrange(6):
        case 0:
            bent[0] = random.choice([1, 2, 3, 4, 5, 6, 7, -2, 2.0, "2", None, True, 10**30])
        case 1:
            bent[1] = random.choice(["", "x" * 37, 7, None, ["id"], {"id": 1}, "-1", "ä" * 36])
        case 2:
            bent.pop(random.randrange(len(bent)))
        case 3:
            bent.insert(random.randrange(len(bent) + 1), random.choice([None, {}, "x", 5]))
        case 4:
            random.shuffle(bent)
        case _:
            bent = [random.choice([4, 5]), bent[1], random.choice(["GenericError", "x" * 300, 5]), *bent[-1:], {}]
    return bent


class Fuzzer:
    """Feeds frames to one end of a connection and checks every clause on what comes of each."""

    def __init__(self, version: OcppVersion, role: Role, random: Random, tally: Tally) -> None:
        self.version, self.role, self.random, self.tally = version, role, random, tally
        # Ids from the seed: a failure can then be repeated.
        numbers = itertools.count()
        self.session = RpcSession(version, role=role, message_ids=lambda: f"own-{next(numbers)}")
        self._open: set[str] = set()

    def step(self) -> None:
        """Make one frame, feed it, judge the outcome."""
        if self.random.random() < 0.1:
            self._call()
        frame = make_frame(self.version, self.role, self.random, message_id=self._choose_id())
        started = time.process_time()
        events = self.session.receive(frame.text, NOW)
        shown = self.session.for_log(frame.text)
        spent = time.process_time() - started
        tally = self.tally
        tally.frames += 1
        tally.actions.add((self.version.value, frame.action))
        tally.with_secret += frame.planted
        if spent > tally.slowest:
            tally.slowest, tally.slowest_frame = spent, f"{self.version} {frame.action} ({len(frame.text)} long)"
        assert spent < SLOWEST_SECONDS, f"{spent:.2f} s of CPU for {frame.text!r:.500}"
        said = [shown]
        for event in events:
            match event:
                case SendFrame():
                    said.append(event.text)
                    self._check_frame(json.loads(event.text))
                case ProtocolViolation():
                    said.append(event.reason)
                    tally.violations[event.kind.value] += 1
                    assert event.reason.isprintable()
                case ErrorReceived() | ResultErrorReceived():
                    said += [event.code, event.description]
                case CallReceived():
                    tally.calls += 1
                    self._open.add(event.message_id)
                    self._check_payload(event.action, event.payload)
                case SendReceived():
                    self._check_payload(event.action, event.payload)
                case _:
                    pass
        if frame.planted:
            self._check_secret(frame, said)
        if frame.pristine:
            taken = any(isinstance(event, CallReceived | SendReceived) for event in events)
            busy = any(isinstance(event, ProtocolViolation) for event in events)
            assert taken or busy, f"a sound {frame.action} was not taken: {frame.text!r:.500} {events}"
        self._answer_some()
        self._check_bounds()

    def _choose_id(self) -> str:
        """Now and then repeat an id, or use the one of our own outstanding call."""
        pool = [*self._open, *self._outstanding()]
        return self.random.choice(pool) if pool and self.random.random() < 0.1 else ""

    def _outstanding(self) -> list[str]:
        pending = self.session._outstanding
        return [pending.message_id] if pending else []

    def _call(self) -> None:
        if len(self.session._queue) >= 3:
            return
        action = "ClearCache" if self.role is Role.CSMS else "Heartbeat"
        self.session.call(action, {}, NOW)

    def _answer_some(self) -> None:
        for message_id in list(self._open):
            if self.random.random() < 0.7:
                self._open.discard(message_id)
                self._check_frame(json.loads(self.session.refuse(message_id, self.random.choice(list(RpcErrorCode)))))

    def _check_frame(self, sent: list[Any]) -> None:
        if sent[0] == 2:
            return
        kind, message_id, code, description, details = sent
        assert kind in ((4, 5) if self.version is OcppVersion.V21 else (4,))
        assert isinstance(message_id, str)
        assert 1 <= len(message_id) <= 36
        assert code in _CODES[self.version], code
        assert isinstance(description, str)
        assert len(description) <= 255
        assert description.isprintable()
        assert details == {}
        self.tally.answered_with[code] += 1

    def _check_payload(self, action: str, payload: dict[str, Any]) -> None:
        # The reference costs a hundred times what we do: a sample is enough.
        if self.random.random() < 0.1:
            self.tally.checked_by_jsonschema += 1
            found = reference(self.version, action, "request").iter_errors(payload)
            # It computes "a multiple of 0.1" in binary, where 825.3 is none.
            errors = [error for error in found if error.validator != "multipleOf"]
            assert not errors, f"{action} was taken, but: {errors[0].message[:300]}"

    def _check_secret(self, frame: FuzzFrame, said: list[str]) -> None:
        everything = "\n".join(said).casefold()
        if frame.secret.casefold() in everything and stands_elsewhere(frame):
            # The damage made it the value of a member that is no secret: nobody can know.
            self.tally.misplaced += 1
            return
        assert frame.secret.casefold() not in everything, f"{frame.text!r:.800} came out as {everything[:800]}"

    def _check_bounds(self) -> None:
        session, limits = self.session, Limits()
        assert len(session._open) <= limits.max_open_calls
        assert len(session._seen) <= limits.remembered_ids
        assert len(session._queue) <= limits.max_queued_calls


def stands_elsewhere(frame: FuzzFrame) -> bool:
    """Whether the secret is (also) the value of a member that every reader takes for something else."""
    try:
        stack: list[tuple[Any, str]] = [(json.loads(frame.text), "")]
    except ValueError:
        return False
    while stack:
        value, name = stack.pop()
        if isinstance(value, dict):
            if any(frame.secret in key for key in value) or _names_something_else(value):
                return True
            stack.extend((member, key) for key, member in value.items())
        elif isinstance(value, list):
            stack.extend((item, name) for item in value)
        elif isinstance(value, str) and frame.secret in value and (not name or name in plain_members()):
            return True
    return False


def _names_something_else(value: dict[str, Any]) -> bool:
    """Whether the damage has misspelt the name of the setting whose value the secret is."""
    variable = value.get("variable")
    names = [value.get("key"), variable.get("name") if isinstance(variable, dict) else None]
    return any(isinstance(name, str) and name not in ("AuthorizationKey", "BasicAuthPassword") for name in names)


@functools.cache
def reference(version: OcppVersion, action: str, kind: str) -> Draft4Validator:
    """Return the validator of the schema as it is shipped, by another implementation."""
    return Draft4Validator(schema_of(version, action, kind))
