"""Every message of every version, made from its schema: taken as it came, refused when damaged."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from jsonschema import Draft4Validator

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import SchemaViolation
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion, rules_of
from testkit.link_pair import talk
from testkit.ocpp_payloads import all_messages, make_payload, mutate_payload, schema_of


def answerable(version: OcppVersion) -> list[str]:
    return sorted({action for action, _ in all_messages(version)} - rules_of(version).sends)


@pytest.mark.parametrize("version", OcppVersion)
def test_every_member_of_every_message_survives_the_way_to_the_other_end(version: OcppVersion) -> None:
    for action in answerable(version):
        random = Random(action)
        request = make_payload(schema_of(version, action, "request"), random, full=True)
        response = make_payload(schema_of(version, action, "response"), random, full=True)
        if (version, action) == (OcppVersion.V201, "Get15118EVCertificate"):
            response["exiResponse"] = response["exiResponse"][:5600]
        assert talk(version, action, request, response) == (request, response), action


def test_members_that_other_libraries_lose_survive() -> None:
    """43 members of 2.1 do not survive a rewriting of names to snake case and back; we rewrite none."""
    names = {
        name
        for action, kind in all_messages(OcppVersion.V21)
        for name in _names(make_payload(schema_of(OcppVersion.V21, action, kind), Random(1), full=True))
    }
    assert {"setpoint_L2", "limit_L3", "soC", "soH", "prioritizedEMAIDs", "receiptUrl"} <= names


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_names(member) for member in value.values()))
    if isinstance(value, list):
        return set().union(*(_names(item) for item in value)) if value else set()
    return set()


@pytest.mark.parametrize("version", OcppVersion)
def test_what_another_validator_refuses_is_refused(version: OcppVersion) -> None:
    """Ours checks everything that jsonschema checks, and formats besides."""
    refused = 0
    for action, kind in all_messages(version):
        random = Random(f"{action}{kind}")
        schema = schema_of(version, action, kind)
        other = Draft4Validator(schema)
        for _ in range(2):
            payload = mutate_payload(make_payload(schema, random), random)
            # It computes "a multiple of 0.1" in binary; a lone surrogate never comes out of a frame.
            if all(error.validator == "multipleOf" for error in other.iter_errors(payload)) or "\\ud800" in ascii(
                payload
            ):
                continue
            if _is_corrected(version, action, kind):
                continue
            refused += 1
            with pytest.raises(SchemaViolation):
                schemas.check_payload(version, action, Kind(kind), payload, sending=False)
    assert refused > 60


def _is_corrected(version: OcppVersion, action: str, kind: str) -> bool:
    return any((item.version, item.action, item.kind.value) == (version, action, kind) for item in schemas.CORRECTIONS)


@pytest.mark.parametrize("version", OcppVersion)
def test_every_format_is_enforced_in_every_message(version: OcppVersion) -> None:
    found = 0
    for action, kind in all_messages(version):
        payload = make_payload(schema_of(version, action, kind), Random(action), full=True)
        for holder, key in _formatted(payload):
            right, holder[key] = holder[key], "yesterday at noon"
            with pytest.raises(SchemaViolation):
                schemas.check_payload(version, action, Kind(kind), payload, sending=False)
            holder[key] = right
            found += 1
        schemas.check_payload(version, action, Kind(kind), payload, sending=False)
    assert found > 25


def _formatted(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        mine = [(value, key) for key, item in items if item in ("2026-03-01T12:00:00Z", "https://files.example/logs")]
        return mine + [place for _, item in items for place in _formatted(item)]
    return []
