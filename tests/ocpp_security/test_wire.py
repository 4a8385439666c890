"""Tests of chargepki.ocpp_security.wire."""

from __future__ import annotations

import pytest

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.password_change import PasswordAnswer, build_set_password, read_set_password_answer
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import (
    CertificateUse,
    RootUse,
    WireCall,
    build_certificate_signed,
    build_sign_certificate,
    build_trigger,
    find_trigger_use,
    max_chain_characters,
    max_csr_characters,
    parse_boot_notification,
    parse_certificate_signed,
    parse_root_use,
    parse_sign_certificate,
    read_status,
    root_use_name,
    status_answer,
    supports_use,
)
from chargepki.pki.errors import InputError

V16, V201, V21 = OcppVersion
ROOT_HASH = {"hashAlgorithm": "SHA256", "issuerNameHash": "aa", "issuerKeyHash": "bb", "serialNumber": "1"}
PAIRS = [(version, use) for version in OcppVersion for use in CertificateUse if supports_use(version, use)]


def check(version: OcppVersion, call: WireCall) -> None:
    check_payload(version, call.action, Kind.REQUEST, call.payload, sending=True)


def test_uses_came_with_the_versions() -> None:
    assert [sum(version is v for v, _ in PAIRS) for version in OcppVersion] == [2, 3, 4]
    assert not supports_use(V201, CertificateUse.V2G20)


@pytest.mark.parametrize(("version", "use"), PAIRS)
def test_every_trigger_satisfies_its_schema_and_is_understood_by_the_station(
    version: OcppVersion, use: CertificateUse
) -> None:
    trigger = build_trigger(version, use)
    check(version, trigger)
    assert find_trigger_use(version, trigger.action, trigger.payload) is use


def test_triggers_are_named_as_each_version_wants() -> None:
    assert build_trigger(V16, CertificateUse.CHARGING_STATION) == WireCall(
        "ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}
    )
    assert build_trigger(V21, CertificateUse.V2G20, evse=2) == WireCall(
        "TriggerMessage", {"requestedMessage": "SignV2G20Certificate", "evse": {"id": 2}}
    )


def test_triggers_for_other_messages_ask_for_no_certificate() -> None:
    assert find_trigger_use(V16, "TriggerMessage", {"requestedMessage": "SignChargePointCertificate"}) is None
    assert find_trigger_use(V201, "TriggerMessage", {"requestedMessage": "Heartbeat"}) is None
    assert find_trigger_use(V201, "TriggerMessage", {"requestedMessage": "SignV2G20Certificate"}) is None
    assert find_trigger_use(V201, "Reset", {"requestedMessage": "SignV2GCertificate"}) is None


def test_uses_that_a_version_lacks_are_refused() -> None:
    with pytest.raises(InputError):
        build_trigger(V16, CertificateUse.V2G20)
    with pytest.raises(InputError):
        build_trigger(V201, CertificateUse.V2G20)
    with pytest.raises(InputError):
        build_sign_certificate(V16, CertificateUse.COMBINED, "x")
    with pytest.raises(InputError):
        build_certificate_signed(V201, CertificateUse.V2G20, "x")


def test_an_evse_is_named_for_v2g_certificates_of_2_x_only() -> None:
    for version in OcppVersion:
        with pytest.raises(InputError, match="EVSE"):
            build_trigger(version, CertificateUse.CHARGING_STATION, evse=1)


@pytest.mark.parametrize(("version", "use"), PAIRS)
def test_every_csr_survives_the_wire(version: OcppVersion, use: CertificateUse) -> None:
    call = build_sign_certificate(version, use, "PEM", request_id=7, root_hash=ROOT_HASH)
    check(version, call)
    received = parse_sign_certificate(version, call.payload)
    assert (received.use, received.csr) == (use, "PEM")
    assert received.request_id == (7 if version is V21 else None)
    assert received.root_hash == (ROOT_HASH if version is V21 else None)


@pytest.mark.parametrize(("version", "use"), PAIRS)
def test_every_chain_survives_the_wire(version: OcppVersion, use: CertificateUse) -> None:
    call = build_certificate_signed(version, use, "PEM", request_id=7)
    check(version, call)
    received = parse_certificate_signed(version, call.payload)
    assert received.chain == "PEM"
    assert received.use == (None if use is CertificateUse.COMBINED else use)
    assert received.request_id == (7 if version is V21 else None)


def test_a_combined_certificate_is_one_whose_type_is_left_out() -> None:
    assert "certificateType" not in build_sign_certificate(V201, CertificateUse.COMBINED, "x").payload
    assert parse_sign_certificate(V201, {"csr": "x"}).use is CertificateUse.COMBINED
    assert parse_sign_certificate(V16, {"csr": "x"}).use is CertificateUse.CHARGING_STATION


@pytest.mark.parametrize("version", OcppVersion)
def test_a_chain_beyond_the_wires_limit_never_leaves(version: OcppVersion) -> None:
    limit = max_chain_characters(version)
    assert (limit, max_csr_characters(version)) == (10000, 5500)
    build_certificate_signed(version, CertificateUse.CHARGING_STATION, "x" * limit)
    with pytest.raises(OcppRefusal) as caught:
        build_certificate_signed(version, CertificateUse.CHARGING_STATION, "x" * (limit + 1))
    assert caught.value.answer == StatusAnswer("Rejected", "TooLargeElement")


