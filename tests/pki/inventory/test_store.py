"""Tests of typed reads and writes, the same on both databases."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from chargepki.pki.errors import Conflict, InputError, NotFound, StateError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction, codec, verify_log
from chargepki.pki.inventory.records import (
    CaState,
    CertificateState,
    Delivery,
    PresenceRecord,
    SecurityEventRecord,
    StationState,
)
from testkit.inventories import (
    ACTOR,
    NOW,
    add_ca,
    add_station,
    ca_record,
    certificate_record,
    crl_record,
    do,
    fill,
    issue,
    station_record,
)


def test_a_certificate_comes_back_as_it_was_reserved(inventory: Inventory) -> None:
    add_ca(inventory)
    record = dataclasses.replace(certificate_record("7f" * 20), verdict={"rules": [{"id": "a", "ok": True}]})
    do(inventory, lambda tx: tx.reserve_certificate(record))
    assert inventory.get_certificate(record.id) == record


def test_a_ca_comes_back_after_its_change(inventory: Inventory) -> None:
    add_ca(inventory)
    changed = do(inventory, lambda tx: tx.update_ca("t@1", state=CaState.ACTIVE, certificate_der=b"der", not_after=NOW))
    assert inventory.get_ca("t@1") == changed
    assert changed.state is CaState.ACTIVE
    assert changed.certificate_der == b"der"


def test_a_name_without_generation_means_the_newest(inventory: Inventory) -> None:
    add_ca(inventory)
    for generation in range(2, 12):
        assert inventory.write(lambda tx: tx.next_generation("t")) == generation
        do(inventory, lambda tx, n=generation: tx.reserve_ca(ca_record("t", n)))  # type: ignore[misc]  # n is bound early
    assert inventory.get_ca("t").generation == 11
    assert inventory.get_ca("t@2").generation == 2
    assert inventory.find_ca("u") is None
    with pytest.raises(NotFound, match="there is no CA u"):
        inventory.get_ca("u")


def test_every_datetime_that_leaves_is_aware_and_utc(inventory: Inventory) -> None:
    fill(inventory)
    records: list[Any] = [
        *inventory.list_cas(),
        *inventory.list_certificates(),
        *inventory.list_crls(),
        *inventory.list_stations(),
        *inventory.list_issuances(),
        *inventory.list_operations(),
        *inventory.list_attempts("o1"),
        *inventory.list_security_events(),
        *inventory.list_audit(),
    ]
    assert len({type(record) for record in records}) == 9
    times = [
        value
        for record in records
        for field in dataclasses.fields(record)
        if isinstance(value := getattr(record, field.name), datetime)
    ]
    assert len(times) > 20
    assert all(time.tzinfo is UTC for time in times)


def test_a_naive_datetime_is_a_type_error(inventory: Inventory) -> None:
    add_ca(inventory)
    record = dataclasses.replace(certificate_record(), not_after=datetime(2026, 3, 1))  # noqa: DTZ001  # the point
    with pytest.raises(TypeError, match="naive"):
        do(inventory, lambda tx: tx.reserve_certificate(record))
    with pytest.raises(TypeError, match="naive"):
        inventory.write(lambda tx: tx.audit(ACTOR, "a.b", "x", now=datetime(2026, 3, 1)))  # noqa: DTZ001  # the point


def test_an_instant_of_another_zone_is_kept_as_utc(inventory: Inventory) -> None:
    add_ca(inventory)
    there = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5)))
    do(inventory, lambda tx: tx.reserve_certificate(dataclasses.replace(certificate_record(), not_after=there)))
    assert inventory.get_certificate("t@1:5f").not_after == datetime(2026, 2, 28, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize("serial", ["", "0", "0a", "5F", "xyz", "-1"])
def test_a_serial_is_lower_case_hex_without_leading_zeros(inventory: Inventory, serial: str) -> None:
    add_ca(inventory)
    with pytest.raises(InputError, match="serial"):
        do(inventory, lambda tx: tx.reserve_certificate(certificate_record(serial)))


def test_a_serial_of_160_bits_survives(inventory: Inventory) -> None:
    add_ca(inventory)
    serial = f"{2**159 + 1:x}"
    issue(inventory, serial)
    assert [found.serial for found in inventory.find_certificates_by_serial(serial)] == [serial]


def test_a_serial_is_never_taken_twice_under_one_ca(inventory: Inventory) -> None:
    add_ca(inventory)
    add_ca(inventory, "u")
    do(inventory, lambda tx: tx.reserve_certificate(certificate_record()))
    do(inventory, lambda tx: tx.void_certificate("t@1:5f"))
    with pytest.raises(Conflict, match="exists already"):
        do(inventory, lambda tx: tx.reserve_certificate(certificate_record()))
    do(inventory, lambda tx: tx.reserve_certificate(certificate_record(ca="u@1")))
    assert {found.ca for found in inventory.find_certificates_by_serial("5f")} == {"t@1", "u@1"}


def test_a_work_may_go_on_after_a_conflict(inventory: Inventory) -> None:
    add_ca(inventory)

    def work(tx: Transaction) -> str:
        try:
            tx.reserve_ca(ca_record())
        except Conflict:
            return tx.get_ca("t").id
        raise AssertionError

    assert inventory.write(work) == "t@1"


def test_a_reservation_is_recorded_once(inventory: Inventory) -> None:
    add_ca(inventory)
    record = issue(inventory, "5f")
    assert record.state is CertificateState.ISSUED
    assert inventory.get_certificate(record.id) == record
    assert record.sha256 is not None
    assert inventory.find_certificate_by_sha256(record.sha256) == record
    again = inventory.write(lambda tx: tx.record_certificate(record.id, b"der5f", "0" * 64, NOW))
    assert again == record
    with pytest.raises(Conflict, match="other bytes"):
        inventory.write(lambda tx: tx.record_certificate(record.id, b"other", "0" * 64, NOW))


def test_a_voided_reservation_is_never_issued(inventory: Inventory) -> None:
    add_ca(inventory)
    do(inventory, lambda tx: tx.reserve_certificate(certificate_record()))
    assert [record.serial for record in inventory.list_reserved("t@1")] == ["5f"]
    do(inventory, lambda tx: tx.void_certificate("t@1:5f"))
    assert not list(inventory.list_reserved())
    with pytest.raises(StateError, match="voided"):
        inventory.write(lambda tx: tx.record_certificate("t@1:5f", b"der", "0" * 64, NOW))


def test_an_issued_certificate_is_not_voided(inventory: Inventory) -> None:
    add_ca(inventory)
    issue(inventory, "5f")
    with pytest.raises(StateError, match="was issued"):
        inventory.write(lambda tx: tx.void_certificate("t@1:5f"))


def test_revoking_again_keeps_the_first_instant_and_another_reason_is_refused(inventory: Inventory) -> None:
    add_ca(inventory)
    issue(inventory, "5f")
    do(inventory, lambda tx: tx.revoke_certificate("t@1:5f", NOW, "superseded"))
    entries = inventory.audit_head()
    again = inventory.write(lambda tx: tx.revoke_certificate("t@1:5f", NOW + timedelta(days=1), "superseded"))
    assert again.revoked_at == NOW
    assert inventory.audit_head() == entries
    with pytest.raises(StateError, match="revoked already, as superseded"):
        inventory.write(lambda tx: tx.revoke_certificate("t@1:5f", NOW, "cessationOfOperation"))
    assert [record.id for record in inventory.list_revoked("t@1")] == ["t@1:5f"]


def test_a_reservation_cannot_be_revoked(inventory: Inventory) -> None:
    add_ca(inventory)
    do(inventory, lambda tx: tx.reserve_certificate(certificate_record()))
    with pytest.raises(StateError, match="nothing to revoke"):
        inventory.write(lambda tx: tx.revoke_certificate("t@1:5f", NOW, "superseded"))


def test_a_request_key_finds_the_newest_certificate_that_is_not_voided(inventory: Inventory) -> None:
    add_ca(inventory)
    first = certificate_record("1", request_key="k")
    second = dataclasses.replace(certificate_record("2", request_key="k"), reserved_at=NOW + timedelta(seconds=1))
    for record in (first, second):
        do(inventory, lambda tx, record=record: tx.reserve_certificate(record))  # type: ignore[misc]  # bound early
    assert inventory.find_certificate_by_request_key("k") == second
    do(inventory, lambda tx: tx.void_certificate("t@1:2"))
    assert inventory.find_certificate_by_request_key("k") == first
    assert inventory.find_certificate_by_request_key("none") is None


def test_a_list_is_filtered_paged_and_limited(inventory: Inventory) -> None:
    add_ca(inventory)

    def work(tx: Transaction) -> None:
        for number in range(1, 1201):
            tx.reserve_certificate(certificate_record(f"{number:x}", request_key=str(number)))
        tx.audit(ACTOR, "certificate.reserve", "many", now=NOW)

    inventory.write(work)
    everything = [record.id for record in inventory.list_certificates()]
    assert len(everything) == 1200
    assert everything == sorted(everything)
    assert [record.id for record in inventory.list_certificates(limit=700)] == everything[:700]
    assert [record.id for record in inventory.list_certificates(after=everything[-3])] == everything[-2:]
    assert not list(inventory.list_certificates(state=CertificateState.ISSUED))
    assert not list(inventory.list_certificates(profile="ocpp/csms"))
    assert not list(inventory.list_certificates(not_after_before=NOW + timedelta(days=60)))
    assert (
        len(list(inventory.list_certificates(not_after_before=NOW + timedelta(days=60, seconds=1), ca="t@1"))) == 1200
    )


def test_a_certificate_is_linked_to_one_station(inventory: Inventory) -> None:
    add_ca(inventory)
    add_station(inventory)
    add_station(inventory, "CS-2")
    issue(inventory, "5f")
    do(inventory, lambda tx: tx.link_station("t@1:5f", "CS-1"))
    do(inventory, lambda tx: tx.set_delivery("t@1:5f", Delivery.IN_USE))
    assert [found.delivery for found in inventory.list_certificates(station="CS-1")] == [Delivery.IN_USE]
    with pytest.raises(Conflict, match="belongs to the station CS-1"):
        inventory.write(lambda tx: tx.link_station("t@1:5f", "CS-2"))
    with pytest.raises(NotFound, match="CS-3"):
        inventory.write(lambda tx: tx.link_station("t@1:5f", "CS-3"))


def test_crl_numbers_only_rise(inventory: Inventory) -> None:
    add_ca(inventory)
    assert inventory.latest_crl("t@1") is None
    for number in (1, 2, 10, 11):
        do(inventory, lambda tx, number=number: tx.add_crl(crl_record(number)))  # type: ignore[misc]  # bound early
    assert inventory.latest_crl("t@1") == crl_record(11)
    assert inventory.write(lambda tx: tx.next_crl_number("t@1")) == 12
    with pytest.raises(Conflict, match="the next one is 12"):
        do(inventory, lambda tx: tx.add_crl(crl_record(5)))


def test_a_station_is_changed_and_removed_but_its_row_stays(inventory: Inventory) -> None:
    add_station(inventory)
    do(inventory, lambda tx: tx.update_station("CS-1", security_profile=3, pending_password_hash="next"))
    assert inventory.get_station("CS-1").pending_password_hash == "next"
    assert [found.id for found in inventory.find_stations_by_serial_number("CS-1")] == ["CS-1"]
    do(inventory, lambda tx: tx.remove_station("CS-1"))
    assert inventory.get_station("CS-1").state is StationState.REMOVED
    assert not inventory.find_stations_by_serial_number("CS-1")
    with pytest.raises(Conflict, match="CS-1 exists"):
        do(inventory, lambda tx: tx.add_station(station_record()))


def test_presence_needs_no_audit_entry_and_only_the_newest_connection_ends_it(inventory: Inventory) -> None:
    one = PresenceRecord("CS-1", True, "p1", "c1", "ocpp1.6", 2, None, "127.0.0.1", NOW, NOW)
    two = dataclasses.replace(one, connection="c2", owner="p2")
    inventory.write(lambda tx: tx.set_presence(one))
    inventory.write(lambda tx: tx.set_presence(two))
    assert not inventory.write(lambda tx: tx.clear_presence("CS-1", "c1", now=NOW))
    assert inventory.find_presence("CS-1") == two
    later = NOW + timedelta(seconds=5)
    assert inventory.write(lambda tx: tx.touch_presence("CS-1", "c2", now=later))
    assert [found.last_seen_at for found in inventory.list_presence(owner="p2", connected=True)] == [later]
    assert inventory.write(lambda tx: tx.clear_presence("CS-1", "c2", now=later))
    assert not list(inventory.list_presence(connected=True))
    head = inventory.audit_head()
    assert head is not None
    assert head.count == 0


def test_security_events_are_numbered_and_made_printable(inventory: Inventory) -> None:
    def event(station: str, text: str) -> SecurityEventRecord:
        return do(
            inventory,
            lambda tx: tx.add_security_event(
                station=station, source="station", type="T", critical=True, tech_info=text, at=NOW, received_at=NOW
            ),
        )

    assert event("CS-1", "a\0b\ud800").tech_info == "a\\x00b\\ud800"
    second = event("CS-2", "ok")
    assert second.id == 2
    assert inventory.list_security_events(station="CS-2") == (second,)
    assert [found.id for found in inventory.list_security_events()] == [1, 2]
    assert inventory.list_security_events(after=2) == ()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_a_database_cannot_hold_is_refused(inventory: Inventory, text: str) -> None:
    with pytest.raises(InputError):
        do(inventory, lambda tx: tx.add_station(dataclasses.replace(station_record(), organization=text)))
    with pytest.raises(InputError):
        inventory.write(lambda tx: tx.audit(ACTOR, "a.b", text, now=NOW))
    assert not list(inventory.list_stations())


def test_details_that_are_no_json_are_refused(inventory: Inventory) -> None:
    with pytest.raises(InputError, match="JSON"):
        inventory.write(lambda tx: tx.audit(ACTOR, "a.b", "x", now=NOW, details={"key": object()}))
    with pytest.raises(InputError, match="JSON"):
        inventory.write(lambda tx: tx.audit(ACTOR, "a.b", "x", now=NOW, details={"key": 2**80}))


def test_a_value_of_the_wrong_type_never_reaches_a_row(inventory: Inventory) -> None:
    wrong = dataclasses.replace(station_record(), security_profile="2")  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match=r"station\.security_profile must be int"):
        do(inventory, lambda tx: tx.add_station(wrong))


def test_a_write_without_an_audit_entry_is_a_bug_and_changes_nothing(inventory: Inventory) -> None:
    with pytest.raises(RuntimeError, match=r"writes to station without a following tx.audit"):
        inventory.write(lambda tx: tx.add_station(station_record()))
    assert inventory.find_station("CS-1") is None

    def audited_too_early(tx: Transaction) -> None:
        tx.audit(ACTOR, "station.add", "CS-1", now=NOW)
        tx.add_station(station_record())

    with pytest.raises(RuntimeError, match="following"):
        inventory.write(audited_too_early)
    assert not inventory.list_audit()


def test_an_error_in_a_work_leaves_nothing_of_it(inventory: Inventory) -> None:
    def work(tx: Transaction) -> None:
        tx.add_station(station_record())
        tx.audit(ACTOR, "station.add", "CS-1", now=NOW)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        inventory.write(work)
    assert inventory.find_station("CS-1") is None
    assert not inventory.list_audit()


def test_an_entry_tells_who_what_when_on_what_and_with_which_effect(inventory: Inventory) -> None:
    add_ca(inventory)
    do(inventory, lambda tx: tx.update_ca("t@1", state=CaState.ACTIVE), "ca.activate", "t@1")
    first, second = inventory.list_audit()
    assert (first.seq, first.actor, first.at, first.action, first.subject) == (1, ACTOR, NOW, "ca.create", "t@1")
    assert first.preconditions == ()
    ((table, key, digest),) = first.effects
    assert (table, key) == ("ca", "t@1")
    assert second.preconditions == (("ca", "t@1", digest),)
    assert second.previous_hash == first.entry_hash
    assert inventory.list_audit(after_seq=1) == (second,)


def test_a_work_inside_a_work_is_a_bug(inventory: Inventory) -> None:
    with pytest.raises(RuntimeError, match="must not start another"):
        inventory.write(lambda tx: inventory.write(lambda inner: inner.find_ca("t")))
    add_ca(inventory)


def test_an_ordinary_history_verifies(inventory: Inventory, log_key: AuditKey) -> None:
    fill(inventory)
    report = verify_log(inventory, pinned_keys=[log_key.public])
    assert report.findings == ()
    assert report.ok
    assert report.entries == len(inventory.list_audit())
    with inventory.snapshot() as session:
        rows = sum(
            session.execute(f"SELECT count(*) FROM {kind.table}")[0][0] for kind in codec.AUDITED
        )  # our own names
    assert report.rows == rows > 9
