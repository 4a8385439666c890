"""Every rule finds the object that breaks only it, and keeps silent about the one that does not."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter

import pytest

from chargepki.pki.findings import Severity
from chargepki.pki.lint import all_rules
from fixtures.lint.certificates import ALWAYS_SAID
from fixtures.lint.generate import MANIFEST, Vector, judge, manifest_text, vectors

VECTORS = vectors()
BROKEN = [vector for vector in VECTORS if not vector.accept]
KEPT = [vector for vector in VECTORS if vector.accept]


@pytest.mark.parametrize("vector", BROKEN, ids=lambda vector: vector.id)
def test_an_object_that_breaks_the_rule_breaks_only_this_rule(vector: Vector) -> None:
    report = judge(vector)
    assert vector.severity in {finding.severity for finding in report.findings if finding.rule == vector.rule}
    assert all(finding.clause and finding.hint and finding.message for finding in report.findings)
    serious = {finding.rule for finding in report.findings if finding.severity is not Severity.NOTICE}
    assert serious - {vector.rule} <= set(vector.also)


@pytest.mark.parametrize("vector", KEPT, ids=lambda vector: vector.id)
def test_an_object_that_keeps_the_rule_passes_it(vector: Vector) -> None:
    report = judge(vector)
    assert vector.rule in report.rules_run  # not evaluated would not be passed
    serious = [finding for finding in report.findings if finding.severity is not Severity.NOTICE]
    assert {finding.rule for finding in serious} <= set(vector.also)
    # -20:2022 marks key identifiers critical: the notice is expected there.
    expected = {"e_aki_ski_critical"} if vector.profile.startswith("iso15118-20/") else set()
    assert vector.rule not in {finding.rule for finding in report.findings} - expected


def test_every_rule_has_an_object_that_breaks_it_and_one_that_keeps_it() -> None:
    rules = {(rule.subject, rule.id) for rule in all_rules()}
    assert {(vector.judges, vector.rule) for vector in BROKEN} == rules
    assert {(vector.judges, vector.rule) for vector in KEPT} == rules - {("certificate", rule) for rule in ALWAYS_SAID}


def test_a_consequence_is_named_only_where_it_shows() -> None:
    idle = [
        (vector.id, rule)
        for vector in BROKEN
        for rule in vector.also
        if rule not in {finding.rule for finding in judge(vector).findings}
    ]
    assert not idle


def test_the_manifest_is_up_to_date() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == manifest_text(), "run: python -m fixtures.lint --manifest"


def test_the_manifest_names_every_object_with_digest_source_and_reason() -> None:
    entries = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["vector"]
    assert Counter(entry["id"] for entry in entries).most_common(1)[0][1] == 1
    digests = {vector.file: hashlib.sha256(vector.data).hexdigest() for vector in VECTORS}
    assert {entry["file"]: entry["sha256"] for entry in entries} == digests
    for entry in entries:
        assert entry["expect"] in ("accept", "reject")
        assert entry["file"].rpartition(".")[2] in ("der", "pem", "json")
        assert all(entry[name] for name in ("source", "licence", "clause", "why", "rule", "judges"))
