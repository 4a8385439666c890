"""Tests of chargepki.ocpp_security.rpc."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import RpcErrorCode, SchemaViolation
from chargepki.ocpp_security.rpc import (
    AnswerReceived,
    CallReceived,
    CallTimedOut,
    ErrorReceived,
    Limits,
    Origin,
    OutgoingCall,
    ProtocolViolation,
    ResultErrorReceived,
    RpcEvent,
    RpcSession,
    SendFrame,
    SendReceived,
    ViolationKind,
)
from chargepki.ocpp_security.versions import OcppVersion, Role
from chargepki.pki.errors import InputError, StateError

V16, V201, V21 = OcppVersion
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET = "0123456789abcdef0123"

STREAM = {"id": 1, "pending": 0, "basetime": "2026-01-01T00:00:00Z", "data": [{"t": 1, "v": "230"}]}
SET_PASSWORD = {
    "setVariableData": [
        {
            "component": {"name": "SecurityCtrlr"},
            "variable": {"name": "BasicAuthPassword"},
            "attributeValue": SECRET,
        }
    ]
}


def session(version: OcppVersion = V201, role: str = "csms", **options: int) -> RpcSession:
    numbers = itertools.count(1)
    limits = Limits(**options)
    return RpcSession(version, role=role, limits=limits, message_ids=lambda: f"m{next(numbers)}")


def sent(events: list[RpcEvent]) -> list[list[object]]:
    return [json.loads(event.text) for event in events if isinstance(event, SendFrame)]


def kinds(events: list[RpcEvent]) -> list[ViolationKind]:
    return [event.kind for event in events if isinstance(event, ProtocolViolation)]


def call(action: str, payload: object, message_id: object = "1") -> str:
    return json.dumps([2, message_id, action, payload])


# Calls of the peer


@pytest.mark.parametrize("version", OcppVersion)
def test_a_call_is_received_and_answered(version: OcppVersion) -> None:
    csms = session(version)
    assert csms.receive(call("SignCertificate", {"csr": "x"}), NOW) == [
        CallReceived("1", "SignCertificate", {"csr": "x"})
    ]
    assert json.loads(csms.answer("1", {"status": "Accepted"})) == [3, "1", {"status": "Accepted"}]
    with pytest.raises(StateError):
        csms.answer("1", {"status": "Accepted"})


def test_names_stay_in_camel_case_as_they_came() -> None:
    payload = {
        "iso15118SchemaVersion": "urn:iso", "action": "Install", "exiRequest": "AA",
        "maximumContractCertificateChains": 1, "prioritizedEMAIDs": ["DE8EMI0000001"],
    }  # fmt: skip
    (event,) = session(V21).receive(call("Get15118EVCertificate", payload), NOW)
    assert isinstance(event, CallReceived)
    assert event.payload == payload


@pytest.mark.parametrize(
    ("text", "code_2x", "code_16"),
    [
        (call("NoSuchAction", {}), "NotImplemented", "NotImplemented"),
        (call("CertificateSigned", {"certificateChain": "x"}), "NotSupported", "NotSupported"),
        (call("SignCertificate", {}), "OccurrenceConstraintViolation", "OccurenceConstraintViolation"),
        (call("SignCertificate", {"csr": 1}), "TypeConstraintViolation", "TypeConstraintViolation"),
        (call("SignCertificate", {"csr": "x" * 5501}), "PropertyConstraintViolation", "PropertyConstraintViolation"),
        (call("SignCertificate", {"csr": "x", "y": 1}), "ProtocolError", "FormationViolation"),
        (call("SignCertificate", []), "FormatViolation", "FormationViolation"),
        (call("SignCertificate", "x"), "FormatViolation", "FormationViolation"),
        ('[2,"1","SignCertificate",{"csr":"x","csr":"y"}]', "FormatViolation", "FormationViolation"),
        ('[2,"1","SignCertificate",{"csr":"\\u0000"}]', "FormatViolation", "FormationViolation"),
        ('[2,"1","Heartbeat",{"customData":' + '{"vendorId":"x","a":[' * 40 + "]}" * 40 + "}]", "FormatViolation",
         "FormationViolation"),
        ('[2,"1"]', "RpcFrameworkError", "FormationViolation"),
        ('[2,"1","Heartbeat"]', "RpcFrameworkError", "FormationViolation"),
        ('[2,"1","Heartbeat",{},{}]', "RpcFrameworkError", "FormationViolation"),
        ('[2,"1",{},{}]', "RpcFrameworkError", "FormationViolation"),
    ],
)  # fmt: skip
def test_a_bad_call_with_an_id_is_answered_with_the_code_of_the_version(text: str, code_2x: str, code_16: str) -> None:
    for version, code in ((V16, code_16), (V201, code_2x), (V21, code_2x)):
        events = session(version).receive(text, NOW)
        ((kind, message_id, spelled, description, details),) = sent(events)
        assert (kind, message_id, spelled, details) == (4, "1", code, {})
        assert isinstance(description, str)
        assert 0 < len(description) <= 255
        assert kinds(events) == [ViolationKind.BAD_CALL]


@pytest.mark.parametrize(
    "frame",
    ["", "x", "{}", "[]", "null", b"\x00\xff", b'[2,"1","Heartbeat",{}]', '[2,"1","Heartbeat",{}', "[2]",
     '["2","1","Heartbeat",{}]', "[2,1,\"Heartbeat\",{}]", '[2,"","Heartbeat",{}]', call("Heartbeat", {}, "x" * 37),
     '[2,["a"],["b"],3]', '[true,"1","Heartbeat",{}]', "[2.0,\"1\",\"Heartbeat\",{}]"],
)  # fmt: skip
def test_what_has_no_readable_id_is_answered_with_minus_1_in_2_x_and_with_silence_in_1_6(frame: str | bytes) -> None:
    assert sent(session(V16).receive(frame, NOW)) == []
    assert kinds(session(V16).receive(frame, NOW)) == [ViolationKind.UNREADABLE]
    for version in (V201, V21):
        ((kind, message_id, code, _, details),) = sent(session(version).receive(frame, NOW))
        assert (kind, message_id, code, details) == (4, "-1", "RpcFrameworkError", {})


def test_a_message_type_that_the_version_lacks_is_named_in_2_x_and_ignored_in_1_6() -> None:
    for text, version, answered in (
        ('[9,"1","x",{}]', V16, False),
        ('[9,"1","x",{}]', V201, True),
        ('[9,"1","x",{}]', V21, True),
        ('[6,"1","NotifyPeriodicEventStream",{}]', V201, True),
        ('[5,"1","GenericError","",{}]', V16, False),
    ):
        events = session(version).receive(text, NOW)
        assert kinds(events) == [ViolationKind.UNKNOWN_TYPE]
        assert [frame[1:3] for frame in sent(events)] == ([["1", "MessageTypeNotSupported"]] if answered else [])


def test_nothing_of_a_bad_payload_is_echoed() -> None:
    payload = {"csr": 1, "password": SECRET, SECRET: {SECRET: SECRET}, "customData": {SECRET: SECRET}}
    for version in OcppVersion:
        for text in (call("SignCertificate", payload), call(SECRET, payload), call("SetVariables", payload)):
            events = session(version).receive(text, NOW)
            assert sent(events)
            assert SECRET not in repr(events)


def test_a_null_payload_stands_for_an_empty_one() -> None:
    assert session().receive('[2,"1","Heartbeat",null]', NOW) == [CallReceived("1", "Heartbeat", {})]


def test_actions_without_a_handler_are_known_and_not_supported() -> None:
    csms = RpcSession(V201, role="csms", handles={"BootNotification"})
    assert sent(csms.receive(call("SignCertificate", {"csr": "x"}), NOW))[0][2] == "NotSupported"
    assert sent(csms.receive(call("Nonsense", {}), NOW))[0][2] == "NotImplemented"


def test_a_station_takes_what_the_csms_calls() -> None:
    station = session(role="station")
    (event,) = station.receive(call("CertificateSigned", {"certificateChain": "x"}), NOW)
    assert isinstance(event, CallReceived)
    assert sent(station.receive(call("SignCertificate", {"csr": "x"}, "2"), NOW))[0][2] == "NotSupported"


def test_an_id_of_an_open_call_that_comes_again_is_dropped_whatever_it_carries() -> None:
    csms = session()
    csms.receive(call("Heartbeat", {}), NOW)
    for text in (call("Heartbeat", {}), call("SignCertificate", {"csr": "x"}), call("Nonsense", {}), '[9,"1"]'):
        assert sent(csms.receive(text, NOW)) == []
    assert json.loads(csms.refuse("1", RpcErrorCode.INTERNAL_ERROR))[:3] == [4, "1", "InternalError"]


def test_an_id_that_was_used_before_is_reported_and_the_call_marked() -> None:
    csms = session()
    csms.receive(call("Heartbeat", {}), NOW)
    csms.answer("1", {"currentTime": "2026-01-01T00:00:00Z"})
    events = csms.receive(call("Heartbeat", {}), NOW)
    assert kinds(events) == [ViolationKind.REPEATED_ID]
    assert events[-1] == CallReceived("1", "Heartbeat", {}, repeated=True)


def test_the_memory_of_ids_is_bounded() -> None:
    csms = session(remembered_ids=4)
    for number in range(100):
        csms.receive(call("Heartbeat", {}, str(number)), NOW)
        csms.refuse(str(number), RpcErrorCode.GENERIC_ERROR)
    assert kinds(csms.receive(call("Heartbeat", {}, "97"), NOW)) == [ViolationKind.REPEATED_ID]
    assert kinds(csms.receive(call("Heartbeat", {}, "3"), NOW)) == []


def test_a_peer_that_does_not_wait_for_answers_is_bounded() -> None:
    csms = session(max_open_calls=2)
    for number in range(2):
        csms.receive(call("Heartbeat", {}, str(number)), NOW)
    events = csms.receive(call("Heartbeat", {}, "2"), NOW)
    assert kinds(events) == [ViolationKind.TOO_MANY_CALLS]
    assert sent(events)[0][1:3] == ["2", "GenericError"]


def test_an_answer_of_ours_that_breaks_its_schema_does_not_leave() -> None:
    csms = session()
    csms.receive(call("SignCertificate", {"csr": "x"}), NOW)
    with pytest.raises(SchemaViolation):
        csms.answer("1", {"status": "Maybe"})
    with pytest.raises(SchemaViolation):
        csms.answer("1", {"status": "Accepted", "customData": {"vendorId": "x", "n": 2**70}})
    csms.answer("1", {"status": "Accepted"})


def test_the_length_of_an_agreed_field_is_the_callers_business_and_everything_else_the_schemas() -> None:
    request = {"iso15118SchemaVersion": "urn:iso:15118:2:2013:MsgDef", "action": "Install", "exiRequest": "gA=="}
    agreed = {"Get15118EVCertificate": "exiResponse"}
    for csms, may in (
        (RpcSession(V201, role="csms"), False),
        (RpcSession(V201, role="csms", long_answers=agreed), True),
    ):
        csms.receive(call("Get15118EVCertificate", request), NOW)
        with pytest.raises(SchemaViolation):
            csms.answer("1", {"status": "Maybe", "exiResponse": "A" * 9000})
        if may:
            assert "A" * 9000 in csms.answer("1", {"status": "Accepted", "exiResponse": "A" * 9000})
        else:
            with pytest.raises(SchemaViolation):
                csms.answer("1", {"status": "Accepted", "exiResponse": "A" * 9000})


def test_a_refusal_of_ours_is_printable_and_short() -> None:
    csms = session()
    csms.receive(call("Heartbeat", {}), NOW)
    description = json.loads(csms.refuse("1", RpcErrorCode.SECURITY_ERROR, "no\n" + "x" * 500))[3]
    assert len(description) == 255
    assert description.isprintable()


# Calls of ours


def test_one_call_is_outstanding_and_the_next_waits_for_its_turn() -> None:
    csms = session()
    first = csms.call("GetLocalListVersion", {}, NOW)
    assert json.loads(first.text or "") == [2, "m1", "GetLocalListVersion", {}]
    assert csms.call("ClearCache", {}, NOW) == OutgoingCall("m2", None)
    answered, turn = csms.receive('[3,"m1",{"versionNumber":1}]', NOW)
    assert answered == AnswerReceived("m1", "GetLocalListVersion", {"versionNumber": 1})
    assert sent([turn]) == [[2, "m2", "ClearCache", {}]]


def test_a_call_times_out_at_its_deadline_and_frees_the_way() -> None:
    csms = session()
    csms.call("ClearCache", {}, NOW, timedelta(seconds=10))
    csms.call("ClearCache", {}, NOW, timedelta(seconds=10))
    assert csms.next_due() == NOW + timedelta(seconds=10)
    assert csms.due(NOW + timedelta(seconds=9)) == []
    later = NOW + timedelta(seconds=10)
    timed_out, turn = csms.due(later)
    assert timed_out == CallTimedOut("m1", "ClearCache")
    assert isinstance(turn, SendFrame)
    assert csms.next_due() == later + timedelta(seconds=10)
    assert kinds(csms.receive('[3,"m1",{"status":"Accepted"}]', later)) == [ViolationKind.UNSOLICITED_ANSWER]
    assert csms.receive('[3,"m2",{"status":"Accepted"}]', later) == [
        AnswerReceived("m2", "ClearCache", {"status": "Accepted"})
    ]
    assert csms.next_due() is None


def test_a_connection_that_ends_tells_which_calls_the_peer_may_have_seen() -> None:
    csms = session()
    csms.call("ClearCache", {}, NOW)
    csms.call("ClearCache", {}, NOW)
    assert csms.abandon() == [CallTimedOut("m1", "ClearCache"), CallTimedOut("m2", "ClearCache", sent=False)]
    assert csms.abandon() == []


@pytest.mark.parametrize("text", ['[3,"x",{}]', '[4,"x","GenericError","",{}]', '[4,"-1","RpcFrameworkError","",{}]'])
def test_answers_that_nobody_asked_for_are_ignored_and_reported(text: str) -> None:
    csms = session()
    csms.call("ClearCache", {}, NOW)
    events = csms.receive(text, NOW)
    assert kinds(events) == [ViolationKind.UNSOLICITED_ANSWER]
    assert len(events) == 1
    assert csms.next_due() is not None


@pytest.mark.parametrize(
    "text",
    ['[3,"m1",{"status":"Maybe"}]', '[3,"m1",{}]', '[3,"m1",[]]', '[3,"m1"]', '[3,"m1",{"status":"Accepted"},1]',
     '[3,"m1",{"status":"Accepted","status":"Rejected"}]', '[3,"m1",null]'],
)  # fmt: skip
def test_a_malformed_answer_ends_the_call_and_is_reported_to_a_2_1_peer(text: str) -> None:
    for version in OcppVersion:
        csms = session(version)
        csms.call("ClearCache", {}, NOW)
        events = csms.receive(text, NOW)
        assert kinds(events) == [ViolationKind.BAD_ANSWER]
        (error,) = [event for event in events if isinstance(event, ErrorReceived)]
        assert (error.message_id, error.action, error.origin) == ("m1", "ClearCache", Origin.LOCAL)
        assert [frame[:2] for frame in sent(events)] == ([[5, "m1"]] if version is V21 else [])
        assert csms.next_due() is None


def test_a_call_error_ends_the_call() -> None:
    csms = session()
    csms.call("ClearCache", {}, NOW)
    assert csms.receive('[4,"m1","NotSupported","no cache",{"a":1}]', NOW) == [
        ErrorReceived("m1", "NotSupported", "no cache", "ClearCache")
    ]


@pytest.mark.parametrize(
    "text",
    ['[4,"m1"]', '[4,"m1","GenericError"]', '[4,"m1","GenericError","",null]', '[4,"m1",{},[],"x"]',
     '[4,"m1","GenericError","' + "x" * 5000 + '",{}]', '[4,"m1","Gen\\u001b[2J","a\\nb",{},1]'],
)  # fmt: skip
def test_a_malformed_call_error_ends_the_call_too(text: str) -> None:
    csms = session()
    csms.call("ClearCache", {}, NOW)
    violation, error = csms.receive(text, NOW)
    assert kinds([violation]) == [ViolationKind.BAD_ANSWER]
    assert isinstance(error, ErrorReceived)
    assert len(error.code) <= 50
    assert len(error.description) <= 255
    assert error.code.isalnum()
    assert error.description.isprintable()


def test_a_peer_that_echoes_our_secret_in_an_error_does_not_bring_it_into_a_log() -> None:
    csms = session()
    csms.call("SetVariables", SET_PASSWORD, NOW)
    for echo in (SECRET, SECRET.upper()):
        text = json.dumps([4, "m1", "FormatViolation", f"bad value {echo}", {"message": f"x{echo}x"}])
        assert SECRET not in csms.for_log(text).lower()
    (error,) = csms.receive(text, NOW)
    assert isinstance(error, ErrorReceived)
    assert SECRET not in repr(error).lower()


def test_the_text_of_a_call_with_a_secret_has_a_log_form_without_it() -> None:
    csms = session()
    text = csms.call("SetVariables", SET_PASSWORD, NOW).text or ""
    assert SECRET in text
    assert SECRET not in csms.for_log(text)


def test_calls_that_cannot_be_are_refused_before_they_are_sent() -> None:
    csms = session(V201)
    with pytest.raises(InputError, match="no action"):
        csms.call("Nonsense", {}, NOW)
    with pytest.raises(InputError, match="not sent"):
        csms.call("SignCertificate", {"csr": "x"}, NOW)
    with pytest.raises(SchemaViolation):
        csms.call("CertificateSigned", {"certificateChain": "x" * 10001}, NOW)
    with pytest.raises(TypeError):
        csms.call("ClearCache", {}, NOW.replace(tzinfo=None))
    assert csms.next_due() is None


def test_the_queue_of_our_calls_is_bounded() -> None:
    csms = session(max_queued_calls=2)
    for _ in range(3):
        csms.call("ClearCache", {}, NOW)
    with pytest.raises(StateError):
        csms.call("ClearCache", {}, NOW)


# 2.1: SEND and CALLRESULTERROR


def test_an_unconfirmed_message_is_taken_and_never_answered() -> None:
    station, csms = session(V21, "station"), session(V21)
    text = station.send("NotifyPeriodicEventStream", STREAM)
    assert csms.receive(text, NOW) == [SendReceived("m1", "NotifyPeriodicEventStream", STREAM)]
    for bad in ('[6,"1","NotifyPeriodicEventStream",{}]', '[6,"1","Heartbeat",{}]', '[6,"1","x",{}]', '[6,"1"]'):
        events = csms.receive(bad, NOW)
        assert kinds(events) == [ViolationKind.BAD_CALL]
        assert sent(events) == []
    with pytest.raises(StateError):
        csms.answer("1", {})


def test_an_unconfirmed_message_is_no_call() -> None:
    station = session(V21, "station")
    with pytest.raises(InputError):
        station.call("NotifyPeriodicEventStream", STREAM, NOW)
    with pytest.raises(InputError):
        station.send("Heartbeat", {})
    assert sent(session(V21).receive(call("NotifyPeriodicEventStream", STREAM), NOW))[0][2] == "NotSupported"


def test_an_error_about_our_answer_is_reported_and_one_about_nothing_is_a_violation() -> None:
    csms = session(V21)
    text = '[5,"1","FormatViolation","bad time",{}]'
    assert kinds(csms.receive(text, NOW)) == [ViolationKind.UNSOLICITED_ANSWER]
    csms.receive(call("Heartbeat", {}), NOW)
    assert kinds(csms.receive(text, NOW)) == [ViolationKind.UNSOLICITED_ANSWER]
    csms.answer("1", {"currentTime": "2026-01-01T00:00:00Z"})
    assert csms.receive(text, NOW) == [ResultErrorReceived("1", "Heartbeat", "FormatViolation", "bad time")]


# Whatever comes

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["csr", "status", "customData", "vendorId", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
near_frames = st.tuples(
    st.sampled_from([2, 3, 4, 5, 6, 7, "2", None, 2.0, -1, 2**70]),
    st.sampled_from(["1", "m1", "m2", "", "-1", "x" * 37, 1, None]),
    st.sampled_from(["Heartbeat", "SignCertificate", "ClearCache", "GenericError", "Nonsense"]) | values,
    values,
    values,
).flatmap(lambda parts: st.integers(0, 5).map(lambda count: list(parts[:count])))
texts = (
    st.text(max_size=200)
    | st.binary(max_size=200)
    | near_frames.map(json.dumps)
    | st.tuples(near_frames.map(json.dumps), st.integers(0, 200), st.text(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    )
)


@given(st.sampled_from(OcppVersion), st.sampled_from(Role), st.lists(texts, max_size=6))
@settings(max_examples=250, deadline=None)
def test_receive_never_raises_and_every_frame_of_ours_is_sound(
    version: OcppVersion, role: Role, received: list[str | bytes]
) -> None:
    end = session(version, role)
    action = "ClearCache" if role is Role.CSMS else "Heartbeat"
    end.call(action, {}, NOW)
    end.call(action, {}, NOW)
    answerable: set[str] = set()
    for text in received:
        end.for_log(text)
        for event in end.receive(text, NOW):
            if isinstance(event, CallReceived):
                answerable.add(event.message_id)
            if isinstance(event, SendFrame):
                frame = json.loads(event.text)
                assert frame[0] in (2, 4, 5)
                if frame[0] == 4:
                    # No call is answered twice, and nothing but fixed text goes back.
                    assert frame[1] not in answerable
                    assert frame[4] == {}
                    assert len(frame[3]) <= 255
    for message_id in answerable:
        end.refuse(message_id, RpcErrorCode.GENERIC_ERROR)
    assert len(end.abandon()) <= 2


def test_two_ends_of_ours_understand_each_other_in_every_version() -> None:
    for version in OcppVersion:
        csms, station = session(version), session(version, "station")
        text = station.call("SignCertificate", {"csr": "x"}, NOW).text
        (received,) = csms.receive(text or "", NOW)
        assert isinstance(received, CallReceived)
        (answer,) = station.receive(csms.answer(received.message_id, {"status": "Accepted"}), NOW)
        assert answer == AnswerReceived("m1", "SignCertificate", {"status": "Accepted"})


def test_message_ids_are_fresh_uuids_unless_told_otherwise() -> None:
    csms = RpcSession(V201, role="csms")
    first = csms.call("ClearCache", {}, NOW).message_id
    second = csms.call("ClearCache", {}, NOW).message_id
    assert first != second
    assert len(first) == len(second) == 36
    assert "ClearCache" in schemas.actions(V201)


def test_a_naive_time_is_a_type_error() -> None:
    csms, naive = session(), NOW.replace(tzinfo=None)
    with pytest.raises(TypeError):
        csms.receive("x", naive)
    with pytest.raises(TypeError):
        csms.due(naive)
