"""Issuance: what is judged, what is recorded, in which order, and what a repeat returns."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki.authority import Authority, CaOrder, IssuedCertificate, IssueOrder
from chargepki.pki.authority.issuance import judge_tbs
from chargepki.pki.errors import (
    Conflict,
    InputError,
    IssuerOutlived,
    NotFound,
    PolicyRefusal,
    ProfileViolation,
    SignerError,
    StateError,
)
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CertificateState, StationRecord, StationState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile
from chargepki.pki.template import largest_certificate
from testkit.authorities import (
    ACTOR,
    NOW,
    MemoryKeyStore,
    log_findings,
    make_authority,
    make_csr,
    make_key,
    ocpp_authority,
)

STATION = "ocpp/charging-station"


def order(csr: bytes | None = None, **changes: object) -> IssueOrder:
    """Return an order for a charging-station certificate."""
    values: dict[str, object] = {"ca": "t-sub", "profile": STATION, "csr": csr or make_csr()}
    return IssueOrder(**{**values, **changes})  # type: ignore[arg-type]  # a test's short form


def count(inventory: Inventory) -> int:
    """Return how many certificates the inventory knows, reserved ones included."""
    return sum(1 for _ in inventory.list_certificates())


def test_a_certificate_is_issued_from_a_request_and_recorded(authority: Authority) -> None:
    key = make_key()
    issued = authority.issue(order(make_csr("CS-0001", key=key)))
    leaf = x509.load_der_x509_certificate(issued.certificate_der)
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == "CS-0001"
    stored = authority.inventory.get_certificate(issued.record.id)
    assert stored.state is CertificateState.ISSUED
    assert stored.der == issued.certificate_der
    assert stored.tbs == leaf.tbs_certificate_bytes
    assert stored.sha256 == hashlib.sha256(issued.certificate_der).hexdigest()
    assert stored.serial == f"{leaf.serial_number:x}"
    assert stored.requester == "alice"


def test_the_chain_is_leaf_first_without_the_root_and_each_signs_the_one_before(authority: Authority) -> None:
    issued = authority.issue(order())
    chain = [x509.load_der_x509_certificate(der) for der in issued.chain]
    assert len(chain) == 2
    root = authority.inventory.get_ca("t-root")
    assert root.certificate_der is not None
    for child, parent in zip(chain, [*chain[1:], x509.load_der_x509_certificate(root.certificate_der)], strict=True):
        child.verify_directly_issued_by(parent)


def test_the_same_request_returns_the_same_certificate(authority: Authority) -> None:
    csr = make_csr()
    first, second = authority.issue(order(csr)), authority.issue(order(csr))
    assert second.certificate_der == first.certificate_der
    assert (first.repeated, second.repeated) == (False, True)


def test_the_same_request_in_another_wrapping_is_the_same_request(authority: Authority) -> None:
    csr = make_csr()
    crlf = csr.replace(b"\n", b"\r\n").replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")
    assert authority.issue(order(crlf)).certificate_der == authority.issue(order(csr)).certificate_der


def test_again_makes_another_certificate(authority: Authority) -> None:
    csr = make_csr()
    first, second = authority.issue(order(csr)), authority.issue(order(csr, again=True))
    assert first.record.serial != second.record.serial


def test_a_request_id_that_was_used_for_another_request_is_refused(authority: Authority) -> None:
    first = authority.issue(order(request_id="ticket-7"))
    with pytest.raises(Conflict, match="another request") as caught:
        authority.issue(order(request_id="ticket-7"))
    assert first.record.id in caught.value.why
    assert count(authority.inventory) == 3


def test_a_revoked_certificate_does_not_answer_a_repeat(authority: Authority) -> None:
    csr = make_csr()
    first = authority.issue(order(csr))
    authority.revoke(first.record.id, "superseded")
    assert authority.issue(order(csr)).record.serial != first.record.serial


def test_an_expired_certificate_does_not_answer_a_repeat(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    csr = make_csr()
    first = ocpp_authority(inventory, keystore=keystore).issue(order(csr, validity=timedelta(days=2)))
    later = make_authority(inventory, keystore=keystore, clock=lambda: NOW + timedelta(days=3))
    assert later.issue(order(csr, validity=timedelta(days=2))).record.serial != first.record.serial


@pytest.mark.parametrize(
    ("extension", "word"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "CA"),
        (
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            "keyCertSign",
        ),
    ],
)
def test_a_request_for_ca_rights_is_refused_and_leaves_nothing(
    authority: Authority, extension: x509.ExtensionType, word: str
) -> None:
    before = authority.inventory.audit_head()
    with pytest.raises(PolicyRefusal, match=word):
        authority.issue(order(make_csr(extensions=((extension, True),))))
    assert count(authority.inventory) == 2
    assert authority.inventory.audit_head() == before


def test_nothing_of_a_request_but_key_and_allowed_subject_fields_reaches_the_certificate(authority: Authority) -> None:
    san = x509.SubjectAlternativeName([x509.DNSName("csms.example.org")])
    eku = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    issued = authority.issue(order(make_csr(extensions=((san, True), (eku, False)), DC="CPO")))
    leaf = x509.load_der_x509_certificate(issued.certificate_der)
    oids = {extension.oid for extension in leaf.extensions}
    assert x509.SubjectAlternativeName.oid not in oids
    assert x509.ExtendedKeyUsage.oid not in oids
    assert not leaf.subject.get_attributes_for_oid(x509.NameOID.DOMAIN_COMPONENT)


def test_a_forged_proof_of_possession_is_refused(authority: Authority) -> None:
    good = x509.load_pem_x509_csr(make_csr())
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    position = bytes(der).index(b"CS-0001")
    der[position : position + 7] = b"CS-0002"
    with pytest.raises(PolicyRefusal, match=r"signature|possession"):
        authority.issue(order(bytes(der)))


def test_there_is_no_implicit_issuer(authority: Authority) -> None:
    with pytest.raises(PolicyRefusal, match="needs an issuer"):
        authority.create_ca(CaOrder("other-sub", "ocpp/cso-sub"))
    with pytest.raises(NotFound):
        authority.issue(order(ca="nobody"))


def test_a_ca_of_the_wrong_kind_does_not_issue(authority: Authority) -> None:
    with pytest.raises(PolicyRefusal, match="does not issue iso15118-2/secc"):
        authority.issue(order(profile="iso15118-2/secc"))


def test_an_explicit_validity_beyond_the_issuer_is_refused_and_a_default_one_is_clamped(
    inventory: Inventory, keystore: MemoryKeyStore
) -> None:
    authority = make_authority(inventory, keystore=keystore)
    subject = (("CN", "Short Root"), ("O", "Test CSO"), ("C", "DE"))
    authority.create_ca(CaOrder("s-root", "ocpp/cso-root", subject=subject, validity=timedelta(days=20)))
    subject = (("CN", "Short Sub"), ("O", "Test CSO"), ("C", "DE"))
    ca = authority.create_ca(CaOrder("s-sub", "ocpp/cso-sub", issuer="s-root", subject=subject))
    with pytest.raises(IssuerOutlived):
        authority.issue(order(ca="s-sub", validity=timedelta(days=30)))
    issued = authority.issue(order(ca="s-sub"))
    assert issued.clamped
    assert ca.not_after is not None
    assert issued.record.not_after == ca.not_after


def test_validity_counts_both_bounds(authority: Authority) -> None:
    issued = authority.issue(order(validity=timedelta(days=60)))
    record = issued.record
    assert record.not_after - record.not_before == timedelta(days=60) - timedelta(seconds=1)
    assert record.not_before == NOW - timedelta(minutes=5) or record.not_before <= NOW


def test_serials_are_positive_random_and_of_159_bits(authority: Authority) -> None:
    answers = authority.issue_many([order(make_csr(f"CS-{number:04}")) for number in range(40)])
    serials = [int(answer.record.serial, 16) for answer in answers if isinstance(answer, IssuedCertificate)]
    assert len(set(serials)) == 40
    assert all(0 < serial < 1 << 159 for serial in serials)
    # Forty draws of 159 bits that all stay below 2^150 would be a broken generator (chance 2^-360).
    assert max(serials) > 1 << 150


def test_a_bad_order_in_a_batch_is_answered_by_its_error_and_the_rest_go_on(authority: Authority) -> None:
    answers = authority.issue_many([order(), order(b"nonsense"), order(make_csr("CS-0002"))])
    assert [type(answer) for answer in answers] == [IssuedCertificate, InputError, IssuedCertificate]


def test_a_certificate_over_its_size_limit_is_refused_before_anything_is_signed(authority: Authority) -> None:
    prepared = authority.issue(order()).record
    assert prepared.tbs is not None
    signer = authority.open_issuer("t-sub").signer
    profile = get_profile(STATION)
    largest = largest_certificate(len(prepared.tbs), signer.algorithm)
    judge_tbs(prepared.tbs, replace(profile, max_der_bytes=largest), issuer_der=None, signer=signer)
    with pytest.raises(ProfileViolation, match=f"could take {largest} bytes"):
        judge_tbs(prepared.tbs, replace(profile, max_der_bytes=largest - 1), issuer_der=None, signer=signer)


def test_a_subject_that_breaks_its_profile_is_refused(authority: Authority) -> None:
    with pytest.raises(PolicyRefusal):
        authority.issue(order(make_csr("csms.example.org")))  # A00.FR.511: no host name in a station's CN


def test_a_certificate_belongs_to_the_station_whose_serial_number_is_its_common_name(authority: Authority) -> None:
    station = StationRecord("CS-DE-1", "SN-77", "Test CSO", 2, StationState.ACTIVE, NOW)

    def add(tx: Transaction) -> None:
        tx.add_station(station)
        tx.audit(ACTOR, "station.add", station.id, now=NOW)

    authority.inventory.write(add)
    assert authority.issue(order(make_csr("SN-77"))).record.station == "CS-DE-1"
    assert authority.issue(order(make_csr("SN-78"))).record.station is None


def test_a_key_that_is_not_the_cas_is_refused(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    ocpp_authority(inventory, keystore=keystore)
    uri = next(uri for uri in keystore.signers if "t-sub" in uri)
    other = MemoryKeyStore()
    other.create("x", KeyAlgorithm.SECP256R1)
    keystore.signers[uri] = other.signers["memory:x"]
    with pytest.raises(SignerError, match="not the key of"):
        make_authority(inventory, keystore=keystore).issue(order())
    assert count(inventory) == 2


def test_a_retired_ca_does_not_issue(authority: Authority) -> None:
    record = authority.inventory.get_ca("t-sub")
    certificate = authority.inventory.find_certificate_by_request_key(f"ca:{record.id}")
    assert certificate is not None
    authority.revoke(certificate.id, "cACompromise")
    with pytest.raises(StateError, match="revoked"):
        authority.issue(order())


def test_threads_that_issue_at_once_get_unique_serials_and_one_whole_log(authority: Authority, tmp_path: Path) -> None:
    csrs = [make_csr(f"CS-{number:04}") for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        issued = list(pool.map(lambda csr: authority.issue(order(csr)), csrs))
    assert len({item.record.serial for item in issued}) == 24
    assert log_findings(authority.inventory, tmp_path) == []


def test_a_p521_key_is_certified_by_a_p256_ca(authority: Authority) -> None:
    issued = authority.issue(order(make_csr(key=make_key(KeyAlgorithm.SECP521R1))))
    public = x509.load_der_x509_certificate(issued.certificate_der).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp521r1"


def test_a_key_algorithm_outside_the_profile_is_refused(authority: Authority) -> None:
    # ISO 15118-2 knows secp256r1 only (V2G2-007); a CA of it must not be made with another key.
    subject = (("CN", "V2G Root"), ("O", "Test CSO"), ("C", "DE"), ("DC", "V2G"))
    with pytest.raises(PolicyRefusal, match="secp521r1"):
        authority.create_ca(CaOrder("v", "iso15118-2/v2g-root", subject=subject, key_algorithm=KeyAlgorithm.SECP521R1))


def test_an_overridden_criticality_is_emitted_and_audited(inventory: Inventory) -> None:
    authority = make_authority(inventory)
    subject = (("CN", "eMSP Root"), ("O", "Test MSP"), ("C", "DE"))
    for name, criticality in (("plain", "profile"), ("softened", "rfc5280")):
        authority.create_ca(CaOrder(f"{name}-root", "iso15118-20/emsp-root", subject=subject))
        below = CaOrder(f"{name}-sub", "iso15118-20/emsp-sub1", issuer=f"{name}-root", subject=subject)
        ca = authority.create_ca(replace(below, criticality=criticality))  # type: ignore[arg-type]  # a Literal
        assert ca.certificate_der is not None
        extensions = x509.load_der_x509_certificate(ca.certificate_der).extensions
        identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        assert identifier.critical is (criticality == "profile")  # ISO 15118-20:2022 Annex B against RFC 5280 4.2.1.1
    marked = [entry for entry in inventory.list_audit() if "extension_criticality" in entry.details]
    assert [entry.details["subject"] for entry in marked] == [ca.subject]
