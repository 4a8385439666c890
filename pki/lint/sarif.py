"""Write reports as SARIF 2.1.0, which code hosts and editors show beside the files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from chargepki.pki.errors import printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.catalogue import all_rules
from chargepki.pki.lint.engine import Override, Rule

if TYPE_CHECKING:
    from chargepki.pki.lint.session import ObjectReport

__all__ = ["SCHEMA", "sarif_log"]

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVEL: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTICE: "note"}


def sarif_log(reports: Sequence[ObjectReport], *, tool_version: str) -> str:
    """Return *reports* as one SARIF log (JSON text) with a single run."""
    rules = _rules(reports)
    index = {rule["id"]: position for position, rule in enumerate(rules)}
    overrides = {override.rule: override for each in reports for override in each.report.overrides}
    invocation: dict[str, Any] = {"executionSuccessful": True}
    if overrides:
        invocation["ruleConfigurationOverrides"] = [
            _override(override, index[override.rule]) for override in overrides.values() if override.rule in index
        ]
    skipped = [_not_evaluated(each, index) for each in reports]
    run = {
        "tool": {"driver": {"name": "chargepki", "version": tool_version, "rules": rules}},
        "invocations": [invocation],
        "results": [
            *(_result(each, finding, index) for each in reports for finding in each.report.findings),
            *(result for results in skipped for result in results),
        ],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rules(reports: Iterable[ObjectReport]) -> list[dict[str, Any]]:
    """Return a descriptor of every rule that ran or could not; those of a second opinion come from its findings."""
    mentioned: set[str] = set()
    foreign: dict[str, Finding] = {}
    for each in reports:
        report = each.report
        mentioned.update(report.rules_run, (unjudged.rule for unjudged in report.not_evaluated))
        mentioned.update(override.rule for override in report.overrides)
        foreign |= {finding.rule: finding for finding in report.findings}
    known: dict[str, Rule[Any]] = {}
    for rule in all_rules():
        known.setdefault(rule.id, rule)
    found = [_descriptor(known[rule_id]) for rule_id in sorted(mentioned | foreign.keys()) if rule_id in known]
    return found + [
        {"id": rule_id, "shortDescription": {"text": finding.clause}}
        for rule_id, finding in sorted(foreign.items())
        if rule_id not in known
    ]


def _descriptor(rule: Rule[Any]) -> dict[str, Any]:
    text = f"{rule.title}. Clause: {rule.clause}."
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": text},
        "help": {"text": f"{text} Cure: {rule.hint}."},
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "properties": {"clause": rule.clause, "unverified": rule.unverified or None},
    }


def _result(each: ObjectReport, finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    cure = f" Cure: {finding.hint}." if finding.hint else ""
    digest = hashlib.sha256(
        f"{each.name}\0{finding.rule}\0{finding.where}\0{finding.message}".encode(errors="surrogateescape")
    ).hexdigest()
    return {
        "ruleId": finding.rule,
        "ruleIndex": index[finding.rule],
        "level": _LEVEL[finding.severity],
        "message": {"text": f"{finding.message} ({finding.clause}).{cure}"},
        "locations": [_location(each, finding.where)],
        "partialFingerprints": {"chargepkiFinding/v1": digest},
        "properties": {"clause": finding.clause, "where": finding.where, "profile": each.report.profile_id},
    }


def _not_evaluated(each: ObjectReport, index: dict[str, int]) -> Iterable[dict[str, Any]]:
    """SARIF has a kind for it: *open* means that the rule could not decide."""
    for unjudged in each.report.not_evaluated:
        if unjudged.rule not in index:
            continue  # a second opinion that came to none has no rule to point at
        yield {
            "ruleId": unjudged.rule,
            "ruleIndex": index[unjudged.rule],
            "kind": "open",
            "level": "none",
            "message": {"text": f"not evaluated: {unjudged.reason}"},
            "locations": [_location(each, "")],
        }


def _location(each: ObjectReport, where: str) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(each.file or ".")}}
    offset = where.removeprefix("offset ")
    # Offsets count from the start of the object, which is the start of the file only when it is DER and alone in it.
    if offset.isdigit() and where != offset and each.name == each.file:
        physical["region"] = {"byteOffset": int(offset), "byteLength": 0}
    name = printable(each.name)
    logical = [{"name": where or name, "fullyQualifiedName": f"{name}: {where}" if where else name}]
    return {"physicalLocation": physical, "logicalLocations": logical}


def _uri(file: str) -> str:
    """Return a relative or absolute reference; endpoints are URIs already."""
    if file.startswith("tls://"):
        return file
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))


def _override(override: Override, position: int) -> dict[str, Any]:
    severity = override.severity
    configuration: dict[str, Any] = {"enabled": severity is not None}
    if severity is not None:
        configuration["level"] = _LEVEL[severity]
    return {
        "descriptor": {"id": override.rule, "index": position},
        "configuration": configuration,
        "properties": {"source": override.source},
    }
