"""What we know of roots, from the inventory: CAs of ours, roots that somebody added, a station's own certificates."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime

from chargepki.ocpp_security.operations_trust import TrustFacts, asked_uses, listed_by
from chargepki.ocpp_security.trust_store import is_signed_by
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki import names
from chargepki.pki.hashdata import hashed_parts
from chargepki.pki.hashdata_oracle import KnownCertificate, diagnose_hash_data
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import AttemptRecord, CaRecord, OperationRecord
from chargepki.pki.inventory.trust_records import (
    StationRootRecord,
    StationRootReportRecord,
    StationRootState,
    TrustRootRecord,
)

__all__ = ["add_root", "known_certificates", "note_trust_answer", "own_certificates", "trust_facts"]


def known_certificates(reads: Reads, station: str | None = None) -> tuple[KnownCertificate, ...]:
    """Return what a station may have installed; labels are names of CAs, ids of certificates, or subjects.

    Args:
        station: with the certificates that we issued for it, which it lists as its V2G chain.
    """
    cas = [ca for ca in reads.list_cas() if ca.certificate_der is not None]
    by_id = {ca.id: ca for ca in cas}
    found = [KnownCertificate(ca.id, ca.certificate_der or b"", _issuer_of(ca, by_id)) for ca in cas]
    seen = {each.der for each in found}
    found += [
        KnownCertificate(f"{root.subject} ({root.id[:12]})", root.der, root.issuer_der)
        for root in reads.list_trust_roots()
        if root.der not in seen
    ]
    if station is not None:
        found += own_certificates(reads, station)
    return tuple(found)


def own_certificates(reads: Reads, station: str) -> list[KnownCertificate]:
    """Return the certificates that we issued for *station*, which it lists as its V2G chain."""
    cas = {ca.id: ca for ca in reads.list_cas() if ca.certificate_der is not None}
    return list(_own(reads, station, cas))


def _issuer_of(ca: CaRecord, cas: Mapping[str, CaRecord]) -> bytes | None:
    if ca.issuer is None:
        own = ca.certificate_der
        return own if own is not None and is_signed_by(own, own) else None
    issuer = cas.get(ca.issuer)
    return issuer.certificate_der if issuer is not None else None


def _own(reads: Reads, station: str, cas: Mapping[str, CaRecord]) -> Iterator[KnownCertificate]:
    for record in reads.list_certificates(station=station):
        issuer = cas.get(record.ca)
        if record.der is not None and issuer is not None:
            yield KnownCertificate(record.id, record.der, issuer.certificate_der)


def trust_facts(inventory: Inventory, operation: OperationRecord) -> TrustFacts:
    """Return what the step of *operation* depends on."""
    known = known_certificates(inventory, operation.station)
    wanted = operation.parameters.get("certificate")
    target = next((each for each in known if _sha256(each.der) == wanted), None)
    return TrustFacts(known, target)


def add_root(tx: Transaction, der: bytes, *, actor_name: str, now: datetime) -> str:
    """Make a root known, and return its id; one that is known already stays as it is. The caller audits.

    Raises:
        InputError: the octets are no certificate.
    """
    _, _, subject, _ = hashed_parts(der)
    issuer = der if is_signed_by(der, der) else None
    if issuer is None:
        issuer = next((each.der for each in known_certificates(tx) if is_signed_by(der, each.der)), None)
    record = TrustRootRecord(_sha256(der), der, issuer, names.text(subject)[:200], actor_name, now)
    return tx.put_trust_root(record).id


def note_trust_answer(
    tx: Transaction, operation: OperationRecord, attempt: AttemptRecord, answer: Mapping[str, object], now: datetime
) -> None:
    """Put what an answer shows on record: what a station lists, and what is installed there or gone.

    Runs in the transaction that records the answer, so that no crash comes between the two.
    """
    answered = dataclasses.replace(attempt, answer=answer)
    listed = listed_by(answered)
    parameters = operation.parameters
    sha256, use = parameters.get("certificate"), str(parameters.get("use", ""))
    installs, deletes = operation.kind == "install-root", operation.kind == "delete-root"
    accepted = answer.get("status") == "Accepted" and "error" not in answer
    if listed is None:
        if not isinstance(sha256, str) or not accepted:
            return
        if installs and attempt.action.startswith("InstallCertificate"):
            _put(tx, operation, use, sha256, StationRootState.INSTALLED, now)
        if deletes and attempt.action.startswith("DeleteCertificate"):
            _put(tx, operation, use, sha256, StationRootState.DELETED, now)
        return
    for asked in asked_uses(attempt.action):
        entries = [entry.to_json() for entry in listed if entry.use is asked]
        tx.put_root_report(StationRootReportRecord(operation.station, asked.value, {"entries": entries}, now))
    if not isinstance(sha256, str):
        return
    known = known_certificates(tx, operation.station)
    meant = [diagnose_hash_data(entry.hash_data, known).certificate for entry in listed if entry.use is RootUse(use)]
    is_there = any(each is not None and _sha256(each.der) == sha256 for each in meant)
    if installs and is_there:
        _put(tx, operation, use, sha256, StationRootState.INSTALLED, now)
    if deletes and not is_there and None not in meant:
        _put(tx, operation, use, sha256, StationRootState.DELETED, now)


def _put(
    tx: Transaction, operation: OperationRecord, use: str, sha256: str, state: StationRootState, now: datetime
) -> None:
    tx.put_station_root(StationRootRecord(operation.station, use, sha256, state, operation.id, now))


def _sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
