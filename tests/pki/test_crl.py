"""Revocation lists that we build are read back by us and by others, and pass the rules; broken ones do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names, oids
from chargepki.pki.crl import (
    ReasonCode,
    RevokedEntry,
    assemble_crl,
    build_crl_tbs,
    crl_contains,
    parse_crl,
)
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.findings import Severity
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_crl, list_crl_rules
from testkit.drafts import Draft
from testkit.effort import examples
from testkit.requests import key_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NEXT = NOW + timedelta(days=7)
KEY = key_of(KeyAlgorithm.SECP256R1, 0)
ALGORITHM = keys.signature_algorithm(KeyAlgorithm.SECP256R1).der
ISSUER = names.name_der(names.parse_rdns("CN=CRL issuer,O=Example"))
KEY_ID = bytes(range(20))


def build(*entries: RevokedEntry, number: int = 5, url: str | None = None, this_update: datetime = NOW) -> bytes:
    return build_crl_tbs(
        issuer_name_der=ISSUER,
        authority_key_id=KEY_ID,
        number=number,
        this_update=this_update,
        next_update=NEXT,
        entries=entries,
        signature_algorithm_der=ALGORITHM,
        distribution_point_url=url,
    )


def sign(tbs: bytes) -> bytes:
    return assemble_crl(tbs, ALGORITHM, keys.sign(KEY, tbs))


def issuer_certificate(change: Callable[[Draft], None] = lambda draft: None) -> bytes:
    draft = Draft.of("iso15118-2/cpo-sub2")
    draft.subject = ISSUER
    draft.put(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(KEY_ID))
    change(draft)
    return draft.certificate()


REASONS = [reason for reason in ReasonCode if reason is not ReasonCode.REMOVE_FROM_CRL]
INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2070, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001  # bounds
    lambda at: at.replace(microsecond=0)
)
ENTRIES = st.lists(
    st.builds(
        RevokedEntry,
        st.integers(1, 2**159 - 1),
        INSTANTS,
        st.one_of(st.none(), st.sampled_from(REASONS[1:])),
        st.one_of(st.none(), INSTANTS),
    ),
    max_size=8,
    unique_by=lambda entry: entry.serial,
)


@given(ENTRIES, st.integers(0, 2**159 - 1), st.one_of(st.none(), st.just("http://pki.cso.eu/crl/" + "x" * 120)))
@settings(max_examples=examples(60))
def test_parsing_gives_back_what_was_built(entries: list[RevokedEntry], number: int, url: str | None) -> None:
    tbs = build(*entries, number=number, url=url)
    crl = parse_crl(sign(tbs))
    assert crl.entries == tuple(entries)
    assert (crl.number, crl.this_update, crl.next_update) == (number, NOW, NEXT)
    assert (crl.issuer_der, crl.authority_key_id, crl.distribution_point_url) == (ISSUER, KEY_ID, url)
    assert crl.tbs == tbs
    assert keys.verify(KEY.public_key(), crl.signature, crl.tbs, crl.signature_algorithm_der)


@given(ENTRIES)
@settings(max_examples=examples(40))
def test_an_independent_reader_sees_the_same_list(entries: list[RevokedEntry]) -> None:
    other = x509.load_der_x509_crl(sign(build(*entries, url="http://pki.cso.eu/1.crl")))
    key = KEY.public_key()
    assert other.is_signature_valid(key)
    assert {each.serial_number for each in other} == {entry.serial for entry in entries}
    assert other.extensions.get_extension_for_class(x509.IssuingDistributionPoint).critical
    assert not other.extensions.get_extension_for_class(x509.CRLNumber).critical
    for entry in entries:
        found = other.get_revoked_certificate_by_serial_number(entry.serial)
        assert found is not None
        assert found.revocation_date_utc == entry.revoked_at
        reasons = [each.value.reason.value for each in found.extensions if isinstance(each.value, x509.CRLReason)]
        assert reasons == ([entry.reason.value] if entry.reason else [])


@given(ENTRIES, st.integers(1, 2**159 - 1))
@settings(max_examples=examples(40))
def test_every_listed_serial_is_found_and_no_other(entries: list[RevokedEntry], other: int) -> None:
    data = sign(build(*entries))
    assert all(crl_contains(data, entry.serial) for entry in entries)
    assert crl_contains(data, other) == (other in {entry.serial for entry in entries})


def test_a_serial_that_stands_elsewhere_in_the_list_is_not_found() -> None:
    data = sign(build(RevokedEntry(7, NOW), number=0x1234567890ABCDEF))
    assert der.integer(0x1234567890ABCDEF) in data
    assert not crl_contains(data, 0x1234567890ABCDEF)


def test_reason_unspecified_is_expressed_by_absence() -> None:
    assert build(RevokedEntry(7, NOW, ReasonCode.UNSPECIFIED)) == build(RevokedEntry(7, NOW))


def test_an_empty_list_is_absent() -> None:
    assert parse_crl(sign(build())).entries == ()
    assert lint_crl(sign(build())).findings == ()


def test_reason_numbers_are_those_of_rfc_5280() -> None:
    assert {reason.number: reason.value for reason in ReasonCode} == {
        0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
        5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn",
        10: "aACompromise",
    }  # fmt: skip
    assert all(ReasonCode.of_number(reason.number) is reason for reason in ReasonCode)
    with pytest.raises(InputError, match="7"):
        ReasonCode.of_number(7)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (RevokedEntry(0, NOW), "cannot be listed"),
        (RevokedEntry(-3, NOW), "cannot be listed"),
        (RevokedEntry(1, NOW, ReasonCode.REMOVE_FROM_CRL), "removeFromCRL"),
    ],
)
def test_entries_that_no_full_list_may_have_are_refused(entry: RevokedEntry, word: str) -> None:
    with pytest.raises(InputError, match=word):
        build(entry)


def test_a_serial_is_listed_once() -> None:
    with pytest.raises(InputError, match="cannot be listed"):
        build(RevokedEntry(1, NOW), RevokedEntry(1, NOW))


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InputError, match="nextUpdate"):
        build(this_update=NEXT)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="range"):
        build(number=-1)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        build(RevokedEntry(1, datetime(2026, 1, 1)))  # noqa: DTZ001  # the point of the test


def test_pem_is_read_too() -> None:
    data = sign(build(RevokedEntry(7, NOW)))
    assert parse_crl(der.to_pem("X509 CRL", data).encode()).der == data


def test_an_unsigned_list_is_refused() -> None:
    with pytest.raises(InputError, match="not signed"):
        parse_crl(build())


@given(st.binary(max_size=200))
@settings(max_examples=examples(100))
def test_any_bytes_are_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(ChargePkiError):
        parse_crl(data)
    with pytest.raises(ChargePkiError):
        crl_contains(data, 5)


ISSUER_CERTIFICATE = issuer_certificate()
SIGNED = sign(build(RevokedEntry(7, NOW, ReasonCode.SUPERSEDED), RevokedEntry(1 << 150, NOW), url="http://x/1.crl"))


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
@settings(max_examples=examples(200))
def test_any_byte_may_be_changed_without_an_unexpected_exception(at: int, octet: int) -> None:
    spoilt = SIGNED[:at] + bytes((octet,)) + SIGNED[at + 1 :]
    assert lint_crl(spoilt, issuer_der=ISSUER_CERTIFICATE, now=NOW).kind == "crl"
    try:
        crl = parse_crl(spoilt)
    except ChargePkiError:
        return
    genuine = keys.verify(KEY.public_key(), crl.signature, crl.tbs, ALGORITHM)
    assert genuine == (spoilt == SIGNED) or crl.tbs == parse_crl(SIGNED).tbs


def test_entries_with_long_lengths_and_unknown_extensions_are_read_as_well() -> None:
    unknown = der.sequence(der.oid("1.3.6.1.4.1.55555.9"), der.octet_string(bytes(150)))
    entry = der.sequence(der.integer(99), der.time(NOW), der.sequence(unknown))
    data = sign(spoil(revoked=der.sequence(entry, der.sequence(der.integer(100), der.time(NOW)))))
    assert [each.serial for each in parse_crl(data).entries] == [99, 100]
    assert crl_contains(data, 99)
    assert crl_contains(data, 100)
    assert not crl_contains(data, 101)


# ---------------------------------------------------------------- rules


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), der.boolean(True) if critical else b"", der.octet_string(value))


AKI = extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, KEY_ID, constructed=False)))
NUMBER = extension(oids.CRL_NUMBER, der.integer(5))


def spoil(
    *,
    version: bytes = der.integer(1),  # bytes are immutable
    issuer: bytes = ISSUER,
    this_update: bytes = der.time(NOW),
    next_update: bytes = der.time(NEXT),
    revoked: bytes = b"",
    extensions: tuple[bytes, ...] = (AKI, NUMBER),
) -> bytes:
    listed = der.explicit(0, der.sequence(*extensions)) if extensions else b""
    return der.sequence(version, ALGORITHM, issuer, this_update, next_update, revoked, listed)


def entry(serial: int = 7, reason: int | None = None, at: bytes = der.time(NOW), more: bytes = b"") -> bytes:
    code = b"" if reason is None else extension(oids.REASON_CODE, der.enumerated(reason))
    extras = der.sequence(code, more) if code or more else b""
    return der.sequence(der.integer(serial), at, extras)


UNKNOWN = extension("1.3.6.1.4.1.55555.1", der.null(), critical=True)
INDIRECT = extension(oids.ISSUING_DISTRIBUTION_POINT, der.sequence())
DELTA = extension(oids.DELTA_CRL_INDICATOR, der.integer(4), critical=True)
BROKEN = (
    ("e_der_strict", spoil(version=b"\x02\x02\x00\x01")),
    ("e_crl_version_v2", spoil(version=b"")),
    ("e_crl_issuer_empty", spoil(issuer=der.sequence())),
    ("e_crl_number_missing", spoil(extensions=(AKI,))),
    ("e_crl_number_missing", spoil(extensions=(AKI, extension(oids.CRL_NUMBER, der.integer(-1))))),
    ("e_crl_number_missing", spoil(extensions=(AKI, extension(oids.CRL_NUMBER, der.integer(1), critical=True)))),
    ("e_crl_aki_missing", spoil(extensions=(NUMBER,))),
    ("e_crl_next_update_missing", spoil(next_update=b"")),
    ("e_crl_time_form", spoil(this_update=der.tlv(0x17, b"2603010000Z"))),
    ("e_crl_time_form", spoil(revoked=der.sequence(entry(at=der.generalized_time(NOW))))),
    ("e_crl_window_inverted", spoil(this_update=der.time(NEXT), next_update=der.time(NOW))),
    ("e_crl_reason_code", spoil(revoked=der.sequence(entry(reason=0)))),
    ("e_crl_reason_code", spoil(revoked=der.sequence(entry(reason=7)))),
    ("e_crl_reason_code", spoil(revoked=der.sequence(entry(reason=11)))),
    ("e_crl_remove_outside_delta", spoil(revoked=der.sequence(entry(reason=8)))),
    ("e_crl_serial_duplicate", spoil(revoked=der.sequence(entry(), entry(8), entry()))),
    ("e_crl_serial_positive", spoil(revoked=der.sequence(entry(0)))),
    ("e_crl_serial_positive", spoil(revoked=der.sequence(entry(1 << 160)))),
    ("e_crl_empty_list", spoil(revoked=der.sequence())),
    ("w_crl_revoked_after_this_update", spoil(revoked=der.sequence(entry(at=der.time(NEXT))))),
    ("e_crl_unknown_critical_ext", spoil(extensions=(AKI, NUMBER, UNKNOWN))),
    ("e_crl_unknown_critical_ext", spoil(extensions=(AKI, NUMBER, INDIRECT))),
    ("e_crl_unknown_critical_ext", spoil(revoked=der.sequence(entry(more=UNKNOWN)))),
)
WITH_ISSUER = (
    ("e_crl_issuer_mismatch", lambda draft: setattr(draft, "subject", draft.issuer)),
    ("e_crl_aki_mismatch", lambda draft: draft.put(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(b"other"))),
    ("e_crl_issuer_ku", lambda draft: draft.key_usage([5])),
)


@pytest.mark.parametrize(("rule", "tbs"), BROKEN)
def test_a_list_that_breaks_the_rule_is_found(rule: str, tbs: bytes) -> None:
    for data in (tbs, sign(tbs)):
        assert rule in {finding.rule for finding in lint_crl(data).findings}


@pytest.mark.parametrize(("rule", "change"), WITH_ISSUER)
def test_a_list_that_does_not_fit_its_issuer_is_found(rule: str, change: Callable[[Draft], None]) -> None:
    assert rule in {finding.rule for finding in lint_crl(SIGNED, issuer_der=issuer_certificate(change)).errors}


def test_a_list_that_keeps_every_rule_has_no_findings() -> None:
    report = lint_crl(SIGNED, issuer_der=issuer_certificate(), now=NOW)
    assert report.findings == ()
    assert set(report.rules_run) == {rule.id for rule in list_crl_rules()}


@pytest.mark.parametrize("now", [NOW - timedelta(seconds=1), NEXT + timedelta(seconds=1)])
def test_a_list_outside_its_window_is_found(now: datetime) -> None:
    assert [finding.rule for finding in lint_crl(SIGNED, now=now).findings] == ["e_crl_expired"]


def test_different_signature_algorithms_inside_and_outside_are_found() -> None:
    data = assemble_crl(build(), keys.signature_algorithm(KeyAlgorithm.SECP384R1).der, bytes(70))
    assert [finding.rule for finding in lint_crl(data).findings] == ["e_crl_sigalg_mismatch"]


def test_remove_from_crl_is_at_home_in_a_delta() -> None:
    tbs = spoil(revoked=der.sequence(entry(reason=8)), extensions=(AKI, NUMBER, DELTA))
    assert lint_crl(sign(tbs)).findings == ()
    assert parse_crl(sign(tbs)).delta_base_number == 4


def test_an_issuer_name_in_another_encoding_is_a_warning() -> None:
    recoded = names.name_der(names.parse_rdns("CN=CRL  ISSUER,O=example"))
    certificate = issuer_certificate(lambda draft: setattr(draft, "subject", recoded))
    findings = lint_crl(SIGNED, issuer_der=certificate).findings
    assert [(finding.rule, finding.severity) for finding in findings] == [("e_crl_issuer_mismatch", Severity.WARNING)]


def test_every_crl_rule_has_a_list_that_breaks_it() -> None:
    elsewhere = {"e_crl_expired", "e_crl_sigalg_mismatch"}
    tried = {rule for rule, _ in BROKEN} | {rule for rule, _ in WITH_ISSUER} | elsewhere
    assert tried == {rule.id for rule in list_crl_rules()}
