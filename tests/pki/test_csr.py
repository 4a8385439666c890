"""A request is read in every wrapping the field uses, and proves that its sender holds the key."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names, oids
from chargepki.pki.csr import check_possession, parse_csr
from chargepki.pki.errors import ChargePkiError, InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from testkit.effort import examples
from testkit.requests import EVEREST_EXTENSIONS, key_of, make_csr

SUBJECT = names.build_name([("C", "DE"), ("O", "Example CSO"), ("CN", "SN-0001"), ("DC", "CPO")])
DER = make_csr(SUBJECT, extensions=EVEREST_EXTENSIONS)
PEM = der.to_pem("CERTIFICATE REQUEST", DER)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
BASE64 = base64.b64encode(DER).decode()


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_every_field_is_a_slice_of_the_original(algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm)
    encoded = make_csr(SUBJECT, key, extensions=EVEREST_EXTENSIONS)
    request, oracle = parse_csr(encoded), x509.load_der_x509_csr(encoded)
    assert request.der == encoded
    assert request.info_der == oracle.tbs_certrequest_bytes
    assert request.subject_der == names.name_der(SUBJECT)
    assert request.spki_der == keys.spki_der(key)
    assert request.key_algorithm is algorithm
    assert request.signature == oracle.signature
    assert request.subject == (("C", "DE"), ("O", "Example CSO"), ("CN", "SN-0001"), ("DC", "CPO"))
    found = [(extension.oid, extension.critical) for extension in request.extensions]
    assert found == [(oids.BASIC_CONSTRAINTS, True), (oids.KEY_USAGE, False)]
    check_possession(request)


@pytest.mark.parametrize(
    "wrapped",
    [
        DER,
        PEM,
        PEM.encode(),
        PEM.replace("\n", "\r\n"),
        PEM.rstrip("\n"),
        PEM.replace("\n", "\\n"),
        "subject: SN-0001\nissuer: none\n" + PEM,
        "\ufeff" + PEM,
        der.to_pem("NEW CERTIFICATE REQUEST", DER),
        BASE64,
        "\r\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)) + "\r\n",
        base64.b64encode(PEM.encode()).decode(),
        base64.b64encode(PEM.replace("\n", "\r\n").encode()).decode(),
    ],
    ids=[
        "der", "pem", "pem-bytes", "crlf", "no-final-newline", "literal-backslash-n", "explanatory-text", "bom",
        "new-certificate-request", "bare-base64", "folded-base64", "base64-of-pem", "base64-of-crlf-pem",
    ],
)  # fmt: skip
def test_ocpp_security_12_no_14_every_wrapping_of_the_field_is_read(wrapped: bytes | str) -> None:
    assert parse_csr(wrapped).der == DER


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"\x00\x01\x02", "neither PEM nor DER"),
        ("grüße", "neither PEM nor DER"),
        ("\udcff", "neither PEM nor DER"),
        (DER[:-1], "DER"),
        (DER + b"\x00", "DER"),
        (der.to_pem("CERTIFICATE", DER), "found CERTIFICATE"),
        (PEM + PEM, "2 PEM blocks"),
        (PEM[: len(PEM) // 2], "END line"),
        (b"A" * 70_000, "at most 65536"),
        (der.sequence(), "3 parts"),
    ],
)
def test_what_is_no_request_is_one_clear_error(bad: bytes | str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_csr(bad)


def test_a_certificate_is_not_a_request() -> None:
    key = key_of(KeyAlgorithm.SECP256R1)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(SUBJECT, SUBJECT, key.public_key(), 7)
    builder = builder.not_valid_before(MOMENT).not_valid_after(MOMENT)
    with pytest.raises(InputError):
        parse_csr(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def rebuilt(*, version: bytes | None = None, attributes: bytes | None = None, spki: bytes | None = None) -> bytes:
    """Return the request with parts replaced, properly signed again."""
    request = parse_csr(DER)
    version = der.integer(0) if version is None else version
    attributes = der.implicit(0, b"", True) if attributes is None else attributes
    info = der.sequence(version, request.subject_der, request.spki_der if spki is None else spki, attributes)
    signature = keys.sign(key_of(KeyAlgorithm.SECP256R1), info)
    return der.sequence(info, request.signature_algorithm_der, der.bit_string(signature))


def requesting(*extensions: bytes) -> bytes:
    value = der.sequence(der.oid(oids.EXTENSION_REQUEST), der.set_of(der.sequence(*extensions)))
    return rebuilt(attributes=der.implicit(0, value, True))


def test_a_request_without_the_attributes_field_is_read() -> None:
    request = parse_csr(rebuilt(attributes=b""))
    assert request.extensions == ()
    check_possession(request)


def test_a_criticality_written_out_as_false_is_tolerated() -> None:
    extension = der.sequence(der.oid(oids.KEY_USAGE), der.boolean(False), der.octet_string(der.named_bits([0])))
    assert [e.critical for e in parse_csr(requesting(extension)).extensions] == [False]


@pytest.mark.parametrize(
    "damaged",
    [
        rebuilt(version=der.integer(2)),
        rebuilt(version=der.null()),
        rebuilt(attributes=der.null()),
        rebuilt(attributes=der.implicit(0, der.sequence(der.oid(oids.EXTENSION_REQUEST)), True)),
        rebuilt(spki=der.sequence(der.sequence(der.oid("1.2.3")), der.bit_string(b"key"))),
        requesting(der.sequence(der.oid(oids.KEY_USAGE))),
        requesting(der.octet_string(b"no extension")),
    ],
)
def test_a_malformed_request_is_an_input_error(damaged: bytes) -> None:
    with pytest.raises(InputError):
        parse_csr(damaged)


def test_a_key_that_no_profile_knows_is_named() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(InputError, match="RSA of 1024 bits"):
        parse_csr(make_csr(SUBJECT, weak))


def test_anothers_key_is_not_certified() -> None:
    stolen = rebuilt(spki=keys.spki_der(key_of(KeyAlgorithm.SECP256R1, 1)))
    with pytest.raises(PolicyRefusal, match="does not verify with its own key"):
        check_possession(parse_csr(stolen))


def test_a_sha_1_signature_proves_nothing() -> None:
    request = parse_csr(DER)
    algorithm = der.sequence(der.oid(oids.ECDSA_WITH_SHA1))
    with pytest.raises(PolicyRefusal, match="proves nothing"):
        check_possession(parse_csr(der.sequence(request.info_der, algorithm, der.bit_string(request.signature))))


def test_rsa_requests_may_be_signed_with_pkcs1_or_pss() -> None:
    key = key_of(KeyAlgorithm.RSA2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    check_possession(parse_csr(make_csr(SUBJECT, key)))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 20)
    builder = x509.CertificateSigningRequestBuilder(SUBJECT)
    check_possession(parse_csr(builder.sign(key, hashes.SHA256(), rsa_padding=pss).public_bytes(Encoding.DER)))


def test_the_repr_shows_no_key_material_and_no_request() -> None:
    assert BASE64[:40] not in repr(parse_csr(DER))
    assert len(repr(parse_csr(DER))) < 800


@settings(max_examples=examples(150))
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(position: int, flip: int) -> None:
    changed = bytearray(DER)
    changed[position] ^= flip
    with pytest.raises(ChargePkiError):
        check_possession(parse_csr(bytes(changed)))


@settings(max_examples=examples(100))
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_noise_raises_anything_but_an_input_error(noise: bytes | str) -> None:
    with pytest.raises(InputError):
        parse_csr(noise)


def test_multi_valued_and_multiple_attributes_are_shown_in_order() -> None:
    pair = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")]
    )
    again = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "b")])
    request = parse_csr(make_csr(x509.Name([pair, again])))
    assert sorted(request.subject) == [("CN", "a"), ("CN", "b"), ("serialNumber", "1")]


@pytest.mark.parametrize("value", [der.octet_string(b"SN-0001"), der.integer(1), der.sequence(), der.null()])
def test_an_identity_that_is_no_character_string_is_not_made_into_one(value: bytes) -> None:
    attribute = der.sequence(der.oid(oids.COMMON_NAME), value)
    request = parse_csr(DER)
    info = der.sequence(
        der.integer(0), der.sequence(der.set_of(attribute)), request.spki_der, der.implicit(0, b"", True)
    )
    signature = der.bit_string(keys.sign(key_of(KeyAlgorithm.SECP256R1), info))
    with pytest.raises(InputError, match="CN is not a character string"):
        parse_csr(der.sequence(info, request.signature_algorithm_der, signature))


def test_an_unknown_attribute_that_is_no_character_string_is_read_and_shown_in_hex() -> None:
    attribute = der.sequence(der.oid("2.5.4.45"), der.bit_string(b"unique"))
    request = parse_csr(DER)
    info = der.sequence(
        der.integer(0), der.sequence(der.set_of(attribute)), request.spki_der, der.implicit(0, b"", True)
    )
    signature = der.bit_string(keys.sign(key_of(KeyAlgorithm.SECP256R1), info))
    found = parse_csr(der.sequence(info, request.signature_algorithm_der, signature))
    assert found.subject == (("2.5.4.45", "#" + der.bit_string(b"unique").hex()),)


def test_a_key_for_which_everybody_can_sign_proves_nothing_and_is_not_read() -> None:
    """With A the neutral point, R neutral and s zero verify for every message (RFC 8032 5.1.7)."""
    neutral = b"\x01" + bytes(31)
    spki = der.sequence(der.sequence(der.oid(oids.ED25519)), der.bit_string(neutral))
    info = der.sequence(der.integer(0), names.name_der(SUBJECT), spki, der.implicit(0, b"", True))
    algorithm = der.sequence(der.oid(oids.ED25519))
    forged = der.sequence(info, algorithm, der.bit_string(neutral + bytes(32)))
    assert x509.load_der_x509_csr(forged).is_signature_valid  # the trap: a stock check is content
    with pytest.raises(InputError, match="small order"):
        parse_csr(forged)
