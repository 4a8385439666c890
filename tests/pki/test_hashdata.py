"""CertificateHashData: the vectors of ocpp-security 7.1, and every way in which the field spells them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.keys import KeyAlgorithm
from testkit.effort import examples

NAME = names.parse_rdns("C=NL,O=Example CPO,CN=Example Root")
GENERATOR = ec.derive_private_key(1, ec.SECP256R1())  # the key of the vectors: its public half is the curve's generator
VECTORS = {
    "SHA256": (
        "4ad6e175017edf888d4e5adbc51ec1d0ff8b3f3f2ff4adcca13b63e7e442839d",
        "698bea63dc44a344663ff1429aea10842df27b6b991ef25866b2c6c02cdcc5be",
    ),
    "SHA384": (
        "62c49ff676e312d906ff44ba142585b3633e1e2fa1ca0ad380d2f62769469c8958adcb3f64bcd43e6357614d1bfd1d67",
        "3e7dc95178147c73d71ef92ad64091cdbfc125661842eaada5cd47aad50223459e44fda067d5ebeabcf2f08a2222ef39",
    ),
    "SHA512": (
        "36b35d7dec8781a99dd3ec6c172e0787c2d673e8da1235294e4c244f4490d36c"
        "7fcdb5392ff661454cbc39c5ec97e6bb43f998b0c0aa61306cf53f31bd1fa8f6",
        "cf4685e609b1d0af89e5aa1d1ec5ae60e9450816d2c7e0dc2dc5d7aa6fbe1c83"
        "db8113a8eb2ba34b50edd50057424f738a58e6fff66eabe80101df8556267cfc",
    ),
}
SERIALS = {1: "1", 10: "a", 128: "80", 255: "ff", 256: "100", 4095: "fff", 50602: "c5aa", 2**159 - 1: "7" + "f" * 39}


def certificate(
    serial: int = 1, key: keys.PrivateKey = GENERATOR, issuer: x509.Name = NAME, subject: x509.Name = NAME
) -> bytes:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(GENERATOR, hashes.SHA256()).public_bytes(Encoding.DER)


ROOT = certificate()


@pytest.mark.parametrize("algorithm", VECTORS)
def test_published_vectors_are_reproduced(algorithm: str) -> None:
    data = CertificateHashData.of(ROOT, ROOT, algorithm)
    assert data.to_wire() == {
        "hashAlgorithm": algorithm,
        "issuerNameHash": VECTORS[algorithm][0],
        "issuerKeyHash": VECTORS[algorithm][1],
        "serialNumber": "1",
    }


@pytest.mark.parametrize(("serial", "text"), SERIALS.items())
def test_serial_numbers_have_no_leading_zeros(serial: int, text: str) -> None:
    assert CertificateHashData.of(certificate(serial), ROOT).serial_number == text


def test_key_hash_is_not_one_of_the_usual_mistakes() -> None:
    spki = keys.spki_der(GENERATOR)
    assert hashlib.sha256(spki).hexdigest() == "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3"
    unused = hashlib.sha256(b"\0" + keys.public_key_bits(spki)).hexdigest()
    assert unused == "b5b0a1f2475d671b246cf156c18bcdc73119a1c1507582ee57ca8041667f47e3"
    assert CertificateHashData.of(ROOT, ROOT).issuer_key_hash not in (hashlib.sha256(spki).hexdigest(), unused)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.SECP521R1, KeyAlgorithm.ED448, KeyAlgorithm.RSA2048])
def test_hashes_agree_with_an_independent_ocsp_request(algorithm: KeyAlgorithm) -> None:
    key = keys.generate_private_key(algorithm)
    issuer = certificate(7, key, subject=names.parse_rdns("CN=Sub"))
    leaf = certificate(4095, issuer=names.parse_rdns("CN=Sub"), subject=names.parse_rdns("CN=Leaf"))
    request = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(leaf), x509.load_der_x509_certificate(issuer), hashes.SHA256()
    ).build()  # fmt: skip
    data = CertificateHashData.of(leaf, issuer)
    assert data.issuer_name_hash == request.issuer_name_hash.hex()
    assert data.issuer_key_hash == request.issuer_key_hash.hex()
    assert data.serial == request.serial_number == 4095


def test_name_hash_covers_the_octets_found_and_not_a_new_encoding() -> None:
    printable = der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), der.printable_string("Sub"))))
    issuer = certificate(7, subject=names.name_from_der(printable))
    leaf = certificate(8, issuer=names.name_from_der(printable), subject=names.parse_rdns("CN=Leaf"))
    assert CertificateHashData.of(leaf, issuer).issuer_name_hash == hashlib.sha256(printable).hexdigest()
    # The issuer's own subject in another string type is the same name; the hash still covers the leaf's octets.
    other = certificate(7, subject=names.parse_rdns("CN=sub"))
    assert CertificateHashData.of(leaf, other).issuer_name_hash == hashlib.sha256(printable).hexdigest()


def test_a_certificate_that_is_not_the_issuer_is_refused() -> None:
    with pytest.raises(InputError, match="not the issuer"):
        CertificateHashData.of(ROOT, certificate(2, subject=names.parse_rdns("CN=Other")))


@pytest.mark.parametrize("junk", [b"", b"\x30\x00", der.sequence(der.sequence(), der.null(), der.null()), b"\xff" * 10])
def test_what_is_no_certificate_is_refused(junk: bytes) -> None:
    with pytest.raises(InputError):
        CertificateHashData.of(junk, ROOT)
    with pytest.raises(InputError):
        CertificateHashData.of(ROOT, junk)


def test_sha1_is_refused() -> None:
    with pytest.raises(InputError, match="SHA1"):
        CertificateHashData.of(ROOT, ROOT, "SHA1")


@settings(max_examples=examples(100))
@given(st.integers(1, 2**159 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 5), st.booleans())
def test_every_spelling_of_the_same_name_matches(serial: int, digest: bytes, zeros: int, upper: bool) -> None:
    ours = CertificateHashData("SHA256", digest.hex(), digest.hex(), f"{serial:x}")
    wire = {name: text.upper() if upper else text for name, text in ours.to_wire().items()}
    wire["serialNumber"] = "0" * zeros + wire["serialNumber"]
    theirs = CertificateHashData.from_wire(wire)
    assert theirs.to_wire() == wire
    assert theirs.matches(ours)
    assert theirs == ours
    assert hash(theirs) == hash(ours)
    assert theirs.normalised().to_wire() == ours.to_wire()
    assert theirs.serial == serial


def test_other_serials_hashes_and_algorithms_do_not_match() -> None:
    ours = CertificateHashData("SHA256", "aa" * 32, "bb" * 32, "1")
    assert ours != CertificateHashData("SHA256", "aa" * 32, "bb" * 32, "10")
    assert ours != CertificateHashData("SHA256", "bb" * 32, "aa" * 32, "1")
    assert ours != CertificateHashData("SHA384", "aa" * 32, "bb" * 32, "1")
    assert ours != "SHA256"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("hashAlgorithm", "SHA1", "not one of"),
        ("hashAlgorithm", "sha256", "not one of"),
        ("issuerNameHash", "aa", "64 hex digits"),
        ("issuerKeyHash", "zz" * 32, "64 hex digits"),
        ("issuerKeyHash", None, "not a text"),
        ("serialNumber", 4, "not a text"),
        ("serialNumber", "", "not a hex number"),
        ("serialNumber", "0x1", "not a hex number"),
        ("serialNumber", "-1", "not a hex number"),
        ("serialNumber", "1 ", "not a hex number"),
        ("serialNumber", "f" * 129, "not a hex number"),
    ],
)
def test_malformed_fields_are_refused_by_name(field: str, value: object, words: str) -> None:
    wire: dict[str, object] = {**CertificateHashData("SHA256", "aa" * 32, "bb" * 32, "1").to_wire(), field: value}
    with pytest.raises(InputError, match=words) as caught:
        CertificateHashData.from_wire(wire)
    assert field in caught.value.what
    del wire[field]
    with pytest.raises(InputError, match=f"lacks {field}"):
        CertificateHashData.from_wire(wire)
