"""The diagnosis as the object that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chargepki.pki.doctor.examine import ChainReport, Diagnosis, ObjectDiagnosis
from chargepki.pki.doctor.graph import Node
from chargepki.pki.findings import Finding
from chargepki.pki.lint.reading import as_text

__all__ = ["to_json"]


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return everything; no key, no PEM."""
    return {
        "sound": diagnosis.is_sound,
        "at": diagnosis.at,
        "files": [
            {
                "file": as_text(file.name),
                "reads_as": file.reads_as,
                "note": file.note or None,
                "findings": _findings(file.findings),
            }
            for file in diagnosis.files
        ],
        "objects": [_object(each) for each in diagnosis.objects],
        "chains": [_chain(each) for each in diagnosis.chains],
        "findings": _findings(diagnosis.together),
        "skipped": [{"file": as_text(name), "reason": as_text(reason)} for name, reason in diagnosis.skipped],
    }


def _findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "rule": each.rule,
            "severity": each.severity,
            "message": as_text(each.message),
            "clause": each.clause,
            "hint": each.hint or None,
            "where": as_text(each.where) or None,
        }
        for each in findings
    ]


def _object(each: ObjectDiagnosis) -> dict[str, Any]:
    found: dict[str, Any] = {
        "object": as_text(each.name),
        "file": as_text(each.file),
        "kind": each.kind,
        "says": as_text(each.says) or None,
        "profile": each.profile,
        "profile_reason": each.reason or None,
        "copies": [as_text(name) for name in each.copies],
        "fits": [as_text(name) for name in each.fits],
        "findings": _findings(each.findings),
    }
    return found | ({} if each.node is None else _certificate(each.node))


def _certificate(node: Node) -> dict[str, Any]:
    view = node.view
    return {
        "serial": f"{view.serial:x}",
        "not_before": view.not_before.value,
        "not_after": view.not_after.value,
        "sha256": node.sha256,
        "ca": view.is_ca,
        "root": node.is_root,
    }


def _chain(report: ChainReport) -> dict[str, Any]:
    chain = report.chain
    gap = chain.gap
    return {
        "path": [as_text(node.name) for node in chain.path],
        "send": [as_text(node.name) for node in chain.to_send],
        "root": None if chain.root is None else as_text(chain.root.name),
        "missing": None
        if gap is None
        else {
            "issuer": as_text(gap.issuer),
            "key_id": gap.key_id,
            "aia": list(gap.aia),
            "other_key": [as_text(node.name) for node in gap.impostors],
            "respelled": [as_text(node.name) for node in gap.respelled],
            "no_ca": [as_text(node.name) for node in gap.no_ca],
            "unverifiable": [as_text(node.name) for node in gap.unverifiable],
        },
        "keys": [as_text(name) for name in report.keys],
        "requests": [as_text(name) for name in report.requests],
        "findings": _findings(report.findings),
        "parties": [
            {
                "party": opinion.party,
                "purpose": opinion.purpose,
                "accepts": opinion.accepts,
                "trusts": as_text(opinion.trusts) or None,
                "objections": _findings(opinion.objections),
            }
            for opinion in report.opinions
        ],
    }
