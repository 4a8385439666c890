"""ML-DSA in the profiles of OCPP: made, issued, revoked, verified, and held to the limits of the messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki import keys, oids, private_keys, verify_chain
from chargepki.pki.authority import Authority, CaOrder, IssuedCertificate, IssueOrder
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import ChainError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_certificate
from chargepki.pki.names import build_name
from chargepki.pki.pem import pem_characters
from chargepki.pki.profiles import get_profile
from testkit.authorities import MemoryKeyStore, make_authority, open_inventory
from testkit.requests import make_csr

SIZES = (KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87)
STATION = "ocpp/charging-station"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """For each size a root and a sub-CA, ``44-root`` and ``44-sub``; and ``ec-sub``, an EC sub-CA below ``44-root``."""
    folder = tmp_path_factory.mktemp("quantum")
    made = make_authority(open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder), keystore=MemoryKeyStore())
    subject = (("CN", "Q"), ("O", "Test CSO"))
    for algorithm in SIZES:
        size = algorithm.value[-2:]
        made.create_ca(CaOrder(f"{size}-root", "ocpp/cso-root", subject=subject, key_algorithm=algorithm))
        sub = CaOrder(f"{size}-sub", "ocpp/cso-sub", issuer=f"{size}-root", subject=subject, key_algorithm=algorithm)
        made.create_ca(sub)
    made.create_ca(CaOrder("ec-sub", "ocpp/cso-sub", "44-root", subject, key_algorithm=KeyAlgorithm.SECP256R1))
    return made


def request_of(algorithm: KeyAlgorithm) -> bytes:
    key = keys.generate_private_key(algorithm)
    name = build_name([("CN", "CS-0001"), ("O", "Test CSO")])
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    return built.public_bytes(Encoding.PEM)


def certificate_of(authority: Authority, ca: str) -> bytes:
    der = authority.inventory.get_ca(ca).certificate_der
    assert der is not None
    return der


@pytest.mark.parametrize("algorithm", SIZES)
def test_a_hierarchy_is_made_and_its_leaf_verifies(authority: Authority, algorithm: KeyAlgorithm) -> None:
    size = algorithm.value[-2:]
    order = IssueOrder(ca=f"{size}-sub", profile=STATION, csr=request_of(algorithm))
    issued = authority.issue(order)
    leaf, sub, root = (*issued.chain, certificate_of(authority, f"{size}-root"))
    # The library verifies what we signed, and we what it holds.
    x509.load_der_x509_certificate(leaf).verify_directly_issued_by(x509.load_der_x509_certificate(sub))
    x509.load_der_x509_certificate(sub).verify_directly_issued_by(x509.load_der_x509_certificate(root))
    identifier = x509.load_der_x509_certificate(leaf).signature_algorithm_oid.dotted_string
    assert identifier in (oids.ML_DSA_44, oids.ML_DSA_65, oids.ML_DSA_87)
    report = lint_certificate(leaf, profile=get_profile(STATION), issuer_der=sub)
    assert not report.errors and "n_ocpp_post_quantum" in {finding.rule for finding in report.findings}
    found = verify_chain(leaf, [sub], [root], at=authority.now())
    assert found.leaf == leaf
    damaged = bytearray(leaf)
    damaged[-1] ^= 1
    with pytest.raises(ChainError):
        verify_chain(bytes(damaged), [sub], [root], at=authority.now())


def test_its_lists_are_signed_and_tell_of_a_revocation(authority: Authority) -> None:
    issued = authority.issue(IssueOrder(ca="44-sub", profile=STATION, csr=request_of(KeyAlgorithm.ML_DSA_44)))
    authority.revoke(issued.record.id, "superseded")
    crl = x509.load_der_x509_crl(authority.publish_crl("44-sub").der)
    issuer = x509.load_der_x509_certificate(certificate_of(authority, "44-sub")).public_key()
    assert crl.is_signature_valid(issuer)  # type: ignore[arg-type]  # ML-DSA
    assert crl.get_revoked_certificate_by_serial_number(int(issued.record.serial, 16)) is not None


def test_a_request_of_44_fits_sign_certificate_and_larger_ones_do_not(authority: Authority) -> None:
    """OCPP: SignCertificate.csr has 5500 characters in every version."""
    sizes = [len(request_of(algorithm)) for algorithm in SIZES]
    assert sizes[0] <= 5500 < sizes[1] < sizes[2]
    assert parse_csr(request_of(KeyAlgorithm.ML_DSA_44)).key_algorithm is KeyAlgorithm.ML_DSA_44


def test_a_root_that_is_too_long_for_install_certificate_is_remarked_on(authority: Authority) -> None:
    """5500 characters in 1.6 and 2.0.1: a root of 44 has room for a short name, larger ones have not."""
    told = {}
    for size in ("44", "65", "87"):
        der = certificate_of(authority, f"{size}-root")
        report = lint_certificate(der, profile=get_profile("ocpp/cso-root"))
        told[size] = "w_ocpp_field_size" in {finding.rule for finding in report.findings}
        assert told[size] == (pem_characters(len(der)) > 5500)
    assert told == {"44": False, "65": True, "87": True}


def test_what_no_message_could_bring_to_its_station_is_not_signed(authority: Authority) -> None:
    """CertificateSigned.certificateChain has 10000 characters: two certificates with signatures of 44 are longer."""
    order = IssueOrder(ca="44-sub", profile=STATION, csr=request_of(KeyAlgorithm.ML_DSA_44), must_deliver=True)
    (refused,) = authority.issue_many([order])
    assert isinstance(refused, PolicyRefusal) and "10000" in refused.what and "44" not in refused.fix
    assert not list(authority.inventory.list_reserved("44-sub@1"))
    (sent,) = authority.issue_many([replace(order, ca="ec-sub")])
    assert isinstance(sent, IssuedCertificate)
    assert sum(pem_characters(len(der)) for der in sent.chain) <= 10000


@pytest.mark.parametrize("profile", ["ocpp/csms", "ocpp/firmware-signing"])
def test_tls_servers_and_firmware_get_no_such_key(profile: str) -> None:
    """No TLS use is claimed; a firmware signature has 800 characters of base64, the shortest of ML-DSA has 3228."""
    assert not set(SIZES) & set(get_profile(profile).keys.algorithms)


def test_the_charging_standards_of_iso_15118_know_no_such_key(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}", tmp_path) as inventory:
        order = CaOrder("v2g", "iso15118-2/v2g-root", subject=(("CN", "V2G"), ("O", "X"), ("C", "DE")))
        with pytest.raises(PolicyRefusal, match="ml-dsa-44 is not allowed"):
            make_authority(inventory).create_ca(replace(order, key_algorithm=KeyAlgorithm.ML_DSA_44))


def test_a_key_survives_encryption_and_is_one_of_a_path_validator() -> None:
    for algorithm in SIZES:
        key = keys.generate_private_key(algorithm)
        again = private_keys.decrypt_private_key(private_keys.encrypt_private_key(key, b"x"), b"x")
        signature = keys.sign(again, b"message")
        identifier = keys.signature_algorithm(algorithm).der
        assert keys.verify(key.public_key(), signature, b"message", identifier)
        assert not keys.verify(key.public_key(), signature, b"another", identifier)
    assert make_csr(build_name([("CN", "x")]))
