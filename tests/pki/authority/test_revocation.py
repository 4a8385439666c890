"""Revocation and the lists that tell of it."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.publication import needs_crl
from chargepki.pki.authority.revocation import BlastRadius, blast_radius
from chargepki.pki.errors import Conflict, InputError, NotFound, PolicyRefusal, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CaState, CertificateRecord, CertificateState
from testkit.authorities import (
    ACTOR,
    NOW,
    MemoryKeyStore,
    make_authority,
    make_csr,
    make_key,
    ocpp_authority,
    open_inventory,
)

STATION = "ocpp/charging-station"


def issue(authority: Authority, name: str = "CS-0001") -> CertificateRecord:
    """Return a fresh station certificate."""
    return authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name))).record


def load(der: bytes) -> x509.CertificateRevocationList:
    """Read a CRL with a parser that is not ours."""
    return x509.load_der_x509_crl(der)


def test_a_revocation_is_recorded_with_reason_and_time(authority: Authority) -> None:
    record = issue(authority)
    revoked = authority.revoke(record.id, "keyCompromise")
    assert revoked.state is CertificateState.REVOKED
    assert (revoked.revocation_reason, revoked.revoked_at) == ("keyCompromise", NOW)


def test_a_revocation_is_acknowledged_only_after_those_who_rely_on_memory_let_go(
    postgresql_url: str, tmp_path: Path
) -> None:
    inventory = open_inventory(postgresql_url, tmp_path)
    authority = ocpp_authority(inventory)
    record = issue(authority)
    assent = inventory.assent()
    assent.connect()
    assent.take()
    state_when_asked: list[CertificateState] = []

    def let_go() -> None:
        if assent.wait(20):
            state_when_asked.append(inventory.get_certificate(record.id).state)
            assent.release()

    holder = threading.Thread(target=let_go)
    holder.start()
    authority.revoke(record.id, "keyCompromise")
    assert state_when_asked == [CertificateState.REVOKED]
    holder.join()
    assent.close()
    inventory.close()


def test_revoking_again_for_the_same_reason_changes_nothing(authority: Authority) -> None:
    record = issue(authority)
    first = authority.revoke(record.id, "keyCompromise")
    head = authority.inventory.audit_head()
    assert authority.revoke(record.id, "keyCompromise") == first
    assert authority.inventory.audit_head() == head


def test_another_reason_is_refused(authority: Authority) -> None:
    record = issue(authority)
    authority.revoke(record.id, "superseded")
    with pytest.raises(Conflict, match="superseded"):
        authority.revoke(record.id, "cessationOfOperation")
    with pytest.raises(Conflict, match="superseded"):
        authority.revoke(record.id, "certificateHold")


def test_a_compromise_that_is_learned_later_becomes_the_reason_and_the_date_stays(authority: Authority) -> None:
    record = issue(authority)
    since, suspected = NOW - timedelta(minutes=3), NOW - timedelta(minutes=4)
    authority.revoke(record.id, "superseded", revoked_at=since)
    authority.publish_crl("t-sub")
    after = authority.revoke(record.id, "keyCompromise", invalidity_date=suspected)
    assert (after.revocation_reason, after.revoked_at, after.invalidity_date) == ("keyCompromise", since, suspected)
    crl = load(authority.publish_due("t-sub").lists[0].der)
    assert reasons(crl) == [x509.ReasonFlags.key_compromise]
    (entry,) = crl
    assert entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc == suspected
    with pytest.raises(Conflict, match="keyCompromise"):
        authority.revoke(record.id, "superseded")


def test_an_earlier_invalidity_date_is_taken_over_and_a_later_one_changes_nothing(authority: Authority) -> None:
    record = issue(authority)
    first, earlier = NOW - timedelta(days=1), NOW - timedelta(days=2)
    authority.revoke(record.id, "keyCompromise", invalidity_date=first)
    assert authority.revoke(record.id, "keyCompromise", invalidity_date=earlier).invalidity_date == earlier
    head = authority.inventory.audit_head()
    assert authority.revoke(record.id, "keyCompromise", invalidity_date=first).invalidity_date == earlier
    assert authority.revoke(record.id, "keyCompromise").invalidity_date == earlier
    assert authority.inventory.audit_head() == head
    with pytest.raises(InputError, match="later than the revocation"):
        authority.revoke(record.id, "keyCompromise", invalidity_date=NOW + timedelta(seconds=1))


def test_a_hold_that_is_released_leaves_the_lists_and_may_be_revoked_again(authority: Authority) -> None:
    record, other = issue(authority), issue(authority, "CS-2")
    authority.revoke(other.id, "superseded")
    authority.revoke(record.id, "certificateHold", invalidity_date=NOW - timedelta(days=1))
    assert len(load(authority.publish_crl("t-sub").der)) == 2
    released = authority.release(record.id)
    assert released == record
    assert needs_crl(authority.inventory, "t-sub@1", NOW)
    assert [entry.serial_number for entry in load(authority.publish_crl("t-sub").der)] == [int(other.serial, 16)]
    head = authority.inventory.audit_head()
    assert authority.release(record.id) == record
    assert authority.inventory.audit_head() == head
    authority.revoke(record.id, "keyCompromise")
    with pytest.raises(Conflict, match="revoked for good, for keyCompromise"):
        authority.release(record.id)
    assert len(load(authority.publish_crl("t-sub").der)) == 2


def test_a_ca_that_is_released_issues_again(authority: Authority) -> None:
    own = own_certificate(authority, "t-sub@1")
    authority.revoke(own.id, "certificateHold")
    with pytest.raises(StateError, match="revoked"):
        issue(authority)
    authority.release(own.id)
    assert authority.inventory.get_ca("t-sub").state is CaState.ACTIVE
    issue(authority)


def test_the_blast_radius_of_a_ca_counts_what_is_valid_below_it(authority: Authority) -> None:
    kept, gone = issue(authority, "CS-1"), issue(authority, "CS-2")
    authority.revoke(gone.id, "superseded")
    radius = blast_radius(authority.inventory, own_certificate(authority, "t-sub@1"), NOW)
    assert radius == BlastRadius("t-sub@1", (), 1)
    later = kept.not_after + timedelta(seconds=1)
    assert blast_radius(authority.inventory, own_certificate(authority, "t-sub@1"), later) == BlastRadius(
        "t-sub@1", (), 0
    )
    root = blast_radius(authority.inventory, own_certificate(authority, "t-root@1"), NOW)
    assert root == BlastRadius("t-root@1", ("t-sub@1",), 1 + 1)
    assert blast_radius(authority.inventory, kept, NOW) is None


@pytest.mark.parametrize("reason", ["KEYCOMPROMISE", "", "7", "removeFromCRL", "key compromise"])
def test_a_reason_outside_rfc_5280_is_refused(authority: Authority, reason: str) -> None:
    record = issue(authority)
    with pytest.raises(InputError, match="reason"):
        authority.revoke(record.id, reason)


def test_a_revocation_date_in_the_future_or_before_the_certificate_is_refused(authority: Authority) -> None:
    record = issue(authority)
    for at in (NOW + timedelta(seconds=1), record.not_before - timedelta(seconds=1)):
        with pytest.raises(InputError):
            authority.revoke(record.id, "keyCompromise", revoked_at=at)
    assert authority.inventory.get_certificate(record.id).state is CertificateState.ISSUED


def test_a_root_cannot_revoke_itself(authority: Authority) -> None:
    own = authority.inventory.find_certificate_by_request_key("ca:t-root@1")
    assert own is not None
    with pytest.raises(PolicyRefusal, match="root"):
        authority.revoke(own.id, "cACompromise")


def test_revoking_a_ca_certificate_revokes_the_ca(authority: Authority) -> None:
    own = authority.inventory.find_certificate_by_request_key("ca:t-sub@1")
    assert own is not None
    authority.revoke(own.id, "cACompromise")
    assert authority.inventory.get_ca("t-sub").state is CaState.REVOKED


def test_a_hold_becomes_final_with_its_first_date_and_the_lists_say_so(authority: Authority) -> None:
    record = issue(authority)
    since = NOW - timedelta(minutes=3)
    authority.revoke(record.id, "certificateHold", revoked_at=since)
    first = load(authority.publish_crl("t-sub").der)
    assert reasons(first) == [x509.ReasonFlags.certificate_hold]
    final = authority.revoke(record.id, "keyCompromise")
    assert (final.revocation_reason, final.revoked_at) == ("keyCompromise", since)
    assert needs_crl(authority.inventory, "t-sub@1", NOW)
    second = load(authority.publish_crl("t-sub").der)
    assert reasons(second) == [x509.ReasonFlags.key_compromise]
    assert not needs_crl(authority.inventory, "t-sub@1", NOW)
    with pytest.raises(Conflict, match="keyCompromise"):
        authority.revoke(record.id, "certificateHold")


def test_a_hold_that_turns_out_older_counts_from_the_older_date(authority: Authority) -> None:
    record = issue(authority)
    authority.revoke(record.id, "certificateHold")
    earlier = NOW - timedelta(minutes=4)
    assert authority.revoke(record.id, "superseded", revoked_at=earlier).revoked_at == earlier


def reasons(crl: x509.CertificateRevocationList) -> list[x509.ReasonFlags]:
    """Return the reasons of all entries."""
    return [entry.extensions.get_extension_for_class(x509.CRLReason).value.reason for entry in crl]


def test_revoking_a_cross_certificate_leaves_the_certified_ca_active(
    inventory: Inventory, keystore: MemoryKeyStore
) -> None:
    authority = make_authority(inventory, keystore=keystore)
    for name in ("v2g-root", "oem-root"):
        order = CaOrder(name, f"iso15118-20/{name}", subject=(("CN", name), ("O", "Example")))
        authority.create_ca(order)
    certified = inventory.get_ca("oem-root")
    cross = authority.issue(
        IssueOrder(
            ca="v2g-root",
            profile="iso15118-20/cross",
            spki=keystore.open(certified.key_uri).spki_der,
            subject=(("CN", "oem-root"), ("O", "Example")),
        )
    )
    authority.revoke(cross.record.id, "superseded")
    assert inventory.get_ca("oem-root").state is CaState.ACTIVE


def test_a_ca_that_expired_publishes_nothing(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    end = authority.inventory.get_ca("t-sub").not_after
    assert end is not None
    late = make_authority(inventory, keystore=keystore, clock=lambda: end + timedelta(seconds=1))
    with pytest.raises(StateError, match="expired"):
        late.publish_crl("t-sub")
    assert inventory.latest_crl("t-sub@1") is None


def test_an_unknown_certificate_cannot_be_revoked(authority: Authority) -> None:
    with pytest.raises(NotFound):
        authority.revoke("t-sub@1:abc", "keyCompromise")


def test_the_list_names_exactly_the_revoked_ones(authority: Authority) -> None:
    kept, gone = issue(authority, "CS-1"), issue(authority, "CS-2")
    authority.revoke(gone.id, "keyCompromise")
    crl = load(authority.publish_crl("t-sub").der)
    assert crl.get_revoked_certificate_by_serial_number(int(gone.serial, 16)) is not None
    assert crl.get_revoked_certificate_by_serial_number(int(kept.serial, 16)) is None
    ca = authority.inventory.get_ca("t-sub")
    assert ca.certificate_der is not None
    key = x509.load_der_x509_certificate(ca.certificate_der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)


def test_crl_numbers_only_grow(authority: Authority) -> None:
    numbers = [authority.publish_crl("t-sub").number for _ in range(3)]
    assert numbers == sorted(set(numbers))
    # A backup that is older than a published list is put back: numbers still go on above it.
    assert numbers[0] >= int(NOW.timestamp() * 1000)


def test_reason_unspecified_is_omitted_from_the_entry(authority: Authority) -> None:
    record = issue(authority)
    authority.revoke(record.id, "unspecified")
    entry = load(authority.publish_crl("t-sub").der).get_revoked_certificate_by_serial_number(int(record.serial, 16))
    assert entry is not None
    assert len(entry.extensions) == 0


def test_the_published_file_is_the_newest_list(inventory: Inventory, keystore: MemoryKeyStore, tmp_path: Path) -> None:
    folder = tmp_path / "www"
    authority = ocpp_authority(inventory, keystore=keystore, publish_folder=folder)
    authority.publish_crl("t-sub")
    second = authority.publish_crl("t-sub")
    assert (folder / "crl" / "t-sub@1.crl").read_bytes() == second.der
    ca = inventory.get_ca("t-sub")
    assert (folder / "ca" / "t-sub@1.cer").read_bytes() == ca.certificate_der


def test_a_new_ca_is_published_before_its_first_list(
    inventory: Inventory, keystore: MemoryKeyStore, tmp_path: Path
) -> None:
    folder = tmp_path / "www"
    ocpp_authority(inventory, keystore=keystore, publish_folder=folder)
    ca = inventory.get_ca("t-sub")
    assert (folder / "ca" / "t-sub@1.cer").read_bytes() == ca.certificate_der
    assert not list((folder / "crl").iterdir())


def test_a_list_is_due_when_missing_outdated_or_past_half_its_life(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority
) -> None:
    ca = inventory.get_ca("t-sub").id
    assert needs_crl(inventory, ca, NOW)
    authority.publish_crl("t-sub")
    assert not needs_crl(inventory, ca, NOW + timedelta(days=3))
    assert needs_crl(inventory, ca, NOW + timedelta(days=3, hours=12))
    record = issue(authority)
    assert not needs_crl(inventory, ca, NOW)
    authority.revoke(record.id, "superseded")
    assert needs_crl(inventory, ca, NOW)
    assert [crl.ca for crl in authority.refresh_crls()] == ["t-root@1", "t-sub@1"]
    assert authority.refresh_crls() == []


def test_a_list_does_not_outlive_its_issuer(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    end = authority.inventory.get_ca("t-sub").not_after
    assert end is not None
    late = make_authority(inventory, keystore=keystore, clock=lambda: end - timedelta(days=1))
    assert late.publish_crl("t-sub").next_update == end


def own_certificate(authority: Authority, ca_id: str) -> CertificateRecord:
    """Return the record of a CA's own certificate."""
    found = authority.inventory.find_certificate_by_request_key(f"ca:{ca_id}")
    assert found is not None
    return found


