"""Linting for issuance says exactly what the full lint says, about every to-be-signed certificate."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, oids
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import issuance, lint_issuance, lint_tbs
from chargepki.pki.profiles import get_profile, list_profiles
from fixtures.lint.certificates import CASES, nothing
from fixtures.lint.public_keys import PublicDraft, public_test_key
from testkit.drafts import START
from testkit.effort import examples

PROFILES = [profile.id for profile in list_profiles()]
BASES = {profile: PublicDraft.of(profile) for profile in PROFILES}
ISSUERS = {profile: PublicDraft.issuer_of(profile).certificate() for profile in PROFILES}
SERIALS = st.one_of(st.integers(-5, 5), st.integers(2**40, 2**170))
NAMES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=70),
    st.sampled_from(
        ["SECCCert", "DE*ABC*E1", "WMIV1234567890ABCDEX", "HUBOPENPROVCERT01", "DE8AAC1A2B3C4D5", "10.0.0.7"]
    ),
)


def assert_equal(tbs: bytes, profile: str, issuer: bytes | None) -> None:
    full = lint_tbs(tbs, profile=get_profile(profile), issuer_der=issuer)
    # Twice: the first may learn the template, the second must use it.
    for _ in range(2):
        assert lint_issuance(tbs, profile=get_profile(profile), issuer_der=issuer) == full


@given(st.data())
@settings(max_examples=examples(250), deadline=None)
def test_every_certificate_of_a_learnt_template_is_judged_as_the_full_lint_judges_it(data: st.DataObject) -> None:
    profile = data.draw(st.sampled_from(PROFILES))
    issuer = data.draw(st.sampled_from([None, ISSUERS[profile]]))
    base = BASES[profile]
    lint_issuance(base.tbs(), profile=get_profile(profile), issuer_der=issuer)  # learns the template
    draft = PublicDraft.of(profile)
    draft.serial = der.integer(data.draw(SERIALS))
    start = START + timedelta(seconds=data.draw(st.integers(-(10**9), 10**9)))
    draft.not_before = der.time(start)
    draft.not_after = der.time(start + timedelta(seconds=data.draw(st.integers(-(10**6), 2 * 10**9))))
    tag = data.draw(st.sampled_from([0x0C, 0x13, 0x16]))
    value = data.draw(NAMES).encode("utf-8")
    if data.draw(st.booleans()):
        value = data.draw(st.binary(max_size=40))
    listed = [each for each in _rdns(draft.subject) if b"\x06\x03\x55\x04\x03" not in each]
    listed.append(der.set_of(der.sequence(der.oid(oids.COMMON_NAME), der.tlv(tag, value))))
    draft.subject = der.sequence(*listed)
    algorithm = data.draw(st.sampled_from([KeyAlgorithm.SECP256R1, KeyAlgorithm.SECP521R1, None]))
    if algorithm is not None:
        spki = bytearray(keys.spki_der(public_test_key(algorithm, data.draw(st.integers(0, 3)))))
        spki[-1 - data.draw(st.integers(0, 40))] ^= data.draw(st.sampled_from([0, 0, 1]))
        draft.spki = bytes(spki)
    if oids.SUBJECT_KEY_IDENTIFIER in {each.oid for each in draft.extensions}:
        identifier = data.draw(st.binary(max_size=24))
        draft.put(
            oids.SUBJECT_KEY_IDENTIFIER,
            der.octet_string(identifier),
            critical=draft.find(oids.SUBJECT_KEY_IDENTIFIER).critical,
        )
    assert_equal(draft.tbs(), profile, issuer)


def _rdns(name: bytes) -> list[bytes]:
    return [each.raw for each in der.parse(name).children()]


@given(st.sampled_from(["iso15118-2/secc", "ocpp/csms", "iso15118-20/contract"]), st.data())
@settings(max_examples=examples(250), deadline=None)
def test_every_change_of_a_byte_is_judged_as_the_full_lint_judges_it(profile: str, data: st.DataObject) -> None:
    tbs = bytearray(BASES[profile].tbs())
    lint_issuance(bytes(tbs), profile=get_profile(profile))
    tbs[data.draw(st.integers(0, len(tbs) - 1))] = data.draw(st.integers(0, 255))
    assert_equal(bytes(tbs), profile, None)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_vector_is_judged_as_the_full_lint_judges_it(case: object) -> None:
    from fixtures.lint.certificates import Case

    assert isinstance(case, Case)
    draft, issuer = PublicDraft.of(case.profile, case.algorithm), PublicDraft.issuer_of(case.profile, case.algorithm)
    lint_issuance(draft.tbs(), profile=draft.profile, issuer_der=issuer.certificate())
    case.spoil(draft)
    (case.issuer or nothing)(issuer)
    assert_equal(draft.tbs(), case.profile, issuer.certificate())


def test_most_rules_are_fixed_by_the_template() -> None:
    draft = PublicDraft.of("iso15118-2/secc")
    draft.name(("DC", "CPO"), ("O", "Template"), ("CN", "DE*ABC*E1"))
    before = set(issuance._templates)
    lint_issuance(draft.tbs(), profile=draft.profile)
    (learnt,) = (issuance._templates[key] for key in set(issuance._templates) - before)
    left = {check.entry.id for check in (*learnt.variable, *learnt.dated)}
    assert {"e_serial_positive", "e_ec_point_not_on_curve", "w_secc_cn_syntax"} <= left
    assert len(left) < len(learnt.plan.checks) / 2


def test_memory_of_templates_is_bounded() -> None:
    draft = PublicDraft.of("ocpp/charging-station")
    for number in range(300):
        draft.name(("O", f"Operator {number}"), ("CN", "S1"))
        lint_issuance(draft.tbs(), profile=draft.profile)
    assert len(issuance._templates) <= 128
