"""Tests of chargepki.ocpp_security.errors."""

from __future__ import annotations

from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode, SchemaViolation, StatusAnswer
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.pki.errors import ChargePkiError, InputError


def test_what_the_peer_is_told_is_apart_from_what_the_operator_is_told() -> None:
    refusal = OcppRefusal(
        "station CS1 asks for the identity of CS2",
        answer=StatusAnswer("Rejected", "InvalidCSR"),
        why="/home/x/inventory.db says so",
        event=SecurityEvent.INVALID_MESSAGES,
    )
    assert isinstance(refusal, ChargePkiError)
    assert "CS2" in str(refusal)
    assert refusal.answer == StatusAnswer("Rejected", "InvalidCSR")
    assert "CS2" not in repr(refusal.answer)
    assert refusal.event is SecurityEvent.INVALID_MESSAGES


def test_a_refusal_may_be_a_call_error_without_an_event() -> None:
    refusal = OcppRefusal("no", answer=CallErrorAnswer(RpcErrorCode.SECURITY_ERROR))
    assert refusal.event is None
    assert refusal.code == "ocpp-refusal"


def test_a_schema_violation_is_bad_input() -> None:
    violation = SchemaViolation("csr breaks type", rpc_code=RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, path="csr")
    assert isinstance(violation, InputError)
    assert (violation.rpc_code, violation.path) == (RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, "csr")
