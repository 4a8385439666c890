"""Tests of the OCSP codec against a reader and a builder that are not ours."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as foreign
from hypothesis import given
from hypothesis import strategies as st

from chargepki.pki import der, keys, oids
from chargepki.pki.crl import ReasonCode
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.ocsp import (
    MAX_CERT_IDS,
    CertStatus,
    ResponseStatus,
    ResponseTemplate,
    SingleAnswer,
    assemble_response,
    build_cert_id,
    build_response_data,
    build_single_request,
    error_response,
    key_hash,
    parse_ocsp_request,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
KEY = keys.generate_private_key(keys.KeyAlgorithm.SECP256R1)
CERT_ID = build_cert_id("sha1", b"n" * 20, b"k" * 20, 0x5F0C)
GOOD = SingleAnswer(CERT_ID, CertStatus(known=True), NOW, NOW + WEEK)
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


def request_of(*cert_ids: bytes, extensions: bytes = b"") -> bytes:
    requests = der.sequence(*[der.sequence(cert_id) for cert_id in cert_ids])
    return der.sequence(der.sequence(requests, der.explicit(2, der.sequence(extensions)) if extensions else b""))


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), der.boolean(True) if critical else b"", der.octet_string(value))


def sign(*answers: SingleAnswer, nonce: bytes | None = None) -> foreign.OCSPResponse:
    data = build_response_data(key_hash(keys.spki_der(KEY)), NOW, answers, nonce=nonce)
    algorithm = keys.signature_algorithm(keys.KeyAlgorithm.SECP256R1).der
    return foreign.load_der_ocsp_response(assemble_response(data, algorithm, keys.sign(KEY, data)))


@pytest.mark.parametrize("name", HASHES)
def test_a_foreign_request_is_read(name: str) -> None:
    size = HASHES[name].digest_size
    builder = foreign.OCSPRequestBuilder().add_certificate_by_hash(b"n" * size, b"k" * size, 0x5F0C, HASHES[name])
    data = builder.add_extension(x509.OCSPNonce(b"x" * 32), critical=False).build().public_bytes(Encoding.DER)
    request = parse_ocsp_request(data)
    (cert_id,) = request.cert_ids
    assert (cert_id.hash_name, cert_id.name_hash, cert_id.key_hash, cert_id.serial) == (
        name, b"n" * size, b"k" * size, 0x5F0C,
    )  # fmt: skip
    assert cert_id.raw == build_cert_id(name, b"n" * size, b"k" * size, 0x5F0C)
    assert request.nonce == b"x" * 32


def test_our_request_is_read_by_others() -> None:
    found = foreign.load_der_ocsp_request(build_single_request(CERT_ID, nonce=b"n" * 16))
    assert found.serial_number == 0x5F0C and isinstance(found.hash_algorithm, hashes.SHA1)
    assert found.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 16


def test_several_certificates_in_one_request_are_read_in_order_and_bounded() -> None:
    ids = [build_cert_id("sha1", b"n" * 20, b"k" * 20, serial) for serial in range(1, MAX_CERT_IDS + 2)]
    assert [c.serial for c in parse_ocsp_request(request_of(*ids[:-1])).cert_ids] == list(range(1, MAX_CERT_IDS + 1))
    with pytest.raises(DerError, match="are asked for"):
        parse_ocsp_request(request_of(*ids))
    with pytest.raises(DerError, match="0 certificates"):
        parse_ocsp_request(request_of())


@pytest.mark.parametrize(("size", "taken"), [(0, False), (1, True), (15, True), (32, True), (128, True), (129, False)])
def test_rfc9654_a_nonce_has_1_to_128_octets(size: int, taken: bool) -> None:
    nonce = extension("1.3.6.1.5.5.7.48.1.2", der.octet_string(b"z" * size))
    data = request_of(CERT_ID, extensions=nonce)
    if taken:
        assert parse_ocsp_request(data).nonce == b"z" * size
    else:
        with pytest.raises(DerError, match="RFC 9654"):
            parse_ocsp_request(data)


def test_a_nonce_that_is_no_octet_string_is_malformed() -> None:
    with pytest.raises(DerError):
        parse_ocsp_request(request_of(CERT_ID, extensions=extension("1.3.6.1.5.5.7.48.1.2", der.integer(7))))


def test_rfc6960_4_4_unknown_extensions_are_passed_over_unless_critical() -> None:
    assert parse_ocsp_request(request_of(CERT_ID, extensions=extension("1.2.3.4", b""))).nonce is None
    with pytest.raises(DerError, match="not understood"):
        parse_ocsp_request(request_of(CERT_ID, extensions=extension("1.2.3.4", b"", critical=True)))


def test_an_unknown_hash_is_read_as_such() -> None:
    md5 = der.sequence(der.oid("1.2.840.113549.2.5"), der.null())
    cert_id = der.sequence(md5, der.octet_string(b"n" * 16), der.octet_string(b"k" * 16), der.integer(5))
    assert parse_ocsp_request(request_of(cert_id)).cert_ids[0].hash_name == ""


def test_a_request_with_name_version_and_signature_is_read() -> None:
    name = der.explicit(1, der.explicit(4, der.sequence()))
    tbs = der.sequence(der.explicit(0, der.integer(0)), name, der.sequence(der.sequence(CERT_ID)))
    algorithm = der.sequence(der.oid(oids.ECDSA_WITH_SHA256))
    signed = der.sequence(tbs, der.explicit(0, der.sequence(algorithm, der.bit_string(b"forged"))))
    assert parse_ocsp_request(signed).cert_ids[0].serial == 0x5F0C
    other = der.sequence(der.sequence(der.explicit(0, der.integer(1)), der.sequence(der.sequence(CERT_ID))))
    with pytest.raises(DerError, match="version"):
        parse_ocsp_request(other)


@given(st.data())
def test_whatever_comes_is_read_or_refused_as_malformed(data: st.DataObject) -> None:
    good = build_single_request(CERT_ID, nonce=b"n" * 16)
    position = data.draw(st.integers(0, len(good) - 1))
    changed = good[:position] + data.draw(st.binary(max_size=3)) + good[position + 1 :]
    with contextlib.suppress(DerError):
        parse_ocsp_request(changed)


def test_a_good_answer_is_read_by_others() -> None:
    response = sign(GOOD, nonce=b"n" * 16)
    assert response.response_status is foreign.OCSPResponseStatus.SUCCESSFUL
    assert response.certificate_status is foreign.OCSPCertStatus.GOOD
    assert (response.this_update_utc, response.next_update_utc) == (NOW, NOW + WEEK)
    assert response.produced_at_utc == NOW
    assert response.responder_key_hash == key_hash(keys.spki_der(KEY))
    assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 16
    assert response.serial_number == 0x5F0C
    public = KEY.public_key()
    assert keys.verify(public, response.signature, response.tbs_response_bytes, keys.signature_algorithm(
        keys.KeyAlgorithm.SECP256R1).der)  # fmt: skip


@pytest.mark.parametrize("reason", [None, *(r for r in ReasonCode if r is not ReasonCode.REMOVE_FROM_CRL)])
def test_every_reason_is_told(reason: ReasonCode | None) -> None:
    status = CertStatus(known=True, revoked_at=NOW - WEEK, reason=reason)
    response = sign(SingleAnswer(CERT_ID, status, NOW, NOW + WEEK))
    assert response.certificate_status is foreign.OCSPCertStatus.REVOKED
    assert response.revocation_time_utc == NOW - WEEK
    # Unspecified is left out, as in lists (RFC 5280 5.3.1).
    told = response.revocation_reason
    assert (told.value if told else None) == (None if reason in (None, ReasonCode.UNSPECIFIED) else reason.value)


def test_an_unknown_certificate_is_answered_as_unknown() -> None:
    response = sign(SingleAnswer(CERT_ID, CertStatus(known=False), NOW, NOW + WEEK))
    assert response.certificate_status is foreign.OCSPCertStatus.UNKNOWN


def test_several_answers_keep_their_order() -> None:
    other = SingleAnswer(build_cert_id("sha256", b"n" * 32, b"k" * 32, 9), CertStatus(known=False), NOW, NOW + WEEK)
    serials = [single.serial_number for single in sign(GOOD, other).responses]
    assert serials == [0x5F0C, 9]


@pytest.mark.parametrize("status", [s for s in ResponseStatus if s is not ResponseStatus.SUCCESSFUL])
def test_errors_are_read_by_others(status: ResponseStatus) -> None:
    assert foreign.load_der_ocsp_response(error_response(status)).response_status.value == status


def test_what_would_be_stale_from_the_start_is_refused() -> None:
    with pytest.raises(InputError, match="nextUpdate"):
        build_response_data(b"k" * 20, NOW, [SingleAnswer(CERT_ID, CertStatus(known=True), NOW, NOW)])
    with pytest.raises(InputError, match="nothing"):
        build_response_data(b"k" * 20, NOW, [])
    with pytest.raises(TypeError, match="naive"):
        build_response_data(b"k" * 20, NOW.replace(tzinfo=None), [GOOD])


@given(st.binary(min_size=1, max_size=128), st.sampled_from([None, *ReasonCode]), st.booleans())
def test_a_template_gives_every_response_that_is_built_whole(
    nonce: bytes, reason: ReasonCode | None, revoked: bool
) -> None:
    status = CertStatus(known=True, revoked_at=NOW - WEEK if revoked else None, reason=reason if revoked else None)
    algorithm = keys.signature_algorithm(keys.KeyAlgorithm.SECP256R1).der
    for certificates in ((), (b"0" + b"\x03\x02\x01\x05",)):
        template = ResponseTemplate(b"k" * 20, algorithm, certificates, produced_at=NOW, next_update=NOW + WEEK)
        data = build_response_data(b"k" * 20, NOW, [SingleAnswer(CERT_ID, status, NOW, NOW + WEEK)], nonce=nonce)
        assert template.response_data(CERT_ID, status, nonce) == data
        assert template.assemble(data, b"s" * 70) == assemble_response(data, algorithm, b"s" * 70, certificates)
