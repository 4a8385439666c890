"""Take over the revocation lists of CAs whose keys are elsewhere: verified, recorded, published like our own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.revocation import revoke_within
from chargepki.pki.crl import CrlView, parse_crl
from chargepki.pki.crl_entry import ReasonCode, RevokedEntry
from chargepki.pki.errors import InputError, ProfileViolation, StateError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.codec import sha256_hex
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateState, CrlRecord
from chargepki.pki.lint import lint_crl

__all__ = ["import_crl"]


def import_crl(authority: Authority, data: bytes) -> CrlRecord:
    """Verify a full list of a CA whose key is elsewhere, record it, and publish it; what it revokes is revoked here.

    Repeated, return the list that is on record.

    Raises:
        InputError: no full list, or not signed by a CA that is on record with its key elsewhere.
        StateError: it is older than what is on record, not in force, or takes back a revocation for good.
    """
    now = authority.now()
    crl = parse_crl(data)
    ca = _issuer_of_sound(authority, crl, now)
    number, next_update = crl.number, crl.next_update
    assert number is not None and next_update is not None
    # A list speaks for all generations of its issuer's name (`generations`).
    named = [each.id for each in authority.inventory.list_cas(name=ca.name) if each.subject_der == ca.subject_der]
    entries = {f"{each}:{entry.serial:x}": entry for entry in crl.entries for each in named}

    def work(tx: Transaction) -> CrlRecord:
        latest = tx.latest_crl(ca.id)
        if latest is not None and latest.der == crl.der:
            return latest
        if latest is not None and latest.number >= number:
            raise StateError(
                f"list {number} of {ca.id} is not newer than list {latest.number}, which is on record",
                why="numbers only grow (RFC 5280 5.2.3)",
                fix="bring the newest list",
            )
        _check_none_taken_back(tx, ca.id, set(entries))
        _revoke_listed(tx, entries, actor=authority.actor, now=now)
        record = CrlRecord(
            id=f"{ca.id}/{number}",
            ca=ca.id,
            number=number,
            this_update=crl.this_update,
            next_update=next_update,
            entries=len(crl.entries),
            sha256=sha256_hex(crl.der),
            der=crl.der,
            changes=tx.last_change(ca.id),
        )
        tx.add_crl(record)
        details = {"number": number, "entries": len(crl.entries), "next_update": next_update.isoformat()}
        tx.audit(authority.actor, "crl.import", record.id, now=now, artefact_sha256=record.sha256, details=details)
        return record

    record = authority.inventory.write(work)
    authority.publish_files(ca.id, [record])
    return record


def _issuer_of_sound(authority: Authority, crl: CrlView, now: datetime) -> CaRecord:
    """Return the CA that signed *crl*, if that is a full list in force that breaks no rule."""
    if crl.delta_base_number is not None or crl.distribution_point_url is not None or crl.number is None:
        raise InputError("this is no full list with a number", fix="publish it with: chargepki crl publish --ca NAME")
    ca = _issuer_of(authority, crl.der)
    if not crl.this_update <= now or crl.next_update is None or crl.next_update <= now:
        raise StateError("the list is not in force now", why="RFC 5280 5.1.2.4, 5.1.2.5", fix="have a new one signed")
    report = lint_crl(crl.der, issuer_der=ca.certificate_der, now=now)
    if report.errors:
        first = report.errors[0]
        raise ProfileViolation(
            f"the list is malformed: {first.message}",
            why=f"{first.clause} ({first.rule}); it was not published",
            fix=first.hint,
            findings=report.errors,
        )
    return ca


def _revoke_listed(tx: Transaction, entries: Mapping[str, RevokedEntry], *, actor: Actor, now: datetime) -> None:
    """Revoke what is on record and valid; *entries* by the id of the certificate that each would speak of."""
    for certificate_id, entry in entries.items():
        known = tx.find_certificate(certificate_id)
        if known is not None and known.state is CertificateState.ISSUED:
            revoke_within(
                tx,
                certificate_id,
                entry.reason or ReasonCode.UNSPECIFIED,
                actor=actor,
                now=now,
                revoked_at=entry.revoked_at,
                invalidity_date=entry.invalidity_date,
            )


def _issuer_of(authority: Authority, der: bytes) -> CaRecord:
    loaded = x509.load_der_x509_crl(der)
    for ca in authority.inventory.list_cas():
        if not ca.key_uri.startswith("none:") or ca.certificate_der is None:
            continue
        issuer = x509.load_der_x509_certificate(ca.certificate_der)
        try:
            if issuer.subject == loaded.issuer and loaded.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # a CA's key signs
                return ca
        except (TypeError, ValueError, UnsupportedAlgorithm):
            continue
    raise InputError(
        "no CA on record, whose key is elsewhere, has signed this list",
        why="lists of CAs whose keys are here are published here",
        fix="accept a certificate of that CA first: chargepki ca accept",
    )


def _check_none_taken_back(tx: Transaction, ca_id: str, listed: set[str]) -> None:
    for known in tx.list_revoked(ca_id):
        held = known.revocation_reason == "certificateHold"
        if known.id not in listed and not held:
            raise StateError(
                f"the list lacks {known.id}, which is revoked for good here",
                why="a revocation is not taken back (RFC 5280 5.3.1)",
                fix="revoke it in the offline workspace too, and sign another list",
            )
