"""Identity binding: exact CN and O, serial numbers, the inventory's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from chargepki.ocpp_security.identity import (
    IdentityMismatch,
    check_boot_serial_number,
    check_certificate_record,
    check_serial_number,
    check_station_certificate,
    check_station_known,
    check_username,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import BootReceived
from chargepki.pki.errors import InputError, RevocationError
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery, StationState
from testkit.flows import NOW, new_key, operator, station_record

V16, V201, V21 = OcppVersion


def certificate(**fields: str | None) -> bytes:
    return operator().issue(new_key().public_key(), **fields)  # type: ignore[arg-type]  # names and organization only


def record(**changes: object) -> CertificateRecord:
    made = CertificateRecord(
        id="t-cso-sub@1:5f0c",
        ca="t-cso-sub@1",
        serial="5f0c",
        profile="ocpp/charging-station",
        state=CertificateState.ISSUED,
        subject="CN=CS-0001",
        subject_der=b"",
        spki_sha256="",
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        request_key="k",
        requester="CS1",
        reserved_at=NOW,
        station="CS1",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name


def test_the_stations_own_certificate_is_accepted() -> None:
    identity = check_station_certificate(certificate(), station_record(), NOW)
    assert (identity.common_name, identity.organization) == ("CS-0001", "Example CSO")


@pytest.mark.parametrize("common_name", ["CS-00011", "CS-000", "cs-0001", "CS-0001 ", "XCS-0001"])
def test_a00_fr_405_and_fr_511_the_cn_equals_the_serial_number_whole(common_name: str) -> None:
    with pytest.raises(IdentityMismatch, match="CN"):
        check_station_certificate(certificate(common_name=common_name), station_record(), NOW)


@pytest.mark.parametrize("organization", ["Example CSO Ltd", "Example", "example cso", None])
def test_a00_fr_404_o_equals_the_operators_name_whole(organization: str | None) -> None:
    with pytest.raises(IdentityMismatch, match="'s O is"):
        check_station_certificate(certificate(organization=organization), station_record(), NOW)


def test_without_a_registered_organization_o_is_not_compared() -> None:
    check_station_certificate(certificate(organization="Any"), station_record(organization=None), NOW)


@pytest.mark.parametrize("at", [NOW - timedelta(days=1), NOW + timedelta(days=366)])
def test_a00_fr_407_a_certificate_outside_its_validity_is_refused(at: datetime) -> None:
    with pytest.raises(IdentityMismatch, match="not now"):
        check_station_certificate(certificate(), station_record(), at)


def test_a_subject_with_two_cns_names_nobody() -> None:
    key = new_key()
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "CS-0001"), x509.NameAttribute(NameOID.COMMON_NAME, "CS-0002")]
    )
    twice = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(InputError):
        check_station_certificate(twice, station_record(), NOW)


def test_bytes_that_are_no_certificate_are_one_clear_error() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        check_station_certificate(b"nothing", station_record(), NOW)


def test_a_naive_time_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        check_station_certificate(certificate(), station_record(), datetime(2026, 6, 1))  # noqa: DTZ001 - must be refused


def test_a00_fr_204_and_fr_303_the_username_is_the_identity() -> None:
    check_username("CS1", "CS1")
    with pytest.raises(IdentityMismatch):
        check_username("CS2", "CS1")


def test_an_unknown_or_removed_station_is_refused() -> None:
    known = station_record()
    assert check_station_known(known, "CS1") is known
    with pytest.raises(IdentityMismatch, match="unknown"):
        check_station_known(None, "CS1")
    with pytest.raises(IdentityMismatch, match="removed"):
        check_station_known(replace(known, state=StationState.REMOVED), "CS1")


@pytest.mark.parametrize("delivery", [None, Delivery.PENDING, Delivery.DELIVERED, Delivery.IN_USE, Delivery.SUPERSEDED])
def test_an_issued_certificate_of_this_station_opens_its_connection(delivery: Delivery | None) -> None:
    good = record(delivery=delivery)
    assert check_certificate_record(good, station_record()) is good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"station": "CS2"}, "linked to CS2"),
        ({"station": None}, "no station"),
        ({"state": CertificateState.VOIDED}, "voided"),
        ({"state": CertificateState.RESERVED}, "reserved"),
        ({"delivery": Delivery.UNDELIVERED}, "refused by its station"),
    ],
)
def test_a00_fr_427_only_an_active_certificate_of_this_station_opens_its_connection(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(IdentityMismatch, match=words):
        check_certificate_record(record(**changes), station_record())


def test_a_certificate_that_the_inventory_does_not_know_is_refused() -> None:
    with pytest.raises(IdentityMismatch, match="not in the inventory"):
        check_certificate_record(None, station_record())


def test_a00_fr_705_a_revoked_certificate_is_refused_with_its_reason() -> None:
    revoked = record(state=CertificateState.REVOKED, revoked_at=NOW, revocation_reason="keyCompromise")
    with pytest.raises(RevocationError, match="keyCompromise") as caught:
        check_certificate_record(revoked, station_record())
    assert caught.value.status == "revoked"


def boot(serial: str | None, *others: str) -> BootReceived:
    return BootReceived(serial_number=serial, model="M", vendor="V", other_serial_numbers=others)


@pytest.mark.parametrize("version", [V201, V21])
def test_b01_fr_11_and_fr_12_a_missing_or_other_serial_number_is_a_mismatch(version: OcppVersion) -> None:
    check_boot_serial_number(boot("CS-0001"), "CS-0001", version)
    for wrong in (None, "CS-0002", "cs-0001", ""):
        with pytest.raises(IdentityMismatch, match=r"B01\.FR\.11"):
            check_boot_serial_number(boot(wrong), "CS-0001", version)


def test_in_1_6_only_a_serial_number_that_is_given_must_match() -> None:
    check_boot_serial_number(boot(None), "CS-0001", V16)
    check_boot_serial_number(boot("CS-0001", "BOX-7"), "CS-0001", V16)
    check_boot_serial_number(boot("MODEL-7", "CS-0001"), "CS-0001", V16)
    check_boot_serial_number(boot(None, "CS-0001"), "CS-0001", V16, require_16=True)
    for other in ((), ("BOX-7",)):
        check_boot_serial_number(boot(None, *other), "CS-0001", V16)
        with pytest.raises(IdentityMismatch, match="no serial number"):
            check_boot_serial_number(boot(None, *other), "CS-0001", V16, require_16=True)
    with pytest.raises(IdentityMismatch):
        check_boot_serial_number(boot("CS-0002", "BOX-7"), "CS-0001", V16)


@pytest.mark.parametrize("serial", ["", "x" * 26, "192.168.0.1", "::1", "https://x", "a\nb"])
def test_a00_fr_511_a_serial_number_is_short_and_no_address(serial: str) -> None:
    with pytest.raises(InputError):
        check_serial_number(serial)


@pytest.mark.parametrize("serial", ["x" * 25, "00:1A:2B:3C:4D:5E", "1.2.3", "SN 0001"])
def test_serial_numbers_of_the_field_are_taken(serial: str) -> None:
    check_serial_number(serial)
