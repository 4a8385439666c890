"""Every plain answer satisfies its schema, for every version."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.csms.answers import plain_answer
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion, Role, takes_call

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SERVED = [
    (version, action, payload)
    for version in OcppVersion
    for action in sorted(schemas.actions(version))
    for payload in ({}, {"idToken": {"idToken": "x", "type": "Central"}})
    if takes_call(version, Role.CSMS, action) and plain_answer(version, action, payload, NOW) is not None
]


@pytest.mark.parametrize(("version", "action", "payload"), SERVED)
def test_plain_answers_satisfy_their_schema(version: OcppVersion, action: str, payload: dict[str, object]) -> None:
    answer = plain_answer(version, action, payload, NOW)
    schemas.check_payload(version, action, Kind.RESPONSE, answer, sending=True)


def test_no_driver_is_let_in_by_a_plain_answer() -> None:
    assert plain_answer(OcppVersion.V16, "Authorize", {}, NOW) == {"idTagInfo": {"status": "Invalid"}}
    assert plain_answer(OcppVersion.V201, "Authorize", {}, NOW) == {"idTokenInfo": {"status": "Unknown"}}


def test_what_is_not_served_has_no_plain_answer() -> None:
    assert plain_answer(OcppVersion.V201, "Get15118EVCertificate", {}, NOW) is None
    assert plain_answer(OcppVersion.V16, "NoSuchAction", {}, NOW) is None


def test_messages_with_an_answer_of_their_own_are_not_in_the_table() -> None:
    for version in OcppVersion:
        for action in ("BootNotification", "SignCertificate", "SecurityEventNotification"):
            assert plain_answer(version, action, {}, NOW) is None
