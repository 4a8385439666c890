"""Tests of chargepki.ocpp_security.redact."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.redact import (
    MAX_LINE,
    REDACTED,
    log_form,
    may_hold_secrets,
    scrub,
    secret_values,
    without_message,
)

SETTING = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
SECRET_TOKEN = "04AABBCCDDEE80"
KEY_PEM = "-----BEGIN {0}PRIVATE KEY-----\n{1}\n-----END {0}PRIVATE KEY-----\n"


def nest(payload: object) -> dict[str, object]:
    return {"vendorId": "x", "messageId": "y", "data": json.dumps(payload)}


# Every place where a secret may stand, by the message that has it there.
PLACES: dict[str, Callable[[str], object]] = {
    "1.6 ChangeConfiguration": lambda s: {"key": "AuthorizationKey", "value": s},
    "1.6 ChangeConfiguration, another case": lambda s: {"key": "authorizationkey", "value": s},
    "1.6 ChangeConfiguration, a vendor's key": lambda s: {"key": "Vendor.Wifi_Pass-Phrase", "value": s},
    "1.6 GetConfiguration": lambda s: {
        "configurationKey": [{"key": "AuthorizationKey", "readonly": False, "value": s}]
    },
    "SetVariables": lambda s: {"setVariableData": [{**SETTING, "attributeValue": s}]},
    "GetVariables": lambda s: {"getVariableResult": [{**SETTING, "attributeStatus": "Accepted", "attributeValue": s}]},
    "NotifyReport": lambda s: {"reportData": [{**SETTING, "variableAttribute": [{"type": "Actual", "value": s}]}]},
    "NotifyEvent": lambda s: {"eventData": [{**SETTING, "actualValue": s}]},
    "SetNetworkProfile": lambda s: {"connectionData": {"basicAuthPassword": s, "identity": "CS1"}},
    "SetNetworkProfile apn": lambda s: {"connectionData": {"apn": {"apnPassword": s, "apn": "x"}}},
    "SetNetworkProfile vpn": lambda s: {"connectionData": {"vpn": {"server": "x", "password": s, "key": s + "K"}}},
    "a nested customData": lambda s: {"customData": {"vendorId": "x", "new-password": {"deep": [s]}}},
    "DataTransfer": lambda s: nest({"key": "AuthorizationKey", "value": s}),
    "DataTransfer in DataTransfer": lambda s: nest(nest({"password": s})),
    "DataTransfer named by its message id": lambda s: {"vendorId": "x", "messageId": "SetPassword", "data": s},
    "a PIN as idToken": lambda s: {"idToken": {"idToken": s, "type": "KeyCode"}},
    "an echo beside the secret": lambda s: {"key": "AuthorizationKey", "value": s, "customData": {"info": f"got {s}!"}},
    "an echo in another case": lambda s: {"password": s, "info": s.upper(), "other": s.lower()},
    "an echo as a name": lambda s: {"password": s, "x": {f"old-{s}": 1}},
}
URL_PLACES: dict[str, Callable[[str], object]] = {
    "GetLog": lambda s: {"log": {"remoteLocation": f"ftp://user:{s}@host/path"}},
    "UpdateFirmware": lambda s: {"firmware": {"location": f"https://{s}:{s}@host/fw.bin?x=1"}},
    "SetNetworkProfile": lambda s: {"connectionData": {"ocppCsmsUrl": f"wss://CS1:{s}@csms.example/ocpp"}},
    "free text": lambda s: {"techInfo": f"could not fetch sftp://u:{s}@h and gave up"},
    "an Authorization header": lambda s: {"techInfo": f"sent Authorization: Basic {s}"},
    "an assignment": lambda s: {"techInfo": f"tried password={s}, failed"},
}

secrets = st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x2FF), min_size=8, max_size=40).filter(
    lambda text: len(set(text)) > 3 and text.lower() not in json.dumps(REDACTED)
)
tokens = st.text(st.sampled_from("abcdefXYZ0123456789"), min_size=8, max_size=40).filter(
    lambda text: len(set(text)) > 3
)


def assert_hidden(text: str, secret: str) -> None:
    shown = text.casefold()
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert form.casefold() not in shown


@pytest.mark.parametrize("place", PLACES)
@given(secret=secrets, ascii_only=st.booleans(), kind=st.sampled_from([2, 3, 6]))
@settings(max_examples=40, deadline=None)
def test_no_secret_reaches_a_log_from_where_it_stands(place: str, secret: str, ascii_only: bool, kind: int) -> None:
    frame = json.dumps([kind, "1", "X", PLACES[place](secret)], ensure_ascii=ascii_only)
    line = log_form(frame)
    assert_hidden(line, secret)
    assert REDACTED in line
    assert line.isprintable()


@pytest.mark.parametrize("place", URL_PLACES)
@given(secret=tokens)
@settings(max_examples=30, deadline=None)
def test_no_password_in_an_address_or_a_sentence_reaches_a_log(place: str, secret: str) -> None:
    assert_hidden(log_form(json.dumps([2, "1", "X", URL_PLACES[place](secret)])), secret)


@given(
    st.sampled_from(["", "EC ", "RSA ", "ENCRYPTED ", "OPENSSH "]),
    tokens,
    st.booleans(),
    st.sampled_from(["{0}", "text before {0} text after", '{{"pem":"{0}"}}']),
)
@settings(max_examples=100, deadline=None)
def test_no_private_key_reaches_a_log_whole_or_truncated(label: str, body: str, cut: bool, around: str) -> None:
    pem = KEY_PEM.format(label, body)
    text = around.format(pem.split("-----END")[0] if cut else pem)
    for value in (text, text.replace("\n", "\\n"), text.replace("\n", "\r\n")):
        assert_hidden(log_form(json.dumps([2, "1", "X", {"certificate": value}])), body)


@given(secrets, st.sampled_from(["", "[2,", "x"]), st.booleans())
@settings(max_examples=50)
def test_a_frame_that_cannot_be_read_is_not_shown(secret: str, start: str, binary: bool) -> None:
    text = f'{start}"{secret}'
    assert_hidden(log_form(text.encode() if binary else text), secret)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_hidden_where_it_stands_is_also_known_for_echoes(place: str) -> None:
    payload = PLACES[place]("correct-horse")
    assert may_hold_secrets(json.dumps([2, "1", "X", payload])) or place == "a PIN as idToken"
    if place != "a nested customData":
        assert "correct-horse" in secret_values(payload)


def test_what_is_no_secret_stays_readable() -> None:
    payload: dict[str, object] = {"key": "HeartbeatInterval", "value": "300"}
    line = log_form(json.dumps([2, "1", "ChangeConfiguration", payload]))
    assert json.loads(line) == [2, "1", "ChangeConfiguration", payload]
    payload = {"certificateHashData": {"hashAlgorithm": "SHA256", "issuerKeyHash": "abcd"}}
    assert json.loads(log_form(json.dumps([2, "1", "DeleteCertificate", payload])))[3] == payload
    listed = {"configurationKey": [{"key": "HeartbeatInterval", "readonly": False, "value": "300"}]}
    assert json.loads(log_form(json.dumps([3, "1", listed])))[2] == listed
    sampled = {"meterValue": [{"sampledValue": [{"value": "12.5", "unit": "Wh"}]}]}
    assert json.loads(log_form(json.dumps([2, "1", "MeterValues", sampled])))[3] == sampled
    boot = {"chargingStation": {"model": "M", "vendorName": "V"}, "reason": "PowerUp"}
    assert json.loads(log_form(json.dumps([2, "1", "BootNotification", boot])))[3] == boot
    contract = {"idToken": {"idToken": "DE8EMI0000001", "type": "eMAID"}}
    assert json.loads(log_form(json.dumps([2, "1", "Authorize", contract])))[3] == contract


@pytest.mark.parametrize(
    "payload",
    [
        {"idToken": {"idToken": SECRET_TOKEN, "type": "ISO14443"}},
        {"idToken": {"idToken": SECRET_TOKEN, "type": "KeyCode"}},
        {"idToken": {"idToken": SECRET_TOKEN, "type": "AVendorsOwn"}},
        {"idToken": {"idToken": SECRET_TOKEN, "type": 5}},
        {"idToken": {"idToken": SECRET_TOKEN}},
        {"idToken": {"idToken": [SECRET_TOKEN], "type": "ISO14443"}},
        {"idToken": {"idToken": {"x": SECRET_TOKEN}, "type": "ISO14443"}},
        {"idToken": SECRET_TOKEN},
        {"idTag": SECRET_TOKEN},
        {"key": ["AuthorizationKey"], "value": SECRET_TOKEN},
        {"value": SECRET_TOKEN},
        {"setVariableData": [{"attributeValue": SECRET_TOKEN, "variable": "BasicAuthPassword"}]},
        {"setVariableData": [{"attributeValue": SECRET_TOKEN, "variable": {"name": None}}]},
        {"log": {"remoteLocation": f"https://csms.example:8444/upload/{SECRET_TOKEN}"}},
    ],
)
def test_what_may_be_a_secret_is_hidden_when_nothing_says_that_it_is_none(payload: object) -> None:
    assert SECRET_TOKEN not in log_form(json.dumps([2, "1", "SetVariables", payload]))


def test_what_stands_under_a_name_that_no_message_has_is_not_shown() -> None:
    frame = [2, "1", "Heartbeat", {"madeUp": "value-of-it", "customData": {"vendorId": "V", "own": "value-of-it"}}]
    line = log_form(json.dumps(frame))
    assert "madeUp" in line
    assert '"vendorId":"V"' in line
    assert "value-of-it" not in line


def test_the_text_of_an_error_that_a_frame_caused_is_left_out_of_the_log() -> None:
    try:
        {"a": 1}[SECRET_TOKEN]
    except KeyError as exc:
        kind, left, trace = without_message(exc)
    assert SECRET_TOKEN not in f"{kind} {left!r} {left}"
    assert "KeyError" in str(left)
    assert trace is not None


def test_a_log_form_is_one_line_of_bounded_length() -> None:
    csr = "-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 5000
    line = log_form(json.dumps([2, "1", "SignCertificate", {"csr": csr}]))
    assert "(5036 characters)" in line
    assert len(line) < 400
    assert len(log_form(json.dumps([2, "1", "X", ["y" * 100] * 1000]))) < MAX_LINE + 100
    assert log_form(json.dumps([2, "1\n\x1b[2J\u202e", "X", {}])).isprintable()


def test_secrets_given_by_the_caller_are_hidden_wherever_they_stand() -> None:
    line = log_form('[4,"1","FormatViolation","bad 00aa11BB",{"cause":{"00AA11bb":1}}]', secrets={"00aa11bb"})
    assert "00aa11bb" not in line.lower()


def test_short_secrets_do_not_blot_out_the_rest() -> None:
    assert scrub("a cat", {"a"}) == "a cat"
    assert REDACTED in log_form('[2,"1","X",{"password":"a"}]')


@pytest.mark.parametrize(
    "hostile",
    ["://" * 40000 + "@", "-----BEGIN " * 10000 + "PRIVATE KEY", "password" + "'" * 100000 + ":", "basic " * 20000,
     "a" * 120000 + ":", "[" * 500 + "]" * 500, "password" * 15000 + "="],
)  # fmt: skip
def test_hostile_text_is_logged_in_linear_time(hostile: str) -> None:
    before = process_time()
    log_form(json.dumps([2, "1", "X", {"data": hostile}]))
    assert process_time() - before < 2


def test_many_long_secrets_are_hidden_in_linear_time() -> None:
    long = ["".join(f"{number}q{place}" for place in range(1500)) for number in range(32)]
    payload = {"exiRequest": long[0], "customData": [{"password": text, "vendorId": f"was {text}"} for text in long]}
    frame = json.dumps([2, "1", "Get15118EVCertificate", payload])
    log_form(frame)  # names are read from the schemas once
    before = process_time()
    line = log_form(frame)
    assert process_time() - before < 0.3
    assert "q7" not in line
