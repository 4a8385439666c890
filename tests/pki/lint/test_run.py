"""Linting answers any input with findings, judges exactly the bytes it is given, and is quick enough for issuance."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der
from chargepki.pki.certificate_view import view_certificate, view_tbs
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.findings import Severity
from chargepki.pki.lint import guess_profile, lint_certificate, lint_crl, lint_tbs, list_crl_rules, list_rules
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile, Standard
from testkit.drafts import Draft
from testkit.effort import examples

SECC = get_profile("iso15118-2/secc")
GOOD = Draft.of(SECC.id).certificate()


@given(st.binary(max_size=300))
@settings(max_examples=examples(200))
def test_any_bytes_give_findings_and_no_exception(data: bytes) -> None:
    for report in (lint_certificate(data, profile=SECC), lint_tbs(data, profile=None), lint_crl(data)):
        assert [finding.rule for finding in report.errors] == ["e_der_strict"]
        assert report.errors[0].where.startswith("offset ")


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.sampled_from(list_profiles()[::7]))
@settings(max_examples=examples(300))
def test_any_byte_of_a_certificate_may_be_changed_without_an_exception(at: int, octet: int, profile: Profile) -> None:
    spoilt = GOOD[:at] + bytes((octet,)) + GOOD[at + 1 :]
    report = lint_certificate(spoilt, profile=profile, issuer_der=GOOD)
    assert json.loads(json.dumps(report.to_json()))["profile"] == profile.id
    try:
        guess_profile(view_certificate(spoilt))
    except ChargePkiError as error:
        assert error.code == "der"


@given(st.integers(0, 5), st.binary(max_size=40))
@settings(max_examples=examples(50))
def test_garbage_in_any_extension_value_is_a_finding(which: int, value: bytes) -> None:
    draft = Draft.of(SECC.id)
    draft.extensions[which].value = value
    report = lint_tbs(draft.tbs(), profile=SECC)
    assert report.kind == "tbs-certificate"


def test_deep_nesting_is_a_finding_not_a_recursion_error() -> None:
    data = b""
    for _ in range(2000):
        data = der.sequence(data)
    data = der.sequence(der.sequence(), data, der.bit_string(b""))
    assert "too-deep" in lint_certificate(data, profile=None).errors[0].message


def test_trailing_bytes_are_found_with_their_offset() -> None:
    findings = lint_certificate(GOOD + b"\0", profile=SECC).errors
    assert [(finding.rule, finding.where) for finding in findings] == [("e_der_strict", f"offset {len(GOOD)}")]


def test_a_length_that_is_not_the_shortest_is_found_and_the_rest_is_still_judged() -> None:
    draft = Draft.of(SECC.id)
    draft.serial = b"\x02\x81\x02\x30\x39"
    rules = {finding.rule for finding in lint_tbs(draft.tbs(), profile=SECC).findings}
    assert {"e_der_strict", "w_serial_low_entropy"} <= rules


def test_to_be_signed_bytes_are_judged_like_the_certificate_around_them() -> None:
    draft = Draft.of(SECC.id)
    draft.name(("CN", "SECCCert"))
    tbs = {finding.rule for finding in lint_tbs(draft.tbs(), profile=SECC).findings}
    whole = {finding.rule for finding in lint_certificate(draft.certificate(), profile=SECC).findings}
    assert tbs == whole >= {"e_v2g2_dc_secc", "w_cn_role_name"}


def test_without_a_profile_only_rules_of_every_standard_run() -> None:
    run = set(lint_certificate(GOOD, profile=None).rules_run)
    everywhere = {rule.id for rule in list_rules() if rule.standards == frozenset(Standard)}
    assert run <= everywhere
    assert "e_v2g2_size_800" not in run
    assert "e_expired" not in run


def test_an_issuer_that_is_no_certificate_is_the_callers_error() -> None:
    with pytest.raises(InputError):
        lint_certificate(GOOD, profile=SECC, issuer_der=b"no")


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError, match="naive"):
        lint_certificate(GOOD, profile=SECC, now=datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test


def test_the_prefix_of_every_rule_is_a_severity_and_every_rule_cites_a_clause() -> None:
    texts = [(rule.id, rule.clause, rule.hint, rule.title) for rule in list_rules()]
    texts += [(rule.id, rule.clause, rule.hint, rule.title) for rule in list_crl_rules()]
    assert all(rule_id[:2] in ("e_", "w_", "n_") for rule_id, *_ in texts)
    assert [text[0] for text in texts if not all(text)] == []


def test_a_report_sorts_its_findings_by_severity_for_the_caller() -> None:
    draft = Draft.of(SECC.id)
    draft.name(("CN", "SECCCert"))
    report = lint_tbs(draft.tbs(), profile=SECC)
    assert {finding.severity for finding in report.errors} == {Severity.ERROR}
    assert {finding.severity for finding in report.warnings} == {Severity.WARNING}
    assert len(report.errors) + len(report.warnings) + len(report.notices) == len(report.findings)
    assert not report.ok


UNGUESSABLE = {
    "private-root", "private-secc", "emsp-root", "emsp-sub1", "emsp-sub2", "vehicle-sub1", "vehicle-sub2", "cross",
    "cso-root", "cso-sub", "manufacturer-root", "charging-station", "firmware-signing",
}  # fmt: skip
"""Their certificates do not say what they are: another role of the standard, or none at all, looks the same."""


@pytest.mark.parametrize("profile", [p for p in list_profiles() if p.role not in UNGUESSABLE], ids=lambda p: p.id)
def test_the_profile_of_our_own_certificates_is_guessed(profile: Profile) -> None:
    guessed, reason = guess_profile(view_tbs(Draft.of(profile.id).tbs()))
    assert (guessed.id if guessed else None) == profile.id, reason


def test_a_guess_that_fails_says_why() -> None:
    guessed, reason = guess_profile(view_tbs(Draft.of("ocpp/charging-station").tbs()))
    assert guessed is None
    assert "subject" in reason
