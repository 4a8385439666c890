"""Contracts: created, offered to vehicles, and ended together with their certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from chargepki.pki.authority import Authority
from chargepki.pki.authority.revocation import parse_reason, revoke_within
from chargepki.pki.errors import InputError, StateError
from chargepki.pki.identifiers import Emaid, Pcid
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    ContractRecord,
    ContractState,
    OfferState,
    ProvisioningState,
    VehicleState,
)
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor, CertificateRecord, CertificateState

__all__ = ["Revoked", "create_contract", "list_live", "offer_contract", "revoke_contract", "withdraw_offer"]


@dataclass(frozen=True, slots=True)
class Revoked:
    """What ended."""

    contract: ContractRecord
    certificates: tuple[CertificateRecord, ...]


def create_contract(
    inventory: Inventory,
    emaid: str,
    *,
    ends_at: datetime | None = None,
    vehicles: Sequence[str] = (),
    actor: Actor,
    now: datetime,
) -> ContractRecord:
    """Create a contract, and offer it to vehicles, in one transaction.

    Args:
        emaid: with or without separators and check digit; certificates bear it upper case and without separators.
        ends_at: no certificate of it is valid for longer.
        vehicles: their PCIDs.

    Raises:
        InputError: it is no EMAID, or ends in the past.
        StateError: a vehicle is not known.
        Conflict: there is such a contract, perhaps an ended one: an EMAID is never given twice.
    """
    parsed = Emaid.parse(emaid)
    if ends_at is not None and ends_at <= now:
        raise InputError("the contract would have ended already", fix="give an end in the future, or none")
    record = ContractRecord(parsed.account, parsed.normalised, ContractState.ACTIVE, ends_at, actor.name, now)
    offers = [
        ContractOfferRecord(record.id, Pcid.parse(each).normalised, OfferState.OFFERED, 0, actor.name, now)
        for each in vehicles
    ]

    def work(tx: Transaction) -> ContractRecord:
        tx.add_contract(record)
        details = {"emaid": record.emaid, "ends_at": ends_at.isoformat() if ends_at else None}
        tx.audit(actor, "contract.create", record.id, now=now, details=details)
        for offer in offers:
            _put_offer(tx, offer, actor, now)
        return record

    return inventory.write(work)


def offer_contract(
    inventory: Inventory, emaid: str, vehicle: str, *, priority: int = 0, actor: Actor, now: datetime
) -> ContractOfferRecord:
    """Let a vehicle have a contract when it asks; again, let it ask with a request that was answered before.

    Args:
        vehicle: its PCID.
        priority: among the contracts of the vehicle, lower numbers first.

    Raises:
        NotFound: no such contract.
        StateError: the contract has ended, or no provisioning certificate of the vehicle is known.
    """
    account, pcid = Emaid.parse(emaid).account, Pcid.parse(vehicle).normalised
    record = ContractOfferRecord(account, pcid, OfferState.OFFERED, priority, actor.name, now)
    inventory.write(lambda tx: _put_offer(tx, record, actor, now))
    return record


def _put_offer(tx: Transaction, record: ContractOfferRecord, actor: Actor, now: datetime) -> None:
    known = tx.list_provisioning_certificates(record.vehicle)
    if all(each.state is not VehicleState.ACTIVE for each in known):
        raise StateError(
            f"no provisioning certificate of vehicle {record.vehicle} is known",
            why="nothing could be wrapped for it",
            fix="import it: chargepki vehicle import FILE",
        )
    tx.put_offer(record)
    details = {"vehicle": record.vehicle, "priority": record.priority}
    tx.audit(actor, "contract.offer", record.contract, now=now, details=details)


def withdraw_offer(
    inventory: Inventory, emaid: str, vehicle: str, *, actor: Actor, now: datetime
) -> ContractOfferRecord:
    """Let a vehicle have a contract no more; certificates that it has are not touched.

    Raises:
        NotFound: it was never offered to it.
    """
    account, pcid = Emaid.parse(emaid).account, Pcid.parse(vehicle).normalised

    def work(tx: Transaction) -> ContractOfferRecord:
        record = tx.withdraw_offer(account, pcid)
        tx.audit(actor, "contract.withdraw", account, now=now, details={"vehicle": pcid})
        return record

    return inventory.write(work)


def list_live(reader: Reads, contract: str, now: datetime) -> tuple[CertificateRecord, ...]:
    """Return the certificates of a contract that vehicles may hold and that are valid now, oldest first."""
    return tuple(_live(reader, contract, now))


def _live(reader: Reads, contract: str, now: datetime) -> Iterable[CertificateRecord]:
    for given in reader.list_provisionings(contract):
        if given.state is ProvisioningState.ANSWERED and given.certificate is not None:
            record = reader.get_certificate(given.certificate)
            if record.state is CertificateState.ISSUED and record.not_after >= now:
                yield record


def revoke_contract(authority: Authority, emaid: str, reason: str, *, superseded_only: bool = False) -> Revoked:
    """End a contract for good and revoke its certificates, in one transaction.

    Args:
        reason: RFC 5280's name.
        superseded_only: revoke all but the newest certificate, and let the contract live.

    Raises:
        InputError: an unknown reason.
        NotFound: no such contract.
    """
    account, now, code = Emaid.parse(emaid).account, authority.now(), parse_reason(reason)

    def work(tx: Transaction) -> Revoked:
        contract = tx.get_contract(account)
        live = list_live(tx, account, now)
        chosen = live[:-1] if superseded_only else live
        revoked = tuple(
            revoke_within(tx, each.id, code, actor=authority.actor, now=now, revoked_at=now) for each in chosen
        )
        if not superseded_only and contract.state is ContractState.ACTIVE:
            contract = tx.end_contract(account, reason=reason, now=now)
            tx.audit(authority.actor, "contract.revoke", account, now=now, details={"reason": reason})
        return Revoked(contract, revoked)

    done = authority.inventory.write(work)
    authority.inventory.wait_for_assent()
    return done
