"""`set-profile` of a 2.1 station: a slot with its own identity and password, by message or by variables (B09; pure)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chargepki.ocpp_security.operation_steps import (
    Finish,
    OperationKind,
    PasswordChange,
    PasswordSecret,
    PasswordStep,
    SendAttempt,
    Snapshot,
    Step,
)
from chargepki.ocpp_security.operations import next_step
from chargepki.ocpp_security.operations_profile import profile_parameters, read_profile_answer
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.inventory.records import AttemptRecord, OperationRecord, OperationState
from testkit.flows import NOW, station_record

URL = "wss://csms.example/ocpp"
SECRET = PasswordSecret(b"password-of-slot-2", "$slot")
PEND, DROP = (PasswordChange(step, "$slot") for step in (PasswordStep.PEND, PasswordStep.DROP))
ACCEPTED: dict[str, object] = {"status": "Accepted"}
Answers = list[tuple[str, dict[str, object] | None]]
READ: Answers = [("GetVariables", {"status": "Accepted", "value": "1"})]
UNKNOWN: Answers = [*READ, ("SetNetworkProfile", {"error": "NotSupported"})]
SENT: Answers = [*READ, ("SetNetworkProfile", ACCEPTED), ("SetVariables", ACCEPTED), ("Reset", ACCEPTED)]


def snapshot(answers: Answers, *, live: int = 1, secret: PasswordSecret | None = SECRET, **more: Any) -> Snapshot:
    attempts = tuple(
        AttemptRecord("op-1", number, NOW, action, NOW if answer is not None else None, answer)
        for number, (action, answer) in enumerate(answers, start=1)
    )
    operation = OperationRecord(
        "op-1", OperationKind.SET_PROFILE.value, "CS1", profile_parameters(2, url=URL), OperationState.RUNNING, "alice",
        NOW, NOW + timedelta(days=1),
    )  # fmt: skip
    made = Snapshot(operation, attempts, station_record(password_hash="$old"), OcppVersion.V21, live, secret=secret)
    return replace(made, **{"sent_here": True, **more})


def step(answers: Answers, **more: Any) -> Step:
    return next_step(snapshot(answers, **more), NOW)


def test_tc_b_100_csms_and_b09_fr_14_the_slot_gets_identity_and_password_of_its_own() -> None:
    """Both passwords are accepted from before the station hears of the new one (A01.FR.04)."""
    assert step([]) == step([], secret=None), "nothing is sent to SecurityCtrlr first"
    sent = step(READ)
    assert isinstance(sent, SendAttempt)
    data: Any = sent.payload["connectionData"]
    assert (data["identity"], data["basicAuthPassword"]) == ("CS1", "password-of-slot-2")
    assert sent.password == PEND
    assert "password-of-slot-2" not in repr(sent)
    check_payload(OcppVersion.V21, "SetNetworkProfile", Kind.REQUEST, sent.payload, sending=True)
    plain = step(READ, secret=None)
    assert isinstance(plain, SendAttempt) and plain.password is None
    assert "basicAuthPassword" not in str(plain.payload)


@pytest.mark.parametrize(
    ("answers", "more"),
    [
        ([*READ, ("SetNetworkProfile", {"status": "Rejected"})], {}),
        ([*SENT, ("SetVariables", ACCEPTED)], {"sent_here": False, "booted_here": True}),
    ],
    ids=["refused", "fell back"],
)
def test_the_password_of_a_slot_that_came_to_nothing_is_forgotten(answers: Answers, more: dict[str, Any]) -> None:
    failed = step(answers, **more)
    assert isinstance(failed, Finish) and (failed.state, failed.password) == (OperationState.FAILED, DROP)


def test_a_station_that_came_in_with_it_has_it_on_record_and_one_that_did_not_is_told_apart() -> None:
    """The connection itself puts it on record (A01.FR.03)."""
    took = station_record(password_hash="$slot")
    done = step(SENT, live=2, sent_here=False, station=took)
    assert isinstance(done, Finish) and (done.state, done.password) == (OperationState.DONE, None)
    other = step(SENT, live=2, sent_here=False)
    assert isinstance(other, Finish) and (other.state, other.password) == (OperationState.DONE, DROP)
    assert "its old password" in str(other.outcome)


def test_a_station_without_set_network_profile_is_told_by_its_variables() -> None:
    """2.1: NetworkConfiguration; B09.FR.29 and FR.30: neither APN nor VPN. The slot is not on the order yet (FR.21)."""
    sent = step(UNKNOWN)
    assert isinstance(sent, SendAttempt) and (sent.recorded, sent.password) == ("SetVariables(slot)", PEND)
    check_payload(OcppVersion.V21, "SetVariables", Kind.REQUEST, sent.payload, sending=True)
    data: Any = sent.payload["setVariableData"]
    assert {item["component"]["instance"] for item in data} == {"2"}
    values = {item["variable"]["name"]: item["attributeValue"] for item in data}
    assert values["OcppCsmsUrl"] == URL and values["SecurityProfile"] == "2"
    assert values["ApnEnabled"] == values["VpnEnabled"] == "false"
    assert (values["Identity"], values["BasicAuthPassword"]) == ("CS1", "password-of-slot-2")
    # Only after it comes the order, which is a SetVariables as well.
    order = step([*UNKNOWN, ("SetVariables(slot)", ACCEPTED)])
    assert isinstance(order, SendAttempt) and order.recorded == ""
    assert "NetworkConfigurationPriority" in str(order.payload)


def test_a_2_0_1_station_without_set_network_profile_cannot_be_told() -> None:
    failed = step(UNKNOWN, version=OcppVersion.V201, secret=None)
    assert isinstance(failed, Finish) and failed.state is OperationState.FAILED


@pytest.mark.parametrize(
    ("refused", "status"),
    [("ApnEnabled", "Accepted"), ("SecurityProfile", "Rejected for SecurityProfile")],
)
def test_what_a_station_may_keep_as_it_is_does_not_count(refused: str, status: str) -> None:
    """B09.FR.13: ApnEnabled is read-only without an APN; B09.FR.24: another refusal ends it."""
    results = [
        {"attributeStatus": "Rejected" if name == refused else "Accepted", "variable": {"name": name}}
        for name in ("OcppCsmsUrl", "SecurityProfile", "ApnEnabled")
    ]
    answer = read_profile_answer(OcppVersion.V21, "SetVariables(slot)", {"setVariableResult": results})
    assert answer == {"status": status}
    follow = step([*UNKNOWN, ("SetVariables(slot)", answer)])
    assert isinstance(follow, SendAttempt if status == "Accepted" else Finish)
