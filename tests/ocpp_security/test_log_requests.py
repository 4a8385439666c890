"""Tests of chargepki.ocpp_security.log_requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.log_requests import (
    LogStatus,
    LogType,
    build_get_log,
    check_log_parameters,
    is_failure,
    may_follow,
    token_digest,
    upload_location,
    upload_token,
)
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError
from chargepki.pki.inventory import SealingKey
from testkit.inventories import requested_log_record

KEY = SealingKey(bytes(32))
LOG = requested_log_record()
PARAMETERS = {"type": "SecurityLog", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00+01:00"}


@pytest.mark.parametrize("version", OcppVersion)
@pytest.mark.parametrize("kind", LogType)
def test_the_request_satisfies_the_schema_of_each_version(version: OcppVersion, kind: LogType) -> None:
    call = build_get_log(version, {**PARAMETERS, "type": kind.value}, LOG, "https://csms.example/logs/CS-1/1/x")
    schemas.check_payload(version, call.action, Kind.REQUEST, call.payload, sending=True)
    assert call.payload["requestId"] == 1
    assert call.payload["log"] == {
        "remoteLocation": "https://csms.example/logs/CS-1/1/x",
        "oldestTimestamp": "2026-01-01T00:00:00.000Z",
        "latestTimestamp": "2026-01-31T23:00:00.000Z",
    }


@pytest.mark.parametrize("version", OcppVersion)
def test_every_status_of_the_schema_is_known(version: OcppVersion) -> None:
    for status in LogStatus:
        payload = {"status": status.value, "requestId": 1}
        if version is OcppVersion.V16 and status is LogStatus.ACCEPTED_CANCELED:
            continue
        schemas.check_payload(version, "LogStatusNotification", Kind.REQUEST, payload, sending=False)


def test_an_address_that_is_too_long_for_the_version_is_refused_before_it_is_sent() -> None:
    location = "https://csms.example/" + "x" * 500
    build_get_log(OcppVersion.V21, PARAMETERS, LOG, location)
    for version in (OcppVersion.V16, OcppVersion.V201):
        with pytest.raises(InputError, match="512"):
            build_get_log(version, PARAMETERS, LOG, location)


def test_a_token_belongs_to_one_request_of_one_station_and_one_workspace() -> None:
    token = upload_token(KEY, LOG)
    assert len(token) == 32
    assert upload_token(KEY, LOG) == token
    others = (replace(LOG, id="other"), replace(LOG, station="CS-2"), replace(LOG, request_id=2))
    tokens = {upload_token(KEY, other) for other in others} | {upload_token(SealingKey(bytes([1] * 32)), LOG), token}
    assert len(tokens) == 5
    assert len(token_digest(token)) == 64
    located = upload_location("https://csms.example", replace(LOG, station="a/b c"), token)
    assert located == f"https://csms.example/logs/a%2Fb%20c/1/{token}"


def test_n01_fr_08_to_10_statuses_come_in_order_and_end_once() -> None:
    ends = [status for status in LogStatus if status not in ("Idle", "Uploading")]
    assert may_follow(None, "Uploading") and may_follow("Uploading", "Uploading")
    assert all(may_follow("Uploading", end) for end in ends)
    assert not any(may_follow(end, after) for end in ends for after in LogStatus)
    assert [status.value for status in LogStatus if not may_follow(None, status)] == ["Idle", "Uploaded"]
    assert [end.value for end in ends if not is_failure(end)] == ["Uploaded"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "DataCollectorLog"},
        {"type": "SecurityLog", "url": "https://evil.example"},
        {"type": "SecurityLog", "from": "yesterday"},
        {"type": "SecurityLog", "from": "2026-01-01T00:00:00"},
        {"type": "SecurityLog", "from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InputError):
        check_log_parameters(parameters)
