"""Tests of chargepki.ocpp_security.schemas."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chargepki.ocpp_security.errors import RpcErrorCode, SchemaViolation
from chargepki.ocpp_security.schemas import CORRECTIONS, Kind, actions, check_payload, max_items, max_length
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import NotFound

V16, V201, V21 = OcppVersion


def violation(version: OcppVersion, action: str, payload: object, kind: Kind = Kind.REQUEST) -> SchemaViolation:
    with pytest.raises(SchemaViolation) as caught:
        check_payload(version, action, kind, payload, sending=False)
    return caught.value


@pytest.mark.parametrize("version", OcppVersion)
def test_every_schema_compiles_and_refuses_an_unknown_member(version: OcppVersion) -> None:
    assert len(actions(version)) > 30
    for action in actions(version):
        for kind in Kind:
            if kind is Kind.RESPONSE and action == "NotifyPeriodicEventStream":
                continue
            violation(version, action, {"noSuchMember": 1}, kind)


def test_the_ocpp_package_is_not_imported_for_its_schemas() -> None:
    code = (
        "import sys; from chargepki.ocpp_security.schemas import *; from chargepki.ocpp_security.versions import *;"
        "check_payload(OcppVersion.V21, 'Heartbeat', Kind.REQUEST, {}, sending=False);"
        "sys.exit('ocpp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("payload", "code", "path"),
    [
        ({}, RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION, "csr"),
        ({"csr": 1}, RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, "csr"),
        ({"csr": None}, RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, "csr"),
        ({"csr": "x" * 5501}, RpcErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "csr"),
        ({"csr": "x", "certificateType": "MagicCertificate"}, RpcErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
         "certificateType"),
        ({"csr": "x", "extra": "s3cret-extra"}, RpcErrorCode.PROTOCOL_ERROR, ""),
        ({"csr": 1, "extra": 2}, RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, "csr"),
        ([], RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, ""),
    ],
)  # fmt: skip
def test_each_kind_of_violation_has_its_code_and_its_place(payload: object, code: RpcErrorCode, path: str) -> None:
    error = violation(V201, "SignCertificate", payload)
    assert (error.rpc_code, error.path) == (code, path)
    assert "s3cret" not in str(error)
    assert "extra" not in str(error)
    assert "Magic" not in str(error)


def test_an_empty_array_is_an_occurrence_violation() -> None:
    error = violation(V201, "GetInstalledCertificateIds", {"certificateType": []})
    assert error.rpc_code is RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION


def test_names_that_a_peer_made_up_are_not_repeated() -> None:
    error = violation(V201, "Heartbeat", {"customData": {"vendorId": 1, "s3cret": {}}})
    assert error.path == "customData.vendorId"
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("version", OcppVersion)
@pytest.mark.parametrize("timestamp", ["not a date", "2026-02-30T00:00:00Z", "2026-01-01", "20260101", ""])
def test_times_that_are_none_are_refused(version: OcppVersion, timestamp: str) -> None:
    payload = {"type": "ResetOrReboot", "timestamp": timestamp}
    error = violation(version, "SecurityEventNotification", payload)
    assert (error.rpc_code, error.path) == (RpcErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "timestamp")


def test_a_time_without_a_zone_is_iso_8601_for_1_6_and_no_rfc_3339_for_2_x() -> None:
    payload = {"type": "ResetOrReboot", "timestamp": "2026-01-01T00:00:00"}
    check_payload(V16, "SecurityEventNotification", Kind.REQUEST, payload, sending=False)
    violation(V201, "SecurityEventNotification", payload)
    violation(V21, "SecurityEventNotification", payload)


@pytest.mark.parametrize("number", [1.0, 1e30, True, "1", 2**63, -(2**63) - 1])
def test_integers_are_whole_and_fit_64_bits(number: object) -> None:
    violation(V21, "SignCertificate", {"csr": "x", "requestId": number})


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63 - 1])
def test_integers_up_to_64_bits_pass(number: int) -> None:
    check_payload(V21, "SignCertificate", Kind.REQUEST, {"csr": "x", "requestId": number}, sending=False)


def test_decimals_with_one_digit_pass_the_multiple_of_a_tenth() -> None:
    period = {"startPeriod": 0, "limit": 21.4}
    schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [period]}
    profile = {
        "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "TxProfile",
        "chargingProfileKind": "Absolute", "chargingSchedule": schedule,
    }  # fmt: skip
    payload = {"connectorId": 1, "csChargingProfiles": profile}
    check_payload(V16, "SetChargingProfile", Kind.REQUEST, payload, sending=True)
    period["limit"] = 21.45
    violation(V16, "SetChargingProfile", payload)


def test_limits_come_from_the_schemas() -> None:
    for version in OcppVersion:
        assert max_length(version, "SignCertificate", "request", "csr") == 5500
        assert max_length(version, "CertificateSigned", "request", "certificateChain") == 10000
    assert [max_length(v, "InstallCertificate", "request", "certificate") for v in OcppVersion] == [5500, 5500, 10000]
    assert max_length(V21, "SignCertificate", "request", "hashRootCertificate.serialNumber") == 40
    field = "certificateHashDataChain.childCertificateHashData"
    assert max_items(V201, "GetInstalledCertificateIds", "response", field) == 4
    assert max_length(V201, "GetInstalledCertificateIds", "response", f"{field}.issuerKeyHash") == 128


def test_limits_that_do_not_exist_are_not_found() -> None:
    for action, field in (("SignCertificate", "nothing"), ("SignCertificate", "certificateType"), ("Nothing", "csr")):
        with pytest.raises(NotFound):
            max_length(V201, action, "request", field)


def test_2_0_1_exi_responses_are_sent_up_to_5600_and_accepted_up_to_7500_or_absent() -> None:
    def check(length: int | None, *, sending: bool) -> None:
        payload = {"status": "Accepted"} | ({} if length is None else {"exiResponse": "x" * length})
        check_payload(V201, "Get15118EVCertificate", Kind.RESPONSE, payload, sending=sending)

    check(5600, sending=True)
    check(7500, sending=False)
    check(None, sending=False)
    for length, sending in ((5601, True), (7501, False), (None, True)):
        with pytest.raises(SchemaViolation):
            check(length, sending=sending)
    assert max_length(V201, "Get15118EVCertificate", "response", "exiResponse") == 5600


def test_every_correction_names_its_clause() -> None:
    assert all(len(correction.clause) > 20 for correction in CORRECTIONS)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, {1: "x"}])
def test_a_payload_of_ours_that_is_no_json_is_one_clear_error(value: object) -> None:
    with pytest.raises(SchemaViolation) as caught:
        check_payload(V201, "SignCertificate", Kind.REQUEST, {"csr": value}, sending=True)
    assert "bytes" not in str(caught.value)
