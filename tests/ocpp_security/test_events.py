"""Tests of chargepki.ocpp_security.events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.events import (
    NEWEST_EDITION,
    Edition,
    Repetition,
    SecurityEvent,
    build_notification,
    catalogue,
    event_name,
    find_event,
    is_critical,
    is_sent,
)
from chargepki.ocpp_security.versions import OcppVersion

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("version", OcppVersion)
@pytest.mark.parametrize("event", SecurityEvent)
def test_every_event_is_found_by_its_name_and_fits_its_message(version: OcppVersion, event: SecurityEvent) -> None:
    assert find_event(event_name(version, event)) is event
    payload = build_notification(version, event, AT, "x" * 300)
    schemas.check_payload(version, "SecurityEventNotification", schemas.Kind.REQUEST, payload, sending=True)


def test_1_6_keeps_its_odd_spellings() -> None:
    assert event_name(OcppVersion.V16, SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS) == (
        "FailedToAuthenticationAtCentralSystem"
    )
    assert event_name(OcppVersion.V16, SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE) == (
        "InvalidChargePointCertificate"
    )


def test_a_vendors_own_event_is_not_taken_for_a_standard_one() -> None:
    assert find_event("VendorDoorOpened") is None


def test_invalid_certificates_are_critical_in_2_x_and_sent_in_1_6_all_the_same() -> None:
    event = SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE
    assert is_critical(OcppVersion.V201, event)
    assert not is_critical(OcppVersion.V16, event)
    assert is_sent(OcppVersion.V16, event)


def test_events_that_are_only_logged_are_not_sent() -> None:
    for version in OcppVersion:
        assert not is_sent(version, SecurityEvent.INVALID_MESSAGES)
    assert not is_sent(OcppVersion.V16, SecurityEvent.INVALID_TLS_VERSION)


def test_a_notification_says_the_time_in_utc_and_refuses_a_naive_one() -> None:
    payload = build_notification(OcppVersion.V201, SecurityEvent.RESET_OR_REBOOT, AT)
    assert payload == {"type": "ResetOrReboot", "timestamp": "2026-03-01T12:00:00Z"}
    with pytest.raises(TypeError):
        build_notification(OcppVersion.V201, SecurityEvent.RESET_OR_REBOOT, AT.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("edition", "rows", "critical", "sent"), [(Edition.V16, 18, 7, 11), (Edition.V201_ED2, 20, 13, 15),
     (Edition.V201_ED3, 21, 16, 16), (Edition.V21, 21, 16, 16)],
)  # fmt: skip
def test_the_catalogue_of_each_edition_is_complete(edition: Edition, rows: int, critical: int, sent: int) -> None:
    found = catalogue(edition)
    assert len(found) == len({rule.name for rule in found}) == rows
    assert (sum(rule.critical for rule in found), sum(rule.sent for rule in found)) == (critical, sent)
    assert all(edition.value in rule.clause for rule in found)


@pytest.mark.parametrize("version", OcppVersion)
def test_a04_fr_01_and_02_what_is_critical_is_sent_and_queued(version: OcppVersion) -> None:
    for rule in catalogue(NEWEST_EDITION[version]):
        assert rule.critical == is_critical(version, rule.event)
        assert rule.sent == is_sent(version, rule.event)
        assert not rule.critical or rule.sent


def test_a00_fr_316_a_series_of_tls_failures_needs_one_event() -> None:
    series = {rule.name for rule in catalogue(Edition.V21) if rule.repetition is Repetition.SERIES}
    assert series == {"InvalidTLSVersion", "InvalidTLSCipherSuite", "InvalidCsmsCertificate"}
