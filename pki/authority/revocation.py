"""Revoke certificates, put them on hold and release them; say beforehand what stops being believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from chargepki.pki.crl_entry import ReasonCode
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import FOREIGN, Actor, CaRecord, CaState, CertificateRecord, CertificateState
from chargepki.pki.profiles import get_profile

if TYPE_CHECKING:
    from chargepki.pki.authority.four_eyes import FourEyes

__all__ = ["BlastRadius", "blast_radius", "ca_of", "parse_reason", "release", "revoke", "revoke_within"]

# removeFromCRL appears in delta CRLs only (RFC 5280 5.3.1), so nobody revokes with it.
_USABLE_REASONS = tuple(reason for reason in ReasonCode if reason is not ReasonCode.REMOVE_FROM_CRL)


def parse_reason(text: str) -> ReasonCode:
    """Return the RFC 5280 5.3.1 reason spelt *text*.

    Raises:
        InputError: it is none of the usable names.
    """
    for reason in _USABLE_REASONS:
        if reason.value == text:
            return reason
    if text == ReasonCode.REMOVE_FROM_CRL.value:
        raise InputError(
            "removeFromCRL is no revocation reason to revoke with",
            why="it tells in delta CRLs that a hold has ended (RFC 5280 5.3.1)",
            fix="run: chargepki cert release SERIAL",
        )
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
    invalidity_date: datetime | None = None,
    four_eyes: FourEyes,
) -> CertificateRecord:
    """Revoke one certificate; doing it again with the same reason changes nothing.

    A certificate on hold may be revoked for good: it keeps the date from which it counted as invalid. One that is
    revoked for good may still be given a compromise as its reason, which may be learned later, and an earlier
    invalidity date (`ReasonCode.may_become`).

    Args:
        revoked_at: when it is to count as revoked; *now* when ``None``; never in the future.
        invalidity_date: since when the key is known or suspected to have been compromised; not after *revoked_at*.
        four_eyes: asked for the certificate of a CA.

    Raises:
        Conflict: it is revoked already, for another reason that is not rewritten.
        InputError: one of the dates is impossible.
        PolicyRefusal: it needs approvals.
        StateError: it was never issued, or is a root's own certificate.

    Clause: RFC 5280 5.1.2.6, 5.3.1, 5.3.2.
    """
    at = revoked_at or now
    _check_dates(now, at, invalidity_date)
    told = {"reason": reason.value, "revoked_at": revoked_at, "invalidity_date": invalidity_date}
    return inventory.write(
        lambda tx: revoke_within(
            tx,
            certificate_id,
            reason,
            actor=actor,
            now=now,
            revoked_at=at,
            invalidity_date=invalidity_date,
            approved=lambda record: _require(tx, four_eyes, "ca.revoke", record, told, actor=actor, now=now),
        )
    )


def _require(
    tx: Transaction,
    four_eyes: FourEyes,
    act: str,
    record: CertificateRecord,
    told: Mapping[str, object],
    *,
    actor: Actor,
    now: datetime,
) -> None:
    """Ask for approvals where *record* is the certificate of a CA."""
    if record.profile != FOREIGN and get_profile(record.profile).is_ca:
        # The number of the last change of this CA's statuses: a hold that was released is not approved for once more.
        parameters = {"certificate": record.id, "from": record.state.value, "change": tx.last_change(record.ca), **told}
        four_eyes.require(tx, act, parameters, actor=actor, now=now)


def revoke_within(
    tx: Transaction,
    certificate_id: str,
    reason: ReasonCode,
    *,
    actor: Actor,
    now: datetime,
    revoked_at: datetime,
    invalidity_date: datetime | None = None,
    approved: Callable[[CertificateRecord], None] = lambda record: None,
) -> CertificateRecord:
    """Revoke one certificate in a transaction that does more than that; see `revoke`.

    Args:
        approved: refuses where approvals are missing. By default nobody is asked: of what the list of another CA says,
            or of what a campaign replaces.
    """
    record = tx.get_certificate(certificate_id)
    if _is_repetition(record, reason, invalidity_date):
        return record
    own = ca_of(tx, record)
    _check_revocable(record, own, revoked_at, reason)
    approved(record)
    revoked = tx.revoke_certificate(record.id, revoked_at, reason.value, invalidity_date=invalidity_date)
    if own is not None and own.state is not CaState.REVOKED:
        tx.update_ca(own.id, state=CaState.REVOKED)
    details: dict[str, object] = {
        "reason": reason.value,
        "revoked_at": (revoked.revoked_at or revoked_at).isoformat(),
        "station": record.station,
    }
    if record.state is CertificateState.REVOKED:
        details["reason_before"] = record.revocation_reason
    if revoked.invalidity_date is not None:
        details["invalidity_date"] = revoked.invalidity_date.isoformat()
    tx.audit(actor, "certificate.revoke", record.id, now=now, artefact_sha256=record.sha256, details=details)
    return revoked


def release(
    inventory: Inventory, certificate_id: str, *, actor: Actor, now: datetime, four_eyes: FourEyes
) -> CertificateRecord:
    """Take one certificate off hold; it counts as issued again. Doing it again changes nothing.

    Args:
        four_eyes: asked for the certificate of a CA.

    Raises:
        Conflict: it is revoked for good.
        PolicyRefusal: it needs approvals.
        StateError: it was never issued.

    Clause: RFC 5280 5.3.1 (certificateHold, removeFromCRL).
    """

    def work(tx: Transaction) -> CertificateRecord:
        record = tx.get_certificate(certificate_id)
        if record.state is CertificateState.ISSUED:
            return record
        if record.state is not CertificateState.REVOKED:
            raise StateError(
                f"certificate {record.id} is {record.state.value}", why="only a certificate on hold can be released"
            )
        if record.revocation_reason != ReasonCode.CERTIFICATE_HOLD.value:
            raise Conflict(
                f"certificate {record.id} is revoked for good, for {record.revocation_reason}",
                why="only certificateHold can be taken back (RFC 5280 5.3.1)",
                fix="issue another certificate",
            )
        _require(tx, four_eyes, "ca.release", record, {}, actor=actor, now=now)
        own = ca_of(tx, record)
        released = tx.release_certificate(record.id)
        if own is not None and own.state is CaState.REVOKED:
            newest = tx.get_ca(own.name)
            tx.update_ca(own.id, state=CaState.ACTIVE if newest.id == own.id else CaState.RETIRED)
        tx.audit(
            actor,
            "certificate.release",
            record.id,
            now=now,
            artefact_sha256=record.sha256,
            details={
                "held_since": record.revoked_at.isoformat() if record.revoked_at else None,
                "station": record.station,
            },
        )
        return released

    return inventory.write(work)


def _check_dates(now: datetime, at: datetime, invalidity_date: datetime | None) -> None:
    if at > now:
        raise InputError(
            f"the revocation date {at:%Y-%m-%dT%H:%M:%SZ} lies in the future",
            why="a CRL entry states when the certificate became invalid (RFC 5280 5.1.2.6)",
            fix="leave out --revoked-at, or pass a past time",
        )
    if invalidity_date is not None and invalidity_date > at:
        raise InputError(
            f"the invalidity date {invalidity_date:%Y-%m-%dT%H:%M:%SZ} is later than the revocation",
            why="it says since when the key may have been compromised (RFC 5280 5.3.2)",
            fix="leave out --invalidity-date, or pass an earlier time",
        )


def _is_repetition(record: CertificateRecord, reason: ReasonCode, invalidity_date: datetime | None) -> bool:
    if record.state is not CertificateState.REVOKED or record.revocation_reason != reason.value:
        return False
    known = record.invalidity_date
    return invalidity_date is None or (known is not None and known <= invalidity_date)


def _check_revocable(record: CertificateRecord, own: CaRecord | None, at: datetime, reason: ReasonCode) -> None:
    """Refuse what cannot be revoked, or not for *reason*, or not at the instant *at*.

    Args:
        own: the CA of ours whose certificate it is, if any.
    """
    if record.state is CertificateState.REVOKED:
        known = ReasonCode(record.revocation_reason or ReasonCode.UNSPECIFIED.value)
        if known is not reason and not known.may_become(reason):
            raise Conflict(
                f"certificate {record.id} is revoked already, for {known.value}",
                why="relying parties have seen that reason; it is rewritten only when the key turns out compromised",
                fix="nothing needs to be done: it is revoked",
            )
    elif record.state is not CertificateState.ISSUED:
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


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What relying parties stop believing when the certificate of a CA is revoked."""

    ca: str
    sub_cas: tuple[str, ...]
    """CA generations under it that are in use and have not expired."""
    certificates: int
    """Valid certificates under it and under them that are no CA's: issued, unrevoked, in date."""


def blast_radius(inventory: Inventory, record: CertificateRecord, now: datetime) -> BlastRadius | None:
    """Return what a revocation of *record* takes with it; ``None`` when it is no CA's certificate."""
    own = ca_of(inventory, record)
    if own is None:
        return None
    # Below a CA that is revoked or has expired nothing is believed any more.
    live = [
        ca
        for ca in inventory.list_cas()
        if ca.state in (CaState.ACTIVE, CaState.RETIRED) and ca.not_after is not None and ca.not_after >= now
    ]
    below: list[str] = []
    frontier = {own.id}
    while frontier:
        frontier = {ca.id for ca in live if ca.issuer in frontier and ca.id not in below}
        below += sorted(frontier)
    issued = sum(inventory.count_valid(ca_id, now) for ca_id in (own.id, *below))
    return BlastRadius(own.id, tuple(below), issued - len(below))