def test_a_revoked_ca_still_publishes_when_asked_to_and_is_left_alone_otherwise(authority: Authority) -> None:
    leaf = issue(authority)
    authority.revoke(own_certificate(authority, "t-sub@1").id, "cessationOfOperation")
    authority.revoke(leaf.id, "cessationOfOperation")
    assert [crl.ca for crl in authority.refresh_crls()] == ["t-root@1"]
    last = load(authority.publish_crl("t-sub").der)
    assert last.get_revoked_certificate_by_serial_number(int(leaf.serial, 16)) is not None
    with pytest.raises(StateError, match="revoked"):
        issue(authority, "CS-9")


def test_a_retired_ca_keeps_its_list_fresh(authority: Authority) -> None:
    retire(authority.inventory, "t-sub@1")
    assert [crl.ca for crl in authority.refresh_crls()] == ["t-root@1", "t-sub@1"]


def retire(inventory: Inventory, ca_id: str) -> None:
    """Take a CA out of service, as a later generation does."""

    def work(tx: Transaction) -> None:
        tx.update_ca(ca_id, state=CaState.RETIRED)
        tx.audit(ACTOR, "ca.retire", ca_id, now=NOW)

    inventory.write(work)


def test_one_lost_key_does_not_let_the_other_lists_expire(
    inventory: Inventory, keystore: MemoryKeyStore, authority: Authority
) -> None:
    del keystore.signers["memory:t-root@1"]
    fresh = make_authority(inventory, keystore=keystore)
    with pytest.raises(SignerError):
        fresh.refresh_crls()
    assert inventory.latest_crl("t-sub@1") is not None
    assert inventory.latest_crl("t-root@1") is None