@pytest.mark.parametrize("version", OcppVersion)
def test_every_root_use_is_read_back_and_fits_its_schema(version: OcppVersion) -> None:
    known = 0
    for use in RootUse:
        try:
            name = root_use_name(version, use)
        except InputError:
            continue
        known += 1
        assert parse_root_use(version, name) is use
        if use is not RootUse.V2G_CHAIN:
            check(version, WireCall("InstallCertificate", {"certificateType": name, "certificate": "x"}))
    assert known == {V16: 2, V201: 5, V21: 6}[version]


def test_a_root_name_of_another_version_is_refused() -> None:
    for version, name in ((V16, "CSMSRootCertificate"), (V201, "OEMRootCertificate"), (V21, "x\n" * 99)):
        with pytest.raises(InputError) as caught:
            parse_root_use(version, name)
        assert "\n" not in str(caught.value)


def test_a_password_goes_out_as_hex_in_1_6_and_as_text_in_2_x() -> None:
    call = build_set_password(V16, b"\x00\xffsixteen-byte-key")
    assert call == WireCall(
        "ChangeConfiguration", {"key": "AuthorizationKey", "value": b"\x00\xffsixteen-byte-key".hex()}
    )
    check(V16, call)
    for version in (V201, V21):
        call = build_set_password(version, "pässword-sixteen".encode())
        check(version, call)
        assert call.payload["setVariableData"] == [
            {
                "component": {"name": "SecurityCtrlr"},
                "variable": {"name": "BasicAuthPassword"},
                "attributeValue": "pässword-sixteen",
            }
        ]


def test_a_password_that_is_no_text_is_refused_in_2_x_without_being_shown() -> None:
    with pytest.raises(InputError) as caught:
        build_set_password(V201, b"\xff\xfesecret-secret-sec")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("Accepted", PasswordAnswer.ACCEPTED),
        ("RebootRequired", PasswordAnswer.REBOOT_REQUIRED),
        ("Rejected", PasswordAnswer.REFUSED),
        ("NotSupported", PasswordAnswer.REFUSED),
        ("UnknownVariable", PasswordAnswer.REFUSED),
        ("accepted", PasswordAnswer.REFUSED),
    ],
)
def test_the_answer_to_a_new_password_is_read_in_every_version(status: str, meaning: PasswordAnswer) -> None:
    assert read_set_password_answer(V16, {"status": status}) == (meaning, status)
    result = {"attributeStatus": status, "component": {"name": "x"}, "variable": {"name": "y"}}
    for version in (V201, V21):
        assert read_set_password_answer(version, {"setVariableResult": [result]}) == (meaning, status)


@pytest.mark.parametrize("payload", [{}, {"setVariableResult": []}, {"setVariableResult": ["x"]}, {"status": 1}])
def test_an_answer_that_says_nothing_is_a_refusal(payload: dict[str, object]) -> None:
    for version in OcppVersion:
        assert read_set_password_answer(version, payload)[0] is PasswordAnswer.REFUSED


def test_two_results_for_one_variable_are_no_acceptance() -> None:
    result = {"attributeStatus": "Accepted"}
    payload = {"setVariableResult": [result, result]}
    assert read_set_password_answer(V201, payload)[0] is PasswordAnswer.REFUSED


def test_the_serial_number_is_found_where_each_version_has_it() -> None:
    boot = parse_boot_notification(
        V16,
        {
            "chargePointVendor": "V",
            "chargePointModel": "M",
            "chargePointSerialNumber": "S",
            "chargeBoxSerialNumber": "B",
        },
    )
    assert (boot.serial_number, boot.other_serial_numbers, boot.vendor, boot.model) == ("S", ("B",), "V", "M")
    payload = {"reason": "PowerUp", "chargingStation": {"vendorName": "V", "model": "M", "serialNumber": "S"}}
    for version in (V201, V21):
        boot = parse_boot_notification(version, payload)
        assert (boot.serial_number, boot.other_serial_numbers, boot.vendor, boot.model) == ("S", (), "V", "M")


def test_a_serial_number_that_is_absent_or_empty_is_none() -> None:
    assert parse_boot_notification(V16, {"chargePointVendor": "V", "chargePointModel": "M"}).serial_number is None
    station = {"vendorName": "V", "model": "M", "serialNumber": ""}
    assert parse_boot_notification(V201, {"chargingStation": station}).serial_number is None


def test_payloads_that_missed_their_schema_are_one_clear_refusal() -> None:
    for act in (
        lambda: parse_sign_certificate(V201, {}),
        lambda: parse_certificate_signed(V201, {"certificateChain": 1}),
        lambda: parse_boot_notification(V201, {}),
    ):
        with pytest.raises(OcppRefusal):
            act()


def test_a_status_answer_carries_its_reason_where_the_version_has_room() -> None:
    answer = StatusAnswer("Rejected", "InvalidCSR", "the signature is wrong")
    assert status_answer(V16, answer) == {"status": "Rejected"}
    for version in (V201, V21):
        payload = status_answer(version, answer)
        assert payload["statusInfo"] == {"reasonCode": "InvalidCSR", "additionalInfo": "the signature is wrong"}
        check_payload(version, "SignCertificate", Kind.RESPONSE, payload, sending=True)
        long = status_answer(version, StatusAnswer("Rejected", "x" * 99, "y" * 9999))
        check_payload(version, "SignCertificate", Kind.RESPONSE, long, sending=True)
    assert read_status(status_answer(V201, StatusAnswer("Accepted"))) == "Accepted"
    assert read_status({}) == ""
