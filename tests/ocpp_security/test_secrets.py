"""No secret that a message may hold comes out of the message path: a property over every such member."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import SchemaViolation
from chargepki.ocpp_security.redact import REDACTED, log_form
from chargepki.ocpp_security.rpc import ErrorReceived, ProtocolViolation, RpcSession, SendFrame
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion, Role
from testkit.ocpp_payloads import (
    all_messages,
    make_payload,
    mutate_payload,
    plant,
    schema_of,
    secret_members,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOLDERS = [
    (version, action, kind)
    for version in OcppVersion
    for action, kind in all_messages(version)
    if secret_members(version, action, kind)
]
# Letters that no word of a schema, an error or a log line has in a row.
secrets = st.text("ghjkmnpqrtvwxyz23456789", min_size=10, max_size=14).map(lambda text: f"Zq{text}")


def test_the_property_covers_every_kind_of_secret() -> None:
    found = {member.rsplit(".", 1)[-1] for holder in HOLDERS for member in secret_members(*holder)}
    assert found == {
        "actualValue", "additionalIdToken", "apnPassword", "attributeValue", "basicAuthPassword", "exiRequest",
        "exiResponse", "idTag", "idToken", "key", "parentIdTag", "password", "simPin", "value",
    }  # fmt: skip
    assert len(HOLDERS) > 40


@given(
    st.sampled_from(HOLDERS),
    secrets,
    st.sampled_from(Role),
    st.sampled_from(["sound", "damaged", "doubled", "oversized", "cut"]),
    st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_no_secret_comes_out_of_a_message_sound_or_not(
    holder: tuple[OcppVersion, str, str], secret: str, role: Role, damage: str, seed: int
) -> None:
    version, action, kind = holder
    random = Random(seed)
    payload = make_payload(schema_of(version, action, kind), random, full=True)
    assert plant(payload, secret) > 0
    text = _damaged(payload, version, action, kind, damage, random)
    session = RpcSession(version, role=role)
    session.call("ClearCache" if role is Role.CSMS else "Heartbeat", {}, NOW)
    shown = session.for_log(text)
    said = [shown]
    for event in session.receive(text, NOW):
        match event:
            case SendFrame():
                said.append(event.text)
            case ProtocolViolation():
                said.append(event.reason)
            case ErrorReceived():
                said += [event.code, event.description]
            case _:
                pass
    assert secret.casefold() not in "\n".join(said).casefold()
    if damage == "sound" and not shown.endswith(" characters)"):
        assert REDACTED in shown


def _damaged(payload: Any, version: OcppVersion, action: str, kind: str, damage: str, random: Random) -> str:
    if damage == "damaged":
        # Retyped, wrapped or removed, but still under its name: a value that the damage gave to another member is
        # nobody's secret any more (the fuzzer counts those).
        names = _member_names(payload)
        payload = mutate_payload(payload, random)
        assume(_member_names(payload) <= names | {"x"})
    if damage == "oversized":
        payload = {**payload, "customData": {"vendorId": "v" * 9000}} if isinstance(payload, dict) else payload
    elements = [2, "1", action, payload] if kind == "request" else [3, "1", payload]
    text = json.dumps(elements)
    if damage == "doubled":
        inner = json.dumps(payload)[1:-1]
        text = text.replace(inner, f"{inner},{inner}", 1)
    if damage == "cut":
        text = text[: random.randrange(len(text))]
    return text


def _member_names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_member_names(member) for member in value.values()))
    if isinstance(value, list):
        return set().union(*(_member_names(item) for item in value)) if value else set()
    return set()


@pytest.mark.parametrize(("version", "action", "kind"), HOLDERS, ids=lambda value: str(value))
def test_every_secret_member_is_hidden_and_its_violations_do_not_quote_it(
    version: OcppVersion, action: str, kind: str
) -> None:
    secret = "Zqhjkmnpqrtv23"
    payload = make_payload(schema_of(version, action, kind), Random(action), full=True)
    plant(payload, secret)
    schemas.check_payload(version, action, Kind(kind), payload, sending=False)
    frame = [2, "1", action, payload] if kind == "request" else [3, "1", payload]
    assert secret not in log_form(json.dumps(frame))
    # The same members with values that their schema forbids: too long, and of another type.
    for wrong in (secret * 2000, [secret], {"x": secret}):
        broken = json.loads(json.dumps(payload).replace(json.dumps(secret), json.dumps(wrong)))
        with pytest.raises(SchemaViolation) as caught:
            schemas.check_payload(version, action, Kind(kind), broken, sending=False)
        text = f"{caught.value} {caught.value.path} {caught.value.__cause__} {caught.value.__context__}"
        assert secret not in text
        frame[-1] = broken
        assert secret not in log_form(json.dumps(frame))


def test_frames_are_shown_at_debug_level_without_their_secrets(caplog: pytest.LogCaptureFixture) -> None:
    from testkit.link_pair import talk

    password = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
    with caplog.at_level(logging.DEBUG, "chargepki.test"):
        talk(
            OcppVersion.V201,
            "SetVariables",
            {"setVariableData": [{**password, "attributeValue": "correct-horse-16"}]},
            {"setVariableResult": [{**password, "attributeStatus": "Accepted"}]},
        )
    shown = [record.getMessage() for record in caplog.records]
    assert any("sends" in line and "SetVariables" in line and REDACTED in line for line in shown)
    assert any("receives" in line and "SetVariables" in line for line in shown)
    assert "correct-horse-16" not in caplog.text