def test_an_expired_ca_does_not_stop_the_other_lists(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    ocpp_authority(inventory, keystore=keystore)
    end = inventory.get_ca("t-sub").not_after
    assert end is not None
    late = make_authority(inventory, keystore=keystore, clock=lambda: end + timedelta(days=1))
    assert [crl.ca for crl in late.refresh_crls()] == ["t-root@1"]


def test_nothing_is_issued_below_a_revoked_ca(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    authority = make_authority(inventory, keystore=keystore)
    above = None
    for role in ("v2g-root", "cpo-sub1", "cpo-sub2"):
        authority.create_ca(CaOrder(role, f"iso15118-2/{role}", issuer=above, subject=(("CN", role), ("O", "Example"))))
        above = role
    authority.revoke(own_certificate(authority, "cpo-sub1@1").id, "keyCompromise")
    wanted = IssueOrder(ca="cpo-sub2", profile="iso15118-2/secc", csr=make_csr("DEABCSECC0001"))
    with pytest.raises(StateError, match="below cpo-sub1@1"):
        authority.issue(wanted)


@pytest.mark.parametrize("reason", ["keyCompromise", "cACompromise", "aACompromise"])
def test_a_compromised_key_is_certified_by_nobody_again(authority: Authority, reason: str) -> None:
    key = make_key()
    first = authority.issue(IssueOrder(ca="t-sub", profile=STATION, csr=make_csr(key=key)))
    authority.revoke(first.record.id, reason)
    for name, again in (("CS-0001", False), ("CS-0001", True), ("CS-0002", False)):
        with pytest.raises(PolicyRefusal, match="compromised") as caught:
            authority.issue(IssueOrder(ca="t-sub", profile=STATION, csr=make_csr(name, key=key), again=again))
        assert first.record.id in caught.value.why


@pytest.mark.parametrize("reason", ["superseded", "certificateHold", "unspecified"])
def test_a_key_that_is_still_a_secret_may_be_certified_again(authority: Authority, reason: str) -> None:
    key = make_key()
    first = authority.issue(IssueOrder(ca="t-sub", profile=STATION, csr=make_csr(key=key)))
    authority.revoke(first.record.id, reason)
    authority.issue(IssueOrder(ca="t-sub", profile=STATION, csr=make_csr(key=key)))
