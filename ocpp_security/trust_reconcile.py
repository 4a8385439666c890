"""Hold what a station lists against what we installed there: drift, orphans, and what cannot be deleted (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from chargepki.ocpp_security.trust_messages import HASH_FIELDS
from chargepki.pki.hashdata_oracle import Diagnosis, KnownCertificate, Match, diagnose_hash_data
from chargepki.pki.inventory.records import OperationRecord
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootReportRecord, StationRootState

__all__ = ["RootFinding", "RootStatus", "reconcile", "status_row"]

Diagnose = Callable[[Mapping[str, str], Sequence[KnownCertificate]], Diagnosis]

_PROTECTED: Final = ("csms", "manufacturer")


class RootFinding(StrEnum):
    """What comes of the comparison."""

    IN_STEP = "in-step"
    """Listed, and installed by us; or the station's own V2G chain, issued by us."""
    MISSING = "missing"
    """Installed by us, and not listed."""
    RETURNED = "returned"
    """Deleted by us, and listed."""
    UNMANAGED = "unmanaged"
    """Listed and recognised, but not installed by us: it came with the station, or by another hand."""
    UNEXPLAINED = "unexplained"
    """Listed, and no certificate that we know explains the hash data."""
    UNCHECKED = "unchecked"
    """Installed by us, and the station was not asked since."""


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One root of a station."""

    use: str
    finding: RootFinding
    label: str
    """Name of the CA, id of the certificate, or subject; empty when nobody knows it."""
    sha256: str | None
    hash_data: Mapping[str, str] | None
    """As the station spells it; ``None`` when it does not list it."""
    defects: tuple[str, ...] = ()
    """What is wrong with the hash data, by name."""
    explanation: tuple[str, ...] = ()
    reported_at: datetime | None = None
    is_last: bool = False
    """The only one of its use that the station lists, and one that it cannot do without."""
    undeletable: bool = False
    """A deletion has failed in every form."""


def reconcile(
    installed: Sequence[StationRootRecord],
    reports: Sequence[StationRootReportRecord],
    known: Sequence[KnownCertificate],
    operations: Iterable[OperationRecord] = (),
    *,
    diagnose: Diagnose = diagnose_hash_data,
) -> list[RootStatus]:
    """Return one status for each root that is listed or ought to be, by use.

    Args:
        diagnose: recognises hash data; another one than ours may remember what many stations list alike.
    """
    ours = {(record.use, record.certificate): record for record in installed}
    labels = {hashlib.sha256(each.der).hexdigest(): each.label for each in known}
    stuck = [op.outcome["undeletable"] for op in operations if op.outcome and "undeletable" in op.outcome]
    found: list[RootStatus] = []
    seen: set[tuple[str, str]] = set()
    for report in reports:
        entries = report.listed["entries"]
        alone = len(entries) == 1 and report.use in _PROTECTED
        for entry in entries:
            texts = {name: str(entry["hash"][name]) for name in HASH_FIELDS}
            diagnosis = diagnose(texts, known)
            sha256 = hashlib.sha256(diagnosis.certificate.der).hexdigest() if diagnosis.certificate else None
            if sha256 is not None:
                seen.add((report.use, sha256))
            found.append(
                RootStatus(
                    use=report.use,
                    finding=_finding(report.use, sha256, diagnosis, ours),
                    label=diagnosis.certificate.label if diagnosis.certificate else "",
                    sha256=sha256,
                    hash_data=texts,
                    defects=tuple(defect.value for defect in diagnosis.defects),
                    explanation=tuple(diagnosis.explain()),
                    reported_at=report.reported_at,
                    is_last=alone,
                    undeletable=texts in stuck,
                )
            )
    asked = {report.use: report.reported_at for report in reports}
    for (use, sha256), record in ours.items():
        if record.state is StationRootState.INSTALLED and (use, sha256) not in seen:
            found.append(_unlisted(record, labels.get(sha256, ""), asked.get(use)))
    return sorted(found, key=lambda each: (each.use, each.label, each.sha256 or ""))


def _finding(
    use: str, sha256: str | None, diagnosis: Diagnosis, ours: Mapping[tuple[str, str], StationRootRecord]
) -> RootFinding:
    if sha256 is None or diagnosis.match in (Match.UNKNOWN, Match.AMBIGUOUS):
        return RootFinding.UNEXPLAINED
    record = ours.get((use, sha256))
    if record is None:
        return RootFinding.IN_STEP if use == "v2g-chain" else RootFinding.UNMANAGED
    return RootFinding.IN_STEP if record.state is StationRootState.INSTALLED else RootFinding.RETURNED


def _unlisted(record: StationRootRecord, label: str, asked: datetime | None) -> RootStatus:
    told = asked is not None and asked >= record.changed_at
    finding = RootFinding.MISSING if told else RootFinding.UNCHECKED
    return RootStatus(record.use, finding, label, record.certificate, None, reported_at=asked)


def status_row(status: RootStatus) -> dict[str, Any]:
    """Return it for ``--json``."""
    return {
        "use": status.use,
        "finding": status.finding,
        "certificate": status.label or None,
        "sha256": status.sha256,
        "hash": dict(status.hash_data) if status.hash_data else None,
        "defects": list(status.defects),
        "explanation": list(status.explanation),
        "last": status.is_last,
        "undeletable": status.undeletable,
        "reported_at": status.reported_at,
    }
