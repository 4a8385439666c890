"""Sessions judge whatever they are given: any bytes give findings, and objects are told apart and held together."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.errors import InputError
from chargepki.pki.findings import Severity
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import LintSession, lint_collection, lint_csr, lint_ocsp_response
from chargepki.pki.lint.collection import Authorities, Issuers, Kind, Member
from chargepki.pki.lint.engine import NotEvaluated, Registry
from chargepki.pki.lint.reading import LintInput, read_inputs
from chargepki.pki.lint.sarif import sarif_log
from chargepki.pki.lint.sniff import ObjectKind, kind_of
from chargepki.pki.lint.view import view_certificate
from chargepki.pki.lint.weak_keys import WeakKeys, modulus_digest
from chargepki.pki.profiles import get_profile
from fixtures.lint.generate import vectors
from fixtures.lint.others import LEAF, SUB1, SUB2, TWIN, V2G_ROOT, crl, csr, ocsp
from fixtures.lint.public_keys import PublicDraft
from testkit.effort import examples

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OBJECTS = {
    ObjectKind.CERTIFICATE: LEAF,
    ObjectKind.TBS: PublicDraft.of("iso15118-2/secc").tbs(),
    ObjectKind.CRL: crl(),
    ObjectKind.CSR: csr(),
    ObjectKind.OCSP_RESPONSE: ocsp(),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_kind_of_object_is_told_from_the_others(kind: ObjectKind) -> None:
    assert kind_of(OBJECTS[kind]) is kind


@given(st.binary(max_size=200))
@settings(max_examples=examples(300))
def test_any_bytes_are_judged_or_refused_with_one_error(data: bytes) -> None:
    try:
        inputs, blocks = read_inputs(data, "x")
    except InputError:
        return
    assert LintSession(now=NOW).judge(inputs, {"x": blocks} if blocks else {})


@given(st.sampled_from(sorted(OBJECTS)), st.data())
@settings(max_examples=examples(400), deadline=None)
def test_any_byte_of_any_object_may_be_changed_without_an_exception(kind: ObjectKind, data: st.DataObject) -> None:
    spoilt = bytearray(OBJECTS[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    # Judged as what it was, whatever it looks like now, between certificates that may be its issuers.
    inputs = [LintInput("x", "x", kind, bytes(spoilt))]
    inputs += [LintInput(f"y{n}", "y", ObjectKind.CERTIFICATE, der) for n, der in enumerate((SUB2, SUB1, V2G_ROOT))]
    reports = LintSession(now=NOW, profile=get_profile("iso15118-2/secc")).judge(inputs, {})
    assert reports[0].report.kind == kind.value
    assert sarif_log(reports, tool_version="0")


@given(st.sampled_from([lint_csr, lint_ocsp_response]), st.binary(max_size=100))
@settings(max_examples=examples(200))
def test_anything_that_is_no_such_object_is_a_finding(lint: object, data: bytes) -> None:
    assert callable(lint)
    report = lint(b"\x30" + data)
    assert [finding.rule for finding in report.errors][:1] == ["e_der_strict"]
    assert report.errors[0].where.startswith("offset ")


@given(st.permutations([LEAF, SUB2, SUB1]))
def test_every_order_of_a_bundle_but_one_is_wrong(order: list[bytes]) -> None:
    members = [
        Member(f"#{number}", view_certificate(der), get_profile("iso15118-2/secc") if der == LEAF else None)
        for number, der in enumerate(order)
    ]
    report = lint_collection(members, kind=Kind.BUNDLE, now=NOW)
    assert ("e_chain_order" in {finding.rule for finding in report.findings}) == (order != [LEAF, SUB2, SUB1])


def test_an_issuer_among_twins_is_chosen_by_the_signature() -> None:
    sub, root, twin = (
        Member(name, view_certificate(der)) for name, der in zip("abc", (SUB1, V2G_ROOT, TWIN), strict=True)
    )
    assert Issuers([twin, root]).of(sub) is root
    assert Issuers([root]).of(root) is None


def test_a_crl_and_a_response_find_their_issuer_in_the_same_folder() -> None:
    wanted = {"e_crl_aki_mismatch", "e_ocsp_signer"}
    found = [vector for vector in vectors() if vector.rule in wanted and not vector.accept]
    for vector in found:
        inputs = [
            LintInput("object", "object", kind_of(vector.data), vector.data),
            LintInput("ca", "ca", ObjectKind.CERTIFICATE, vector.issuer),
        ]
        (report,) = [each.report for each in LintSession(now=NOW).judge(inputs, {}) if each.name == "object"]
        assert vector.rule in {finding.rule for finding in report.findings}


def test_a_rule_that_cannot_judge_is_neither_passed_nor_broken() -> None:
    registry: Registry[int] = Registry("number")
    registry.rule("e_even", "clause", "even", hint="add one")(
        lambda number: NotEvaluated("it is zero") if not number else None
    )
    from chargepki.pki.lint.engine import judge

    plan = registry.plan(None, frozenset({"any"}), frozenset())
    assert judge(plan, 2, "number").rules_run == ("e_even",)
    report = judge(plan, 0, "number")
    assert report.rules_run == ()
    assert [tuple(each) for each in report.not_evaluated] == [("e_even", "it is zero")]


def test_two_rules_of_one_name_are_a_mistake_of_the_programmer() -> None:
    registry: Registry[int] = Registry("number")
    registry.rule("e_even", "clause", "even", hint="add one")(lambda _: None)
    with pytest.raises(ValueError, match="e_even"):
        registry.rule("e_even", "clause", "even", hint="add one")(lambda _: None)


def test_a_list_of_weak_keys_is_read_in_both_forms() -> None:
    listed = WeakKeys.parse(f"# comment\n{modulus_digest(35)}  # five times seven\n\n{'ab' * 32}\n".encode())
    assert listed.lists(b"", 35)
    assert not listed.lists(b"", 77)
    assert listed.keys == {"ab" * 32}


@pytest.mark.parametrize("text", ["", "# nothing\n", "xyz\n", "abcd\n", "0" * 40])
def test_a_list_of_weak_keys_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        WeakKeys.parse(text.encode())


def test_a_weak_key_of_any_kind_is_found_by_its_digest() -> None:
    import hashlib

    from chargepki.pki.lint import LintData, lint_certificate

    draft = PublicDraft.of("iso15118-2/secc", KeyAlgorithm.SECP256R1)
    digest = hashlib.sha256(draft.spki).hexdigest()
    report = lint_certificate(
        draft.certificate(), profile=draft.profile, data=LintData(weak_keys=WeakKeys.parse(digest.encode()))
    )
    assert [finding.rule for finding in report.findings if finding.severity is Severity.ERROR] == ["e_debian_weak_key"]


class Counting(list[LintInput]):
    """Counts how often an element is asked for."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        self.asked += 1
        return super().__getitem__(index)


def test_many_files_are_judged_together_in_steps_that_grow_with_their_number_only() -> None:
    def asked(files: int) -> int:
        inputs = Counting(
            LintInput(f"f{number}#{part}", f"f{number}", ObjectKind.CERTIFICATE, der)
            for number in range(files)
            for part, der in enumerate((SUB2, SUB1))
        )
        assert LintSession(now=NOW).judge(inputs, {})
        return inputs.asked

    assert asked(12) <= 2 * asked(6)


def test_lists_and_answers_find_the_first_ca_of_their_name_or_key() -> None:
    members = [Member(name, view_certificate(der)) for name, der in (("leaf", LEAF), ("sub1", SUB1), ("again", SUB1))]
    found = Authorities(members)
    view = members[1].view
    assert found.of_list(view.subject, view.known.subject_key_id) is members[1]
    assert found.of_list(view.subject, b"another key") is members[1]
    assert found.of_list(members[0].view.subject, None) is None
    for name in ("sha1", "sha256", "sha384", "sha512"):
        digest = hashlib.new(name, view.key.bits, usedforsecurity=False).digest()
        assert found.with_key_hash(digest) is members[1]
    assert found.with_key_hash(b"") is None
