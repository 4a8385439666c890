"""Revoke certificates and publish revocation lists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from chargepki.pki import files
from chargepki.pki.authority.issuance import Issuer
from chargepki.pki.crl import ReasonCode, RevokedEntry, assemble_crl, build_crl_tbs, parse_crl
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal, ProfileViolation, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CaRecord, CaState, CertificateRecord, CertificateState, CrlRecord
from chargepki.pki.keys import signature_algorithm
from chargepki.pki.lint import lint_crl

__all__ = ["CRL_VALIDITY", "ca_of", "needs_crl", "parse_reason", "publish_crl", "publish_files", "revoke"]

CRL_VALIDITY = timedelta(days=7)
"""thisUpdate to nextUpdate; a week is also the bound that ISO 15118-20 sets for OCSP answers (V2G20-1021)."""

# removeFromCRL appears in delta CRLs only (RFC 5280 5.3.1), so nobody revokes with it.
_USABLE_REASONS = tuple(reason for reason in ReasonCode if reason.value != "removeFromCRL")


def parse_reason(text: str) -> ReasonCode:
    """Return the RFC 5280 5.3.1 reason spelt *text*.

    Raises:
        InputError: it is none of the usable names.
    """
    for reason in _USABLE_REASONS:
        if reason.value == text:
            return reason
    raise InputError(
        f"unknown revocation reason {text[:40]!r}",
        why="reasons are the names of RFC 5280 5.3.1",
        fix=f"use one of {', '.join(reason.value for reason in _USABLE_REASONS)}",
    )


def revoke(
    inventory: Inventory,
    certificate_id: str,
    reason: ReasonCode,
    *,
    actor: Actor,
    now: datetime,
    revoked_at: datetime | None = None,
) -> CertificateRecord:
    """Revoke one certificate; doing it again with the same reason changes nothing.

    A certificate on hold may be revoked for good: it keeps the date from which it counted as invalid. A hold is not
    lifted: `removeFromCRL` belongs to delta lists.

    Args:
        revoked_at: when the key is to count as invalid; *now* when ``None``; never in the future.

    Raises:
        Conflict: it is revoked already, for another reason.
        StateError: it was never issued, or is a root's own certificate.
    """
    at = revoked_at or now
    if at > now:
        raise InputError(
            f"the revocation date {at:%Y-%m-%dT%H:%M:%SZ} lies in the future",
            why="a CRL entry states when the certificate became invalid (RFC 5280 5.1.2.6)",
            fix="leave out --revoked-at, or pass a past time",
        )

    def work(tx: Transaction) -> CertificateRecord:
        record = tx.get_certificate(certificate_id)
        if record.state is CertificateState.REVOKED and record.revocation_reason == reason.value:
            return record
        own = ca_of(tx, record)
        _check_revocable(record, own, at)
        revoked = tx.revoke_certificate(record.id, at, reason.value)
        if own is not None:
            tx.update_ca(own.id, state=CaState.REVOKED)
        tx.audit(
            actor,
            "certificate.revoke",
            record.id,
            now=now,
            artefact_sha256=record.sha256,
            details={
                "reason": reason.value,
                "revoked_at": (revoked.revoked_at or at).isoformat(),
                "station": record.station,
            },
        )
        return revoked

    return inventory.write(work)


def _check_revocable(record: CertificateRecord, own: CaRecord | None, at: datetime) -> None:
    """Refuse what cannot be revoked, or not at the instant *at*.

    Args:
        own: the CA of ours whose certificate it is, if any.
    """
    held = record.revocation_reason == ReasonCode.CERTIFICATE_HOLD.value
    if record.state is CertificateState.REVOKED and not held:
        raise Conflict(
            f"certificate {record.id} is revoked already, for {record.revocation_reason}",
            why="relying parties have seen that reason; it is not rewritten",
            fix="nothing needs to be done: it is revoked",
        )
    if record.state is not CertificateState.ISSUED and not held:
        raise StateError(
            f"certificate {record.id} is {record.state.value}",
            why="only an issued certificate can be revoked",
            fix="a reservation is completed or voided by the next `chargepki cert issue` of its CA",
        )
    if own is not None and own.id == record.ca:
        raise PolicyRefusal(
            f"{record.id} is the root {own.id}'s own certificate",
            why="a root cannot revoke itself: whoever trusts it has no reason to believe such a list",
            fix="take the root out of the trust stores that hold it",
        )
    if at < record.not_before:
        raise InputError(
            f"the revocation date lies before the certificate's notBefore {record.not_before:%Y-%m-%dT%H:%M:%SZ}",
            fix="pass a later --revoked-at",
        )


def ca_of(reader: Inventory | Transaction, record: CertificateRecord) -> CaRecord | None:
    """Return the CA generation of ours whose certificate *record* is.

    Not merely whose key it certifies: a cross-certificate holds the key of a CA, and that CA outlives its revocation.
    """
    if record.der is None:
        return None
    return next((ca for ca in reader.list_cas() if ca.certificate_der == record.der), None)


def publish_crl(
    inventory: Inventory,
    issuer: Issuer,
    *,
    actor: Actor,
    now: datetime,
    publish_folder: Path | None,
    validity: timedelta = CRL_VALIDITY,
) -> CrlRecord:
    """Sign the next full CRL of *issuer*, record it, then write it where relying parties fetch it.

    A revoked CA signs too, when it is asked to: its last list still tells those who have not heard of its own
    revocation. Nothing renews such a list by itself, so that they too stop believing the CA when it expires.

    The list is signed inside the transaction that numbers it: no revocation can be committed between reading the
    list and recording the CRL, and a number is never used twice (RFC 5280 5.2.3).
    """

    def work(tx: Transaction) -> CrlRecord:
        record = _sign_crl(tx, issuer, now, validity)
        tx.add_crl(record)
        tx.audit(
            actor,
            "crl.publish",
            record.id,
            now=now,
            artefact_sha256=record.sha256,
            details={
                "number": record.number,
                "entries": record.entries,
                "next_update": record.next_update.isoformat(),
            },
        )
        return record

    record = inventory.write(work)
    if publish_folder is not None:
        publish_files(inventory, issuer.ca.id, publish_folder)
    return record


def _sign_crl(tx: Transaction, issuer: Issuer, now: datetime, validity: timedelta) -> CrlRecord:
    """Build, sign and lint the next list; nothing is written yet."""
    assert issuer.ca.not_after is not None
    if now >= issuer.ca.not_after:
        raise StateError(
            f"CA {issuer.ca.id} expired on {issuer.ca.not_after:%Y-%m-%d %H:%M:%S} UTC",
            why="a list that it signs now could be checked by nobody",
            fix="nothing needs to be published for it any more",
        )
    number = tx.next_crl_number(issuer.ca.id)
    entries = [
        RevokedEntry(
            serial=int(record.serial, 16),
            revoked_at=record.revoked_at or now,
            reason=parse_reason(record.revocation_reason) if record.revocation_reason else None,
        )
        for record in tx.list_revoked(issuer.ca.id)
    ]
    # The list ends with its issuer: nobody can check it later.
    next_update = min(now + validity, issuer.ca.not_after)
    algorithm = signature_algorithm(issuer.signer.algorithm).der
    tbs = build_crl_tbs(
        issuer_name_der=issuer.ca.subject_der,
        authority_key_id=issuer.info.key_identifier,
        number=number,
        this_update=now,
        next_update=next_update,
        entries=entries,
        signature_algorithm_der=algorithm,
    )
    der = assemble_crl(tbs, algorithm, issuer.signer.sign(tbs))
    report = lint_crl(der, issuer_der=issuer.ca.certificate_der, now=now)
    if report.errors:
        first = report.errors[0]
        raise ProfileViolation(
            f"the CRL would be malformed: {first.message}",
            why=f"{first.clause} ({first.rule}); it was not published",
            fix=first.hint,
            findings=report.errors,
        )
    return CrlRecord(
        id=f"{issuer.ca.id}/{number}",
        ca=issuer.ca.id,
        number=number,
        this_update=now,
        next_update=next_update,
        entries=len(entries),
        sha256=hashlib.sha256(der).hexdigest(),
        der=der,
    )


def needs_crl(inventory: Inventory, ca_id: str, now: datetime) -> bool:
    """Say whether a CA's newest CRL is missing, misses a revocation, or has less than half its life left."""
    latest = inventory.latest_crl(ca_id)
    if latest is None:
        return True
    half = latest.this_update + (latest.next_update - latest.this_update) / 2
    revoked = inventory.count_certificates(ca_id).get(CertificateState.REVOKED, 0)
    return now >= half or latest.entries != revoked or _tells_of_an_ended_hold(inventory, latest)


