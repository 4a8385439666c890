"""Objects that the fuzzer found, or that follow from what it found: each was a bug, a flood of memory or a wait."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from chargepki.pki import der, oids, private_keys
from chargepki.pki.chain.extensions import read_policies
from chargepki.pki.chain.ocsp import read_ocsp_response
from chargepki.pki.crl import parse_crl
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import LintSession, lint_certificate, lint_crl, lint_ocsp_response, read_inputs
from chargepki.pki.lint.engine import LintReport, Unjudged
from chargepki.pki.lint.sarif import sarif_log
from chargepki.pki.pem import to_pem
from chargepki.pki.profiles import get_profile
from fixtures.lint.others import LEAF, crl, crl_aki, extension, ocsp
from fixtures.lint.public_keys import PublicDraft

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HUGE = 1 << 20_000
"""More than the 4300 digits that Python writes."""


def rsa_certificate(modulus: int, exponent: int) -> bytes:
    draft = PublicDraft.of("iso15118-2/secc", KeyAlgorithm.SECP256R1)
    key = der.sequence(der.integer(modulus), der.integer(exponent))
    draft.spki = der.sequence(der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null()), der.bit_string(key))
    return draft.certificate()


def certificate_with_path_length(length: int) -> bytes:
    draft = PublicDraft.of("iso15118-2/cpo-sub2", KeyAlgorithm.SECP256R1)
    constraints = der.sequence(der.boolean(True), der.integer(length))
    draft.put(oids.BASIC_CONSTRAINTS, constraints, critical=True)
    return draft.certificate()


def long_length(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content


def judged(data: bytes) -> LintReport:
    inputs, blocks = read_inputs(data, "x")
    return LintSession(now=NOW).judge(inputs, {"x": blocks} if blocks else {})[0].report


def messages(report: LintReport, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule]


def test_an_exponent_of_thousands_of_digits_is_named_by_its_size() -> None:
    report = lint_certificate(rsa_certificate(3 * (HUGE // 4) + 1, HUGE), profile=None)
    assert messages(report, "e_rsa_exponent") == ["the exponent a number of 20001 bits is not odd and above 1"]


def test_a_modulus_of_a_million_bits_is_not_factored() -> None:
    begun = time.process_time()
    report = lint_certificate(rsa_certificate((1 << 1_000_000) + 7, 65537), profile=None)
    assert any("1000001 bits" in message or "small factor" in message for message in messages(report, "e_rsa_exponent"))
    assert time.process_time() - begun < 2


def test_a_huge_path_length_is_named_by_its_size() -> None:
    inputs, _ = read_inputs(certificate_with_path_length(HUGE), "x")
    report = LintSession(now=NOW, profile=get_profile("iso15118-2/cpo-sub2")).judge(inputs, {})[0].report
    assert any("20001 bits" in finding.message for finding in report.findings)


def test_a_huge_crl_version_or_number_is_named_by_its_size() -> None:
    assert "20001 bits" in messages(lint_crl(crl(version=der.integer(HUGE))), "e_crl_version_v2")[0]
    numbered = crl(extensions=(crl_aki(), extension(oids.CRL_NUMBER, der.integer(HUGE))))
    assert "20001 bits" in messages(lint_crl(numbered), "e_crl_number_missing")[0]


@pytest.mark.parametrize("tiny", [b"\x05\0", b"\x30\0"])
def test_a_large_object_of_tiny_elements_is_refused_before_it_fills_the_memory(tiny: bytes) -> None:
    begun = time.process_time()
    report = judged(long_length(0x30, tiny * (8 << 20)))
    assert [finding.rule for finding in report.errors] == ["e_der_strict"]
    assert time.process_time() - begun < 2


def test_a_large_field_of_a_crl_is_refused_where_only_the_list_may_be_long() -> None:
    name = long_length(0x30, b"\x30\0" * (4 << 20))
    times = b"\x17\x0d260101000000Z"
    data = long_length(0x30, long_length(0x30, b"\x02\1\1\x30\0" + name + times) + b"\x30\0\3\1\0")
    begun = time.process_time()
    report = lint_crl(data)
    assert [finding.message for finding in report.errors] == [
        "not DER at offset 17: a field of 8388614 bytes (rule too-large)"
    ]
    assert time.process_time() - begun < 1


def test_a_rule_that_is_broken_everywhere_is_reported_a_hundred_times() -> None:
    draft = PublicDraft.of("iso15118-2/secc", KeyAlgorithm.SECP256R1)
    attribute = der.sequence(der.oid(oids.COMMON_NAME), b"\x13\x01*")  # no character of a PrintableString
    draft.subject = der.sequence(*[der.set_of(attribute)] * 300)
    found = messages(lint_certificate(draft.certificate(), profile=None), "e_der_strict")
    assert len(found) == 101
    assert found[-1] == "and 200 more of the kind"


def test_a_huge_status_of_a_response_is_named_by_its_size() -> None:
    data = der.sequence(der.tlv(0x0A, der.integer(HUGE)[4:]))
    with pytest.raises(InputError, match="20001 bits"):
        read_ocsp_response(data)
    assert "20001 bits" in messages(lint_ocsp_response(data), "w_ocsp_unsuccessful")[0]


@pytest.mark.parametrize("rounds", [2**24, 2**31, 2**63, 2**4000])
@pytest.mark.parametrize("scheme", ["1.2.840.113549.1.12.1.3", "1.2.840.113549.1.5.10"])
def test_a_key_file_of_an_old_scheme_may_not_demand_endless_rounds(scheme: str, rounds: int) -> None:
    parameters = der.sequence(der.octet_string(b"saltsalt"), der.integer(rounds))
    sealed = der.sequence(der.sequence(der.oid(scheme), parameters), der.octet_string(bytes(64)))
    begun = time.process_time()
    with pytest.raises(SignerError, match="cannot be opened"):
        private_keys.decrypt_private_key(to_pem("ENCRYPTED PRIVATE KEY", sealed).encode(), b"secret")
    assert time.process_time() - begun < 1


def test_a_second_opinion_that_came_to_none_is_no_result_of_sarif() -> None:
    inputs, _ = read_inputs(LEAF, "x")
    (report,) = LintSession(now=NOW).judge(inputs, {})
    given_up = replace(report.report, not_evaluated=(Unjudged("pkilint", "pkilint gave up: ValueError"),))
    log = json.loads(sarif_log([replace(report, report=given_up)], tool_version="0"))
    assert not [result for result in log["runs"][0]["results"] if result.get("kind") == "open"]


def test_a_response_that_names_no_hash_is_refused() -> None:
    cert_id = der.sequence(der.sequence(), der.octet_string(bytes(20)), der.octet_string(bytes(20)), der.integer(7))
    good = der.implicit(0, b"", constructed=False)
    with pytest.raises(InputError, match="names an algorithm"):
        read_ocsp_response(ocsp(answer=der.sequence(cert_id, good, der.generalized_time(NOW))))


def test_a_policy_without_identifier_is_refused() -> None:
    with pytest.raises(InputError, match="names a policy"):
        read_policies(der.sequence(der.sequence()))


@pytest.mark.parametrize(("oid", "what"), [(oids.CRL_NUMBER, "number"), (oids.DELTA_CRL_INDICATOR, "base number")])
def test_a_list_with_a_number_of_thousands_of_octets_is_one_clear_error(oid: str, what: str) -> None:
    """Nothing may write such a number out: it has more digits than Python turns into text."""
    good = crl(extensions=(extension(oid, der.integer((1 << 159) - 1), critical=True),))
    assert (1 << 159) - 1 in (parse_crl(good).number, parse_crl(good).delta_base_number)
    huge = crl(extensions=(extension(oid, der.integer(HUGE), critical=True),))
    with pytest.raises(InputError, match=f"the {what} of the CRL has 2501 octets"):
        parse_crl(huge)


@pytest.mark.parametrize("is_pem", [False, True])
def test_a_private_key_with_a_prime_of_100_kib_is_refused_before_anybody_tests_the_prime(*, is_pem: bool) -> None:
    """OpenSSL took 82 s of processor time for it."""
    prime = int.from_bytes(b"\x60\0" * 50_000 + b"\x01", "big")
    numbers = (0, 1 << 2047 | 1, 65537, 1 << 2046 | 1, prime, 1 << 1023 | 1, 1, 1, 1)
    key = der.sequence(*map(der.integer, numbers))
    algorithm = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.null())
    whole = der.sequence(der.integer(0), algorithm, der.octet_string(key))
    start = time.process_time()
    with pytest.raises(InputError, match="octets is not read"):
        private_keys.load_private_key(to_pem("PRIVATE KEY", whole).encode() if is_pem else whole)
    with pytest.raises(SignerError):
        private_keys.decrypt_private_key(to_pem("ENCRYPTED PRIVATE KEY", whole).encode(), b"password")
    assert time.process_time() - start < 2


def test_the_longest_private_key_of_this_product_is_read_from_any_form() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    pem = private_keys.serialise_private_key(key)
    chain = to_pem("CERTIFICATE", LEAF).encode() * 20
    assert private_keys.load_private_key(chain + pem + chain).public_key() == key.public_key()
    opened = private_keys.decrypt_private_key(private_keys.encrypt_private_key(key, b"passphrase"), b"passphrase")
    assert opened.public_key() == key.public_key()
