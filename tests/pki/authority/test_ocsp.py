"""Tests of delegated OCSP signers and prepared responses."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp as foreign

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.hierarchy import create_hierarchy
from chargepki.pki.authority.ocsp import OcspAuthority, find_delegate, ocsp_cas
from chargepki.pki.chain import Revocation, RevocationMode, verify_chain
from chargepki.pki.errors import Conflict
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateState
from chargepki.pki.keys import generate_private_key, spki_der
from chargepki.pki.lint import lint_ocsp_response
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, log_findings, make_authority, make_csr


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(inventory: Inventory, keystore: MemoryKeyStore, clock: Clock) -> Authority:
    made = make_authority(inventory, keystore=keystore, clock=clock)
    root = (("CN", "Test Root"), ("O", "Test CSO"), ("C", "DE"))
    made.create_ca(CaOrder("t-root", "ocpp/cso-root", subject=root))
    sub = (("CN", "Test Sub"), ("O", "Test CSO"), ("C", "DE"))
    made.create_ca(CaOrder("t-sub", "ocpp/cso-sub", issuer="t-root", subject=sub))
    return made


@pytest.fixture
def sub(authority: Authority) -> CaRecord:
    return authority.inventory.get_ca("t-sub")


def issue(authority: Authority, name: str = "CS-0001") -> str:
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name))
    return authority.issue(order).record.id


def read(authority: Authority, certificate: str, hash_name: str = "sha1") -> foreign.OCSPResponse:
    record = authority.inventory.find_ocsp_response(certificate, hash_name)
    assert record is not None
    return foreign.load_der_ocsp_response(record.der)


def test_a_prepared_response_is_signed_by_a_delegate_of_the_ca(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    assert OcspAuthority(authority).presign(sub) == 4  # the leaf's and the delegate's own, under two hashes
    response = read(authority, certificate)
    (delegate,) = response.certificates
    assert sub.certificate_der is not None
    delegate.verify_directly_issued_by(x509.load_der_x509_certificate(sub.certificate_der))
    key = delegate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and response.signature_hash_algorithm is not None
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(response.signature_hash_algorithm))
    assert delegate.extensions.get_extension_for_class(x509.OCSPNoCheck).critical is False
    assert response.certificate_status is foreign.OCSPCertStatus.GOOD
    assert response.next_update_utc is not None
    assert response.next_update_utc - response.this_update_utc == timedelta(days=7)


def test_our_own_validation_accepts_both_forms_of_a_prepared_response(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    OcspAuthority(authority).presign(sub)
    root = authority.inventory.get_ca("t-root").certificate_der
    leaf = authority.inventory.get_certificate(certificate).der
    assert root is not None and leaf is not None and sub.certificate_der is not None
    OcspAuthority(authority).presign(authority.inventory.get_ca("t-root"))
    above = next(c for c in authority.inventory.list_certificates(ca="t-root@1") if c.der == sub.certificate_der)
    for hash_name in ("sha1", "sha256"):
        responses = []
        for each in (certificate, above.id):
            record = authority.inventory.find_ocsp_response(each, hash_name)
            assert record is not None
            responses.append(record.der)
        evidence = Revocation(RevocationMode.REQUIRE, ocsp_responses=tuple(responses))
        verify_chain(leaf, [sub.certificate_der], [root], at=NOW, revocation=evidence)


@pytest.mark.parametrize("standard", ["ocpp", "iso15118-2", "iso15118-20", "iso15118-20-a1"])
def test_every_ca_of_every_standard_answers_for_what_it_issued(
    inventory: Inventory, standard: str, tmp_path: Path
) -> None:
    authority = make_authority(inventory)
    create_hierarchy(authority, standard, prefix="p", organization="Org", country="DE")
    signing = OcspAuthority(authority)
    assert signing.renew_signers() == []
    for ca in ocsp_cas(inventory, NOW):
        signing.presign(ca)
        assert signing.signer(ca).certificate, ca.id  # a delegate of its own, not the CA's key
    key = spki_der(generate_private_key(authority.open_issuer(ca.id).signer.algorithm))
    # One that an operator orders is as the profile says: -20:2022 marks key identifiers critical.
    ordered = authority.issue(
        IssueOrder(ca.id, "common/ocsp-signer", spki=key, subject=(("CN", "By hand"), ("O", "Org")))
    )
    identifier = x509.load_der_x509_certificate(ordered.certificate_der).extensions.get_extension_for_class(
        x509.AuthorityKeyIdentifier
    )
    assert identifier.critical is (standard == "iso15118-20")
    signing.presign(ca)
    for record in inventory.list_certificates():
        response = inventory.find_ocsp_response(record.id, "sha1")
        assert response is not None, record.id  # the roots' own certificates too
        issuer = inventory.get_ca(record.ca)
        report = lint_ocsp_response(response.der, issuer_der=issuer.certificate_der, now=NOW)
        assert report.errors == (), record.id
    assert log_findings(inventory, tmp_path) == []


def test_a_revocation_takes_the_prepared_response_with_it(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    signing = OcspAuthority(authority)
    signing.presign(sub)
    authority.revoke(certificate, "keyCompromise")
    assert authority.inventory.find_ocsp_response(certificate, "sha1") is None
    assert signing.presign(sub) == 2
    response = read(authority, certificate)
    assert response.certificate_status is foreign.OCSPCertStatus.REVOKED
    assert response.revocation_reason is x509.ReasonFlags.key_compromise
    assert response.revocation_time_utc == NOW


def test_a_response_that_a_revocation_overtook_is_not_stored(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    signing = OcspAuthority(authority)
    due = [s for s in authority.inventory.list_ocsp_due(sub.id, "sha1", now=NOW, limit=9) if s.id == certificate]
    records = signing.sign_batch(sub, due, "sha1", NOW)
    authority.revoke(certificate, "superseded")
    assert authority.inventory.write(lambda tx: tx.put_ocsp_responses(records)) == 0
    assert authority.inventory.find_ocsp_response(certificate, "sha1") is None


def test_reserved_and_voided_serials_have_no_response(authority: Authority, sub: CaRecord) -> None:
    certificate = authority.inventory.get_certificate(issue(authority))

    def reserve(tx: Transaction) -> None:
        for serial in ("a1", "a2"):
            record = dataclasses.replace(
                certificate, id=f"{sub.id}:{serial}", serial=serial, state=CertificateState.RESERVED, der=None,
                sha256=None, issued_at=None, request_key=serial,
            )  # fmt: skip
            tx.reserve_certificate(record)
            tx.audit(ACTOR, "certificate.reserve", record.id, now=NOW)
        tx.void_certificate(f"{sub.id}:a2")
        tx.audit(ACTOR, "certificate.void", f"{sub.id}:a2", now=NOW)

    authority.inventory.write(reserve)
    OcspAuthority(authority).presign(sub)
    for serial in ("a1", "a2"):
        assert authority.inventory.find_ocsp_response(f"{sub.id}:{serial}", "sha1") is None


def test_the_signer_renews_itself_before_responses_outlive_it(
    authority: Authority, sub: CaRecord, clock: Clock, keystore: MemoryKeyStore
) -> None:
    issue(authority)
    signing = OcspAuthority(authority)
    first = signing.signer(sub)
    clock.now += timedelta(days=19)
    assert signing.signer(sub).certificate == first.certificate
    clock.now += timedelta(days=2)
    second = signing.signer(sub)
    assert second.certificate != first.certificate
    assert second.until(clock.now) == clock.now + timedelta(days=7)
    assert second.key_hash != first.key_hash


def test_a_revoked_signer_is_replaced_and_so_is_what_it_signed(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    signing = OcspAuthority(authority)
    signing.presign(sub)
    first = signing.signer(sub)
    authority.revoke(first.certificate, "keyCompromise")
    assert authority.inventory.find_ocsp_response(certificate, "sha1") is None
    signing.presign(sub)
    record = authority.inventory.find_ocsp_response(certificate, "sha1")
    assert record is not None and record.signer not in ("", first.certificate)


def test_an_interrupted_renewal_is_taken_up_again_with_its_key(
    authority: Authority, sub: CaRecord, keystore: MemoryKeyStore
) -> None:
    label = f"{sub.id}-ocsp-1"
    keystore.create(label, keystore.open(sub.key_uri).algorithm)  # the key was made, then the process died
    signer = OcspAuthority(authority).signer(sub)
    assert signer.signer.uri == keystore.uri(label)


def test_a_signer_whose_key_is_lost_is_replaced(authority: Authority, sub: CaRecord, keystore: MemoryKeyStore) -> None:
    signing = OcspAuthority(authority)
    first = signing.signer(sub)
    del keystore.signers[first.signer.uri]
    assert signing.signer(sub).certificate != first.certificate


def test_a_certificate_of_the_profile_that_somebody_else_requested_is_no_signer_of_ours(
    authority: Authority, sub: CaRecord, keystore: MemoryKeyStore
) -> None:
    csr = make_csr("someone", organization="Test CSO")
    order = IssueOrder(ca="t-sub", profile="common/ocsp-signer", csr=csr, request_id=f"ocsp-signer:{sub.id}:1")
    theirs = authority.issue(order)
    keystore.create(f"{sub.id}-ocsp-1", keystore.open(sub.key_uri).algorithm)
    assert find_delegate(authority.inventory, keystore, sub, NOW) is None
    assert OcspAuthority(authority).signer(sub).certificate != theirs.record.id


def test_a_retired_ca_signs_with_its_own_key(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)

    def retire(tx: Transaction) -> None:
        tx.update_ca(sub.id, state=CaState.RETIRED)
        tx.audit(ACTOR, "ca.retire", sub.id, now=NOW)

    authority.inventory.write(retire)
    sub = authority.inventory.get_ca(sub.id)
    OcspAuthority(authority).presign(sub)
    response = read(authority, certificate)
    assert response.certificates == []
    assert response.responder_key_hash == OcspAuthority(authority).signer(sub).key_hash


def test_a_leader_that_lost_its_lease_stores_nothing(authority: Authority, sub: CaRecord) -> None:
    certificate = issue(authority)
    inventory, later = authority.inventory, NOW + timedelta(seconds=20)
    first = inventory.write(lambda tx: tx.take_leadership("services", owner="a", until=later, now=NOW))
    assert first is not None
    assert inventory.write(lambda tx: tx.take_leadership("services", owner="b", until=later, now=NOW)) is None
    ends = later + timedelta(seconds=20)
    second = inventory.write(lambda tx: tx.take_leadership("services", owner="b", until=ends, now=later))
    assert second == first + 1
    with pytest.raises(Conflict, match="lost"):
        OcspAuthority(authority).presign(sub, leadership=("services", first))
    assert inventory.find_ocsp_response(certificate, "sha1") is None
    assert OcspAuthority(authority).presign(sub, leadership=("services", second)) > 0
    inventory.write(lambda tx: tx.resign_leadership("services", second))
    assert inventory.write(lambda tx: tx.take_leadership("services", owner="a", until=ends, now=later)) == second + 1


def test_prepared_responses_are_listed_once_each(authority: Authority, sub: CaRecord) -> None:
    for number in range(3):
        issue(authority, f"CS-{number}")
    OcspAuthority(authority).presign(sub)
    listed = [(r.certificate, r.hash) for r in authority.inventory.list_ocsp_responses()]
    assert len(listed) == len(set(listed)) == 8
    assert len(list(authority.inventory.list_ocsp_responses_of(sub.id, "sha256"))) == 4
    soonest, count = authority.inventory.soonest_ocsp_expiry()
    assert soonest == NOW + timedelta(days=7) and count == 8
    first = authority.inventory.list_ocsp_changes(sub.id, "sha1", since=NOW, after="", limit=3)
    rest = authority.inventory.list_ocsp_changes(sub.id, "sha1", since=NOW, after=first[-1].certificate, limit=3)
    assert [r.certificate for r in (*first, *rest)] == sorted({r[0] for r in listed})
    later = NOW + timedelta(seconds=1)
    assert not authority.inventory.list_ocsp_changes(sub.id, "sha1", since=later, after="", limit=3)
    authority.inventory.write(lambda tx: tx.prune_ocsp_responses(NOW + timedelta(days=7)))
    assert list(authority.inventory.list_ocsp_responses()) == []