_HOLD = bytes((0x0A, 0x01, ReasonCode.CERTIFICATE_HOLD.number))
"""The reason as an entry has it: ENUMERATED; lists without these octets need not be decoded."""


def _tells_of_an_ended_hold(inventory: Inventory, latest: CrlRecord) -> bool:
    """Say whether a certificate that *latest* has on hold was revoked for good since."""
    if _HOLD not in latest.der:
        return False
    held = {entry.serial for entry in parse_crl(latest.der).entries if entry.reason is ReasonCode.CERTIFICATE_HOLD}
    return any(
        int(record.serial, 16) in held and record.revocation_reason != ReasonCode.CERTIFICATE_HOLD.value
        for record in inventory.list_revoked(latest.ca)
    )


def publish_files(inventory: Inventory, ca_id: str, folder: Path) -> list[Path]:
    """Write the newest CRL and the certificate of a CA below *folder*, as ``crl/ID.crl`` and ``ca/ID.cer`` (DER).

    Two processes may publish at once: each writes what the inventory holds last, under one lock, so a slower one
    cannot put an older list back.

    Raises:
        UnavailableError: the folder cannot be written; the CRL itself is recorded, so running it again is enough.
    """
    written: list[Path] = []

    def put(path: Path, content: Callable[[], bytes | None]) -> None:
        with files.locked(folder / ".publish.lock"):
            data = content()
            if data is not None:
                files.write_durable(path, data)
                written.append(path)

    def newest_crl() -> bytes | None:
        latest = inventory.latest_crl(ca_id)
        return latest.der if latest else None

    for part in ("crl", "ca"):
        files.make_folder(folder / part)
    put(folder / "crl" / f"{ca_id}.crl", newest_crl)
    put(folder / "ca" / f"{ca_id}.cer", lambda: inventory.get_ca(ca_id).certificate_der)
    return written
